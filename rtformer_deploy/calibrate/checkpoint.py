"""What an interrupted calibration has counted so far, in a file beside its output.

The histograms are sums, so images may come and go meanwhile, as long as those that were counted are still there and unchanged.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError, ImageError, first_line
from ..files import IMAGE_BYTES, RECORD_BYTES, printable, read_bytes, remove, sha256_of, write_atomic
from ..formats.archive import open_stored
from ..formats.conversion import convert
from ..formats.documents import parse_json
from ..types import Say, Sha256
from .collect import restore, state
from .histogram import Histogram

#: What reading a damaged or foreign file may raise.
_DAMAGED = (CalibrationError, zipfile.BadZipFile, OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError,
            OverflowError, RecursionError)  # fmt: skip


@dataclass(slots=True)
class Counted:
    """The images that the histograms hold: name -> the hash of its file. `coloured`: one of them has more than one colour."""

    hashes: dict[str, str] = field(default_factory=dict)
    coloured: bool = False


@dataclass(frozen=True, slots=True)
class _Record:
    """What the file says beside the histograms."""

    basis: Mapping[str, Any]
    counted: Mapping[str, Sha256]
    coloured: bool


def checkpoint_path(output: Path) -> Path:
    """Where an interrupted run that writes `output` keeps what it has seen."""
    return output.with_name(f".{output.name}.calibration.npz")


class Checkpoint:
    """The state of a run that writes to `output`; a run without an output keeps none.

    `basis` is what the histograms depend on besides the images (names -> JSON values). A checkpoint with another basis is not used.
    """

    def __init__(self, output: Path | None, basis: Mapping[str, Any], histograms: Mapping[str, Histogram]) -> None:
        self.path = None if output is None else checkpoint_path(output)
        self.basis: dict[str, Any] = json.loads(json.dumps({**basis, "tensors": list(histograms)}))
        self.histograms = histograms

    def resume(self, images: Mapping[str, Path], say: Say) -> Counted:
        """Fills the histograms from the file and returns which of the `images` (name -> path) they hold.

        If the file cannot be used, it says why and returns that nothing was counted.
        """
        if self.path is None or not os.path.isfile(self.path):
            return Counted()
        try:
            record, arrays = self._read(self.path)
            counted = Counted(dict(record.counted), record.coloured)
            reason = self._other_basis(record.basis) or _missing(counted, images)
            if reason is None:
                restore(self.histograms, arrays)
        except _DAMAGED as error:
            reason = f"cannot be read ({first_line(error)})"
        if reason is not None:
            say(f"{printable(self.path)} {reason}; beginning anew.")
            return Counted()
        say(f"Going on after {len(counted.hashes)} images.")
        return counted

    def save(self, counted: Counted) -> None:
        """Writes the histograms and what they hold."""
        if self.path is None:
            return
        record = {"basis": self.basis, "counted": counted.hashes, "coloured": counted.coloured}
        arrays: dict[str, Any] = {"record": np.frombuffer(json.dumps(record).encode(), np.uint8), **state(self.histograms)}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomic(self.path, buffer.getvalue())

    def remove(self) -> None:
        """Removes the file; the run is done."""
        if self.path is not None:
            remove(self.path)

    def _read(self, path: Path) -> tuple[_Record, dict[str, NDArray[Any]]]:
        data = read_bytes(path, CalibrationError, "a calibration's checkpoint")
        open_stored(data).close()
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if "record" not in arrays:
            raise CalibrationError("it is of an earlier version")
        return convert(parse_json(arrays["record"].astype(np.uint8).tobytes(), RECORD_BYTES), _Record), arrays

    def _other_basis(self, basis: Mapping[str, Any]) -> str | None:
        different = [name for name in {**basis, **self.basis} if basis.get(name) != self.basis.get(name)]
        verb = "differs" if len(different) == 1 else "differ"
        return f"belongs to another calibration: {', '.join(different)} {verb}" if different else None


def _missing(counted: Counted, images: Mapping[str, Path]) -> str | None:
    """Why not all counted images are among `images`; None if they are."""
    for name, digest in counted.hashes.items():
        if name not in images:
            return f"counted {printable(name)}, which is not among the images now"
        if _hash(images[name]) != digest:
            return f"counted {printable(name)}, which has changed since"
    return None


def _hash(path: Path) -> str | None:
    """The hash of an image's file; None if it cannot be read."""
    try:
        return sha256_of(path, ImageError, "an image", IMAGE_BYTES)
    except ImageError:
        return None
