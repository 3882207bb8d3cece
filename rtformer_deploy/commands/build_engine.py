"""What `build-engine` does with files: a model read, an engine built and tried, a plan and its sidecar written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from ..agreement import NOISE, SAMPLE, Probe, Probes
from ..backends import check_options
from ..backends.here import can_run_here, check_can_compare
from ..errors import BuildError, UsageError
from ..files import printable, read_bytes, write_atomic
from ..formats.build_table import PrecisionMix, ranges_of_build
from ..formats.engine_file import save_engine, sidecar
from ..formats.external_model import ExternalModel
from ..formats.model_file import stamp_notes, weights_sha256
from ..formats.ranges import check_ranges, shipped_ranges
from ..formats.recipe import Recipe, check_model, load_recipe
from ..graph.quantised import quantised, refuse_quantised
from ..image.odd_files import OddFiles
from ..image.reader import ImageReader
from ..pipeline import build_engine, opening_notes, read_model
from ..tuning.fastest import Order, fastest_engine
from ..types import QUANTISED, Backend, BuildOptions, Engine, Feedback, ModelSpec, PrecisionName, Ranges, Say
from .calibrate import CalibrateRequest, calibrate_file
from .choices import RangesSource, pick_backend, pick_ranges, refuse_unrunnable
from .kinds import TIMING_CACHE
from .outputs import Output, check_outputs, file_inputs, plan_outputs
from .verify import image_items

#: How many of the user's frames are named with the share of pixels that change class on them.
_MOST_TOLD = 5
_LONGEST_NAME = 300
#: --min, --opt and --max: (N,) or (N, 3, H, W) each.
BatchProfile = tuple[tuple[int, ...] | None, tuple[int, ...] | None, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build, and from what. `options` goes to the builder; these parts of it come from the model and the rest of the request:

    the precision (`precision` and `keep`, or `recipe`, which is a name or a TOML file; FP32 without either), the batch
    (`profile`), and the timing cache, which is read from the file `timing_cache` before the build and written to it afterwards.
    `bit_depth` (as in `load_image`) and `stop_on_error` are about images: those that the ranges are measured on, and `check_images`, a
    folder or a file, on which the engine is compared with ONNX Runtime too. Above `max_flips` changed pixels, a share from 0 to 1, on one
    of the frames nothing is written.

    `fastest` tries FP32, FP16 and INT8 and takes the fastest that `max_flips` allows; it raises UsageError if the precision is set too.
    """

    model: Path
    output: Path
    backend: str = "auto"
    options: BuildOptions = field(default_factory=BuildOptions)
    precision: PrecisionName | None = None
    keep: tuple[str, ...] = ()
    recipe: str | None = None
    ranges: RangesSource = field(default_factory=RangesSource)
    bit_depth: int | None = None
    stop_on_error: bool = False
    profile: BatchProfile = (None, None, None)
    timing_cache: Path | None = None
    strict: bool = False
    check_images: Path | None = None
    max_flips: float | None = None
    external: ExternalModel = field(default_factory=ExternalModel)
    fastest: bool = False

    def __post_init__(self) -> None:
        if self.fastest and (self.precision or self.keep or self.recipe):
            raise UsageError("--fastest tries FP32, FP16 and INT8 itself: leave --fp32, --fp16, --int8, --fp8, --keep and --recipe out.")
        if self.fastest and self.options.strip:
            raise UsageError("--fastest and --strip cannot be combined: a plan without weights cannot be timed.")
        if self.fastest and self.options.io == "fp16":
            raise UsageError("--fastest and --io fp16 cannot be combined: it tries FP32 too, whose input and output are FP32.")
        if self.options.strip and self.max_flips is not None:
            raise UsageError("--strip and --max-flips cannot be combined: a plan without weights cannot be run. refit takes --max-flips.")


