"""Models -> the folders of their repository: what Triton runs, and around it ensembles from a picture or a frame to its labels.

    NAME               ensemble: encoded pictures, image BYTES [N] -> labels UINT8 [N, H, W]
    NAME_rgb           raw frames: image UINT8 [N, H, W, 3] -> labels UINT8 [N, H, W]
    NAME_decode        pictures -> frames

An engine that this package runs is NAME_rgb itself. One that Triton runs is NAME_engine, between NAME_preprocess and NAME_postprocess, and
NAME_rgb is the ensemble of the three. So requests for frames of any sizes can be in one batch, and only labels leave the server.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..backends import backend_row
from ..errors import OutputError, UsageError
from ..files import read_bytes
from ..formats.spec_file import spec_text
from .config import Accelerator, Batching, EnsembleStep, Group, ModelConfig, Tensor, WarmUp
from .sample import bytes_tensor, sample_picture
from .source import Source
from .steps import ENGINE_FILES, PLAN, SPEC, TENSOR_TYPE
from .target import needs_of

#: The steps in Triton's Python, and the file that they are.
_MODEL = Path(__file__).with_name("model.py")
_KEEP = b"Triton wants this folder, and object stores keep no empty ones.\n"
_PICTURES, _LABELS = Tensor("image", "bytes", (-1,)), Tensor("labels", "uint8", (-1, -1, -1))
_FRAMES, _SIZES = Tensor("frames", "uint8", (-1, -1, -1, 3)), Tensor("sizes", "int32", (-1, 2))

AcceleratorName = Literal["tensorrt", "openvino", "none"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How Triton runs a repository's models; times in microseconds.

    `instances` of each engine run at once, and `helpers` processes of each step before and after it. `device` is the GPU, and `threads`
    limits the CPU threads of each instance of ours. Requests wait `delay_us` for a larger batch; see `config.Batching`. `accelerator` runs
    ONNX models, TensorRT in FP16 if `fp16`.
    """

    instances: int = 1
    helpers: int = 2
    device: int = 0
    threads: int | None = None
    delay_us: int = 0
    queue: int = 64
    timeout_us: int = 10_000_000
    accelerator: AcceleratorName = "none"
    fp16: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A model's folder: its configuration, and its other files by their path in it."""

    config: ModelConfig
    files: Mapping[str, bytes] = field(default_factory=dict)


def folders_of(sources: Sequence[Source], settings: Settings) -> dict[str, list[Folder]]:
    """Models -> the folders of each, by the model's name. Raises UsageError if two folders would have one name."""
    folders = {source.name: list(_folders(source, settings)) for source in sources}
    taken: dict[str, str] = {}
    for name, own in folders.items():
        for folder in own:
            key = folder.config.name.casefold()  # disks may ignore case
            if key in taken:
                what = f"The models {taken[key]} and {name} would both need the folder {folder.config.name}."
                raise UsageError(what, "Give them other names with --name.")
            taken[key] = name
    return folders


def accelerator_of(source: Source, settings: Settings) -> str | None:
    """The accelerator of an ONNX model; None if it has none, or for a plan."""
    return None if source.runs != "onnxruntime" or settings.accelerator == "none" else settings.accelerator


def _folders(source: Source, settings: Settings) -> Iterator[Folder]:
    name, remarks = source.name, tuple(f"Needs {need}." for need in needs_of(source, accelerator_of(source, settings)))
    steps = [
        EnsembleStep(f"{name}_decode", {"image": "image"}, {"frames": "frames"}),
        EnsembleStep(f"{name}_rgb", {"image": "frames"}, {"labels": "labels"}),
    ]
    yield _ensemble(name, _PICTURES, steps, ("Encoded pictures of one size -> their labels.", *remarks))
    yield _decode(source, settings)
    if source.runs == "python":
        yield _own_engine(source, settings, remarks)
        return
    yield _around(source, remarks)
    yield _preprocess(source, settings)
    yield _engine(source, settings, remarks)
    yield _postprocess(source, settings)


def _decode(source: Source, settings: Settings) -> Folder:
    warm_up = WarmUp("a picture", 1, ((Tensor("image", "bytes", (1,)), "picture"),))
    step = _step(f"{source.name}_decode", (_PICTURES,), (_FRAMES,), warm_up, settings)
    return Folder(step, {"1/model.py": _model(), "warmup/picture": bytes_tensor([sample_picture()])})


def _around(source: Source, remarks: tuple[str, ...]) -> Folder:
    """The ensemble around an engine that Triton runs."""
    name = source.name
    steps = [
        EnsembleStep(f"{name}_preprocess", {"frames": "image"}, {"tensor": "tensor", "sizes": "sizes"}),
        EnsembleStep(f"{name}_engine", {source.input.name: "tensor"}, {source.output.name: "output"}),
        EnsembleStep(f"{name}_postprocess", {"output": "output", "sizes": "sizes"}, {"labels": "labels"}),
    ]
    return _ensemble(f"{name}_rgb", Tensor("image", "uint8", _FRAMES.dims), steps, ("RGB frames of one size -> their labels.", *remarks))


def _preprocess(source: Source, settings: Settings) -> Folder:
    tensor = Tensor("tensor", source.input.dtype, (-1, 3, *source.spec.size))
    warm_up = WarmUp("a frame", 1, ((Tensor("frames", "uint8", (1, *source.spec.frame_size, 3)), None),))
    step = _step(f"{source.name}_preprocess", (_FRAMES,), (tensor, _SIZES), warm_up, settings)
    step = replace(step, parameters={**step.parameters, TENSOR_TYPE: tensor.dtype})
    return Folder(step, {"1/model.py": _model(), f"1/{SPEC}": spec_text(source.spec).encode()})


