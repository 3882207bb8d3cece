"""Public models of other architectures, in every precision, on every backend that builds here: how many pixels change class.

    python benchmarks/foreign.py --models DIR --images DIR [--only NAME ...] [--threads N] [--json FILE]

--models holds the files that public_models.py names, as their packages and repositories keep them; none comes with this project. A
model that is missing is left out. Each one is measured in a process of its own. INT8 ranges come from 4 of --images (or, for models that
read text, of pages that are drawn here). The engines are compared with ONNX Runtime, without optimisation, on another one, on the
bundled photograph and on noise. TensorRT-RTX is built only: its graph runs on ONNX Runtime instead. With --only the other models keep
their rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import harness
import numpy as np
from harness import Json
from public_models import MODELS, Public

if TYPE_CHECKING:
    import onnx_ir as ir

    from rtformer_deploy import DeployError
    from rtformer_deploy.types import Backend, BuildOptions, Engine, Frame, ModelSpec, PrecisionName, Ranges

Made = TypeVar("Made")
BACKENDS: tuple[Backend, ...] = ("onnxruntime", "openvino", "tensorrt-rtx")
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8")
MEASURED, COMPARED = 4, 1  # images


# ----------------------------------------------------------------------------------------------------------------- pictures


def drawn_page(size: tuple[int, int], seed: int) -> Frame:
    """A page with lines of letters in several sizes: (H, W, 3) RGB."""
    import cv2

    draw = np.random.default_rng(seed)
    page = np.full((*size, 3), draw.integers(200, 256, 3), np.uint8)
    row = 20
    while row < size[0] - 10:
        scale = draw.uniform(0.4, 1.6)
        row += int(34 * scale)
        text = "".join(
            draw.choice(list("abcdefghiklmnoprstuwxyz ABCDEFG 0123456789")) for _ in range(int(draw.integers(3, int(60 / scale))))
        )
        ink = tuple(int(value) for value in draw.integers(0, 110, 3))
        cv2.putText(page, text, (int(draw.integers(5, 60)), row), cv2.FONT_HERSHEY_DUPLEX, scale, ink, 1 + int(scale), cv2.LINE_AA)
    return page


def lay_pictures(model: Public, images: Path, folder: Path) -> tuple[Path, Path]:
    """Two folders of pictures: those that the ranges are measured on, and those that engines are compared on."""
    from rtformer_deploy import save_png
    from rtformer_deploy.image.frames import images_in

    measured, compared = folder / "measured", folder / "compared"
    measured.mkdir()
    compared.mkdir()
    if model.pictures == "pages":
        for index in range(MEASURED + COMPARED):
            save_png((measured if index < MEASURED else compared) / f"{index}.png", drawn_page((640, 480), index), mark=False)
        return measured, compared
    paths = images_in(images)
    for index in range(MEASURED + COMPARED):
        path = paths[index * len(paths) // (MEASURED + COMPARED)]
        shutil.copy(path, (compared if index % (MEASURED // COMPARED + 1) == 0 else measured) / f"{index}{path.suffix}")
    return measured, compared


# ----------------------------------------------------------------------------------------------------------------- one model


def measure_model(model: Public, models: Path, images: Path, threads: int) -> Json:
    """Builds one model in every precision on every backend -> a row of the result. What the tool refuses is in the row, as it says it."""
    from rtformer_deploy import BuildOptions, DeployError, read_model

    path = models / model.file
    row: Json = {"name": model.name, "sha256": model.sha256}
    with tempfile.TemporaryDirectory() as name:
        measured, compared = lay_pictures(model, images, Path(name))
        try:
            row |= describe(path, model)
        except DeployError as error:
            return row | {"refused": said(error)}
        ranges, row["calibrate"] = tried(partial(calibrate, path, model, measured, threads))
        row["engines"] = {}
        for backend in BACKENDS:
            read = read_model(path, model.external(), backend)
            for precision in PRECISIONS:
                options = BuildOptions(precision=precision, threads=threads)
                _, row["engines"][f"{backend} {precision}"] = tried(partial(build, *read, backend, options, ranges, compared))
        row["notes"] = list(dict.fromkeys(note for each in row["engines"].values() for note in each.pop("notes", [])))
    return row


def tried(work: Callable[[], tuple[Made, Json]]) -> tuple[Made | None, Json]:
    """What `work` gives with the seconds it took; None and the message if it raises a DeployError."""
    from rtformer_deploy import DeployError

    start = time.perf_counter()
    try:
        made, figures = work()
    except DeployError as error:
        return None, {"refused": said(error)}
    return made, figures | {"seconds": round(time.perf_counter() - start, 1)}


def said(error: DeployError) -> str:
    """An error as one line."""
    return " ".join(str(error).split())


def describe(path: Path, model: Public) -> Json:
    """What the tool makes of a model: its input, output and meaning."""
    from rtformer_deploy import read_model

    read, spec = read_model(path, model.external())
    shapes = {"takes": list(spec.input.shape), "gives": list(spec.output.shape)}
    return shapes | {"head": spec.head, "classes_found": len(spec.classes), "threshold": spec.threshold, "nodes": len(read.graph)}


def calibrate(path: Path, model: Public, images: Path, threads: int) -> tuple[Ranges, Json]:
    from rtformer_deploy.commands.calibrate import CalibrateRequest, calibrate_file
    from rtformer_deploy.types import Feedback

    notes: list[str] = []
    ranges = calibrate_file(CalibrateRequest(path, images, threads=threads, external=model.external()), Feedback(notes.append))
    return ranges, {"images": ranges.images, "tensors": len(ranges.amax), "notes": notes}


def build(
    model: ir.Model, spec: ModelSpec, backend: Backend, options: BuildOptions, ranges: Ranges | None, compared: Path
) -> tuple[Engine, Json]:
    """Builds one engine -> the shares of pixels that change class, and what the builder said."""
    from rtformer_deploy import build_engine, load_image
    from rtformer_deploy.agreement import Probe, Probes

    frames = tuple(Probe(each.stem, partial(load_image, each)) for each in sorted(compared.iterdir()))
    engine = build_engine(model, spec, backend, options, ranges=ranges, probes=Probes(frames))
    info = engine.info
    flips = dict(info.flips_on) or graph_flips(model, spec, backend, options, ranges, compared)
    layers = dict(info.precision.layers) or info.precision.state
    return engine, {"flips": flips, "layers": layers, "mib": round(len(engine.plan) / 2**20, 1), "notes": list(info.notes)}


def graph_flips(
    model: ir.Model, spec: ModelSpec, backend: Backend, options: BuildOptions, ranges: Ranges | None, compared: Path
) -> dict[str, float]:
    """The shares of pixels that change class between a model and the graph that a backend's builder gets, both on ONNX Runtime."""
    from rtformer_deploy import load_image
    from rtformer_deploy.agreement import own_probes
    from rtformer_deploy.backends import open_reference
    from rtformer_deploy.graph.edit import clone
    from rtformer_deploy.graph.functions import inline_functions
    from rtformer_deploy.pipeline import preparation, prepare_model

    prepared = prepare_model(model, backend, options, ranges, **preparation(spec, backend))
    plain = replace(options, precision="fp32")
    frames = {probe.name: probe.decode() for probe in own_probes(spec)}
    frames |= {each.stem: load_image(each) for each in sorted(compared.iterdir())}
    with open_reference(inline_functions(clone(model)), spec, plain) as exact, open_reference(prepared, spec, plain) as other:
        return {name: float(np.mean(exact.run([frame])[0] != other.run([frame])[0])) for name, frame in frames.items()}


