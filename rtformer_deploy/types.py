"""The frozen data types that the stages share. Importing this loads nothing heavy, not even NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Frame: TypeAlias = "NDArray[np.uint8]"  # (H, W, 3) RGB
LabelMap: TypeAlias = "NDArray[np.uint8]"  # (H, W) class ids
Logits: TypeAlias = "NDArray[np.float32]"  # (N, classes, h, w)

Head = Literal["lowres", "logits", "labels"]
Resize = Literal["stretch", "letterbox"]
PrecisionName = Literal["fp32", "fp16", "int8"]
PrecisionState = Literal["verified", "requested", "mismatch"]
Backend = str  # a name in the table of backends, `backends.BACKENDS`
_Value = TypeVar("_Value")

#: Takes one line that a person should read.
Say = Callable[[str], None]
#: Called during a long step with (phase, steps done, steps in all). To stop the step, raise an exception in it: the
#: exception ends the step and reaches the caller.
Progress = Callable[[str, int, int], None]


def no_progress(phase: str, done: int, total: int) -> None:
    """A Progress that tells nobody."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Where a long task reports: `say` takes lines for a person, `progress` takes the steps."""

    say: Say = print
    progress: Progress = no_progress


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and NumPy dtype name of one input or output; a symbolic dimension is its name ("batch")."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["name"], tuple(data["shape"]), data["dtype"])


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model is, from its architecture to the pixels that it expects. Every file that we write carries it as text.

    `arch` is the architecture's name and configuration ({"name": "rtformer", "base_channels": 32, ...}). `palette` has one
    RGB triple for each class. `input` is (N, 3, H, W) float32, normalised RGB; `output` is what `head` says: "lowres" logits at
    the network's stride, "logits" at full size, uint8 "labels". `weights` names the weights' origin, `sha256` is
    their hash (see `nn.weights.weights_hash`).
    """

    name: str
    arch: Mapping[str, Any]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    input: TensorSpec
    output: TensorSpec
    head: Head = "lowres"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: Resize = "stretch"
    weights: str | None = None
    sha256: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the input."""
        height, width = self.input.shape[2:]
        assert isinstance(height, int), "an engine has one spatial size"
        assert isinstance(width, int), "an engine has one spatial size"
        return height, width

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        for name in ("input", "output"):
            values[name] = TensorSpec.from_json(values[name])
        for name in ("classes", "mean", "std"):
            values[name] = tuple(values[name])
        values["palette"] = tuple(tuple(colour) for colour in values["palette"])
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


@dataclass(frozen=True, slots=True)
class PrecisionFound:
    """The precision an engine was asked for and the one its layers really have.

    `state` is "verified" (read from the layers, and it is the one asked for), "requested" (nothing could be read here: an ahead-of-time
    plan on a machine that cannot open it) or "mismatch". `layers` counts the compute layers by precision name.
    """

    asked: PrecisionName
    state: PrecisionState
    layers: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ranges:
    """What calibration measured: tensor -> the largest absolute value that INT8 is to hold (`amax`).

    `images` is how many were shown; `weights_sha256` the hash of the weights and the configuration they belong to (see
    `formats.model_file.weights_sha256`), `model` their name. `mean`, `std` and `resize` are how the images were prepared, as in a
    ModelSpec. Ranges hold for these weights with this preprocessing, at every size: see `formats.ranges.check_ranges`.
    """

    amax: Mapping[str, float]
    method: str
    images: int
    weights_sha256: str
    model: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: Resize = "stretch"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `engine.plan` is: all that is needed to refuse or describe it without opening it. Kept as `engine.plan.json`.

    `model_sha256` is the hash of the model's file as it was given, before any pass. `gpu` is the device or the compute capabilities
    that the plan was built for (None: CPU); `flips` the share of pixels whose class changed against ONNX Runtime on the model it came
    from (None: the engine could not be run where it was built). `notes` are what a person should know before trusting the engine.
    """

    spec: ModelSpec
    backend: Backend
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: tuple[int, int, int]
    precision: PrecisionFound
    builder_version: str
    gpu: str | None
    plan_sha256: str
    model_sha256: str
    ranges_sha256: str | None = None
    flips: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        values["spec"] = ModelSpec.from_json(values["spec"])
        for name in ("inputs", "outputs"):
            values[name] = tuple(TensorSpec.from_json(item) for item in values[name])
        values["batch"] = tuple(values["batch"])
        values["notes"] = tuple(values.get("notes", ()))
        values["precision"] = PrecisionFound(**values["precision"])
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine: the builder's own bytes and what they are; standard TensorRT also gives its timing cache.

    `path` is the plan's file, if it was read from one. A runtime keeps what it needs for its next start beside that file.
    """

    plan: bytes
    info: EngineInfo
    timing_cache: bytes | None = None
    path: Path | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Flag:
    """A build option on the command line. `kind` is the kind of value that it takes: none, a number from `least` to `most`, or a file.

    For a file, the option's value is its bytes. `help` has no full stop: the command line adds which backends know the option.
    """

    name: str
    help: str
    kind: Literal["switch", "number", "file"] = "switch"
    metavar: str | None = None
    least: int = 0
    most: int | None = None


