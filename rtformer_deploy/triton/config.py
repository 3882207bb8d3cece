"""One model's configuration as Triton knows it (ModelConfig), typed, and its config.pbtxt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .text_format import Message, Value, Word, entries, write

Kind = Literal["KIND_CPU", "KIND_GPU"]

#: NumPy dtype name -> Triton's; "bytes" are texts of any length, such as encoded pictures.
_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bytes": "TYPE_STRING",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: its name, NumPy dtype name and dimensions; -1 is any size.

    With `ragged` an input's requests may be put into one batch even if their sizes differ.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    ragged: bool = False

    def message(self) -> Message:
        ragged: Message = {"allow_ragged_batch": True} if self.ragged else {}
        return {"name": self.name, "data_type": Word(_TYPES[self.dtype]), "dims": self.dims, **ragged}


@dataclass(frozen=True, slots=True)
class Group:
    """How many instances of a model run, and where; `profiles` are TensorRT's."""

    count: int
    kind: Kind = "KIND_CPU"
    gpus: tuple[int, ...] = ()
    profiles: tuple[str, ...] = ()

    def message(self) -> Message:
        return {"count": self.count, "kind": Word(self.kind), "gpus": self.gpus, "profile": self.profiles}


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are put together: these batches are run at once, others wait `delay_us` for more (times in microseconds).

    `queue` requests wait at most; more are refused, and so is one that has waited `timeout_us`.
    """

    preferred: tuple[int, ...]
    delay_us: int
    queue: int
    timeout_us: int

    def message(self) -> Message:
        policy: Message = {
            "timeout_action": Word("REJECT"),
            "default_timeout_microseconds": self.timeout_us,
            "allow_timeout_override": True,
            "max_queue_size": self.queue,
        }
        return {
            "preferred_batch_size": self.preferred,
            "max_queue_delay_microseconds": self.delay_us,
            "default_queue_policy": policy,
        }


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A request that each instance runs before it is ready: its inputs, each zero everywhere or the bytes of a file in warmup/."""

    name: str
    batch: int
    inputs: tuple[tuple[Tensor, str | None], ...]

    def message(self) -> Message:
        inputs: dict[str, Value] = {}
        for tensor, file in self.inputs:
            data: Message = {"zero_data": True} if file is None else {"input_data_file": file}
            inputs[tensor.name] = {"data_type": Word(_TYPES[tensor.dtype]), "dims": tensor.dims, **data}
        return {"name": self.name, "batch_size": self.batch, "inputs": entries(inputs)}


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """A model in an ensemble; `inputs` and `outputs` map its tensors to the ensemble's."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def message(self) -> Message:
        return {
            "model_name": self.model,
            "model_version": -1,
            "input_map": entries(dict(self.inputs)),
            "output_map": entries(dict(self.outputs)),
        }


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What runs a model for ONNX Runtime, on a GPU or on the CPU, and its parameters."""

    name: str
    on_gpu: bool
    parameters: Mapping[str, str] = field(default_factory=dict)

    def message(self) -> Message:
        one: Message = {"name": self.name, "parameters": entries(dict(self.parameters))}
        return {"execution_accelerators": {f"{'gpu' if self.on_gpu else 'cpu'}_execution_accelerator": [one]}}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One folder of a repository. `runs` is its backend, or a platform: tensorrt_plan or ensemble.

    `file` is what it runs, in its version's folder; `largest_batch` is 0 if requests name every dimension themselves. `remarks` are
    comments for a person.
    """

    name: str
    runs: Literal["python", "onnxruntime", "tensorrt_plan", "ensemble"]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    largest_batch: int = 0
    file: str | None = None
    group: Group | None = None
    batching: Batching | None = None
    warm_up: tuple[WarmUp, ...] = ()
    steps: tuple[EnsembleStep, ...] = ()
    accelerator: Accelerator | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def text(self) -> str:
        """config.pbtxt. One version, the newest, is served, and no answer comes from a cache."""
        place = "platform" if self.runs in ("tensorrt_plan", "ensemble") else "backend"
        parts: dict[str, Value] = {"name": self.name, place: self.runs, "max_batch_size": self.largest_batch}
        if self.file is not None:
            parts["default_model_filename"] = self.file
        parts["input"] = [tensor.message() for tensor in self.inputs]
        parts["output"] = [tensor.message() for tensor in self.outputs]
        parts["version_policy"] = {"latest": {"num_versions": 1}}
        if self.group is not None:
            parts["instance_group"] = [self.group.message()]
        if self.batching is not None:
            parts["dynamic_batching"] = self.batching.message()
        if self.accelerator is not None:
            parts["optimization"] = self.accelerator.message()
        if self.steps:
            parts["ensemble_scheduling"] = {"step": [step.message() for step in self.steps]}
        parts["model_warmup"] = [each.message() for each in self.warm_up]
        parts["parameters"] = entries({key: {"string_value": value} for key, value in self.parameters.items()})
        parts["response_cache"] = {"enable": False}
        return write(parts, self.remarks)
