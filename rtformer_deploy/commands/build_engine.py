"""What `build-engine` does with files: a model read, an engine built and tried, a plan and its sidecar written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..backends import choose_backend
from ..errors import BuildError, CalibrationError, UsageError
from ..files import check_writable, printable, read_bytes, sha256, write_atomic
from ..formats.build_table import Mix, RecipeBuild, check_model, ranges_of_build, read_build
from ..formats.engine_file import save_engine, sidecar
from ..formats.external_model import Foreign
from ..formats.model_file import load_model, serialize_model
from ..formats.ranges import load_ranges, shipped_ranges
from ..image.odd_files import OddFiles
from ..image.reader import ImageReader
from ..pipeline import build_engine, spec_of
from ..types import Backend, BuildOptions, Engine, ModelSpec, PrecisionName, Progress, Ranges, no_progress
from .calibrate import calibrate_file

Profile = tuple[tuple[int, ...] | None, tuple[int, ...] | None, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build from what, as the command line says it; `profile` holds --min, --opt and --max: (N,) or (N, 3, H, W) each.

    `precision` None is the recipe's, or FP32 without a recipe; `recipe` is a name or a TOML file.
    """

    model: Path
    output: Path
    backend: str = "auto"
    precision: PrecisionName | None = None
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
    bit_depth: int | None = None
    stop_on_error: bool = False
    keep: tuple[str, ...] = ()
    recipe: str | None = None
    said: Foreign = field(default_factory=Foreign)


def build_to_file(request: BuildRequest, say: Callable[[str], None], progress: Progress = no_progress) -> Engine:
    """Builds `request.model` into `request.output`; `say` is told the backend and why, and what was found in the engine.

    Nothing is written before the engine is built and tried. Raises ModelError, RecipeError, BuildError, PrecisionError, OutputError;
    and ImageError, when the engine is written, if some of `request.images` could not be read.
    """
    odd = OddFiles(request.stop_on_error)
    check_writable(request.output)
    recipe = _recipe(request)
    model = load_model(request.model)
    spec = spec_of(model, request.model.name, request.said)
    if recipe is not None:
        check_model(recipe, spec.name, spec.sha256 or sha256(serialize_model(model)))
    mix = Mix(request.precision or "fp32", request.keep) if recipe is None else recipe.mix
    backend = pick_backend(request.backend, say)
    if recipe is not None:
        _tell_mix(recipe, backend, say)
    ranges = _ranges(request, recipe, spec, odd, say, progress)
    options = BuildOptions(
        precision=mix.precision,
        mixed=bool(mix.keep or mix.fp32),
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
    engine = build_engine(
        model, spec, backend, options, ranges=ranges, keep=mix.keep, fp32=mix.fp32, strict=request.strict, progress=progress
    )
    if odd.errors:
        engine = replace(engine, info=replace(engine.info, notes=(*engine.info.notes, _about(odd))))
    save_engine(engine, request.output)
    if request.timing_cache is not None and engine.timing_cache is not None:
        write_atomic(request.timing_cache, engine.timing_cache)
    _tell(engine, request.output, say)
    odd.raise_any(then=f"{request.output} was built with the ranges of the others.")
    return engine


def pick_backend(asked: str, say: Callable[[str], None]) -> Backend:
    """What --backend says -> the backend; for "auto" this machine's own, and `say` is told why."""
    if asked != "auto":
        return asked
    backend, reason = choose_backend()
    say(f"Backend {backend}: {reason}")
    return backend


def pick_ranges(
    model: Path,
    spec: ModelSpec,
    ranges: Path | None,
    images: Path | None,
    *,
    output: Path | None = None,
    threads: int | None = None,
    said: Foreign | None = None,
    reader: ImageReader | None = None,
    odd: OddFiles | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = no_progress,
) -> Ranges:
    """The ranges for INT8: a file's, measured on images (and written to `output`), or those that come with the recipe.

    Raises UsageError where both are given, CalibrationError.
    """
    if ranges and images:
        raise UsageError("--ranges and --images exclude each other.")
    if ranges:
        return load_ranges(ranges)
    if images:
        say(f"Calibrating on {images} ...")
        return calibrate_file(model, images, output, threads=threads, said=said, reader=reader, odd=odd, say=say, progress=progress)
    shipped = shipped_ranges(spec)
    if shipped is None:
        raise CalibrationError(
            f"INT8 needs ranges, and none come with {spec.name} for these weights.",
            "Give --images DIR, or --ranges FILE from rtformer-deploy calibrate.",
        )
    say(f"Ranges: those that come with {spec.name} ({shipped.method}, {shipped.images} images).")
    return shipped


def _recipe(request: BuildRequest) -> RecipeBuild | None:
    """The recipe that says how to build; what it says cannot be said again."""
    if request.recipe is None:
        return None
    if request.precision or request.keep:
        raise UsageError("--recipe says the precision and what INT8 leaves out: leave --fp32, --fp16, --int8 and --keep out.")
    recipe = read_build(request.recipe)
    if recipe.ranges is not None and (request.ranges or request.images):
        raise UsageError(f"{request.recipe} names the ranges that its mix was tuned with: leave --ranges and --images out.")
    return recipe


def _ranges(
    request: BuildRequest, recipe: RecipeBuild | None, spec: ModelSpec, odd: OddFiles, say: Callable[[str], None], progress: Progress
) -> Ranges | None:
    precision = request.precision if recipe is None else recipe.mix.precision
    if precision != "int8":
        if request.ranges or request.images or request.keep:
            raise UsageError("--ranges, --images and --keep belong to --int8.")
        return None
    named = None if recipe is None else ranges_of_build(recipe)
    if named is not None:
        return named
    return pick_ranges(
        request.model, spec, request.ranges, request.images, threads=request.threads, said=request.said,
        reader=ImageReader(request.bit_depth, say), odd=odd, say=say, progress=progress,
    )  # fmt: skip


def _about(odd: OddFiles) -> str:
    """What the sidecar says about images that could not be read."""
    return printable(f"The INT8 ranges were measured on {odd.total - len(odd.errors)} images alone, as {odd.listing()}")


def _tell_mix(recipe: RecipeBuild, backend: Backend, say: Callable[[str], None]) -> None:
    mix = recipe.mix
    parts = [f"{len(mix.keep)} names stay out of INT8"] * bool(mix.keep) + [f"{len(mix.fp32)} in FP32"] * bool(mix.fp32)
    say(f"Recipe {recipe.recipe.name}: {mix.precision}" + (f" ({', '.join(parts)})" if parts else ""))
    if recipe.backend not in (None, backend):
        say(f"The mix was tuned on {recipe.backend}; on {backend} its mIoU and latency were not measured.")


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
