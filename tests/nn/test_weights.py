"""Weights in and out: hostile pickles, every mismatch in one message, hashes that belong to weights and not to files."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from rtformer_deploy.commands.import_weights import import_weights
from rtformer_deploy.errors import WeightsError
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import build_network
from rtformer_deploy.nn.pdparams import parse_pdparams
from rtformer_deploy.nn.weights import load_into, load_weights, read_metadata, save_weights, weights_hash

ARCH = {"name": "rtformer", "base_channels": 16, "head_channels": 16}


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    file = tmp_path / "model.pdparams"
    file.write_bytes(pickle.dumps({"x": Hostile(marker), "conv1.0.weight": np.zeros(3)}, protocol))
    with pytest.raises(WeightsError, match=r"it asks for (posix|nt|os)\.system"):
        load_weights(file)
    assert not marker.exists()


@pytest.mark.parametrize("call", [b"cbuiltins\neval\n(S'1'\ntR.", b"cbuiltins\ngetattr\n.", b"cnumpy\nload\n(S'x'\ntR."])
def test_nothing_beyond_arrays_and_containers_is_known(call: bytes) -> None:
    with pytest.raises(WeightsError, match="it asks for"):
        parse_pdparams(call, "model.pdparams")


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(WeightsError, match="no number type"):
        parse_pdparams(pickle.dumps({"a": np.array([None, "x"], dtype=object)}), "model.pdparams")


def test_an_array_that_lies_about_its_shape_is_refused() -> None:
    data = pickle.dumps({"a": np.zeros(1000, np.float32)}, 4).replace((1000).to_bytes(2, "little"), (1001).to_bytes(2, "little"), 1)
    with pytest.raises(WeightsError):
        parse_pdparams(data, "model.pdparams")


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80\x04", b"\x80\x04N."])
def test_damaged_files_are_one_message(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.pdparams"
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"model\.pdparams"):
        load_weights(file)


@pytest.mark.parametrize("protocol", [2, 4])
def test_paddles_forms_are_read(protocol: int) -> None:
    wanted: dict[str, NDArray[Any]] = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "h": np.ones(2, np.float16),
        "i": np.array(7, np.int64),
    }
    wanted["fortran"] = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    content = OrderedDict(wanted) | {"tuple": ("linear_0.w_0", np.zeros(2)), "StructuredToParameterName@@": {"f": "linear_0"}}
    given = parse_pdparams(pickle.dumps(content, protocol), "model.pdparams")
    assert given.keys() == {*wanted, "tuple"}
    assert all(np.array_equal(given[key], value) and given[key].dtype == value.dtype for key, value in wanted.items())


def test_a_number_type_with_flags_of_its_own_is_refused() -> None:
    """NumPy takes the flags as they are, and then frees the numbers as if they were objects."""
    plain = pickle.dumps({"a": np.ones(2, np.float16)}, 2)
    sizes = b"J\xff\xff\xff\xffJ\xff\xff\xff\xff"
    assert plain.count(sizes + b"K\0") == 1
    for changed in (sizes + b"K\x8b", sizes.replace(b"J\xff", b"J\2", 1) + b"K\0"):
        with pytest.raises(WeightsError, match="fields, sizes or flags of its own"):
            parse_pdparams(plain.replace(sizes + b"K\0", changed), "a.pdparams")


def test_every_key_that_does_not_fit_is_in_one_message() -> None:
    network = build_network(ARCH, 5)
    state = dict(network.state_dict())
    del state["conv1.0.weight"], state["layer4.attn_l.k"]
    state["extra.weight"] = torch.zeros(1)
    state["seghead.conv2.weight"] = torch.zeros(7, 32, 1, 1)
    with pytest.raises(WeightsError) as error:
        load_into(network, state, "mine.safetensors")
    text = str(error.value)
    for part in ("missing (2)", "conv1.0.weight", "layer4.attn_l.k", "unexpected (1)", "extra.weight", "misshapen (1)"):
        assert part in text
    assert "seghead.conv2.weight is [7, 32, 1, 1], not [5, 32, 1, 1]" in text


def test_weights_of_another_variant_are_refused(shared: Path) -> None:
    network = build_network(ARCH | {"base_channels": 64, "head_channels": 128}, 19)
    with pytest.raises(WeightsError, match="misshapen"):
        load_into(network, load_weights(shared / "golden" / "slim.pdparams"), "slim.pdparams")


def test_the_auxiliary_head_may_be_missing_but_not_in_part() -> None:
    network = build_network(ARCH, 5)
    without = {key: value for key, value in network.state_dict().items() if not key.startswith("seghead_extra.")}
    load_into(network, without, "mine")
    with pytest.raises(WeightsError, match=r"seghead_extra\.conv1\.weight"):
        load_into(network, without | {"seghead_extra.bn1.weight": torch.zeros(32)}, "mine")


def test_safetensors_and_pth_round_trip(tmp_path: Path) -> None:
    network = build_network(ARCH, 5)
    save_weights(network.state_dict(), tmp_path / "a.safetensors", {"recipe": "rtformer-slim-camvid"})
    save_weights(network.state_dict(), tmp_path / "c.safetensors.xz", {"recipe": "rtformer-slim-camvid"})
    assert (tmp_path / "c.safetensors.xz").stat().st_size < 0.99 * (tmp_path / "a.safetensors").stat().st_size
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "b.pth")
    other = build_network(ARCH, 5)
    for name in ("a.safetensors", "b.pth", "c.safetensors.xz"):
        load_into(other, load_weights(tmp_path / name), name)
        assert weights_hash(other, ARCH) == weights_hash(network, ARCH)
    for name in ("a.safetensors", "c.safetensors.xz"):
        assert read_metadata(tmp_path / name) == {"recipe": "rtformer-slim-camvid"}


def test_a_pth_that_holds_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"x": Hostile(marker)}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="not a file of plain PyTorch weights"):
        load_weights(tmp_path / "bad.pth")
    assert not marker.exists()


def test_the_hash_is_of_weights_and_configuration() -> None:
    network = build_network(ARCH, 5)
    before = weights_hash(network, ARCH)
    assert weights_hash(network, ARCH | {"cross_size": 8}) != before
    with torch.no_grad():
        network.state_dict()["conv1.0.bias"][0] += 1
    assert weights_hash(network, ARCH) != before


@pytest.mark.parametrize("name", ["weights.bin", "nothing.safetensors"])
def test_other_and_missing_files_are_refused(tmp_path: Path, name: str) -> None:
    if name == "weights.bin":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError, match=name):
        load_weights(tmp_path / name)


def test_a_truncated_safetensors_is_refused(tmp_path: Path) -> None:
    save_weights({"a": torch.zeros(100)}, tmp_path / "a.safetensors", {})
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-10])
    with pytest.raises(WeightsError, match="cut short"):
        load_weights(tmp_path / "b.safetensors")


def write(state: dict[str, torch.Tensor], path: Path) -> Path:
    """Tensors as a file of the kind that its suffix says."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif path.suffix == ".pth":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps({key: value.numpy() for key, value in state.items()}, 4))
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pdparams"])
def test_values_that_cannot_be_weights_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    state = {
        "fine": torch.ones(2),
        "steps.num_batches_tracked": torch.tensor(3),
        "nan": torch.tensor([1.0, float("nan")]),
        "infinite": torch.tensor([float("-inf")]).half(),
        "too large for float32": torch.tensor([1e300], dtype=torch.float64),
        "complex": torch.ones(2, dtype=torch.complex64),
        "boolean": torch.ones(2, dtype=torch.bool),
        "of\x1b[31m colour": torch.ones(1),
    }
    with pytest.raises(WeightsError) as error:
        load_weights(write(state, tmp_path / f"bad{suffix}"))
    text = str(error.value)
    for part in ("not finite numbers (3):", "'nan'", "'infinite'", "'too large for float32'", "complex (1):", "boolean (1):"):
        assert part in text
    assert "'of\\x1b[31m colour'" in text
    assert "fine" not in text
    assert "num_batches_tracked" not in text


