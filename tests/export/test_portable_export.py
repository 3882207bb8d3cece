"""`export --portable`, and the parity check where a network's own rounding is large, with a network that exports in a second."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from attention_model import attention_spec
from click.testing import CliRunner, Result
from onnx_parts import constant
from torch import Tensor, nn

from rtformer_deploy.cli import main
from rtformer_deploy.errors import ModelError
from rtformer_deploy.export.parity import Parity, check_export
from rtformer_deploy.formats.model_file import load_model, parse_model, read_spec, serialize_model
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.portable import is_written_out, put_back
from rtformer_deploy.nn.layers import AdaptiveMaxPool, cross_resolution_attention, grouped_double_norm
from rtformer_deploy.pipeline import Exported, export_model
from rtformer_deploy.types import ModelSpec, TensorSpec


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Sequential(AdaptiveMaxPool(2), nn.Conv2d(16, 32, 1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.pool(grouped_double_norm(x, 2)).flatten(2)
        return x + cross_resolution_attention(x, tokens[:, :16].transpose(1, 2), tokens[:, 16:], 0.5)


class Network(nn.Module):
    """Stem, attention, head; `gain` multiplies what cancels out again, so that FP32's rounding grows by it."""

    def __init__(self, gain: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.attention = Attention()
        self.head = nn.Conv2d(16, 5, 1)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.gain:
            x = (x + self.gain) - self.gain
        out: Tensor = self.head(self.attention(x))
        return out


def small_spec() -> ModelSpec:
    return replace(attention_spec(), input=TensorSpec("input", (1, 3, 48, 64), "float32"))


def network(gain: float = 0.0) -> Network:
    torch.manual_seed(0)
    return Network(gain)


@functools.cache
def portable() -> bytes:
    """The network without a gain as a portable file, exported once: PyTorch's exporter takes seconds."""
    return serialize_model(export_model(network(), small_spec(), portable=True).model)


def exported() -> ir.Model:
    """The same with its functions."""
    return put_back(parse_model(portable()))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command with a choice of one small network."""

    class Choice:
        origin = "small"

        def __init__(self, **_: object) -> None:
            self.network = network()

        def spec(self, **_: object) -> ModelSpec:
            return small_spec()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rtformer_deploy.export.weights_choice.choose_network", Choice)
    return lambda *arguments: CliRunner().invoke(main, ["export", "--variant", "slim", *arguments])


def test_a_portable_export_has_plain_operators_alone() -> None:
    model = parse_model(portable())
    assert not model.functions
    assert is_written_out(model)
    assert {node.domain for node in model.graph} == {""}
    assert read_spec(model) == small_spec()
    assert any(node.name == "attention/Softmax" for node in model.graph)
    operators = [node.op_type for node in exported().graph if node.domain]
    assert operators == ["GroupedDoubleNorm", "AdaptiveMaxPool", "CrossResolutionAttention"]


@pytest.mark.parametrize("arguments", [(), ("--portable",)])
def test_the_command_passes_on_what_was_asked_for(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    asked = []

    def export(_network: nn.Module, spec: ModelSpec, _opset: int, *, portable: bool) -> Exported:
        asked.append(portable)
        return Exported(exported(), spec, Parity(0.0, 0.0))

    monkeypatch.setattr("rtformer_deploy.commands.export.export_model", export)
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert asked == [bool(arguments)]
    assert (", portable" in result.stderr) == bool(arguments)
    assert serialize_model(load_model(Path("model.onnx"))) == serialize_model(exported())


def test_where_the_networks_own_rounding_is_large_fp64_decides() -> None:
    assert check_export(network(), exported(), small_spec()).noise is None
    noisy = network(gain=30000)
    parity = check_export(noisy, exported(), small_spec())
    assert parity.noise is not None
    assert parity.noise > 1e-4
    assert parity.difference < 3 * parity.noise
    wrong = clone(exported())
    weight = wrong.graph.initializers["head.weight"]
    weight.const_value = ir.tensor(constant(weight) * np.float32(1.05), name="head.weight")
    with pytest.raises(ModelError, match=r"the network's own FP32 is .* from FP64\. They first differ"):
        check_export(noisy, wrong, small_spec())


def test_a_network_whose_rounding_says_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="differs from the network"):
        check_export(network(gain=1e8), exported(), small_spec())


def test_the_command_warns_of_a_noisy_network(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    made = Exported(exported(), small_spec(), Parity(2e-4, 0.0, 1e-3))
    monkeypatch.setattr("rtformer_deploy.commands.export.export_model", lambda *_, **__: made)
    result = call()
    assert result.exit_code == 0, result.output
    assert "agrees with PyTorch in FP64 to 2.0e-04" in result.stdout
    assert "Warning: PyTorch's own FP32 is 1.0e-03 of the largest logit away from FP64" in result.stderr
    assert "FP16 and INT8 will show it" in result.stderr
