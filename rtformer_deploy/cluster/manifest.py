"""What a run over a cluster has to do and has done, in the output place, in shards: nothing ever holds all of it but the planning.

.cluster/head.json says whose run it is, .cluster/inputs/K.json what shard K has to do, .cluster/done/K.json what came of it. Input shards
never change; a shard's result is written when all its entries are back. A killed run goes on from there: in a shard without a result, an
entry whose outputs are there and whole is done, unless they were there before the run began.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from ..errors import OutputError, UsageError
from ..files import RECORD_BYTES
from ..formats.conversion import VERSION, convert
from ..formats.documents import DocumentError, parse_json
from ..types import Sha256
from .stores import Store, shown_place

FOLDER = ".cluster"
_HEAD = f"{FOLDER}/head.json"
_FEWEST, _MOST, _SHARDS = 8, 4096, 256  # entries of a shard: at least, at most, and about so many shards
_ANOTHER = f"Choose another --output, or remove {FOLDER} there to begin anew."
_KIND = "the manifest of a cluster run"

Whole = Annotated[int, Meta(ge=0, le=2**40)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image: `input` is its name in the source of that index, `output` what its outputs are called but for their ends.

    `frame` is what answers call it. `old`: files were in its outputs' places before the run began.
    """

    source: int
    input: str
    output: str
    frame: str
    old: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a run another one: the version of this package, the plan, how results look, and what is read."""

    package: str
    plan_sha256: Sha256
    look: Mapping[str, Any]
    listing: Sha256


@dataclass(frozen=True, slots=True)
class Head:
    """A run: its identity, the places that it reads, how many images there are and how many are in a shard."""

    identity: Identity
    sources: tuple[str, ...]
    entries: Whole
    shard: Annotated[int, Meta(ge=1, le=_MOST)]

    @property
    def shards(self) -> int:
        return math.ceil(self.entries / self.shard)

    def size(self, shard: int) -> int:
        """How many entries a shard has."""
        return min(self.shard, self.entries - shard * self.shard)


@dataclass(frozen=True, slots=True)
class _Columns:
    """A shard of entries, a list for each field."""

    source: tuple[Whole, ...]
    input: tuple[str, ...]
    output: tuple[str, ...]
    frame: tuple[str, ...]
    old: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """An image of a shard that could not be segmented, and why."""

    index: Whole
    input: str
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a shard: all entries are done but those that failed."""

    failed: tuple[Failure, ...] = field(default=())


class Manifest:
    """The manifest of an output place whose head is there."""

    def __init__(self, store: Store, head: Head, *, resumed: bool) -> None:
        self.store, self.head, self.resumed = store, head, resumed

    def entries(self, shard: int) -> list[Entry]:
        """What a shard has to do. Raises UsageError if it is damaged."""
        columns = _read(self.store, _shard_name("inputs", shard), _Columns)
        values = [columns.source, columns.input, columns.output, columns.frame, columns.old]
        if any(len(each) != self.head.size(shard) for each in values):
            raise _damaged(self.store, _shard_name("inputs", shard), "its lists have other lengths")
        entries = [Entry(*each) for each in zip(*values, strict=True)]
        for entry in entries:
            if entry.source >= len(self.head.sources) or not (_stays(entry.input) and _stays(entry.output)):
                raise _damaged(self.store, _shard_name("inputs", shard), f"{entry.input!r} leads elsewhere")
        return entries

    def result(self, shard: int) -> Result | None:
        """What came of a shard; None if it is not finished. Raises UsageError if it is damaged."""
        name = _shard_name("done", shard)
        return None if self.store.ends(name) is None else _read(self.store, name, Result)

    def finish(self, shard: int, failures: Iterable[Failure]) -> None:
        """Writes what came of a shard. Raises OutputError."""
        failed = [asdict(failure) for failure in sorted(failures, key=lambda failure: failure.index)]
        _write(self.store, _shard_name("done", shard), {"failed": failed})


