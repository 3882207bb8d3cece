"""Mutated weights files, seeded: a WeightsError, or what the file's own library reads from the same bytes; never anything else."""

from __future__ import annotations

import io
import json
import lzma
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import Edit, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.formats.safetensors_file import open_safetensors, read_header
from rtformer_deploy.nn.pdparams import parse_pdparams
from rtformer_deploy.nn.torch_file import parse_torch
from rtformer_deploy.nn.weights import load_weights

ARRAYS = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    "bn._mean": np.ones(3, np.float16),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "steps": np.array(7),
}
CONTENT = OrderedDict(ARRAYS) | {"tuple": ("linear_0.w_0", np.zeros(2, np.float32)), "StructuredToParameterName@@": {"f": "linear_0"}}
PICKLES = [pickle.dumps(CONTENT, protocol) for protocol in (0, 2, 4)]
TENSORS = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in ARRAYS.items()}

#: Opcodes with their arguments, to be put anywhere.
SNIPPETS = [bytes([code]) for code in b"(.)0123NQRabdelostu}]\x81\x85\x86\x87\x88\x89\x90\x91\x93\x94\x97\x98"]
SNIPPETS += [b"h\x00", b"h\x05", b"q\x01", b"j\x01\0\0\0", b"r\0\0\0\x08", b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\x01\xff", b"X\x01\0\0\0a"]
SNIPPETS += [
    b"cos\nsystem\n",
    b"ccollections\nOrderedDict\n",
    b"cnumpy\ndtype\n",
    b"cbuiltins\ntuple\n",
    b"\x85" * 3000,
    b"T\xff\xff\xff\x7f",
]


def mutations() -> st.SearchStrategy[list[Edit]]:
    """One to four edits: a byte replaced, a range removed, repeated or moved, an opcode put in, the end cut off."""
    place = st.floats(0, 1, exclude_max=True)

    def edit(kind: str, at: float, to: float, byte: int, snippet: bytes) -> Edit:
        def apply(data: bytes) -> bytes:
            first, second = sorted((int(at * len(data)), int(to * len(data))))
            return {
                "replace": data[:first] + bytes([byte]) + data[first + 1 :],
                "remove": data[:first] + data[first + 1 + byte % 16 :],
                "repeat": data[:second] + data[first : first + byte] + data[second:],
                "insert": data[:first] + snippet + data[first:],
                "cut": data[: first + 1],
            }[kind]

        return apply

    kinds = st.sampled_from(["replace", "replace", "remove", "repeat", "insert", "insert", "cut"])
    return st.lists(st.builds(edit, kinds, place, place, st.integers(0, 255), st.sampled_from(SNIPPETS)), min_size=1, max_size=4)


def bounded(examples: int) -> settings:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet)


class Reference(pickle.Unpickler):
    """Python's own unpickler with NumPy's own constructors."""

    def find_class(self, module: str, name: str) -> Any:
        names = {"_reconstruct", "ndarray", "dtype", "encode", "OrderedDict", "tuple"}
        assert module.split(".")[0] in {"numpy", "_codecs", "collections", "builtins"}
        assert name in names
        return super().find_class(module, name)


def reference(data: bytes) -> dict[str, NDArray[Any]] | None:
    """What Python and NumPy read; None if they read nothing, or die of it.

    In a process of its own: what mutated bytes make NumPy do to its memory must not reach other tests.
    """
    answer, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(write, "wb") as file:
                content = _reference(data)
                names = json.dumps(None if content is None else list(content))  # NumPy would cut a name at a NUL
                np.savez(file, np.array(names), *(content or {}).values())
        finally:
            os._exit(0)
    os.close(write)
    with open(answer, "rb") as file:
        written = file.read()
    os.waitpid(child, 0)
    try:
        with np.load(io.BytesIO(written), allow_pickle=False) as arrays:
            names = json.loads(str(arrays["arr_0"]))
            return None if names is None else {name: arrays[f"arr_{index}"] for index, name in enumerate(names, 1)}
    except (zipfile.BadZipFile, ValueError, EOFError):
        return None


