"""Safetensors files, plain and compressed: the same tensors and metadata, and a message for every file that is not whole."""

from __future__ import annotations

import json
import lzma
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.formats import safetensors_file
from rtformer_deploy.formats.safetensors_file import check_whole, is_weights, pack, read_header, read_safetensors, stem_of
from rtformer_deploy.nn.weights import load_weights

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


@pytest.mark.parametrize(
    ("name", "stem"),
    [("m.onnx", "m"), ("m.safetensors", "m"), ("m.safetensors.xz", "m"), ("M.1.SAFETENSORS.XZ", "M.1"), ("m.tar.xz", "m.tar"), ("m", "m")],
)
def test_a_name_without_its_suffix(name: str, stem: str) -> None:
    assert stem_of(Path("run.2") / name) == stem


def test_only_names_of_weights_are_compressed() -> None:
    assert lzma.decompress(pack(PLAIN, Path("a.safetensors.xz"))) == PLAIN
    assert pack(PLAIN, Path("a.safetensors")) == pack(PLAIN, Path("a.xz")) == PLAIN


def with_header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


DAMAGED = {
    "no xz": (PLAIN, "not an xz file, or is damaged"),
    "cut short": (lzma.compress(PLAIN)[:-20], "cut short"),
    "two streams": (lzma.compress(PLAIN) + lzma.compress(PLAIN), "holds more than the weights"),
    "garbage behind it": (lzma.compress(PLAIN) + b"more", "holds more than the weights"),
    "more than the header says": (lzma.compress(PLAIN + b"more"), "holds more than the weights"),
    "less than the header says": (lzma.compress(PLAIN[:-1]), "cut short"),
    "an older format": (lzma.compress(PLAIN, lzma.FORMAT_ALONE), "not an xz file"),
    "a dictionary of 1 GiB": (
        lzma.compress(PLAIN, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]),
        "not an xz file",
    ),
}
#: What can be seen at the beginning of a file.
AT_ONCE = ("no xz", "an older format", "a dictionary of 1 GiB")


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    data, message = DAMAGED[kind]
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(data)
    for read in (read_safetensors, check_whole, *([read_header] if kind in AT_ONCE else [])):
        with pytest.raises(WeightsError, match=message):
            read(path)


def offset(value: object) -> bytes:
    return with_header(json.dumps({"a": {"dtype": "F16", "shape": 3, "data_offsets": [0, value]}}))


HEADERS = {
    "empty": b"", "short": b"1234", "a list": with_header("[]"), "half an object": with_header("{"), "huge": (2**40).to_bytes(8, "little"),
    "no shape": with_header(json.dumps({"a": {"dtype": "F16"}})), "negative": offset(-5), "a word": offset("x"), "null": offset(None),
    "infinite": offset(float("inf")), "a list of none": offset([]), "half a byte": offset(0.5),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_header_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(lzma.compress(HEADERS[kind]))
    for read in (read_header, load_weights):
        with pytest.raises(WeightsError, match=r"a\.safetensors\.xz (is not a safetensors file|is refused|was cut short)"):
            read(path)


def test_more_than_the_header_tells_of_is_not_decompressed(tmp_path: Path) -> None:
    """A few bytes may stand for gigabytes: 300 MB of zeros behind the weights are 44 KB."""
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(lzma.compress(PLAIN + bytes(300 * 10**6), preset=0))
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="holds more than the weights"):
            read_safetensors(path)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_without_lzma_compressed_weights_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(lzma.compress(PLAIN))
    monkeypatch.setitem(sys.modules, "lzma", None)
    for use in (read_header, read_safetensors, lambda path: pack(PLAIN, path)):
        with pytest.raises(WeightsError, match="built without lzma"):
            use(path)


def test_more_than_weights_may_be_is_not_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "MODEL_BYTES", len(PLAIN) - 1)
    path = tmp_path / "a.safetensors.xz"
    path.write_bytes(lzma.compress(PLAIN))
    with pytest.raises(WeightsError, match="is refused: decompressed it takes 16,564 bytes, more than 16,563"):
        read_safetensors(path)
