"""Mutated image and label files, seeded: a frame of the right type, or one error of ours that stays short; never anything else."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from helpers import Edit, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, features
from pillow_heif import register_heif_opener

from rtformer_deploy.errors import DatasetError, DeployError, ImageError
from rtformer_deploy.files import write_atomic
from rtformer_deploy.formats.recipe import Labels
from rtformer_deploy.image.decode import decode_image
from rtformer_deploy.image.labels import LabelMeaning, read_label

BOUNDED = settings(max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
COLOURS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 2**16, (9, 7), np.uint16)


def encoded(kind: str, array: NDArray[Any], **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, kind, **options)
    return data.getvalue()


def pictures() -> list[bytes]:
    """One small file of each kind that Pillow can write here."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(kind, COLOURS) for kind in ("PNG", "BMP", "TIFF")]
    files += [
        encoded("JPEG", COLOURS, exif=exif),
        encoded("JPEG", COLOURS, progressive=True),
        encoded("TIFF", COLOURS, compression="tiff_lzw"),
    ]
    files += [encoded("PNG", DEEP), encoded("TIFF", DEEP), encoded("WEBP", COLOURS)]
    register_heif_opener()
    return [*files, encoded("HEIF", COLOURS), *([encoded("AVIF", COLOURS)] if features.check("avif") else [])]


PICTURES = pictures()
LABELS = [encoded("PNG", COLOURS[:, :, 0] % 3), encoded("TIFF", COLOURS[:, :, 0] % 3), encoded("BMP", COLOURS[:, :, 0] % 3)]
LABELS += [encoded("PNG", (DEEP % 3).astype(np.uint16))]


def mutations() -> st.SearchStrategy[list[Edit]]:
    """One to six edits, more of them near the beginning, where the headers are."""
    place = st.one_of(st.floats(0, 0.2), st.floats(0, 1, exclude_max=True))

    def edit(kind: str, at: float, to: float, byte: int) -> Edit:
        def apply(data: bytes) -> bytes:
            first, second = sorted((int(at * len(data)), int(to * len(data))))
            return {
                "replace": data[:first] + bytes([byte]) + data[first + 1 :],
                "large": data[:first] + b"\xff\xff\xff\x7f" + data[first + 4 :],
                "remove": data[:first] + data[first + 1 + byte % 16 :],
                "repeat": data[:second] + data[first : first + byte] + data[second:],
                "cut": data[: first + 1],
            }[kind]

        return apply

    kinds = st.sampled_from(["replace", "replace", "large", "remove", "repeat", "cut"])
    return st.lists(st.builds(edit, kinds, place, place, st.integers(0, 255)), min_size=1, max_size=6)


def check_error(error: DeployError, name: str) -> None:
    """One message that names the file and does not grow with it."""
    assert name in str(error)
    assert len(str(error)) < 1000 + 3 * len(name)


def test_the_files_are_read_as_they_are() -> None:
    assert all(decode_image(data).shape[2] == 3 for data in PICTURES)


@pytest.mark.filterwarnings("error")
@BOUNDED
@given(st.sampled_from(PICTURES), mutations())
def test_a_mutated_image_is_a_frame_or_one_error(data: bytes, edits: list[Edit]) -> None:
    try:
        frame = decode_image(mutated(data, edits), "a.png")
    except ImageError as error:
        check_error(error, "a.png")
    else:
        assert frame.dtype == np.uint8
        assert frame.ndim == 3
        assert frame.shape[2] == 3
        assert frame.size > 0


@BOUNDED
@given(st.sampled_from(LABELS), mutations())
def test_a_mutated_label_is_a_label_map_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, edits: list[Edit]) -> None:
    labels = Labels(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), 255)
    lookup = np.full(256, -1, np.int16)
    lookup[[0, 1, 2, 255]] = [0, 1, 2, 255]
    path = tmp_path_factory.getbasetemp() / "mutated-label"
    write_atomic(path, mutated(data, edits))
    try:
        label = read_label(path, LabelMeaning(labels, lookup))
    except DatasetError as error:
        check_error(error, str(path))
    else:
        assert label.dtype == np.uint8
        assert set(np.unique(label)) <= {0, 1, 2, 255}