def _postprocess(source: Source, settings: Settings) -> Folder:
    output = Tensor("output", source.output.dtype, (-1, *_dims(source.output.shape)))
    zeros = Tensor("output", source.output.dtype, tuple(max(1, length) for length in output.dims))
    warm_up = WarmUp("an output", 1, ((zeros, None), (Tensor("sizes", "int32", (1, 2)), "sizes")))
    step = _step(f"{source.name}_postprocess", (output, _SIZES), (_LABELS,), warm_up, settings)
    sizes = np.array([source.spec.frame_size], np.int32).tobytes()
    return Folder(step, {"1/model.py": _model(), f"1/{SPEC}": spec_text(source.spec).encode(), "warmup/sizes": sizes})


def _ensemble(name: str, image: Tensor, steps: Sequence[EnsembleStep], remarks: tuple[str, ...]) -> Folder:
    config = ModelConfig(name, "ensemble", (image,), (_LABELS,), steps=tuple(steps), remarks=remarks)
    return Folder(config, {"1/.keep": _KEEP})


def _step(name: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], warm_up: WarmUp, settings: Settings) -> ModelConfig:
    """A step before or after the engine, which is what its name ends in, in processes of its own."""
    return ModelConfig(
        name,
        "python",
        inputs,
        outputs,
        group=Group(settings.helpers),
        batching=_queue(settings),
        warm_up=(warm_up,),
        parameters={"step": name.rpartition("_")[2]} | _threads(settings),
    )


def _own_engine(source: Source, settings: Settings, remarks: tuple[str, ...]) -> Folder:
    """The folder of an engine that this package runs, frames in and labels out."""
    assert source.info is not None
    on_gpu = backend_row(source.info.backend).on_gpu
    frame = Tensor("image", "uint8", (*source.spec.frame_size, 3))
    config = ModelConfig(
        f"{source.name}_rgb",
        "python",
        (Tensor("image", "uint8", (-1, -1, 3), ragged=True),),
        (Tensor("labels", "uint8", (-1, -1)),),
        source.batch[2],
        group=Group(settings.instances, "KIND_GPU", (settings.device,)) if on_gpu else Group(settings.instances),
        batching=_batching(source, settings),
        warm_up=tuple(WarmUp(_count(batch), batch, ((frame, None),)) for batch in sorted({1, source.batch[2]})),
        parameters={"step": "segment"} | _threads(settings),
        remarks=("RGB frames -> their labels, batched with others of any size.", *remarks),
    )
    return Folder(config, {"1/model.py": _model(), f"1/{PLAN}": source.data, f"1/{PLAN}.json": source.sidecar})


def _engine(source: Source, settings: Settings, remarks: tuple[str, ...]) -> Folder:
    """The folder of an engine that Triton runs: normalised tensors in, the engine's own output out."""
    on_gpu = source.runs == "tensorrt_plan" or settings.accelerator == "tensorrt"
    own = source.batch[:1] if source.fixed else ()
    entry = Tensor(source.input.name, source.input.dtype, (*own, *_dims(source.input.shape)))
    profiles = ("0",) if source.runs == "tensorrt_plan" and not source.fixed else ()
    file = ENGINE_FILES[source.runs]
    batches = [1] if source.fixed else sorted({source.batch[0], source.batch[2]})
    config = ModelConfig(
        f"{source.name}_engine",
        source.runs,
        (entry,),
        (Tensor(source.output.name, source.output.dtype, (*own, *_dims(source.output.shape))),),
        0 if source.fixed else source.batch[2],
        file,
        group=Group(settings.instances, "KIND_GPU" if on_gpu else "KIND_CPU", (settings.device,) if on_gpu else (), profiles),
        batching=_queue(settings) if source.fixed else _batching(source, settings),
        warm_up=tuple(WarmUp(_count(batch), batch, ((entry, None),)) for batch in batches),
        accelerator=_accelerator(source, settings),
        remarks=remarks,
    )
    files = {f"1/{file}": source.data}
    return Folder(config, files if source.info is None else {**files, f"1/{file}.json": source.sidecar})


def _accelerator(source: Source, settings: Settings) -> Accelerator | None:
    name = accelerator_of(source, settings)
    if name == "tensorrt":
        return Accelerator(name, True, {"precision_mode": "FP16" if settings.fp16 else "FP32"})
    return None if name is None else Accelerator(name, False)


def _batching(source: Source, settings: Settings) -> Batching:
    preferred = tuple(sorted({source.batch[1], source.batch[2]} - {1}))
    return Batching(preferred, settings.delay_us, settings.queue, settings.timeout_us)


def _queue(settings: Settings) -> Batching:
    """The queue of what takes one request at a time."""
    return Batching((), 0, settings.queue, settings.timeout_us)


def _threads(settings: Settings) -> dict[str, str]:
    return {} if settings.threads is None else {"threads": str(settings.threads)}


def _dims(shape: Sequence[int | str]) -> tuple[int, ...]:
    """A shape without its batch; what is not fixed in it is -1."""
    return tuple(size if isinstance(size, int) else -1 for size in shape[1:])


def _count(frames: int) -> str:
    return "one frame" if frames == 1 else f"{frames} frames"


@functools.cache
def _model() -> bytes:
    return read_bytes(_MODEL, OutputError, "a Python model")