# -------------------------------------------------------------------------------------------------------------- all of them


def measure_all(arguments: argparse.Namespace) -> Json:
    """Measures every model that is there, each in a process of its own -> the rows by name."""
    rows = earlier_rows(arguments.json) if arguments.only else {}
    for model in MODELS:
        if arguments.only and model.name not in arguments.only:
            continue
        if not is_there(arguments.models / model.file, model):
            continue
        rows[model.name] = measured_apart(model, arguments)
        print_row(rows[model.name])
    order = {model.name: index for index, model in enumerate(MODELS)}
    return {"images": {"measured": MEASURED, "compared": COMPARED}, "models": dict(sorted(rows.items(), key=lambda row: order[row[0]]))}


def earlier_rows(path: Path | None) -> dict[str, Json]:
    names = {model.name for model in MODELS}
    if path is None or not path.is_file():
        return {}
    return {name: row for name, row in json.loads(path.read_text())["models"].items() if name in names}


def is_there(path: Path, model: Public) -> bool:
    """Whether a model's file is there; if it is another one, that is said, and the script ends."""
    from rtformer_deploy.errors import ModelError
    from rtformer_deploy.files import MODEL_BYTES, sha256_of

    if not path.is_file():
        print(f"{model.name}: left out, there is no {path}", file=sys.stderr)
        return False
    found = sha256_of(path, ModelError, "a model", MODEL_BYTES)
    if found != model.sha256:
        raise ModelError(f"{path} is not the file of {model.source}: its SHA-256 is {found}.")
    return True


def measured_apart(model: Public, arguments: argparse.Namespace) -> Json:
    paths = ["--models", arguments.models, "--images", arguments.images, "--threads", arguments.threads]
    command = [sys.executable, __file__, *map(str, paths), "--worker", model.name]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = found.stdout.splitlines()
    if found.returncode or not lines:
        raise SystemExit(f"the worker {model.name} ended with code {found.returncode}")
    row: Json = json.loads(lines[-1])
    return row


def print_row(row: Json) -> None:
    print(row["name"], row.get("refused", ""))
    for name, figures in row.get("engines", {}).items():
        print(f"  {name}: {figures.get('refused') or worst(figures)}", flush=True)


def worst(figures: Json) -> str:
    """The largest shares: on pictures, and on noise."""
    noise = figures["flips"].get("noise", 0.0)
    pictures = max(share for name, share in figures["flips"].items() if name != "noise")
    return f"{pictures:.4%} (noise {noise:.4%})"


def main() -> int:
    parser = harness.command_line(__doc__, harness.RESULTS / "foreign.json")
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder of the models' files")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument("--only", nargs="+", choices=[model.name for model in MODELS], metavar="NAME", help="measure these alone")
    harness.add_threads(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        model = next(each for each in MODELS if each.name == asked.worker)
        print(json.dumps(measure_model(model, asked.models, asked.images, asked.threads)))
        return 0
    return 0 if harness.run_script(asked.json, partial(figures_of, asked)) else 1


def figures_of(asked: argparse.Namespace) -> Json:
    return harness.stamped("public models of other architectures: pixels that change class", measure_all(asked))


if __name__ == "__main__":
    sys.exit(main())
