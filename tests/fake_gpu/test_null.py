"""The fake GPU has the names of the real one, so that a lane that runs on it does not call what is not there."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import null
import null_tensorrt
import pytest


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")} | ({"__sub__"} & vars(kind).keys())


#: What only tests look at.
OWN = {"Stream": {"enqueue", "step"}, "Buffer": {"closed", "kind_of_memory"}}


@pytest.mark.parametrize("name", ["Device", "Stream", "Event", "Buffer", "GraphBuilder", "Graph"])
def test_what_the_fake_has_cuda_core_has(name: str) -> None:
    module = pytest.importorskip("cuda.core", reason="needs cuda-core", exc_type=ImportError)
    home = importlib.import_module("cuda.core.graph") if name.startswith("Graph") else module
    real = getattr(home, name)
    missing = public(getattr(null, name)) - OWN.get(name, set()) - set(dir(real))
    assert missing == set()


def test_the_module_has_what_the_fake_has() -> None:
    module = pytest.importorskip("cuda.core", reason="needs cuda-core", exc_type=ImportError)
    missing = {name for name in vars(null.NullGpu().cuda) if not hasattr(module, name)}
    assert missing == set()


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (null_tensorrt.Context, "IExecutionContext"),
        (null_tensorrt.CudaEngine, "ICudaEngine"),
        (null_tensorrt.RuntimeConfig, "IRuntimeConfig"),
        (null_tensorrt.RuntimeCache, "IRuntimeCache"),
        (null_tensorrt.Runtime, "Runtime"),
    ],
)
def test_what_the_fake_has_tensorrt_rtx_has(fake: Any, real: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    assert public(fake) - set(dir(getattr(trt, real))) == set()
    assert {"WHOLE_GRAPH_CAPTURE", "DISABLED"} <= set(dir(trt.CudaGraphStrategy))
    assert hasattr(trt.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(trt.ICudaEngine, "create_runtime_config")


def test_a_capture_is_begun_with_a_mode_that_cuda_core_knows() -> None:
    module = pytest.importorskip("cuda.core.graph", reason="needs cuda-core", exc_type=ImportError)
    assert "thread_local" in (inspect.getdoc(module.GraphBuilder.begin_building) or "")
