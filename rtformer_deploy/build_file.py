"""What `build-engine` does with files: a model read, an engine built and tried, a plan and its sidecar written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from .build import choose_backend
from .calibration import calibrate_file
from .engine_file import save_engine, sidecar
from .errors import BuildError, CalibrationError, UsageError
from .files import check_writable, read_bytes, write_atomic
from .foreign import Foreign
from .onnx_file import load_model
from .pipeline import build_engine, spec_of
from .ranges import load_ranges, shipped_ranges
from .types import Backend, BuildOptions, Engine, ModelSpec, PrecisionName, Progress, Ranges

Profile = tuple[tuple[int, ...] | None, tuple[int, ...] | None, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build from what, as the command line says it; `profile` holds --min, --opt and --max: (N,) or (N, 3, H, W) each."""

    model: Path
    output: Path
    backend: str = "auto"
    precision: str = "fp32"
    profile: Profile = (None, None, None)
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    plugins: bool = False
    strict: bool = False
    device: int = 0
    threads: int | None = None
    ranges: Path | None = None
    images: Path | None = None
    keep: tuple[str, ...] = ()
    said: Foreign = field(default_factory=Foreign)


def build_to_file(request: BuildRequest, say: Callable[[str], None], progress: Progress | None = None) -> Engine:
    """Builds `request.model` into `request.output`; `say` is told the backend and why, and what was found in the engine.

    Nothing is written before the engine is built and tried. Raises ModelError, BuildError, PrecisionError, OutputError.
    """
    check_writable(request.output)
    model = load_model(request.model)
    spec = spec_of(model, request.model.name, request.said)
    backend = _backend(request, say)
    ranges = _ranges(request, spec, say, progress)
    options = BuildOptions(
        precision=cast(PrecisionName, request.precision),
        batch=_batch(request.profile, spec),
        workspace_mib=request.workspace_mib,
        optimization_level=request.optimization_level,
        timing_cache=_read_cache(request.timing_cache),
        version_compatible=request.version_compatible,
        hardware_compatible=request.hardware_compatible,
        plugins=request.plugins,
        threads=request.threads,
        device=request.device,
    )
    engine = build_engine(model, spec, backend, options, ranges=ranges, keep=request.keep, strict=request.strict, progress=progress)
    save_engine(engine, request.output)
    if request.timing_cache is not None and engine.timing_cache is not None:
        write_atomic(request.timing_cache, engine.timing_cache)
    _tell(engine, request.output, say)
    return engine


def _backend(request: BuildRequest, say: Callable[[str], None]) -> Backend:
    if request.backend != "auto":
        return cast(Backend, request.backend)
    backend: Backend
    backend, reason = choose_backend()
    say(f"Backend {backend}: {reason}")
    return backend


def _ranges(request: BuildRequest, spec: ModelSpec, say: Callable[[str], None], progress: Progress | None) -> Ranges | None:
    """The ranges for INT8: a file's, measured on images, or those that come with the recipe."""
    if request.precision != "int8":
        if request.ranges or request.images or request.keep:
            raise UsageError("--ranges, --images and --keep belong to --int8.")
        return None
    if request.ranges and request.images:
        raise UsageError("--ranges and --images exclude each other.")
    if request.ranges:
        return load_ranges(request.ranges)
    if request.images:
        say(f"Calibrating on {request.images} ...")
        return calibrate_file(request.model, request.images, None, threads=request.threads, said=request.said, say=say, progress=progress)
    ranges = shipped_ranges(spec)
    if ranges is None:
        raise CalibrationError(
            f"INT8 needs ranges, and none come with {spec.name} for these weights.",
            "Give --images DIR, or --ranges FILE from rtformer-deploy calibrate.",
        )
    say(f"Ranges: those that come with {spec.name} ({ranges.method}, {ranges.images} images).")
    return ranges


def _batch(profile: Profile, spec: ModelSpec) -> tuple[int, int, int]:
    """(min, opt, max) of the batch: a fixed one is the model's; of a dynamic one what was not said follows from what was."""
    for shape in profile:
        if shape is not None and len(shape) == 4 and shape[1:] != (3, *spec.size):
            wanted = "x".join(map(str, shape[1:]))
            raise UsageError(
                f"The model takes 3x{spec.size[0]}x{spec.size[1]}, not {wanted}: an engine has one spatial size, profiles vary the batch.",
                "Export at the size you want: rtformer-deploy export --size HxW.",
            )
    said = [None if shape is None else shape[0] for shape in profile]
    fixed = spec.input.shape[0]
    if all(batch is None for batch in said):
        return (fixed, fixed, fixed) if isinstance(fixed, int) else (1, 1, 1)
    given = [batch for batch in said if batch is not None]
    smallest = said[0] or 1
    usual = said[1] or said[2] or max(given)
    largest = said[2] or usual
    if not smallest <= usual <= largest:
        raise UsageError(f"--min {smallest} --opt {usual} --max {largest} do not rise.")
    return smallest, usual, largest


def _read_cache(path: Path | None) -> bytes | None:
    """The timing cache's bytes; empty where the file is still to be made."""
    if path is None:
        return None
    return read_bytes(path, BuildError, "a timing cache") if path.exists() else b""


def _tell(engine: Engine, output: Path, say: Callable[[str], None]) -> None:
    info = engine.info
    builder = info.builder_version if info.builder_version.startswith(info.backend) else f"{info.backend} {info.builder_version}"
    say(f"{output} ({len(engine.plan) / 2**20:.1f} MiB) and {sidecar(output).name}: {builder}" + (f", for {info.gpu}" if info.gpu else ""))
    found = info.precision
    counts = ", ".join(f"{count} in {name}" for name, count in sorted(found.layers.items()))
    say(f"Precision: {found.asked} {found.state}" + (f" ({found.detail or counts})" if found.detail or counts else ""))
    if info.flips is None:
        say("Not run here: it needs the GPU it was built for; its classes were not compared with ONNX Runtime.")
    else:
        say(f"Against ONNX Runtime on the model: {info.flips:.4%} of the pixels change class.")