def build_to_file(request: BuildRequest, feedback: Feedback) -> Engine:
    """Builds `request.model` into `request.output`, and reports which backend builds it and why, and what the engine holds.

    Nothing is written before the engine is built and tried. Raises ModelError, RecipeError, BuildError, PrecisionError, GateError,
    OutputError; and ImageError, when the engine is written, if some of the images could not be read.
    """
    odd = OddFiles(request.stop_on_error)
    _check_files(request)
    probes = probes_of(request, feedback.say)
    recipe = _recipe(request)
    backend = pick_backend(request.backend, feedback.say)
    if not request.fastest:
        check_can_compare(backend, request.max_flips)
    model, spec = read_model(request.model, request.external, backend)
    if request.fastest:
        refuse_unrunnable("--fastest", spec, backend, request.options.device)
    said = (*stamp_notes(model), *opening_notes(spec, backend))
    for note in said:
        feedback.say(note)
    if recipe is not None:
        check_model(recipe, spec, weights_sha256(model, spec))
    mix = PrecisionMix(request.precision or "fp32", request.keep) if recipe is None else recipe.build.mix
    options = _options(request, mix, spec)
    check_options(options, backend)  # before the calibration images are read
    if options.precision in QUANTISED:
        refuse_quantised(model, f"--{options.precision}")
    if recipe is not None:
        _tell_mix(recipe, backend, feedback.say)
    if request.fastest:
        ranges_or_why = _ranges_if_any(request, model, spec, odd, feedback)
        engine = fastest_engine(Order(model, spec, backend, options, ranges_or_why, probes, request.strict), feedback)
    else:
        ranges = ranges_for(request, recipe, spec, odd, feedback)
        engine = build_engine(
            model, spec, backend, options, ranges=ranges, keep=mix.exclude, fp32=mix.fp32, strict=request.strict, probes=probes,
            progress=feedback.progress,
        )  # fmt: skip
    for note in engine.info.notes:
        if note not in said:
            feedback.say(note)
    uses_ranges = engine.info.ranges_sha256 is not None
    if uses_ranges:
        engine = with_odd_images(engine, odd)
    save_engine(engine, request.output)
    if request.timing_cache is not None and engine.timing_cache is not None:
        write_atomic(request.timing_cache, engine.timing_cache)
    tell_engine(engine, request.output, feedback.say)
    odd.raise_any(
        then=f"{request.output} was built {'with' if uses_ranges else 'without INT8; it was tried with'} the ranges of the others."
    )
    probes.odd.raise_any(then=f"{request.output} was built, and compared on the others.")
    return engine


def with_odd_images(engine: Engine, odd: OddFiles) -> Engine:
    """An engine -> the same with a note about images that could not be read for its ranges."""
    return replace(engine, info=replace(engine.info, notes=(*engine.info.notes, _about(odd)))) if odd.errors else engine


def probes_of(request: BuildRequest, say: Say) -> Probes:
    """The frames and the bound of the comparison with ONNX Runtime. Raises ImageError if the folder is missing or holds no images."""
    items = [] if request.check_images is None else image_items([request.check_images], ImageReader(request.bit_depth, say))
    frames = tuple(Probe(_probe_name(item.name), item.decode) for item in items)
    return Probes(frames, request.max_flips, OddFiles(request.stop_on_error))


def _probe_name(name: str) -> str:
    """What a user's image is called in the sidecar: the end of a very long path, and never as the frames that are always tried."""
    return f"./{name}" if name in (SAMPLE, NOISE) else name[-_LONGEST_NAME:]


def _check_files(request: BuildRequest) -> None:
    """Raises OutputError if the plan, its sidecar or the timing cache cannot be written, or would replace another file."""
    planned = plan_outputs(request.output)
    if request.timing_cache is not None:
        planned.append(Output(request.timing_cache, TIMING_CACHE, updated=True))
    others = file_inputs(request.recipe, request.ranges.file, request.external.classes, request.check_images)
    check_outputs(planned, [(request.model, "itself an input"), *others])


def _options(request: BuildRequest, mix: PrecisionMix, spec: ModelSpec) -> BuildOptions:
    return replace(
        request.options,
        precision=mix.precision,
        mixed=mix.mixed,
        batch=_batch(request.profile, spec),
        timing_cache=_read_cache(request.timing_cache),
    )


def _recipe(request: BuildRequest) -> Recipe | None:
    """The recipe that says how to build. Other options must not repeat what it sets."""
    if request.recipe is None:
        return None
    if request.precision or request.keep:
        raise UsageError("--recipe says the precision and what INT8 leaves out: leave --fp32, --fp16, --int8, --fp8 and --keep out.")
    recipe = load_recipe(request.recipe)
    if recipe.build.ranges is not None and request.ranges.is_set():
        raise UsageError(f"{request.recipe} names the ranges that its mix was tuned with: leave --ranges and --images out.")
    return recipe


def ranges_for(request: BuildRequest, recipe: Recipe | None, spec: ModelSpec, odd: OddFiles, feedback: Feedback) -> Ranges | None:
    """The ranges that INT8 and FP8 need, measured if the request says so; None for other precisions. Images that fail go to `odd`."""
    precision = request.precision if recipe is None else recipe.build.mix.precision
    if precision not in QUANTISED:
        if request.ranges.is_set() or request.keep:
            raise UsageError("--ranges, --images and --keep belong to --int8 and --fp8.")
        return None
    recipe_ranges = None if recipe is None else ranges_of_build(recipe.build, feedback.say)
    return recipe_ranges or _picked_ranges(request, spec, odd, feedback, precision)


