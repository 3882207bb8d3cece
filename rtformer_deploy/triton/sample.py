"""The picture that models are warmed up and checked with."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

from PIL import Image

from ..errors import DeployError
from ..files import IMAGE_BYTES, read_bytes
from ..image.samples import drawn_street, sample_photograph


def sample_picture() -> bytes:
    """The bundled photograph's file, or the drawn street as PNG if this copy has none."""
    photograph = sample_photograph()
    if photograph is not None:
        return read_bytes(photograph, DeployError, "the sample", IMAGE_BYTES)
    data = io.BytesIO()
    Image.fromarray(drawn_street((512, 1024))).save(data, "PNG")
    return data.getvalue()


def bytes_tensor(texts: Sequence[bytes]) -> bytes:
    """Texts as the data of a BYTES tensor: each after its length."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