def test_integers_are_no_weights_of_a_network(tmp_path: Path) -> None:
    network = build_network(ARCH, 5)
    state = dict(network.state_dict()) | {"conv1.0.bias": torch.ones(16, dtype=torch.int8)}
    with pytest.raises(WeightsError, match=r"of integers \(1\):\n    conv1\.0\.bias"):
        load_into(network, state, "mine.pth")


def test_weights_that_overflow_fp16_are_refused_when_they_are_halved(tmp_path: Path) -> None:
    recipe = "rtformer-slim-camvid"
    state = dict(build_network(load_recipe(recipe).arch, 11).state_dict())
    state["conv1.0.bias"] = torch.full_like(state["conv1.0.bias"], 1e6)
    path = write({key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"rounded to FP16, .*\n  not finite numbers \(1\):\n    'conv1\.0\.bias'"):
        import_weights(path, recipe, half=True)


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc", "its header does not fit in it"),
        (b"\xff" * 9, "its header does not fit in it"),
        ((20 * 2**20).to_bytes(8, "little") + b" " * (20 * 2**20), "its header takes 20,971,520 bytes"),
        (safetensors_bytes(b'{"__metadata__":' + b"[" * 100_000), "not a safetensors file"),
        (safetensors_bytes({"__metadata__": {"recipe": 5}}), "not a safetensors file"),
        (safetensors_bytes({"__metadata__": "x" * 10**6}), "not a safetensors file"),
        (safetensors_bytes({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"\0"), "values of the type F4"),
        (safetensors_bytes({"a": {"dtype": "F8_E5M2", "shape": [1], "data_offsets": [0, 1]}}, b"\0"), "of the type float8_e5m2"),
        (safetensors_bytes({"a": {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}), "not a safetensors file"),
        (safetensors_bytes({"a": {"dtype": "F32", "shape": [1] * 50_000, "data_offsets": [0, 4]}}, bytes(4)), "of more than 8 axes"),
        (safetensors_bytes({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)), "not a safetensors file"),
        (safetensors_bytes({"k" * 10**6: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "too long or not printable"),
    ],
)
def test_odd_safetensors_are_one_short_message(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message) as error:
        load_weights(path)
    assert len(str(error.value)) < 1000
