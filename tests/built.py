"""What tests build once and keep in build/: a file made of sources is taken again while these are the same."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def built(kind: str, name: str, made_from: Iterable[Path], told: object, make: Callable[[Path], object]) -> Path:
    """The file `name`, which `make` writes; `told` is what it depends on besides files. Several processes may make it at the same time."""
    known = hashlib.sha256(repr((name, told)).encode())
    for part in sorted(made_from):
        known.update(part.name.encode() + b"\0" + part.read_bytes())
    file = ROOT / "build" / kind / known.hexdigest()[:16] / name
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as making:
        made = Path(making) / name
        make(made)
        made.replace(file)
    return file


def keep_newest(kind: str, most: int) -> None:
    """Deletes all but the newest `most` folders of a kind, for files that are large."""
    folders = sorted((ROOT / "build" / kind).iterdir(), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-most]:
        shutil.rmtree(folder, ignore_errors=True)
