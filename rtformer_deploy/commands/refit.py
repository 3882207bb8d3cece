"""What `refit` does with files: a plan and a model read, the model's weights put in, another plan and its sidecar written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..backends.here import check_can_compare
from ..errors import UsageError
from ..formats.engine_file import load_engine, save_engine
from ..formats.model_file import stamp_notes
from ..image.odd_files import OddFiles
from ..pipeline import check_refittable, read_model, refit_engine
from ..types import QUANTISED, Engine, Feedback
from .build_engine import BuildRequest, probes_of, ranges_for, tell_engine, with_odd_images
from .outputs import check_outputs, file_inputs, model_inputs, plan_outputs


@dataclass(frozen=True, slots=True)
class RefitRequest:
    """The engine whose weights are exchanged, and `model`: where they come from, as if an engine of it were built.

    Of `model` count the model, the output, ranges, images for the comparison, bounds, and the device and threads of `options`; the rest is
    the engine's own.
    """

    engine: Path
    model: BuildRequest


def refit_to_file(request: RefitRequest, feedback: Feedback) -> Engine:
    """Writes the plan with the model's weights, and its sidecar, as `build_to_file` does. The engine's own files stay as they are.

    Raises EngineError if its weights cannot be exchanged or there is no GPU for it, ModelError if the model does not fit, and what
    `build_to_file` raises.
    """
    wanted, odd = request.model, OddFiles(request.model.stop_on_error)
    others = file_inputs(wanted.ranges.file, wanted.external.classes, wanted.check_images)
    check_outputs(plan_outputs(wanted.output), [*model_inputs(request.engine), (wanted.model, "itself an input"), *others])
    engine = load_engine(request.engine)
    info = engine.info
    check_refittable(info)
    check_can_compare(info.backend, wanted.max_flips)
    if wanted.ranges.is_set() and info.precision.asked not in QUANTISED:
        raise UsageError(f"--ranges and --images belong to engines in INT8 or FP8; {request.engine} is in {info.precision.asked.upper()}.")
    probes = probes_of(wanted, feedback.say)
    model, spec = read_model(wanted.model, wanted.external, info.backend)
    said = stamp_notes(model)
    for note in said:
        feedback.say(note)
    ranges = ranges_for(replace(wanted, precision=info.precision.asked), None, spec, odd, feedback)
    made = refit_engine(engine, model, spec, wanted.options, ranges=ranges, probes=probes, progress=feedback.progress)
    for note in made.info.notes:
        if note not in said:
            feedback.say(note)
    made = with_odd_images(made, odd)
    save_engine(made, wanted.output)
    tell_engine(made, wanted.output, feedback.say)
    odd.raise_any(then=f"{wanted.output} was made with the ranges of the others.")
    probes.odd.raise_any(then=f"{wanted.output} was made, and compared on the others.")
    return made
