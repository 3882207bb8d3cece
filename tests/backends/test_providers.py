"""ONNX Runtime's plug-in execution providers: what a plan for one says, how it is opened, and what is refused."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import tiny_model, tiny_spec

from rtformer_deploy.backends import build, build_on_provider, open_engine
from rtformer_deploy.backends.onnxruntime import providers
from rtformer_deploy.backends.onnxruntime.providers import PROVIDERS, assignment, open_on_provider
from rtformer_deploy.backends.onnxruntime.run import ONNXRuntimeSession, open_model, session_options
from rtformer_deploy.errors import EngineError, MissingPackageError
from rtformer_deploy.types import BuildOptions, Engine

OPTIONS = BuildOptions(threads=1)


class Options:
    """As much of SessionOptions as a provider is added to."""

    intra_op_num_threads = 3

    def __init__(self) -> None:
        self.added: list[tuple[Any, dict[str, str]]] = []
        self.entries: dict[str, str] = {}

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.added.append((devices[0], options))

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


def session(**nodes: int) -> Any:
    """A session whose providers got so many nodes."""
    parts = [SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count) for name, count in nodes.items()]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine for OpenVINO's provider, with or without its package."""
    monkeypatch.setattr(providers, "_version", lambda row: "1.31.1")
    return build_on_provider(tiny_model(), tiny_spec(), "openvino", OPTIONS, "0" * 64)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The devices that a provider finds."""
    found: list[Any] = [SimpleNamespace(ep_name="OpenVINOExecutionProvider")]
    monkeypatch.setattr(providers, "_devices", lambda ort, row: found)
    return found


def test_a_plan_says_its_provider_and_that_its_layers_are_unknown(engine: Engine) -> None:
    assert engine.info.backend == "onnxruntime"
    assert engine.info.options == {"provider": "openvino"}
    assert (engine.info.precision.state, engine.info.precision.layers) == ("requested", {})


def test_a_provider_is_told_the_threads_and_its_share_is_counted(
    engine: Engine, devices: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda plan, options: session(OpenVINOExecutionProvider=5, CPUExecutionProvider=2))
    options = Options()
    opened = open_on_provider(engine, options, 0)
    assert options.added == [(devices[0], {"num_of_threads": "3", "precision": "FP32"})]
    assert assignment(opened) == "Nodes by execution provider: OpenVINOExecutionProvider 5 of 7, CPUExecutionProvider 2 of 7."


def test_a_provider_that_takes_nothing_is_refused(engine: Engine, devices: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda plan, options: session(CPUExecutionProvider=7))
    with pytest.raises(EngineError, match="OpenVINO EP took no node"):
        open_on_provider(engine, Options(), 0)


def test_a_machine_without_a_device_for_it_says_what_it_needs(engine: Engine, devices: list[Any]) -> None:
    devices.clear()
    with pytest.raises(EngineError, match="OpenVINO EP finds no device on this machine that it runs on: it needs an Intel processor"):
        open_engine(engine, threads=1)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, row in PROVIDERS.items():
        monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
        with pytest.raises(MissingPackageError) as caught:
            build_on_provider(tiny_model(), tiny_spec(), name, OPTIONS, "0" * 64)
        assert f"rtformer-deploy[{row.extra}]" in str(caught.value)


def test_a_plan_for_an_unknown_provider_is_refused(engine: Engine) -> None:
    engine.info.options["provider"] = "abacus"  # type: ignore[index]
    with pytest.raises(EngineError, match="'abacus', which this version does not know"):
        open_engine(engine, threads=1)


def test_a_provider_reads_its_input_anew_in_every_run(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's gives the first input's output for ever if its input is bound once."""
    plain = build(tiny_model(), tiny_spec(), "onnxruntime", OPTIONS)
    model = open_model(plain, session_options(1))
    for info, bindings in ((plain.info, 1), (engine.info, 3)):
        opened = ONNXRuntimeSession(model, info)
        calls: list[int] = []
        bind = opened._bind
        monkeypatch.setattr(opened, "_bind", lambda batch, calls=calls, bind=bind: (calls.append(batch), bind(batch)))
        outputs = []
        for value in (0.0, 1.0, 0.0):
            opened.input[:] = value
            opened.start(1)
            outputs.append(opened.wait().copy())
        opened.close()
        assert len(calls) == bindings
        assert np.array_equal(outputs[0], outputs[2])
        assert not np.array_equal(outputs[0], outputs[1])


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_ep_openvino") is None, reason="needs onnxruntime-ep-openvino")
def test_openvinos_provider_gives_what_onnx_runtime_gives() -> None:
    engine = build_on_provider(tiny_model(), tiny_spec(), "openvino", OPTIONS, "0" * 64)
    try:
        runner = open_engine(engine, threads=1)
    except EngineError as error:
        pytest.skip(error.what)
    with runner, open_engine(build(tiny_model(), tiny_spec(), "onnxruntime", OPTIONS), threads=1) as plain:
        for seed in range(3):
            frame = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)
            np.testing.assert_allclose(runner.logits([frame]), plain.logits([frame]), atol=1e-4)
