"""Safetensors files, plain and compressed: the same tensors and metadata, and a message for every file that is not whole."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.formats import safetensors_file
from rtformer_deploy.formats.safetensors_file import is_weights, read_header, read_safetensors

TENSORS: dict[str, np.ndarray] = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.zeros(4096, np.float32)}
PLAIN = safetensors.numpy.save(TENSORS, {"recipe": "mine"})


@pytest.mark.parametrize("name", ["a.safetensors", "A.SAFETENSORS", "b.safetensors.xz", "run.2/c.Safetensors.XZ"])
def test_names_of_weights(name: str) -> None:
    assert is_weights(Path(name))


@pytest.mark.parametrize("name", ["a.onnx", "engine.plan", "safetensors", "a.xz", "a.safetensors.gz", "a.safetensors/b"])
def test_names_of_other_files(name: str) -> None:
    assert not is_weights(Path(name))


@pytest.mark.parametrize("name", ["a.safetensors", "a.safetensors.xz"])
def test_both_kinds_hold_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(lzma.compress(PLAIN) if name.endswith("xz") else PLAIN)
    assert read_safetensors(path) == PLAIN
    header = read_header(path)
    assert header.metadata == {"recipe": "mine"}
    assert header.tensors == {"a": ("F16", [2, 3]), "b": ("F32", [4096])}


def with_header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


DAMAGED = {
    "no xz": (PLAIN, "not a safetensors file"),
    "cut short": (lzma.compress(PLAIN)[:-20], "cut short"),
    "two streams": (lzma.compress(PLAIN) + lzma.compress(PLAIN), "more than one xz stream"),
    "garbage behind it": (lzma.compress(PLAIN) + b"more", "more than one xz stream"),
    "an older format": (lzma.compress(PLAIN, lzma.FORMAT_ALONE), "not a safetensors file"),
    "a dictionary of 1 GiB": (
        lzma.compress(PLAIN, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]),
        "not a safetensors file",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    data, message = DAMAGED[kind]
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        read_safetensors(path)


@pytest.mark.parametrize(
    "plain",
    [b"", b"1234", with_header("[]"), with_header("{"), with_header(json.dumps({"a": {"dtype": "F16"}})), (2**40).to_bytes(8, "little")],
    ids=["empty", "short", "a list", "half an object", "no shape", "huge"],
)
def test_a_damaged_header_is_refused(tmp_path: Path, plain: bytes) -> None:
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(lzma.compress(plain))
    with pytest.raises(WeightsError, match=r"a\.safetensors\.xz is (not a safetensors file|refused)"):
        read_header(path)


def test_more_than_weights_may_be_is_not_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes may stand for gigabytes."""
    monkeypatch.setattr(safetensors_file, "MODEL_BYTES", len(PLAIN) - 1)
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(lzma.compress(PLAIN))
    with pytest.raises(WeightsError, match="is refused: decompressed it takes more than"):
        read_safetensors(path)
