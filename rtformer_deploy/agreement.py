"""A fresh engine beside ONNX Runtime on the model it came from: the share of pixels that change class, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from .backends import open_engine, open_reference
from .errors import EngineError, GateError, ImageError, first_line
from .graph.edit import clone
from .graph.functions import inline_functions
from .image.frames import load_image
from .image.odd_files import OddFiles
from .image.samples import drawn_street, noise, sample_photograph
from .image.upsample import NotFiniteError
from .runtime.frame_runner import FrameRunner
from .types import BuildOptions, Engine, Frame, LabelMap, ModelSpec, PrecisionName, Progress, no_progress

SAMPLE, NOISE = "sample", "noise"
#: The share of changed pixels above which a person should look.
NOTABLE = 0.05
#: How many frames an engine's sidecar lists: those that change most.
_MOST_LISTED = 200
_NO_STRUCTURE = "The model gives one class alone on each frame that was compared, so the comparison says little: use --check-images."
_ADVICE: Mapping[PrecisionName, str] = {
    "fp32": "It computes in FP32 as ONNX Runtime does, so one of the two computes the model wrongly",
    "fp16": "Leave parts of the model in FP32 with a recipe from tune",
    "int8": "Leave parts of the model out of INT8 with --keep or a recipe from tune, or measure the ranges on more images",
    "fp8": "Leave parts of the model out of FP8 with --keep, or measure the ranges on more images",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """A frame that an engine is tried on: its name, and how to decode it."""

    name: str
    decode: Callable[[], Frame]


@dataclass(frozen=True, slots=True)
class Probes:
    """What the user says about the check of a fresh engine: further frames, and the largest share of changed pixels, 0 to 1.

    An image that cannot be read goes to `odd`.
    """

    frames: tuple[Probe, ...] = ()
    max_flips: float | None = None
    odd: OddFiles = field(default_factory=OddFiles)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The share of pixels that change class on each frame, 0 to 1; empty if nothing could be compared. `notes` are for a person."""

    shares: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def worst(self) -> float | None:
        """The largest share; None if nothing was compared."""
        return max(self.shares.values(), default=None)

    def listed(self) -> dict[str, float]:
        """The shares that a sidecar keeps: all, or of very many frames those that change most."""
        most = sorted(self.shares, key=lambda name: -self.shares[name])[:_MOST_LISTED]
        return {name: share for name, share in self.shares.items() if name in most}


class _NoReferenceError(EngineError):
    """ONNX Runtime cannot run the model."""


def own_probes(spec: ModelSpec) -> tuple[Probe, ...]:
    """The frames that every engine is tried on: the bundled photograph, and noise of its own size and spread."""
    return Probe(SAMPLE, lambda: sample(spec)), Probe(NOISE, lambda: noise(spec.size, spec.mean, spec.std))


def sample(spec: ModelSpec) -> Frame:
    """The photograph that comes with the project, or a drawn street."""
    photograph = sample_photograph()
    return drawn_street(spec.frame_size) if photograph is None else load_image(photograph)


def compare(engine: Engine, model: ir.Model, options: BuildOptions, probes: Probes, progress: Progress = no_progress) -> Agreement:
    """An engine and the model it came from -> how far their label maps agree on its own probes and on further ones.

    The model runs in ONNX Runtime with graph optimisation off; if it cannot, the notes say so. Raises what opening and running the engine
    raises, and ImageError if none of the further frames can be read.
    """
    with open_engine(engine, device=options.device, threads=options.threads) as runner:
        found = compare_runner(runner, model, engine.info.spec, options, probes, progress)
    if found.worst is not None and found.worst > NOTABLE:
        return Agreement(found.shares, (*found.notes, _about(found, engine.info.precision.asked)))
    return found


def compare_runner(
    runner: FrameRunner, model: ir.Model, spec: ModelSpec, options: BuildOptions, probes: Probes, progress: Progress = no_progress
) -> Agreement:
    """An open runner, of an engine or of the network itself, and the model of `spec` -> how far their label maps agree; see `compare`."""
    try:
        with _open_reference(model, spec, options) as reference:
            shares, one_class = _shares(reference, runner, probes, progress)
    except _NoReferenceError as error:
        return Agreement({}, (f"Nothing was compared: {error}",))
    return Agreement(shares, (_NO_STRUCTURE,) if one_class else ())


