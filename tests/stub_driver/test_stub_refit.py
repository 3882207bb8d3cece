"""refit with a fake TensorRT over real cuda.core: weights go in, and each way in which they cannot is one message."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fake_tensorrt import network
from helpers import frames, tiny_model, tiny_spec
from tensorrt_lab import TensorRTLab
from tensorrt_plans import make_engine

from rtformer_deploy.agreement import Probes
from rtformer_deploy.backends import open_engine, open_reference
from rtformer_deploy.backends.here import complete_precision
from rtformer_deploy.cli import main
from rtformer_deploy.errors import EngineError, GateError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.engine_file import load_engine, save_engine
from rtformer_deploy.formats.model_file import file_sha256, save_model
from rtformer_deploy.graph.weight_list import refit_of
from rtformer_deploy.pipeline import prepare_model, probe_input, refit_engine
from rtformer_deploy.types import Backend, BuildOptions, Engine, PrecisionFound, PrecisionName

ONE = BuildOptions(threads=1)
SIZES = ((64, 96), (50, 70))


def stripped(backend: Backend = "tensorrt", precision: PrecisionName = "fp32", **changes: Any) -> Engine:
    """A plan without weights, of the tiny network with the weights of seed 0."""
    spec = tiny_spec("batch")
    options = BuildOptions(precision=precision, batch=(1, 2, 3))
    refit = refit_of(prepare_model(tiny_model("batch"), backend, options, probe=probe_input(spec)), (), ())
    found = PrecisionFound(precision, "requested", {precision: 3})
    version, gpu = f"{backend} 10.3.0", "NVIDIA Fake (8.6)" if backend == "tensorrt" else "compute capability 8.0, 8.6"
    told: dict[str, Any] = {"backend": backend, "refit": refit, "precision": found, "builder_version": version, "gpu": gpu}
    engine = make_engine(**told | changes)
    return dataclasses.replace(engine, info=dataclasses.replace(engine.info, plan_sha256=sha256(engine.plan)))


def refitted(engine: Engine, seed: int = 1, **options: Any) -> Engine:
    return refit_engine(engine, tiny_model("batch", seed=seed), tiny_spec("batch"), ONE, **options)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_new_plan_computes_with_the_models_weights(machine: TensorRTLab, backend: Backend, precision: PrecisionName) -> None:
    machine.rtx = backend == "tensorrt-rtx"
    model = tiny_model("batch", seed=1)
    made = refit_engine(stripped(backend, precision), model, tiny_spec("batch"), ONE)
    assert made.plan == b"plan with weights refittable"
    assert made.info.plan_sha256 == sha256(made.plan)
    assert made.info.model_sha256 == file_sha256(model)
    assert made.info.flips is not None
    assert made.info.flips < 0.01
    assert not made.info.stripped
    given = frames(*SIZES)
    with open_engine(made) as runner, open_reference(model, tiny_spec("batch"), BuildOptions(batch=(1, 2, 3), threads=1)) as reference:
        for labels, expected in zip(runner.run(given), reference.run(given), strict=True):
            assert np.mean(labels != expected) < 0.01
    assert machine.network is not network


def test_a_plan_from_refit_can_be_refitted_again(machine: TensorRTLab) -> None:
    first = refitted(stripped())
    second = refitted(first, seed=2)
    assert second.info.refit is not None
    assert second.info.refit.weights != first.info.refit.weights  # type: ignore[union-attr]
    assert second.info.flips == 0


def test_what_the_build_had_is_taken_too(machine: TensorRTLab) -> None:
    engine = stripped()
    machine.not_exchangeable = {"weight1"}
    made = refitted(engine, seed=0)  # its own weights: what TensorRT keeps is the same
    assert made.info.refit == dataclasses.replace(engine.info.refit, stripped=False)  # type: ignore[type-var]


def test_versions_without_the_flag_write_the_plan_all_the_same(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.knows_include_refit = False
    machine.install(monkeypatch)
    assert refitted(stripped()).plan == b"plan with weights"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"refittable": False}, "TensorRT says that this plan's weights cannot be exchanged."),
        ({"takes_weights": False}, "TensorRT does not take the model's weights:\n  refit error 0"),
        ({"not_in_the_model": {"b", "a"}}, "The plan needs weights that the model does not give:\n  a\n  b"),
        ({"not_in_the_model": {"a"}, "tells_missing": False}, "The plan needs weights that the model does not give:\n  a"),
        ({"not_exchangeable": {"weight1"}}, "The plan keeps values of its build for weights that are others in the model:\n  weight1"),
        ({"exchanges": False}, "TensorRT could not put the weights in:\n  the weights went missing"),
        ({"writes": False}, "TensorRT could not write the plan with its weights; it gave no reason."),
    ],
)
def test_what_tensorrt_does_not_do_is_said(machine: TensorRTLab, state: dict[str, Any], message: str) -> None:
    for name, value in state.items():
        setattr(machine, name, value)
    with pytest.raises(EngineError) as caught:
        refitted(stripped())
    assert str(caught.value).startswith(message)
    assert ("refit" in " ".join(machine.journal())) == (not state.keys().isdisjoint({"exchanges", "writes"}))


def test_a_plan_for_another_gpu_is_refused_before_it_is_opened(machine: TensorRTLab) -> None:
    with pytest.raises(EngineError, match=r"built for NVIDIA Other \(8.6\); here is NVIDIA Fake"):
        refitted(stripped(gpu="NVIDIA Other (8.6)"))
    assert machine.journal() == []


def test_a_plan_without_weights_is_not_opened(machine: TensorRTLab) -> None:
    with pytest.raises(EngineError, match=r"The plan holds no weights: it was built with --strip.\nPut a model's weights in: rtformer-dep"):
        open_engine(stripped())
    assert machine.journal() == []


def test_its_layers_are_read_without_a_context(machine: TensorRTLab) -> None:
    machine.layers_with_context = [{"LayerType": "conv", "Inputs": [{"Format/Datatype": "Float"}]}]
    assert complete_precision(stripped()).info.precision.state == "requested"
    machine.layers = machine.layers_with_context
    assert complete_precision(stripped()).info.precision.state == "verified"
    assert machine.count("TensorRT: shape") == 0


def test_the_bound_on_changed_pixels_holds(machine: TensorRTLab) -> None:
    with pytest.raises(GateError, match=r"0\.0000% of the pixels"):
        refitted(stripped(), probes=Probes(max_flips=-1.0))


def test_the_command_writes_a_plan_and_leaves_the_engine_as_it_is(machine: TensorRTLab, tmp_path: Path) -> None:
    save_engine(stripped(), tmp_path / "a.plan")
    save_model(tiny_model("batch", seed=1), tmp_path / "b.onnx")
    before = (tmp_path / "a.plan").read_bytes(), (tmp_path / "a.plan.json").read_bytes()
    call = ["refit", *(str(tmp_path / name) for name in ("a.plan", "b.onnx")), "-o", str(tmp_path / "b.plan"), "--threads", "1"]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
    assert "Against ONNX Runtime on the model: 0.0000% of the pixels change class" in result.stdout
    assert ((tmp_path / "a.plan").read_bytes(), (tmp_path / "a.plan.json").read_bytes()) == before
    made = load_engine(tmp_path / "b.plan")
    assert made.plan == b"plan with weights refittable"
    assert not made.info.stripped
    machine.not_exchangeable = {"weight0", "weight2"}
    save_model(tiny_model("batch", seed=2), tmp_path / "b.onnx")
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: The plan keeps values of its build for weights that are others in the model:\n  weight0\n  weight2\n"
    )
    assert load_engine(tmp_path / "b.plan") == made
