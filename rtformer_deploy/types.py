"""The frozen data types that the stages share. Importing this loads nothing heavy, not even NumPy.

The bounds of a field are part of its type (msgspec.Meta). They hold for values that come from a document: see formats/conversion.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from msgspec import Meta

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Frame: TypeAlias = "NDArray[np.uint8]"  # (H, W, 3) RGB
LabelMap: TypeAlias = "NDArray[np.uint8]"  # (H, W) class ids
Logits: TypeAlias = "NDArray[np.float32]"  # (N, classes, h, w)

Head = Literal["lowres", "logits", "labels"]
Resize = Literal["stretch", "letterbox"]
PrecisionName = Literal["fp32", "fp16", "int8", "fp8"]
PrecisionState = Literal["verified", "requested", "mismatch"]
Io = Literal["fp32", "fp16"]  # of an engine's input and logits
_IO: tuple[Io, ...] = ("fp32", "fp16")
Backend = str  # a name in the table of backends, `backends.BACKENDS`
_Value = TypeVar("_Value")
QUANTISED: frozenset[PrecisionName] = frozenset({"int8", "fp8"})  # Q/DQ pairs in the graph, which need ranges

#: A name that can be part of a file's name on every system, and nothing more: no separators, no leading dot or space, and no control or
#: bidirectional characters.
FILE_NAME = r"\A(?![. ])[^/\\:*?\x22<>|\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]{1,100}\Z"
NO_CONTROLS = r"\A[^\x00-\x1f\x7f]*\Z"
PIXEL_VALUE = r"\A(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\Z"
BARE_KEY = r"\A[A-Za-z0-9_-]{1,100}\Z"
HEX_64 = r"\A[0-9a-f]{64}\Z"

FileName = Annotated[str, Meta(pattern=FILE_NAME)]
Sha256 = Annotated[str, Meta(pattern=HEX_64)]
Text = Annotated[str, Meta(min_length=1, max_length=1000)]
PathText = Annotated[str, Meta(min_length=1, max_length=1000, pattern=NO_CONTROLS)]
ClassName = Annotated[str, Meta(min_length=1, max_length=200)]
Byte = Annotated[int, Meta(ge=0, le=255)]
Count = Annotated[int, Meta(ge=0)]
Dimension = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Batch = Annotated[int, Meta(ge=1, le=4096)]
Mean = Annotated[float, Meta(ge=-1e6, le=1e6)]
Std = Annotated[float, Meta(ge=1e-6, le=1e6)]
Amax = Annotated[float, Meta(ge=0, le=3.4e38)]  # a float32
Threshold = Annotated[float, Meta(ge=-3e38, le=3e38)]
Share = Annotated[float, Meta(ge=0, le=1)]
Scale = Annotated[float, Meta(ge=0.01, le=1)]  # the share of a frame's height and width that a network sees
Classes = Annotated[tuple[ClassName, ...], Meta(min_length=1, max_length=255)]
Palette = Annotated[tuple[tuple[Byte, Byte, Byte], ...], Meta(min_length=1, max_length=255)]
#: One option of an architecture: what a TOML table of a recipe holds, without tables in it.
Option = bool | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | str | None
Arch = Mapping[Annotated[str, Meta(pattern=BARE_KEY)], Option | list[Option]]
MOST_SIDE = 16384  # of an input
MOST_PIXELS = 2**26  # of an input: 8192x8192
MOST_BATCH_PIXELS = 2**30  # the most pixels of all frames that an engine takes at once: 512 of 1024x2048
Side = Annotated[int, Meta(ge=1, le=MOST_SIDE)]

Say = Callable[[str], None]  # takes one line that a person should read
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


TRY_SECONDS, TRY_MEMORY = 60.0, 8.0  # what the first run of a model from elsewhere may take: seconds, and GiB of memory

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and NumPy dtype name of one input or output; a symbolic dimension is its name ("batch")."""

    name: Text
    shape: Annotated[tuple[Dimension | str, ...], Meta(max_length=8)]
    dtype: Text


def frame_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) of an input -> (H, W) of the frames of which it is `scale`, to the nearest pixel."""
    return round(size[0] / scale), round(size[1] / scale)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) of a frame -> (H, W) of its input at `scale`, rounded down as STDC's evaluation does; at least one pixel."""
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


