"""Names of video frames -> folds: every drive is cut into stretches, one of them is held out, and nothing near it is trained on.

A name such as `0016E5_00390` is frame 390 of the drive `0016E5_`. A fold may be of some drives alone, those whose names begin so.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ..errors import DatasetError, UsageError, shorten

#: Seconds on both sides of a held-out stretch that are neither trained on nor scored: those frames show nearly the same.
GAP_SECONDS = 3.0

_FOLD = r"(?:([^:]+):)?([1-9][0-9]{0,2})/([1-9][0-9]{0,2})"
_NAME = re.compile(r"(.*?)([0-9]{1,18})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fold:
    """Stretch `number`, from 1, of the `count` that every drive is cut into; with `drives` only of those whose names begin so."""

    number: int
    count: int
    drives: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "1/4" -> the first of four, "night:1/4" -> that of the drives named so. Raises UsageError."""
        match = re.fullmatch(_FOLD, text)
        number, count = (0, 0) if match is None else (int(match[2]), int(match[3]))
        if match is None or not 1 <= number <= count or count < 2:
            what = "Write NUMBER/COUNT, such as 1/4: the first of four stretches. DRIVE:1/4 is that of the drives whose names begin so."
            raise UsageError(f"{shorten(repr(text))} is no fold.", what)
        return cls(number, count, match[1] or "")

    def __str__(self) -> str:
        return f"{self.drives}:{self.number}/{self.count}" if self.drives else f"{self.number}/{self.count}"


def parse_split(text: str) -> tuple[str, Fold | None]:
    """ "train:1/4" -> the split and the fold that is meant; the name of a split -> that name and None. Raises UsageError."""
    match = re.fullmatch(f"([^:]+):({_FOLD})", text)
    return (text, None) if match is None else (match[1], Fold.parse(match[2]))


def stretch(names: Iterable[str], fold: Fold) -> set[str]:
    """The names of the fold's frames: each of its drives, in the order of its frames, is cut into `fold.count` stretches of equal count.

    Raises DatasetError if no drive is meant or long enough, or a name has no frame number.
    """
    drives = {drive: frames for drive, frames in _drives(names).items() if drive.startswith(fold.drives)}
    if not drives:
        raise DatasetError(f"No drive has a name that begins with {shorten(repr(fold.drives))}, so stretch {fold} holds no frame.")
    chosen: set[str] = set()
    for frames in drives.values():
        ordered = sorted(frames, key=lambda name: frames[name])
        bounds = [part * len(ordered) // fold.count for part in (fold.number - 1, fold.number)]
        chosen.update(ordered[slice(*bounds)])
    if not chosen:
        raise DatasetError(f"Stretch {fold} holds no frame: the drives are too short.", "Cut them into fewer stretches.")
    return chosen


def near(names: Iterable[str], held_out: Iterable[str], distance: float) -> set[str]:
    """The names among `names` of frames that are `distance` frame numbers or less from a held-out frame of the same drive.

    Raises DatasetError if a name has no frame number.
    """
    there = {drive: sorted(frames.values()) for drive, frames in _drives(held_out).items()}
    close: set[str] = set()
    for drive, frames in _drives(names).items():
        numbers = there.get(drive, [])
        close.update(name for name, number in frames.items() if _distance(number, numbers) <= distance)
    return close


def _distance(number: int, ordered: Sequence[int]) -> float:
    """How far a number is from the nearest of some ordered ones."""
    place = bisect.bisect(ordered, number)
    return min((abs(number - each) for each in ordered[max(0, place - 1) : place + 1]), default=math.inf)


def _drives(names: Iterable[str]) -> Mapping[str, Mapping[str, int]]:
    """Names -> every drive's frames: name to frame number."""
    drives: dict[str, dict[str, int]] = defaultdict(dict)
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise DatasetError(f"The name {shorten(repr(name))} does not end in a frame number, so it belongs to no stretch.")
        drives[match[1]][name] = int(match[2])
    return drives