def compare_graphs(
    graph: ir.Model, model: ir.Model, spec: ModelSpec, options: BuildOptions, probes: Probes, progress: Progress = no_progress
) -> tuple[str, ...]:
    """The graph that a builder will get, and the model it came from -> notes on how far ONNX Runtime's label maps of both agree.

    It shows what a precision costs where its engine cannot run. Raises ImageError if none of the further frames can be read.
    """
    try:
        with _open_reference(model, spec, options) as reference, _open_reference(graph, spec, options) as runner:
            shares, one_class = _shares(reference, runner, probes, progress)
    except _NoReferenceError as error:
        return (f"The graph was not compared with the model: {error}",)
    found = Agreement(shares)
    own = ", ".join(f"{name} {shares[name]:.4%}" for name in (SAMPLE, NOISE))
    share = (
        f"In ONNX Runtime, {found.worst:.4%} of the pixels change class from the model to its graph in {options.precision.upper()} ({own})."
    )
    warning = [_about(found, options.precision)] if found.worst is not None and found.worst > NOTABLE else []
    return (share, *[_NO_STRUCTURE] * one_class, *warning)


def check_flips(worst: float | None, most: float | None) -> None:
    """Raises GateError if a bound was asked for and the largest share of changed pixels is above it, or is not known."""
    if most is None:
        return
    if worst is None:
        raise GateError("--max-flips: the engine was not compared with ONNX Runtime, so nothing is known about its pixels.")
    if not worst <= most:
        raise GateError(f"{worst:.4%} of the pixels change class, more than --max-flips {most:.4%}.", "Nothing was written.")


def _about(found: Agreement, precision: PrecisionName) -> str:
    worst = max(found.shares, key=lambda name: found.shares[name])
    return (
        f"Warning: {found.worst:.2%} of the pixels change class on {worst}. {_ADVICE[precision]}. rtformer-deploy verify MODEL PLAN IMAGES "
        "shows where the two first differ, and evaluate what it costs on labelled images."
    )


def _open_reference(model: ir.Model, spec: ModelSpec, options: BuildOptions) -> FrameRunner:
    plain = BuildOptions(batch=options.batch, threads=options.threads)
    try:
        return open_reference(inline_functions(clone(model)), spec, plain)
    except EngineError as error:
        raise _NoReferenceError(error.what) from error


def _shares(reference: FrameRunner, runner: FrameRunner, probes: Probes, progress: Progress) -> tuple[dict[str, float], bool]:
    """The share of changed pixels by frame, and whether the reference gives one class alone on each frame."""
    shares: dict[str, float] = {}
    one_class = True
    everything = (*own_probes(runner.spec), *probes.frames)
    probes.odd.total = len(probes.frames)
    probes.odd.errors.clear()  # the same frames may have been tried before, on a graph or on another engine
    for done, (probe, frame) in enumerate(_decoded(everything, probes.odd), 1):
        exact = _exact(reference, probe.name, frame)
        one_class = one_class and bool((exact == exact.flat[0]).all())
        shares[probe.name] = float(np.mean(runner.run([frame])[0] != exact))
        progress("compare with ONNX Runtime", done, len(everything))
    if probes.frames and len(probes.odd.errors) == len(probes.frames):
        raise ImageError(probes.odd.title(), details=probes.odd.lines())
    return shares, one_class


def _decoded(probes: Iterable[Probe], odd: OddFiles) -> Iterable[tuple[Probe, Frame]]:
    for probe in probes:
        try:
            frame = probe.decode()
        except ImageError as error:
            odd.add(error)
            continue
        yield probe, frame


def _exact(reference: FrameRunner, name: str, frame: Frame) -> LabelMap:
    try:
        return reference.run([frame])[0]
    except NotFiniteError as error:
        what = f"the model itself gives NaN or infinity on {name}, in ONNX Runtime too; rtformer-deploy calibrate names the first tensor."
        raise _NoReferenceError(what) from error
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise _NoReferenceError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error
