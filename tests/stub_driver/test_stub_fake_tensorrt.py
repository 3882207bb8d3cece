"""The fake TensorRT has the names of the real one, so that what runs on it does not call what is not there."""

from __future__ import annotations

from typing import Any

import fake_tensorrt
import pytest


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (fake_tensorrt.Context, "IExecutionContext"),
        (fake_tensorrt.CudaEngine, "ICudaEngine"),
        (fake_tensorrt.RuntimeConfig, "IRuntimeConfig"),
        (fake_tensorrt.RuntimeCache, "IRuntimeCache"),
        (fake_tensorrt.Runtime, "Runtime"),
        (fake_tensorrt.Refitter, "Refitter"),
        (fake_tensorrt.OnnxParserRefitter, "OnnxParserRefitter"),
        (fake_tensorrt.SerializationConfig, "ISerializationConfig"),
    ],
)
def test_what_the_fake_has_tensorrt_rtx_has(fake: Any, real: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    assert public(fake) - set(dir(getattr(trt, real))) == set()
    assert {"WHOLE_GRAPH_CAPTURE", "DISABLED"} <= set(dir(trt.CudaGraphStrategy))
    assert hasattr(trt.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(trt.ICudaEngine, "create_runtime_config")