def _ranges_if_any(request: BuildRequest, model: ir.Model, spec: ModelSpec, odd: OddFiles, feedback: Feedback) -> Ranges | str:
    """INT8's ranges, or why --fastest leaves INT8 out. Ranges that were asked for and do not fit the model are an error."""
    found = quantised(model)
    if found is not None:
        return f"the model is quantised already ({found})"
    if not request.ranges.is_set() and shipped_ranges(spec) is None:
        return "it needs ranges (--ranges or --images), and none come with this model"
    ranges = _picked_ranges(request, spec, odd, feedback, "int8")
    check_ranges(ranges, spec, weights_sha256(model, spec))
    return ranges


def _picked_ranges(request: BuildRequest, spec: ModelSpec, odd: OddFiles, feedback: Feedback, precision: PrecisionName) -> Ranges:
    def measure(images: Path) -> Ranges:
        reader = ImageReader(request.bit_depth, feedback.say)
        calibration = CalibrateRequest(request.model, images, reader=reader, threads=request.options.threads, external=request.external)
        return calibrate_file(calibration, feedback, odd)

    return pick_ranges(request.ranges, spec, measure, feedback.say, precision)


def _about(odd: OddFiles) -> str:
    """What the sidecar says about images that could not be read."""
    count = odd.total - len(odd.errors)
    return printable(f"The ranges were measured on {count} images alone, as {odd.title()} {'; '.join(map(str.strip, odd.lines()))}")


def _tell_mix(recipe: Recipe, backend: Backend, say: Say) -> None:
    mix = recipe.build.mix
    parts = [f"{len(mix.exclude)} names stay out of {mix.precision.upper()}"] * bool(mix.exclude) + [f"{len(mix.fp32)} in FP32"] * bool(
        mix.fp32
    )
    say(f"Recipe {recipe.name}: {mix.precision}" + (f" ({', '.join(parts)})" if parts else ""))
    if recipe.build.backend not in (None, backend):
        say(f"The mix was tuned on {recipe.build.backend}; on {backend} its mIoU and latency were not measured.")


def _batch(profile: BatchProfile, spec: ModelSpec) -> tuple[int, int, int]:
    """(min, opt, max) of the batch: a fixed batch is the model's own; for a dynamic batch, a missing bound follows from the others."""
    for shape in profile:
        if shape is not None and len(shape) == 4 and shape[1:] != (3, *spec.size):
            size = "x".join(map(str, shape[1:]))
            raise UsageError(
                f"The model takes 3x{spec.size[0]}x{spec.size[1]}, not {size}: an engine has one spatial size, profiles vary the batch.",
                "Export at the size you want: rtformer-deploy export --size HxW.",
            )
    least, best, most = (None if shape is None else shape[0] for shape in profile)
    fixed = spec.input.shape[0]
    if least is None and best is None and most is None:
        return (fixed, fixed, fixed) if isinstance(fixed, int) else (1, 1, 1)
    smallest = least or 1
    usual = best or most or smallest
    largest = most or usual
    if not smallest <= usual <= largest:
        raise UsageError(f"--min {smallest} --opt {usual} --max {largest} do not rise.")
    return smallest, usual, largest


def _read_cache(path: Path | None) -> bytes | None:
    """The timing cache's bytes; empty if the file does not exist yet."""
    if path is None:
        return None
    return read_bytes(path, BuildError, "a timing cache") if os.path.exists(path) else b""


def tell_engine(engine: Engine, output: Path, say: Say) -> None:
    """Says what was written, the precision of its layers, and how it compares."""
    info = engine.info
    builder = info.builder_version if info.builder_version.startswith(info.backend) else f"{info.backend} {info.builder_version}"
    say(f"{output} ({len(engine.plan) / 2**20:.1f} MiB) and {sidecar(output).name}: {builder}" + (f", for {info.gpu}" if info.gpu else ""))
    precision = info.precision
    counts = ", ".join(f"{count} in {name}" for name, count in sorted(precision.layers.items()))
    say(f"Precision: {precision.asked} {precision.state}" + (f" ({precision.detail or counts})" if precision.detail or counts else ""))
    if info.flips is not None:
        each = ", ".join(f"{name} {share:.4%}" for name, share in _worst(info.flips_on))
        say(f"Against ONNX Runtime on the model: {info.flips:.4%} of the pixels change class ({each}).")
    elif info.stripped:
        say(f"It holds no weights. To put some in: rtformer-deploy refit {output} MODEL.onnx -o NEW.plan")
    elif opening_notes(info.spec, info.backend):
        say("Not run here; its classes were not compared with ONNX Runtime.")
    elif not can_run_here(engine):
        say("Not run here: it needs the GPU it was built for; its classes were not compared with ONNX Runtime.")


def _worst(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    """The frames that are always tried and, of the user's, those that change most."""
    own = [(name, shares[name]) for name in (SAMPLE, NOISE) if name in shares]
    others = sorted(((share, name) for name, share in shares.items() if name not in (SAMPLE, NOISE)), reverse=True)
    return own + [(name, share) for share, name in others[:_MOST_TOLD]]
