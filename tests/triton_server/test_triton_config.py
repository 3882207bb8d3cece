"""config.pbtxt: typed values in, text out that parses to the same values."""

from __future__ import annotations

import pytest
from text_protobuf import parse

from rtformer_deploy.triton.config import Accelerator, Batching, EnsembleStep, Group, ModelConfig, Tensor, WarmUp
from rtformer_deploy.triton.text_format import Message, Word, entries, write


def test_a_whole_configuration() -> None:
    text = ModelConfig(
        "street_engine",
        "tensorrt_plan",
        (Tensor("input", "float32", (3, 64, 96)),),
        (Tensor("logits", "float32", (5, 8, 12)),),
        8,
        "model.plan",
        Group(2, "KIND_GPU", (1,), ("0",)),
        Batching((4, 8), 500, 64, 10_000_000),
        (WarmUp("one frame", 1, ((Tensor("input", "float32", (3, 64, 96)), None),)),),
        parameters={"step": "x"},
        remarks=("Needs TensorRT 10.3.0,\nno other build.",),
    ).text()
    assert text.startswith(
        '# Needs TensorRT 10.3.0, no other build.\nname: "street_engine"\nplatform: "tensorrt_plan"\nmax_batch_size: 8\n'
    )
    policy = {
        "timeout_action": ["REJECT"],
        "default_timeout_microseconds": [10_000_000],
        "allow_timeout_override": [True],
        "max_queue_size": [64],
    }
    value = {"data_type": ["TYPE_FP32"], "dims": [3, 64, 96], "zero_data": [True]}
    assert parse(text) == {
        "name": ["street_engine"],
        "platform": ["tensorrt_plan"],
        "max_batch_size": [8],
        "default_model_filename": ["model.plan"],
        "input": [{"name": ["input"], "data_type": ["TYPE_FP32"], "dims": [3, 64, 96]}],
        "output": [{"name": ["logits"], "data_type": ["TYPE_FP32"], "dims": [5, 8, 12]}],
        "version_policy": [{"latest": [{"num_versions": [1]}]}],
        "instance_group": [{"count": [2], "kind": ["KIND_GPU"], "gpus": [1], "profile": ["0"]}],
        "dynamic_batching": [{"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": [500], "default_queue_policy": [policy]}],
        "model_warmup": [{"name": ["one frame"], "batch_size": [1], "inputs": [{"key": ["input"], "value": [value]}]}],
        "parameters": [{"key": ["step"], "value": [{"string_value": ["x"]}]}],
        "response_cache": [{"enable": [False]}],
    }


def test_an_ensemble_and_an_accelerator() -> None:
    step = EnsembleStep("a_decode", {"image": "image"}, {"frames": "frames"})
    found = parse(ModelConfig("a", "ensemble", (Tensor("image", "bytes", (-1,)),), (), steps=(step,)).text())
    assert found["input"] == [{"name": ["image"], "data_type": ["TYPE_STRING"], "dims": [-1]}]
    maps = {"input_map": [{"key": ["image"], "value": ["image"]}], "output_map": [{"key": ["frames"], "value": ["frames"]}]}
    assert found["ensemble_scheduling"] == [{"step": [{"model_name": ["a_decode"], "model_version": [-1], **maps}]}]
    fast = ModelConfig("b", "onnxruntime", (), (), accelerator=Accelerator("tensorrt", True, {"precision_mode": "FP16"}))
    (optimization,) = parse(fast.text())["optimization"]
    parameters = [{"key": ["precision_mode"], "value": ["FP16"]}]
    assert optimization == {"execution_accelerators": [{"gpu_execution_accelerator": [{"name": ["tensorrt"], "parameters": parameters}]}]}


@pytest.mark.parametrize("text", ["plain", 'a "quoted" \\ one', "line\nend\ttab", "Straße \u4e2d\U0001f600", "\x00\x7f"])
def test_any_text_comes_back(text: str) -> None:
    written = write({"name": text})
    assert written.isascii()
    assert written.count("\n") == 1
    assert parse(written) == {"name": [text]}


def test_scalars_lists_and_maps() -> None:
    message: Message = {"a": True, "b": -1, "c": Word("KIND_CPU"), "d": [], "e": ["x", "y"], "f": {}, "g": entries({"k": 1})}
    assert write(message) == 'a: true\nb: -1\nc: KIND_CPU\ne: [ "x", "y" ]\nf {\n}\ng {\n  key: "k"\n  value: 1\n}\n'
