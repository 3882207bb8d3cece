"""What `bench` does with files: a plan or a model, opened and measured on an image, to a Report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from .. import machine
from ..errors import UsageError
from ..files import printable
from ..formats.external_model import ExternalModel
from ..image.reader import ImageReader
from ..image.samples import sample_frame, sample_source
from ..nvidia.nvml import watch_over
from ..opening import open_any
from ..timing.bench import bench, on_gpu
from ..timing.paced import run_paced
from ..timing.report import Report
from ..types import Progress, no_progress
from .kinds import BENCH, PAGE
from .outputs import check_outputs, file_inputs, model_inputs, outputs


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure: an engine plan, or an ONNX model (`external` is about one from elsewhere), for `seconds` after `warmup` seconds.

    `image` is measured at its own size, as `reader` reads it; without one the bundled photograph, or a drawn street, is measured at
    `frame_size` of the engine. `fps` adds a paced run of one frame at a time, as long again, with `deadline_ms` for each frame. Raises
    UsageError for a paced batch, or a deadline without `fps`.
    """

    model: Path
    seconds: float = 10.0
    warmup: float = 2.0
    batch: int = 1
    lanes: int = 1
    graphs: bool = True
    device: int = 0
    threads: int | None = None
    image: Path | None = None
    reader: ImageReader = field(default_factory=ImageReader)
    fps: float | None = None
    deadline_ms: float | None = None
    external: ExternalModel = field(default_factory=ExternalModel)

    def __post_init__(self) -> None:
        if self.fps is None and self.deadline_ms is not None:
            raise UsageError("A deadline needs a rate to be kept at.", "Add --fps.")
        if self.fps is not None and self.batch > 1:
            raise UsageError(f"--fps works with single frames only, not with a batch of {self.batch}.", "Leave --batch out.")


def check_files(request: BenchRequest, json_path: Path | None, page_path: Path | None) -> None:
    """Raises OutputError if the report or the page cannot be written there, or would replace another file."""
    inputs = [*model_inputs(request.model), *file_inputs(request.image, request.external.classes)]
    check_outputs(outputs((json_path, BENCH), (page_path, PAGE)), inputs)


def bench_path(request: BenchRequest, progress: Progress = no_progress) -> Report:
    """Opens the plan, or builds the model in memory, and measures it: see `timing.bench.bench` and `timing.paced.run_paced`.

    A GPU's clocks are sampled meanwhile. `peak_memory_mb` of the Report starts to count before the engine is opened. Raises what
    opening, decoding, `bench` and `run_paced` raise.
    """
    image = None if request.image is None else request.reader.load(request.image)
    before = machine.resident_mb()
    machine.reset_peak()
    with open_any(
        request.model, device=request.device, threads=request.threads, lanes=request.lanes, graphs=request.graphs, external=request.external
    ) as runner:
        frame, source = (sample_frame(runner.spec.frame_size), sample_source()) if image is None else (image, printable(str(request.image)))
        with watch_over(request.device if on_gpu(runner) else None) as gpu:
            report = bench(runner, [frame] * request.batch, seconds=request.seconds, warmup=request.warmup, progress=progress)
        paced = None
        if request.fps is not None:
            deadline = request.deadline_ms
            paced = run_paced(runner, frame, request.fps, seconds=request.seconds, deadline_ms=deadline, progress=progress)
        peak = machine.peak_mb()
    return dataclasses.replace(
        report,
        peak_memory_mb=max(0.0, peak - before),
        frame={**report.frame, "source": source},
        paced=paced,
        gpu=None if gpu is None else gpu.to_json(),
        notes=(*report.notes, *(() if gpu is None else gpu.notes())),
    )
