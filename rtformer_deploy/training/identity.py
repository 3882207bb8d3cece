"""Which data a run is trained on, as its checkpoint keeps it: a run goes on with the same data only, wherever the folder lies by then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..datasets import Dataset, Sample
from ..errors import DatasetError, UsageError, shorten
from ..files import sha256, size_of_file
from ..image.labels import LabelMeaning

#: The key among the run's options in a checkpoint.
KEY = "dataset"


def identity(splits: Sequence[Dataset]) -> dict[str, Any]:
    """The splits of a run -> what tells them from other data, as JSON: names and sizes of their files, and what the labels mean.

    No file is read, and no path is part of it. Raises DatasetError if a file is gone.
    """
    first = splits[0]
    return {
        "name": first.name,
        "classes": list(first.labels.names),
        "labels": _hash(_meaning(first.meaning)),
        "splits": {each.split: {"frames": len(each), "files": _hash(list(_files(each.samples)))} for each in splits},
    }


def check_identity(before: Mapping[str, Any], splits: Sequence[Dataset], root: Path) -> None:
    """Raises UsageError if a run, whose options a checkpoint holds, is to go on with other data. Earlier versions kept no identity."""
    was, now = before.get(KEY), identity(splits)
    if not isinstance(was, dict) or was == now:
        return
    different = _differences(was, now)
    raise UsageError(
        f"The run was trained on {_text(was, before.get('root'))}, not on {_text(now, root)}: {', '.join(different)}.",
        "Go on with the data that the run began with, or begin another run with another --output.",
    )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, in words."""
    words = {"name": "another dataset", "classes": "other classes", "labels": "another meaning of the label pixels"}
    different = [text for key, text in words.items() if was.get(key) != now[key]]
    splits = was.get("splits")
    before = splits if isinstance(splits, dict) else {}
    changed = [split for split in sorted(before.keys() | now["splits"].keys()) if before.get(split) != now["splits"].get(split)]
    return different + [f"other files in {split}" for split in changed]


def _text(data: Mapping[str, Any], root: object) -> str:
    """A dataset in one line: mine in DIR (train 4 frames, val 2 frames; classes road, rest)."""
    splits, classes = data.get("splits"), data.get("classes")
    frames = [f"{split} {each.get('frames')} frames" for split, each in splits.items()] if isinstance(splits, dict) else []
    names = ", ".join(map(str, classes)) if isinstance(classes, list) else "unknown"
    return f"{shorten(str(data.get('name')))} in {root} ({', '.join(frames)}; classes {shorten(names)})"


def _meaning(meaning: LabelMeaning) -> list[Any]:
    labels = meaning.labels
    return [labels.palette, labels.ignore_index, meaning.lookup.tolist(), meaning.mapped, meaning.pixels, meaning.ignored_colour]


def _files(samples: Sequence[Sample]) -> Iterator[list[Any]]:
    for sample in samples:
        sizes = [size_of_file(path, DatasetError) for path in (sample.image, sample.label)]
        yield [sample.name, sample.image.name, sample.label.name, *sizes]


def _hash(value: list[Any]) -> str:
    return sha256(json.dumps(value).encode())
