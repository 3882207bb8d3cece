"""The machine that a repository is for: which TensorRT and GPU a plan needs there, and whether it is the one that was named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..backends import backend_row
from ..backends.tensorrt.plan import runs_on
from ..errors import EngineError, UsageError
from ..machine import own_version
from ..nvidia.driver import GpuInfo
from ..runtime.session import rebuild_command
from ..types import EngineInfo
from .source import Source

_VERSION = re.compile(r"\d+(\.\d+){1,3}", re.ASCII)
_NUMBERS = re.compile(r"\b\d+(?:\.\d+)+", re.ASCII)
_GPU = re.compile(r"(?:(?P<name>\S.*) \((?P<of>\d+\.\d+)\)|(?P<alone>\d+\.\d+))", re.ASCII)
#: The argument with which Triton opens plans that were built with --version-compatible.
COMPATIBLE = "--backend-config=tensorrt,version-compatible=true"


@dataclass(frozen=True, slots=True)
class Target:
    """What the user says about Triton's machine: the build of its TensorRT ("10.3.0.26"), its GPU ("NVIDIA L4 (8.9)", or "8.9" alone).

    Raises UsageError for what is neither.
    """

    tensorrt: str | None = None
    gpu: str | None = None

    def __post_init__(self) -> None:
        if self.tensorrt is not None and not _VERSION.fullmatch(self.tensorrt):
            raise UsageError(f"--tensorrt {self.tensorrt} is no version of TensorRT.", "Write it as in --tensorrt 10.3.0.")
        if self.gpu is not None and not _GPU.fullmatch(self.gpu):
            hint = "Write it as inspect prints it, --gpu 'NVIDIA L4 (8.9)', or only its compute capability, --gpu 8.9."
            raise UsageError(f"--gpu {self.gpu} is no GPU.", hint)

    def check(self, sources: Sequence[Source]) -> None:
        """Raises EngineError for the first plan that does not run there, UsageError if no plan is for what was named."""
        plans = [source for source in sources if source.runs == "tensorrt_plan"]
        on_gpu = [source for source in sources if source.info is not None and backend_row(source.info.backend).on_gpu]
        if self.tensorrt is not None and not plans:
            raise UsageError("--tensorrt was given, and no MODEL is a TensorRT plan.", "Leave it out.")
        if self.gpu is not None and not on_gpu:
            raise UsageError("--gpu was given, and no MODEL is a plan for a GPU.", "Leave it out.")
        for source in plans:
            self._check_version(source)
        for source in on_gpu:
            self._check_gpu(source)

    def _check_version(self, source: Source) -> None:
        info = source.info
        assert info is not None
        if self.tensorrt is None or _opens(info, self.tensorrt):
            return
        what = f"{source.name} was built by {info.builder_version}, and TensorRT {self.tensorrt} does not open it."
        raise EngineError(what, f"Build it again with TensorRT {self.tensorrt}: {rebuild_command(info)}")

    def _check_gpu(self, source: Source) -> None:
        info = source.info
        assert info is not None
        if self.gpu is None or _fits(info, self.gpu):
            return
        what = f"{source.name} was built for {info.gpu} and does not run on {self.gpu}."
        raise EngineError(what, f"Build it again on such a GPU: {rebuild_command(info)}")


def needs_of(source: Source, accelerator: str | None) -> tuple[str, ...]:
    """What Triton's machine needs for a model, a line each; `accelerator` is what runs an ONNX model there."""
    info, version = source.info, own_version()
    own = "rtformer-deploy" if version == "unknown" else f"rtformer-deploy {version}"
    place = "in the Python of Triton's Python backend"
    if info is None:
        extra = "" if accelerator is None else f" with the accelerator {accelerator}"
        return f"Triton's onnxruntime backend{extra}", f"{own} {place}"
    if source.runs == "tensorrt_plan":
        return *_tensorrt_needs(info), f"{own} {place}"
    if source.is_rtx:
        gpu = "an NVIDIA GPU" if info.gpu in (None, "unknown") else f"an NVIDIA GPU of {info.gpu}"
        return gpu, f"{own} with the extras {info.backend} and gpu {place}", f"{info.builder_version} there, no other version"
    return (f"{own} with {backend_row(info.backend).module} {info.builder_version} or newer {place}",)


def _tensorrt_needs(info: EngineInfo) -> tuple[str, ...]:
    built = _built_by(info)
    builds = f"TensorRT {built}, no other build"
    if info.options.get("version_compatible"):
        builds = f"TensorRT {built} or a newer {built.split('.')[0]}.x, and the argument {COMPATIBLE}"
    compatible = info.options.get("hardware_compatible")
    return builds, "an NVIDIA GPU of compute capability 8.0 or newer" if compatible else f"this GPU: {info.gpu}"


def _built_by(info: EngineInfo) -> str:
    """The version in "tensorrt 10.3.0". Raises EngineError if there is none."""
    found = _NUMBERS.search(info.builder_version)
    if found is None:
        raise EngineError(f"The plan's builder version {info.builder_version!r} is not a version of TensorRT.", "Build it again.")
    return found[0]


def _opens(info: EngineInfo, version: str) -> bool:
    """Whether a TensorRT of this version opens a plan. Versions are compared as far as both are known: 10.3.0 is also 10.3.0.26."""
    built, there = ([int(number) for number in text.split(".")] for text in (_built_by(info), version))
    if info.options.get("version_compatible"):
        return there[0] == built[0] and there[1:2] >= built[1:2]
    shared = min(len(built), len(there))
    return built[:shared] == there[:shared]


def _fits(info: EngineInfo, gpu: str) -> bool:
    found = _GPU.fullmatch(gpu)
    assert found is not None
    there = GpuInfo(0, found["name"] or "", found["of"] or found["alone"], 0, "")
    exactly = info.backend == "tensorrt" and not info.options.get("hardware_compatible")
    if found["name"] is None and exactly and info.gpu is not None and info.gpu.endswith(")"):
        return info.gpu.endswith(f"({there.compute_capability})")
    return runs_on(info, there)
