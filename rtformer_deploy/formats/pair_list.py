"""A list of pairs, a text file with an image and a label on each line -> the pairs, unchanged.

UTF-8, with or without a byte order mark. The two names are separated by a tab, or by spaces if the line has no tab: names
with spaces need a tab. Empty lines and lines that begin with # are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from ..files import read_bytes

#: Byte order marks of other encodings. The longer ones are first, because UTF-32's begins with UTF-16's.
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
#: The usual encodings of lists that are not UTF-8. The single-byte one is last, because it reads everything.
_ENCODINGS = {"GBK": "gb18030", "Shift-JIS": "cp932", "EUC-KR": "cp949", "Big5": "cp950", "Windows-1252": "cp1252"}


@dataclass(frozen=True, slots=True)
class ListedPair:
    """One line of a list: its number, and the names of image and label as written."""

    line: int
    image: str
    label: str


def read_pairs(path: Path) -> list[ListedPair]:
    """A list file -> its pairs, in its order. Raises DatasetError, naming the encoding or the line."""
    return [pair for number, line in enumerate(_lines(path), 1) if (pair := _pair(path, number, line)) is not None]


def _lines(path: Path) -> list[str]:
    data = read_bytes(path, DatasetError, "a list of images and labels")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:
        encoding = "UTF-16"
    if encoding is not None:
        raise _not_utf8(path, encoding, encoding)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        readable = [name for name, codec in _ENCODINGS.items() if _reads(data, codec)]
        line = data.count(b"\n", 0, error.start) + 1
        guess = f" (line {line}; it may be {' or '.join(readable)})" if readable else f" (line {line})"
        raise _not_utf8(path, f"another encoding{guess}", readable[0] if readable else "ENCODING") from error
    return [line.rstrip("\r") for line in text.split("\n")]


def _pair(path: Path, number: int, line: str) -> ListedPair | None:
    if not line.strip() or line.startswith("#"):
        return None
    fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
    if len(fields) != 2 or not all(fields):
        hint = "A name with spaces needs a tab between the two." if len(fields) > 2 else None
        hint = "Put a tab or a space where the comma is." if len(fields) == 1 and "," in line else hint
        raise DatasetError(f"{path}, line {number}: {line!r} is not an image and a label, separated by a tab or a space.", hint)
    return ListedPair(number, *fields)


def _not_utf8(path: Path, encoding: str, codec: str) -> DatasetError:
    return DatasetError(
        f"{path} is written in {encoding}; a list is UTF-8.",
        f"Save it as UTF-8, for example: iconv -f {codec.upper()} -t UTF-8 {path.name} > utf8.txt",
    )


def _reads(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeDecodeError:
        return False
    return True
