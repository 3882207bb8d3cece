"""What a page of reports is made of: parts with a heading each, and in them tables, facts, pictures and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from markupsafe import Markup
from msgspec import Meta

from ..errors import shorten
from .page import rows_of

#: Of very many documents of one kind all are in the tables, and so many have pictures and tables of their own.
MOST_DETAILED = 24
_LONGEST = 400  # characters of a text from a document
_MOST_FACTS = 200  # rows

#: A share from 0 to 1 that may be a little beyond it by rounding.
RoundedShare = Annotated[float, Meta(ge=0, le=1.001)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Document(Generic[T]):
    """A document: the `name` of its file in the folder, and what it holds."""

    name: str
    data: T


@dataclass(frozen=True, slots=True)
class Number:
    """A cell that is sorted by its value: a number and the text that shows it."""

    value: float
    text: str


#: A table's cell; None: it is not known.
Cell = str | Number | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that a reader may sort, the first cell being the row's name; `caption` says what they are."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    kind: ClassVar[str] = "table"

    @property
    def right(self) -> frozenset[int]:
        """The columns that hold numbers."""
        return frozenset(index for row in self.rows for index, cell in enumerate(row) if isinstance(cell, Number))


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and texts; `caption` says what they are about, if a heading does not."""

    rows: Sequence[tuple[str, str]]
    caption: str = ""

    kind: ClassVar[str] = "facts"


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG element and a sentence under it.

    `fluid`: it is as wide as the page. The others keep their size, so that their text stays legible.
    """

    svg: Markup
    caption: str = ""
    fluid: bool = False

    kind: ClassVar[str] = "picture"


@dataclass(frozen=True, slots=True)
class Heading:
    """What the blocks after it are about."""

    text: str

    kind: ClassVar[str] = "heading"


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences, one an item."""

    lines: Sequence[str]

    kind: ClassVar[str] = "lines"


Block = Table | Facts | Picture | Heading | Lines


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the page: its title, and its blocks in their order."""

    title: str
    blocks: Sequence[Block]


def milliseconds(value: float) -> Number:
    return Number(value, f"{value:.2f}")


def percent(share: float | None, digits: int = 2) -> Number | None:
    """A share from 0 to 1 -> its percent; None stays None."""
    return None if share is None else Number(share, f"{100 * share:.{digits}f}")


def count(value: int) -> Number:
    return Number(value, f"{value:,}")


def size(height: int, width: int) -> Number:
    """A frame's size, sorted by its pixels."""
    return Number(height * width, f"{height}x{width}")


def short(text: str) -> str:
    """A text from a document, cut if it is very long."""
    return shorten(text, _LONGEST)


def facts(values: Mapping[str, Any], caption: str = "") -> Facts:
    """A document's facts; what is not known or empty is left out."""
    rows = [(short(name), short(text)) for name, text in rows_of(values) if text]
    return Facts(rows[:_MOST_FACTS], caption)


def detailed(documents: Sequence[Document[T]]) -> Sequence[Document[T]]:
    """The documents that have pictures and tables of their own."""
    return documents[:MOST_DETAILED]


def part(title: str, documents: Sequence[Document[T]], details: Callable[[Document[T]], Iterable[Block]], *first: Block) -> Part:
    """The blocks `first`, then each document's `details`, and a line if there are more documents than have any."""
    more = len(documents) - MOST_DETAILED
    last = [Lines([f"{more:,} more are in the table only."])] if more > 0 else []
    return Part(title, [*first, *(block for document in detailed(documents) for block in details(document)), *last])