def _reference(data: bytes) -> dict[str, NDArray[Any]] | None:
    try:
        content = Reference(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, ValueError, TypeError, EOFError, MemoryError):  # NumPy first makes an array of a size that is not used
        return None
    content.pop("StructuredToParameterName@@", None)
    return {key: value[1] if isinstance(value, tuple) else value for key, value in content.items()}


def check_error(error: WeightsError) -> None:
    text = str(error)
    assert len(text) < 2000
    assert "file." in text


@pytest.mark.parametrize("data", PICKLES)
def test_the_reference_reads_what_is_read(data: bytes) -> None:
    given = parse_pdparams(data, "file.pdparams")
    wanted = reference(data)
    assert wanted is not None
    assert given.keys() == wanted.keys()


@bounded(600)
@given(st.sampled_from(PICKLES), mutations())
def test_a_mutated_pdparams_is_refused_or_read_as_pickle_reads_it(data: bytes, edits: list[Edit]) -> None:
    data = mutated(data, edits)
    try:
        arrays = parse_pdparams(data, "file.pdparams")
    except WeightsError as error:
        check_error(error)
        return
    assert sum(value.nbytes for value in arrays.values()) <= len(data)
    wanted = reference(data)
    if wanted is not None:
        assert arrays.keys() == wanted.keys()
        for key, value in arrays.items():
            assert value.dtype == wanted[key].dtype
            assert value.shape == wanted[key].shape
            assert value.tobytes() == wanted[key].tobytes()


@bounded(200)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_or_empty(data: bytes) -> None:
    try:
        assert parse_pdparams(b"\x80\x02" + data, "file.pdparams") == {}
    except WeightsError as error:
        check_error(error)


def saved(archive: bool) -> bytes:
    file = io.BytesIO()
    torch.save(TENSORS, file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


@bounded(200)
@given(mutations())
def test_a_mutated_archive_is_refused_or_the_same(edits: list[Edit]) -> None:
    """A member's checksum is compared, so a changed value is found."""
    data = mutated(ARCHIVE, edits)
    try:
        tensors = parse_torch(data, "file.pth")
    except WeightsError as error:
        check_error(error)
        return
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], value) for key, value in TENSORS.items())


@bounded(300)
@given(mutations())
def test_a_mutated_legacy_file_is_refused_or_within_its_bytes(edits: list[Edit]) -> None:
    data = mutated(LEGACY, edits)
    try:
        tensors = parse_torch(data, "file.pth")
    except WeightsError as error:
        check_error(error)
        return
    assert sum(value.nbytes for value in tensors.values()) <= len(data)


@bounded(200)
@given(mutations())
def test_a_mutated_safetensors_is_refused_or_within_its_bytes(tmp_path: Path, edits: list[Edit]) -> None:
    data = mutated(SAFE, edits)
    path = tmp_path / "file.safetensors"
    path.write_bytes(data or b"\0")
    try:
        tensors = load_weights(path)
    except WeightsError as error:
        check_error(error)
    else:
        assert sum(value.nbytes for value in tensors.values()) <= len(data)
    try:
        with open_safetensors(path, "np") as file:
            assert all(isinstance(value, str) for value in (file.metadata() or {}).values())
    except WeightsError as error:
        check_error(error)


@bounded(100)
@given(mutations())
def test_a_mutated_compressed_safetensors_is_refused_or_whole(tmp_path: Path, edits: list[Edit]) -> None:
    path = tmp_path / "file.safetensors.xz"
    path.write_bytes(mutated(COMPRESSED, edits) or b"\0")
    for read in (load_weights, read_header):
        try:
            read(path)
        except WeightsError as error:
            check_error(error)


ARCHIVE, LEGACY = saved(True), saved(False)
SAFE = safetensors.torch.save(TENSORS, {"recipe": "rtformer-slim-camvid"})
COMPRESSED = lzma.compress(SAFE)
