"""`.pth` files: what torch.save writes is read with its values, tensors that are not plain are refused by name."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.nn.torch_file import parse_torch
from rtformer_deploy.nn.weights import load_weights

BOTH = pytest.mark.parametrize("archive", [True, False], ids=["archive", "legacy"])


def saved(value: object, archive: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def equal(one: dict[str, Tensor], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(
        one[key].dtype == value.dtype and one[key].shape == value.shape and torch.equal(one[key], value) for key, value in other.items()
    )


@BOTH
def test_a_state_dict_is_read(archive: bool) -> None:
    state = network().state_dict()
    assert equal(parse_torch(saved(state, archive), "a.pth"), state)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.complex64, torch.bool])
def test_number_types_are_read(archive: bool, dtype: torch.dtype) -> None:
    state = {"a": torch.arange(6).reshape(2, 3).to(dtype), "scalar": torch.ones((), dtype=dtype), "empty": torch.empty((0, 3), dtype=dtype)}
    assert equal(parse_torch(saved(state, archive), "a.pth"), state)


@BOTH
def test_layouts_and_parts_of_storages_are_read(archive: bool) -> None:
    whole = torch.randn(100)
    state = {
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 4).t(),
        "columns": torch.randn(10, 10)[:, 2:5],
        "first": whole[:50],
        "second": whole[50:],
        "one column": torch.randn(5, 1).expand(5, 1),
    }
    assert equal(parse_torch(saved(state, archive), "a.pth"), state)


@BOTH
@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_whole_checkpoint_is_read(archive: bool, wrapper: str) -> None:
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    checkpoint = {
        wrapper: OrderedDict(net.state_dict()),
        "ema": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 3,
        "best": 0.5,
        "bytes": b"abc",
        "of": [torch.device("cpu"), torch.float32, torch.Size([1, 2])],
    }
    assert equal(parse_torch(saved(checkpoint, archive), "a.pth"), net.state_dict())


def test_parameters_are_read() -> None:
    parameters = dict(network().named_parameters())
    given = parse_torch(saved(parameters), "a.pth")
    assert equal(given, {key: value.data for key, value in parameters.items()})
    assert not any(value.requires_grad for value in given.values())


def test_attributes_of_a_state_dict_are_passed_over() -> None:
    """A state dict carries its modules' versions as an attribute; one called `items` used to replace the method."""
    pickled = b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x05sb."
    assert parse_torch(changed(saved({}), "data.pkl", pickled), "a.pth") == {}


def changed(data: bytes, name: str, content: bytes) -> bytes:
    """A torch archive with one member replaced."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, content if member.filename.endswith(f"/{name}") else old.read(member))
    return target.getvalue()


def odd_tensors() -> dict[str, object]:
    base = torch.ones(100)
    return {
        "a sparse tensor": torch.eye(3).to_sparse(),
        "a sparse tensor ": torch.eye(3).to_sparse_csr(),
        "a meta tensor": torch.empty(3, device="meta"),
        "a quantised tensor": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "a nested tensor": torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
        "of a number type that weights do not have": torch.ones(2).to(torch.float8_e4m3fn),
        "'a' is expanded": torch.ones(1).expand(10**9),
        "'a' overlaps itself": base.as_strided((50, 50), (1, 1)),
        "'a' is not a tensor": 5,
    }


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ODD = odd_tensors()


@BOTH
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("message", ODD)
def test_tensors_that_are_not_plain_are_refused_by_name(archive: bool, message: str) -> None:
    with pytest.raises(WeightsError, match=message.strip()) as error:
        parse_torch(saved({"a": ODD[message]}, archive), "odd.pth")
    assert str(error.value).startswith("odd.pth is refused: it is not a file of plain PyTorch weights (")
    assert error.value.hint is not None


@pytest.mark.parametrize("second", [slice(None), slice(50, None)])
def test_tensors_that_share_values_are_refused(second: slice) -> None:
    base = torch.ones(100)
    with pytest.raises(WeightsError, match="'a' and 'b' overlap"):
        parse_torch(saved({"a": base[:60], "b": base[second]}), "a.pth")


@BOTH
def test_a_tensor_with_two_names_is_read_once(archive: bool) -> None:
    """STDC's official checkpoints are like that. Names cost time, so a tensor has a few at most."""
    tensor = torch.arange(6.0).view(2, 3)
    found = parse_torch(saved({"a": tensor, "b": tensor, "c": torch.ones(2)}, archive), "a.pth")
    assert equal(found, {"a": tensor, "b": tensor, "c": torch.ones(2)})
    assert found["a"] is found["b"]
    with pytest.raises(WeightsError, match="'n0' has 5 names"):
        parse_torch(saved({f"n{number}": tensor for number in range(5)}, archive), "a.pth")


def test_other_files_of_torch_are_refused() -> None:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.ReLU()), file)
    for data, message in [
        (file.getvalue(), "TorchScript"),
        (saved([torch.ones(1)]), "does not hold tensors by name"),
        (saved({1: torch.ones(1)}), "does not hold tensors by name"),
        (saved(network()), "it asks for torch.nn.modules"),
        (changed(saved({"a": torch.ones(1)}), "byteorder", b"big"), "big-endian"),
        (changed(saved({"a": torch.ones(1)}), "data/0", bytes(8)), "holds 8 bytes, not 1 values"),
        (saved({"a": torch.ones(100)}, archive=False)[:-10], "cut short"),
        (saved({"a": torch.ones(100)})[:-10], "not a zip file"),
        (saved({"a": torch.ones(100)}).replace(b"\0\0\x80?", b"\0\0\x80@", 1), "CRC-32"),
        (b"PK\x03\x04", "not a zip file"),
        (b"\x80\x02}.", "begins as no file of torch.save does"),
    ]:
        with pytest.raises(WeightsError, match=message):
            parse_torch(data, "a.pth")


def test_two_keys_that_become_one_are_refused(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="the same name"):
        load_weights(tmp_path / "a.pth")
