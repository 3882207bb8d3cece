"""Opens safetensors files. Before the library reads one, its header is checked: it must not be larger than weights need."""

from __future__ import annotations

from pathlib import Path

import safetensors

from ..errors import WeightsError, first_line
from ..files import MODEL_BYTES, check_readable

#: The metadata key of a training run's checkpoint.
CHECKPOINT_KEY = "rtformer_deploy.training"

_MOST_HEADER_BYTES = 16 * 2**20
_LENGTH_BYTES = 8
_HINT = "Copy or download it again."


def open_safetensors(path: Path, framework: str) -> safetensors.safe_open:
    """An open safetensors file, a context manager. `framework` is "np" or "pt". Raises WeightsError if it is not such a file."""
    check_readable(path, WeightsError, "weights", MODEL_BYTES)
    try:
        with open(path, "rb") as file:
            head = file.read(_LENGTH_BYTES)
            check_header(head, path.stat().st_size, str(path))
        return safetensors.safe_open(path, framework)
    except WeightsError:
        raise
    except Exception as error:  # SafetensorError, OSError, and whatever a damaged header leads to
        raise not_safetensors(str(path), error) from error


def check_header(head: bytes, size: int, name: str) -> None:
    """Checks the first bytes of a file of `size` bytes. Raises WeightsError if the header does not fit or is too large."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    if len(head) < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
        raise WeightsError(f"{name} is not a safetensors file, or was cut short: its header does not fit in it.", _HINT)
    if length > _MOST_HEADER_BYTES:
        raise WeightsError(f"{name} is refused: its header takes {length:,} bytes, more than {_MOST_HEADER_BYTES:,}.", _HINT)


def not_safetensors(name: str, error: Exception) -> WeightsError:
    """The error to raise if the library cannot read a file."""
    return WeightsError(f"{name} is not a safetensors file, or was cut short: {first_line(error)}.", _HINT)
