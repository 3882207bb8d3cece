"""What this package does inside Triton: a step of an ensemble turns the tensors of requests into tensors. No Triton is needed for it.

    decode        image [N] bytes -> frames (N, H, W, 3)
    preprocess    frames -> tensor (N, 3, h, w), the engine's input, and sizes (N, 2), the frames' own
    postprocess   output, the engine's, and sizes -> labels (N, H, W)
    segment       image (N, H, W, 3) -> labels (N, H, W), with the engine in this process

The frames of one request are of one size, since a tensor is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError, ImageError, UsageError
from ..formats.documents import parse_json
from ..formats.spec_file import load_spec
from ..image.decode import MAX_PIXELS, decode_image
from ..runtime.cpu_session import label_maps, preprocess_frames
from ..runtime.runner import Runner
from ..types import Frame, ModelSpec

Tensors = Mapping[str, NDArray[Any]]

#: The names of files beside model.py.
PLAN, SPEC = "engine.plan", "spec.json"
#: What runs an engine -> the name of its file.
ENGINE_FILES = {"python": PLAN, "tensorrt_plan": "model.plan", "onnxruntime": "model.onnx"}


#: The parameter of the step `preprocess` that names the type of the engine's input; repositories of earlier versions have none.
TENSOR_TYPE = "tensor_type"


class Step(Protocol):
    """One step: the tensors that it takes, and requests -> answers in the same order, each its tensors or what is wrong with it."""

    inputs: tuple[str, ...]

    def run(self, requests: Sequence[Tensors]) -> list[Tensors | DeployError]: ...

    def close(self) -> None: ...


def open_step(arguments: Mapping[str, str]) -> Step:
    """What Triton gives to a Python model's `initialize` -> the step that its config.pbtxt names. Raises a DeployError."""
    folder = Path(arguments["model_repository"]) / arguments["model_version"]
    parameters = parse_json(arguments["model_config"]).get("parameters", {})
    values: dict[str, str] = {name: value["string_value"] for name, value in parameters.items()}
    threads = int(values["threads"]) if "threads" in values else None
    step = values.get("step")
    if step == "decode":
        return Each(decode, "image")
    if step == "preprocess":
        return Each(preprocessing(load_spec(folder / SPEC), threads, values.get(TENSOR_TYPE, "float32")), "frames")
    if step == "postprocess":
        return Each(postprocessing(load_spec(folder / SPEC), threads), "output", "sizes")
    if step == "segment":
        from ..opening import open_any  # what it imports would take the other steps' processes seconds and memory

        return Segment(open_any(folder / PLAN, device=int(arguments["model_instance_device_id"]), threads=threads))
    raise UsageError(f"config.pbtxt names the step {step!r}, which this version of rtformer-deploy does not know.")


class Each:
    """A step that looks at each request alone: `work` gets its tensors by name."""

    def __init__(self, work: Callable[..., Tensors], *inputs: str) -> None:
        self.inputs = inputs
        self._work = work

    def run(self, requests: Sequence[Tensors]) -> list[Tensors | DeployError]:
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        """There is nothing to close."""

    def _answer(self, request: Tensors) -> Tensors | DeployError:
        try:
            return self._work(**request)
        except DeployError as error:
            return error


class Segment:
    """The step with the engine: the frames of all requests are run together, in batches that the engine takes."""

    inputs: tuple[str, ...] = ("image",)

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, requests: Sequence[Tensors]) -> list[Tensors | DeployError]:
        """Raises what the engine raises: then Triton answers all of them with it."""
        frames = [_frames_or_error(request["image"]) for request in requests]
        labels = iter(self._runner.run([frame for each in frames if isinstance(each, list) for frame in each]))
        return [{"labels": np.stack([next(labels) for _ in each])} if isinstance(each, list) else each for each in frames]

    def close(self) -> None:
        self._runner.close()


def decode(image: NDArray[Any]) -> Tensors:
    """Encoded pictures [N] of one size -> frames (N, H, W, 3). Raises ImageError."""
    frames = [decode_image(bytes(each), "The image") for each in image.ravel()]
    if not frames:
        raise ImageError("The request holds no picture.")
    if len({frame.shape for frame in frames}) > 1:
        raise ImageError("The pictures of one request have different sizes, so their labels are not one tensor.", "Send them one by one.")
    return {"frames": np.stack(frames)}


def preprocessing(spec: ModelSpec, threads: int | None, dtype: str = "float32") -> Callable[[NDArray[np.uint8]], Tensors]:
    """A model -> what makes its input of frames, as `dtype`, "float32" or "float16"."""

    def work(frames: NDArray[np.uint8]) -> Tensors:
        checked = _frames(frames)
        tensor: NDArray[np.floating] = np.empty((len(checked), 3, *spec.size), dtype)
        preprocess_frames(checked, spec, tensor, threads)
        return {"tensor": tensor, "sizes": np.array([frame.shape[:2] for frame in checked], np.int32)}

    return work


def postprocessing(spec: ModelSpec, threads: int | None) -> Callable[[NDArray[Any], NDArray[np.int32]], Tensors]:
    """A model -> what makes label maps of its output, at the frames' sizes."""

    def work(output: NDArray[Any], sizes: NDArray[np.int32]) -> Tensors:
        places = [(int(height), int(width)) for height, width in sizes]
        if len(places) != len(output) or len(set(places)) != 1:
            raise ImageError(f"The sizes are {places[:3]} for {len(output)} outputs; expected one height and width, once for each output.")
        height, width = places[0]
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise ImageError(f"A frame of {height}x{width} is not one of 1 to {MAX_PIXELS:,} pixels.")
        return {"labels": np.stack(label_maps(output, places, spec, threads))}

    return work


def _frames_or_error(image: NDArray[np.uint8]) -> list[Frame] | DeployError:
    try:
        return _frames(image)
    except DeployError as error:
        return error


def _frames(image: NDArray[np.uint8]) -> list[Frame]:
    """A tensor of frames -> them. Raises ImageError if there are none, or frames without pixels."""
    if image.ndim != 4 or image.shape[-1] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ImageError(f"The frames are {image.dtype} {image.shape}; expected RGB uint8 (N, H, W, 3), at least one pixel of one frame.")
    return list(image)
