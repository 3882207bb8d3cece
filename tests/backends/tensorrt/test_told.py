"""What TensorRT says reaches the user: all of it, the cause first, no more than a person reads."""

from __future__ import annotations

import numpy as np
import pytest
from elsewhere_models import Maker, foreign, spec
from onnx import ModelProto

from rtformer_deploy.backends import build
from rtformer_deploy.backends.tensorrt.log import as_details, causes_first
from rtformer_deploy.errors import BuildError
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import BuildOptions

_CUDA = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient)"


def test_that_there_is_no_gpu_comes_last() -> None:
    said = f"{_CUDA}\nInvalid Node - conv\nITensor::getDimensions: Error Code 4: input has type Int32\n{_CUDA}"
    assert causes_first(said) == ["ITensor::getDimensions: Error Code 4: input has type Int32", _CUDA, "Invalid Node - conv"]
    assert causes_first(_CUDA) == [_CUDA]
    assert causes_first(' While parsing node number 0 [Conv -> "y"]:\n--- Begin node ---\nNode name: c\n--- End node ---\n[6] reason') == [
        "reason"
    ]


def test_no_error_is_longer_than_a_person_reads() -> None:
    details = as_details([f"{index} {'x' * 1000}" for index in range(50)])
    assert len(details) == 21
    assert max(map(len, details)) <= 402
    assert details[-1] == "  ... and 30 more lines"


def biased() -> ModelProto:
    """A convolution whose bias is in int32 behind a DequantizeLinear, as ONNX Runtime's tools write it for TensorRT."""
    make = Maker()
    make.weight("w", 16, 16, 1, 1)
    make.constant("bias_int32", np.arange(16, dtype=np.int32))
    make.constant("bias_scale", np.float32(0.01))
    make.add("DequantizeLinear", ["bias_int32", "bias_scale"], "bias")
    return make.finish(make.add("Conv", [make.features(), "w", "bias"], "middle"))


def test_the_reason_is_told_though_there_is_no_gpu() -> None:
    pytest.importorskip("tensorrt_rtx")
    model = foreign(biased())
    with pytest.raises(BuildError) as caught:
        build(model, spec(), "tensorrt-rtx", BuildOptions())  # as it is; prepare_model would store the bias as numbers
    first = caught.value.details[0]
    assert first.startswith("  node ")
    assert "DequantizeLinear /bias" in first
    assert "input has type Int32" in first
    prepared = prepare_model(model, "tensorrt-rtx", BuildOptions())
    assert build(prepared, spec(), "tensorrt-rtx", BuildOptions()).info.precision.state == "requested"
