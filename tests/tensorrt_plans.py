"""TensorRT plans and the GPUs that they are for, where neither TensorRT nor a GPU is needed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from helpers import tiny_spec

from rtformer_deploy.nvidia.driver import GpuInfo
from rtformer_deploy.types import Engine, EngineInfo, Head, PrecisionFound

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
        plan_sha256="0" * 64,
        model_sha256="0" * 64,
    )
    return dataclasses.replace(info, **changes)


def half_ends(info: EngineInfo) -> EngineInfo:
    """The same with an input and logits in FP16, as --io fp16 makes them."""
    half = [dataclasses.replace(each, dtype="float16") for each in (info.inputs[0], info.outputs[0])]
    outputs = info.outputs if info.spec.head == "labels" else (half[1],)
    return dataclasses.replace(info, inputs=(half[0],), outputs=outputs)


def make_engine(head: Head = "lowres", **changes: Any) -> Engine:
    return Engine(b"plan", make_info(head, **changes))


def set_gpus(monkeypatch: pytest.MonkeyPatch, *found: GpuInfo) -> None:
    """What the machine's GPUs are, whatever they are."""
    for module in ("nvidia.driver", "backends", "backends.tensorrt.plan", "backends.tensorrt.refit"):
        monkeypatch.setattr(f"rtformer_deploy.{module}.gpus", lambda: found)