def open_manifest(
    store: Store, identity: Identity, sources: Sequence[str], entries: Sequence[Entry], there: Callable[[], Iterable[str]]
) -> Manifest:
    """The manifest of a run: begun, or gone on with if the output place holds one of the same run.

    `there` gives the outputs (without their ends) that have files already; it is called if the run begins. Raises UsageError if the
    place belongs to another run, OutputError if nothing can be written.
    """
    if store.ends(_HEAD) is not None:
        head = _read(store, _HEAD, Head)
        _refuse_another(store, head.identity, identity)
        return Manifest(store, head, resumed=True)
    size = min(_MOST, max(_FEWEST, math.ceil(len(entries) / _SHARDS)))
    head = Head(identity, tuple(sources), len(entries), size)
    old = set(there())
    for shard in range(head.shards):
        part = entries[shard * size : (shard + 1) * size]
        columns = {each.name: [getattr(entry, each.name) for entry in part] for each in fields(Entry)}
        columns["old"] = [entry.output in old for entry in part]
        _write(store, _shard_name("inputs", shard), columns)
        store.remove(_shard_name("done", shard))  # of a run whose head somebody removed
    _write(store, _HEAD, asdict(head))
    return Manifest(store, head, resumed=False)


def load_manifest(store: Store) -> Manifest:
    """The manifest that is in an output place, as a worker reads it. Raises UsageError."""
    return Manifest(store, _read(store, _HEAD, Head), resumed=True)


def listing_of(sources: Sequence[str], entries: Iterable[Entry]) -> Sha256:
    """The hash of all that is read and what its outputs are called, in order."""
    digest = hashlib.sha256(json.dumps(list(sources)).encode())
    for entry in entries:
        digest.update(json.dumps([entry.source, entry.input, entry.output, entry.frame]).encode())
    return digest.hexdigest()


def _refuse_another(store: Store, earlier: Identity, now: Identity) -> None:
    """Raises UsageError that names what differs."""
    words = {"package": "the version of rtformer-deploy", "plan_sha256": "the plan", "listing": "the images"}
    differ = [word for name, word in words.items() if getattr(earlier, name) != getattr(now, name)]
    old, new = ({name: json.dumps(value) for name, value in each.look.items()} for each in (earlier, now))
    differ += [name.replace("_", "-") for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if differ:
        verb = "differs" if len(differ) == 1 and differ != ["the images"] else "differ"
        raise UsageError(f"{shown_place(store.text)} holds the state of another run: {', '.join(differ)} {verb}.", _ANOTHER)


def _shard_name(kind: str, shard: int) -> str:
    return f"{FOLDER}/{kind}/{shard:07}.json"


def _stays(name: str) -> bool:
    """Whether a relative name leads to nothing outside its place."""
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in name.split("/") and "\0" not in name


def _write(store: Store, name: str, values: Mapping[str, Any]) -> None:
    try:
        data = json.dumps({VERSION: 1, **values}, indent=1, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise OutputError("The name of an image holds bytes that are not text, and a manifest holds text.", "Rename it.") from error
    store.write(name, data)


def _read(store: Store, name: str, kind: type[T]) -> T:
    try:
        data = parse_json(store.read(name, UsageError, _KIND, RECORD_BYTES), RECORD_BYTES)
        if not isinstance(data, dict) or data.pop(VERSION, None) != 1:
            raise DocumentError("it is of another version")
        return convert(data, kind)
    except DocumentError as error:
        raise _damaged(store, name, str(error)) from error


def _damaged(store: Store, name: str, why: str) -> UsageError:
    return UsageError(f"{shown_place(store.text)} cannot be gone on with: {name} is not {_KIND} ({why}).", _ANOTHER)


def unfinished(manifest: Manifest) -> Iterator[tuple[int, int]]:
    """The shards that are not done with, each with how many entries it will give back: all, or those that failed before."""
    for shard in range(manifest.head.shards):
        result = manifest.result(shard) if manifest.resumed else None
        if result is None:
            yield shard, manifest.head.size(shard)
        elif result.failed:
            yield shard, len(result.failed)
