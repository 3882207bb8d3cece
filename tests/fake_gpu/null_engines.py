"""A fake GPU with a fake TensorRT where the runtime looks for the real ones, and engines for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from helpers import tiny_spec
from null_tensorrt import NullTensorRT

from rtformer_deploy.backends.tensorrt.library import TrtLibrary
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.nvidia.driver import GpuInfo
from rtformer_deploy.types import Backend, Engine, EngineInfo, Head, ModelSpec, PrecisionFound

_TENSORRT_TYPES = {"float32": "FLOAT", "uint8": "UINT8"}
GPU = GpuInfo(0, "NVIDIA Fake", "8.6", 8192, "13.0")


def make_info(head: Head = "lowres", **changes: Any) -> EngineInfo:
    spec = tiny_spec("batch", head)
    info = EngineInfo(
        spec=spec,
        backend="tensorrt",
        inputs=(spec.input,),
        outputs=(spec.output,),
        batch=(1, 2, 3),
        precision=PrecisionFound("fp16", "requested", {"fp16": 3}, "the network has 3 compute layers in fp16"),
        builder_version="tensorrt 10.3.0",
        gpu="NVIDIA Fake (8.6)",
        plan_sha256="",
        model_sha256="",
    )
    return dataclasses.replace(info, **changes)


def make_engine(head: Head = "lowres", **changes: Any) -> Engine:
    return Engine(b"plan", make_info(head, **changes))


def engine_of(fake: NullTensorRT, backend: Backend, model: ir.Model, spec: ModelSpec, batch: tuple[int, int, int]) -> Engine:
    """An engine for the fake GPU that computes what an ONNX model with a free batch computes; any batch may be asked of it."""
    session = onnxruntime.InferenceSession(serialize_model(model), providers=["CPUExecutionProvider"])
    fake.network = lambda images: np.asarray(session.run(None, {spec.input.name: images})[0])
    fake.rtx = backend == "tensorrt-rtx"
    fake.spec = spec
    fake.io = {tensor.name: _TENSORRT_TYPES[tensor.dtype] for tensor in (spec.input, spec.output)}
    version = f"{backend} {fake.module().__version__}"
    return make_engine(backend=backend, spec=spec, inputs=(spec.input,), outputs=(spec.output,), batch=batch, builder_version=version)


def set_gpus(monkeypatch: pytest.MonkeyPatch, *found: GpuInfo) -> None:
    for module in ("nvidia.driver", "backends.tensorrt.plan"):
        monkeypatch.setattr(f"rtformer_deploy.{module}.gpus", lambda: found)


def install(monkeypatch: pytest.MonkeyPatch, head: Head = "lowres") -> NullTensorRT:
    """Two fake GPUs and a fake TensorRT 10.3.0."""
    fake = NullTensorRT(tiny_spec("batch", head))
    library = TrtLibrary(fake.module(), "tensorrt", False)
    rtx = TrtLibrary(fake.module(), "tensorrt-rtx", True)
    set_gpus(monkeypatch, GPU, dataclasses.replace(GPU, index=1))
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.plan.load_library", lambda name, *_: library if name == "tensorrt" else rtx)
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.run.import_cuda", lambda: fake.cuda)
    for name in ("current_context", "set_context"):
        monkeypatch.setattr(f"rtformer_deploy.nvidia.driver.{name}", fake.driver[name])
    for name in ("stream_context", "memory_owner"):
        monkeypatch.setattr(f"rtformer_deploy.lanes.device_arrays.{name}", fake.driver[name])
    return fake