FOREIGN = "unknown"  # the name of the architecture in the ModelSpec of a model from elsewhere


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model is, from its architecture to the pixels that it expects. Every file that we write carries it as text.

    `arch` is the architecture's name and configuration ({"name": "rtformer", "base_channels": 32, ...}). `palette` has one
    RGB triple for each class. `input` is (N, 3, H, W) float32, normalised RGB; `output` is what `head` says: "lowres" logits at
    the network's stride, "logits" at full size, uint8 "labels". `weights` names the weights' origin, `sha256` is
    their hash (see `nn.weights.weights_hash`).

    `mean`, `std`, `resize`, `resize_corners` and `scale` say how frames become the input and the output becomes label maps; see
    `image.geometry`. With `scale` below 1 the input is that share of a frame's height and width, and "full size" is `frame_size`.

    `threshold`: what a channel exceeds on its class; a pixel on which none does is background, the first class. When the model was read it
    got a channel for the background, so that the largest wins. `probabilities`: the output is what a sigmoid or a softmax gave, not logits.
    """

    name: FileName
    arch: Arch
    classes: Classes
    palette: Palette
    input: TensorSpec
    output: TensorSpec
    head: Head = "lowres"
    mean: tuple[Mean, Mean, Mean] = IMAGENET_MEAN
    std: tuple[Std, Std, Std] = IMAGENET_STD
    resize: Resize = "stretch"
    resize_corners: bool = False
    scale: Scale = 1.0
    weights: str | None = None
    sha256: Sha256 | None = None
    threshold: Threshold | None = None
    probabilities: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the input."""
        height, width = self.input.shape[2:]
        assert isinstance(height, int), "an engine has one spatial size"
        assert isinstance(width, int), "an engine has one spatial size"
        return height, width

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the frames of which the input is `scale`; the input's own with a scale of 1."""
        return frame_size(self.size, self.scale)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class PrecisionFound:
    """The precision an engine was asked for and the one its layers really have.

    `state` is "verified" (read from the layers, and it is the one asked for), "requested" (nothing could be read here: an ahead-of-time
    plan on a machine that cannot open it) or "mismatch". `layers` counts the compute layers by precision name.
    """

    asked: PrecisionName
    state: PrecisionState
    layers: Mapping[str, Count] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ranges:
    """What calibration measured: tensor -> the largest absolute value that INT8 or FP8 is to hold (`amax`).

    `images` is how many were shown; `weights_sha256` the hash of the weights and the configuration they belong to (see
    `formats.model_file.weights_sha256`), `model` their name. `mean` to `scale` are how the images were prepared, as in a
    ModelSpec. Ranges hold for these weights with this preprocessing, at every size: see `formats.ranges.check_ranges`.
    """

    amax: Annotated[Mapping[Text, Amax], Meta(min_length=1)]
    method: Text
    images: Count
    weights_sha256: Sha256
    model: Text
    mean: tuple[Mean, Mean, Mean] = IMAGENET_MEAN
    std: tuple[Std, Std, Std] = IMAGENET_STD
    resize: Resize = "stretch"
    resize_corners: bool = False
    scale: Scale = 1.0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A precision that `build-engine --fastest` tried. `ms` is the engine's median (None: it was not built), `flips` as in EngineInfo."""

    precision: PrecisionName
    state: Literal["chosen", "kept", "dropped"]
    why: Text
    ms: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    flips: Share | None = None


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """One weight of a graph that a builder got: NumPy dtype name, shape, and the hash of its bytes."""

    dtype: Text
    shape: Annotated[tuple[Count, ...], Meta(max_length=8)]
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Refit:
    """What `refit` must know of a plan whose weights can be exchanged: how its graph was made, and what it holds.

    `stripped`: the plan has no weights yet, so it cannot be opened. `weights` are those of the graph that the builder got, by name;
    `graph_sha256` is the hash of all else in that graph. `keep` and `fp32` are the globs of its build.
    """

    stripped: bool
    weights: Mapping[Text, StoredWeight]
    graph_sha256: Sha256
    keep: tuple[Text, ...] = ()
    fp32: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `engine.plan` is: all that is needed to refuse or describe it without opening it. Kept as `engine.plan.json`.

    `model_sha256` is the hash of the model's file as it was given, before any pass. `gpu` is the device or the compute capabilities
    that the plan was built for (None: CPU); `flips` the share of pixels whose class changed against ONNX Runtime on the model it came
    from (None: the engine could not be run where it was built, or the model not in ONNX Runtime): the largest of `flips_on`, the
    share on each frame that was tried. `refit` is None unless the plan was built with --strip. `candidates` are what it was chosen from,
    if it was; `notes` are what a person should know before trusting the engine.
    """

    spec: ModelSpec
    backend: Backend
    inputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=16)]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=16)]
    batch: tuple[Batch, Batch, Batch]
    precision: PrecisionFound
    builder_version: str
    gpu: str | None
    plan_sha256: Sha256
    model_sha256: Sha256
    ranges_sha256: Sha256 | None = None
    flips: Share | None = None
    flips_on: Mapping[str, Share] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    refit: Refit | None = None
    notes: tuple[str, ...] = ()
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=16)] = ()

    @property
    def io(self) -> Io:
        """The type of the engine's input, and of its output if that is logits."""
        return "fp16" if self.inputs[0].dtype == "float16" else "fp32"

    @property
    def stripped(self) -> bool:
        """Whether the plan has no weights, so that `refit` must put some in before it can be opened."""
        return self.refit is not None and self.refit.stripped

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


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
    """A build option on the command line. Its value: none, a number from `least` to `most`, one of `choices` (first: default), or a file.

    For a file, the option's value is its bytes. `help` has no full stop: the command line adds which backends know the option.
    """

    name: str
    help: str
    kind: Literal["switch", "number", "choice", "file"] = "switch"
    metavar: str | None = None
    least: int = 0
    most: int | None = None
    choices: tuple[str, ...] = ()


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
    workspace_mib: int | None = _backend_option(None, Flag("--workspace", "Limit the memory that kernels use", "number", "MIB", least=1))
    optimization_level: int | None = _backend_option(
        None, Flag("--optimization-level", "Choose how long to look for fast kernels", "number", "0..5", most=5)
    )
    timing_cache: bytes | None = _backend_option(None, Flag("--timing-cache", "Keep the timings of kernels in FILE", "file", "FILE"))
    io: Io = _backend_option(  # noqa: RUF009  # Io is immutable
        "fp32", Flag("--io", "Choose the type of the engine's input and logits; fp16 has never run so far", "choice", choices=_IO)
    )
    version_compatible: bool = _backend_option(False, Flag("--version-compatible", "Make a plan that newer versions open too"))
    hardware_compatible: bool = _backend_option(False, Flag("--hardware-compatible", "Make a plan for other GPUs too, Ampere and newer"))
    strip: bool = _backend_option(False, Flag("--strip", "Leave the weights out of the plan; refit puts them in, never run so far"))
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