def _backend_option(default: _Value, flag: Flag) -> _Value:
    """A field of BuildOptions that only some backends know. A backend's row in `backends.BACKENDS` lists the options that it knows."""
    option: _Value = field(default=default, metadata={"flag": flag})
    return option


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build an engine; an option that the backend does not know raises BuildError.

    `batch` is (min, opt, max), `device` the GPU to build for and `threads` how many CPU threads to try the engine with (None: all).
    `mixed`: only part of the model is meant to be in `precision`; one such layer is enough.
    """

    precision: PrecisionName = "fp32"
    batch: tuple[int, int, int] = (1, 1, 1)
    workspace_mib: int | None = _backend_option(
        None, Flag("--workspace", "Limit the memory that kernels may use while running", "number", "MIB", least=1)
    )
    optimization_level: int | None = _backend_option(
        None, Flag("--optimization-level", "Choose how long to look for fast kernels", "number", "0..5", most=5)
    )
    timing_cache: bytes | None = _backend_option(
        None, Flag("--timing-cache", "Take the kernel timings of earlier builds from FILE, and add this build's", "file", "FILE")
    )
    version_compatible: bool = _backend_option(False, Flag("--version-compatible", "Make a plan that newer versions open too"))
    hardware_compatible: bool = _backend_option(False, Flag("--hardware-compatible", "Make a plan for other GPUs too, Ampere and newer"))
    plugins: bool = _backend_option(False, Flag("--plugins", "Use our kernels as plugins; experimental, never run so far"))
    threads: int | None = None
    device: int = 0
    mixed: bool = False

    @classmethod
    def flags(cls) -> dict[str, Flag]:
        """The options that only some backends know: field name -> flag, in the order of the fields."""
        return {item.name: item.metadata["flag"] for item in dataclasses.fields(cls) if "flag" in item.metadata}


@dataclass(frozen=True, slots=True)
class Ticket:
    """What `Runner.submit` gives and `Runner.result` takes: one submission, in order."""

    number: int


class Runner(Protocol):
    """Frames in, label maps out; the same contract for every backend. A context manager.

    A frame is RGB uint8 (H, W, 3) of any size; a label map is uint8 (H, W) at the frame's own size.
    """

    spec: ModelSpec

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]: ...

    def logits(self, frames: Sequence[Frame]) -> Logits:
        """The engine's logits (N, classes, h, w) as float32; an engine built with `--head labels` has none and raises an error."""
        ...

    def submit(self, frames: Sequence[Frame]) -> Ticket:
        """Starts frames (at most the engine's largest batch) and returns at once; `result` waits for these frames only."""
        ...

    def result(self, ticket: Ticket) -> list[LabelMap]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
