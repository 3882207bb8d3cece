"""Engines on a GPU, side by side: ours against torch eager, torch.compile and ONNX Runtime's CUDA provider; FP16, batch 1.

THIS SCRIPT HAS NEVER RUN ON A GPU. What is not a launch is tested (tests/benchmarks); expect to fix the rest.

    python benchmarks/gpu.py [--weights slim.pdparams] [--frames DIR] [--rounds 10] [--lanes 4] [--json benchmarks/results/gpu.json]
    python benchmarks/gpu.py --parts frames --engine standin torch     # without any TensorRT

Three parts. `engines`: one worker process for each contestant, called in turn (gpu_contestants.py says which and by which clock), from
the network's input to its low-resolution logits. `frames`: from a decoded frame to a label map with each --engine (gpu_lanes.py), one
lane for latency, --lanes for throughput. `kernels`: ours alone (gpu_kernels.py). Every figure that is asked for gets a verdict
(gpu_floors.py), and every engine its distance to two floors: its multiply-adds at the device's measured matrix rate; its weights, input
and logits at the measured copy rate (activations left out, so an engine moves more). Slim takes the weights given, else random ones as
Base.

`--device cpu` tries the script without a GPU: torch eager alone, no verdict, and a file only if --json names one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import numpy as np
from gpu_contestants import NAMES, OURS, why_not
from gpu_floors import Verdict, engine_bytes, engine_verdicts, floors, frame_verdicts, gmacs, kernel_verdicts
from gpu_lanes import ENGINES, frame_lines, measure_frames, why_no_frames
from harness import Json, Size

if TYPE_CHECKING:
    from rtformer_deploy.export.weights_choice import Choice
    from rtformer_deploy.types import Frame, ModelSpec

SIZES: tuple[Size, ...] = ((1024, 2048), (720, 960))
RESULT = harness.RESULTS / "gpu.json"
PARTS = ("engines", "frames", "kernels")
WORKER = str(Path(__file__).with_name("gpu_contestants.py"))


# ---------------------------------------------------------------------------------------------------------------- one case


def prepare(folder: Path, case: Mapping[str, Any], frame: Frame, names: Sequence[str]) -> Json:
    """Frame, input and what the contestants open, into `folder`; returns the spec, the parameters, and what is known of our engines."""
    from rtformer_deploy.image.frames import preprocess

    choice = harness.network_of(case)
    spec = choice.spec(size=case["size"])
    np.save(folder / "frame.npy", frame)
    np.save(folder / "input.npy", preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, corners=spec.resize_corners)[None])
    (folder / "case.json").write_text(json.dumps(case))
    exported = {"onnxruntime-cuda", *OURS} & set(names)
    engines = build_engines(folder, choice, spec, frame, exported) if exported else {}
    parameters = sum(values.numel() for values in choice.network.parameters())
    return {"spec": spec, "parameters": parameters, "engines": engines}


def build_engines(folder: Path, choice: Choice, spec: ModelSpec, frame: Frame, names: Collection[str]) -> Json:
    """What is made of the exported model, into `folder`, and what is known of our engines. The exporter is not needed without them."""
    from rtformer_deploy import BuildOptions, build_engine, export_model, save_engine, save_model, save_png
    from rtformer_deploy.pipeline import prepare_model

    options = BuildOptions(precision="fp16")
    save_png(folder / "frame.png", frame)
    model = export_model(choice.network, spec).model
    if "onnxruntime-cuda" in names:
        save_model(prepare_model(model, "tensorrt", options), folder / "fp16.onnx")
    engines: Json = {}
    for name in [name for name in OURS if name in names]:
        engine = build_engine(model, spec, name, options)
        save_engine(engine, folder / f"{name}.plan")
        info = engine.info
        engines[name] = {"version": info.builder_version, "precision": info.precision.state, "flips": info.flips}
    return engines


def measure(folder: Path, names: Sequence[str], rounds: int) -> dict[str, Json]:
    """Calls the contestants in turn -> a row each, with the share of low-resolution classes unlike eager torch's."""
    answers = harness.call_in_turn(WORKER, folder, names, 1, rounds)
    return {name: row_of(answers[name], unlike_torch(folder, name)) for name in names}


def row_of(answers: Sequence[Mapping[str, Any]], unlike: float | None) -> Json:
    """A contestant's answers -> its row, or its error."""
    failed = next((answer["error"] for answer in answers if "error" in answer), None)
    if failed is not None:
        return {"error": failed}
    times = np.concatenate([answer["ms"] for answer in answers])
    p50, p99 = (float(value) for value in np.percentile(times, [50, 99]))
    return {"p50_ms": p50, "p99_ms": p99, "min_ms": float(times.min()), "steps": len(times), "fps": 1000 / p50, "unlike_torch": unlike}


def unlike_torch(folder: Path, name: str) -> float | None:
    """The share of low-resolution positions whose class differs from eager torch's; None if either gave none."""
    mine, theirs = folder / f"{name}.npy", folder / "torch.npy"
    if not mine.exists() or not theirs.exists():
        return None
    return float(np.mean(np.load(mine).argmax(1) != np.load(theirs).argmax(1)))


def chosen(names: Sequence[str], why: Callable[[str], str]) -> tuple[list[str], dict[str, str]]:
    """Those that can take part, and why the others cannot."""
    left_out = {name: reason for name in names if (reason := why(name))}
    return [name for name in names if name not in left_out], left_out


def run_case(folder: Path, case: Json, arguments: argparse.Namespace, rates: dict[str, float] | None) -> Json:
    """A variant at a size: every contestant that can take part, frames through lanes, kernels, floors and verdicts."""
    device = case["device"]
    names, left_out = chosen(NAMES if "engines" in arguments.parts else (), lambda name: why_not(name, device))
    lanes, no_frames = chosen(arguments.engine if "frames" in arguments.parts else (), lambda name: why_no_frames(name, device))
    frame = harness.frames_at(arguments.frames, case["size"], 1)[0]
    made = prepare(folder, case, frame, [*names, *lanes])
    rows = measure(folder, names, arguments.rounds) if names else {}
    told = {key: case[key] for key in ("variant", "recipe", "size", "device")} | {"weights": made["spec"].weights}
    result = told | {"contestants": rows, "left_out": left_out, "no_frames": no_frames, "engines": made["engines"]}
    if rates is None:
        return result | {"benches": {}, "kernels": None, "floors": None, "verdicts": []}
    opened = [name for name in lanes if name not in OURS or "error" not in rows.get(name, {})]
    benches = {name: measure_frames(name, folder, case, frame, arguments.lanes, arguments.seconds) for name in opened}
    kernels = kernels_of(made["spec"], rates) if "kernels" in arguments.parts else None
    verdicts = judge(rows, benches, [name for name in names if name in OURS], kernels)
    found = {"benches": benches, "kernels": kernels, "floors": floors_of(case, made, rates)}
    return result | found | {"verdicts": [verdict.to_json() for verdict in verdicts]}


def judge(rows: Mapping[str, Json], benches: Mapping[str, Json], ours: Sequence[str], kernels: Json | None = None) -> list[Verdict]:
    """What is asked of our engines if they were measured, of the frames of the others, and of the kernels."""
    measured = {name: bench for name, bench in benches.items() if "error" not in bench}
    found = engine_verdicts(rows, measured, ours) if rows else []
    found += [verdict for name, bench in measured.items() if name not in ours for verdict in frame_verdicts(name, bench)]
    return found + (kernel_verdicts(kernels["upsample_argmax"]) if kernels is not None else [])


def floors_of(case: Mapping[str, Any], made: Mapping[str, Any], rates: Mapping[str, float]) -> Json:
    """The two floors of the case's engines, in ms."""
    moved = engine_bytes(case["size"], len(made["spec"].classes), made["parameters"])
    return floors(gmacs(case["variant"], case["size"]), moved, rates)


def kernels_of(spec: ModelSpec, rates: Mapping[str, float]) -> Json:
    from gpu_kernels import measure_kernels

    return measure_kernels(spec, rates)


# ---------------------------------------------------------------------------------------------------------------- report


def report(case: Mapping[str, Any]) -> str:
    """A case as text, at most 80 columns but for an error's words."""
    precision = "FP16, batch 1"
    lines = [f"\n{case['variant']} {case['size'][0]}x{case['size'][1]}, {precision}, {case['weights']}"]
    if case["contestants"]:
        lines.append(f"  {'':18}{'p50 ms':>9}{'p99 ms':>9}{'FPS':>9}{'/ matrix':>10}{'/ copy':>9}{'unlike':>10}")
    lines += [row_line(name, row, case["floors"]) for name, row in case["contestants"].items()]
    lines += [f"  {name:18} left out: {reason}" for name, reason in case["left_out"].items()]
    if case["floors"] is not None:
        bounds = case["floors"]
        lines.append(f"  floors: matrix rate {bounds['matrix_ms']:.3f} ms, copy rate {bounds['copy_ms']:.3f} ms")
    lines += [line for name, bench in case["benches"].items() for line in frame_lines(name, bench)]
    lines += [f"  {name:12} frames left out: {reason}" for name, reason in case["no_frames"].items()]
    lines += kernel_lines(case["kernels"]) if case["kernels"] is not None else []
    lines += [f"  {Verdict(**verdict).line()}" for verdict in case["verdicts"]]
    return "\n".join(lines)


def row_line(name: str, row: Mapping[str, Any], bounds: Mapping[str, float] | None) -> str:
    if "error" in row:
        return f"  {name:18} FAILED: {row['error']}"
    over = [f"{row['p50_ms'] / bounds[key]:.1f}x" if bounds else "" for key in ("matrix_ms", "copy_ms")]
    unlike = "" if row["unlike_torch"] is None else f"{row['unlike_torch']:.3%}"
    return f"  {name:18}{row['p50_ms']:9.3f}{row['p99_ms']:9.3f}{row['fps']:9.1f}{over[0]:>10}{over[1]:>9}{unlike:>10}"


def kernel_lines(kernels: Mapping[str, Any]) -> list[str]:
    lines = []
    for figure in kernels["upsample_argmax"]:
        lines.append(f"  {figure['form']} {figure['dtype']} {figure['logits']}: {figure['ms']:.4f} ms, torch {figure['torch_ms']:.4f}")
        lines.append(f"    x{figure['large_batch']} {figure['large_ms']:.3f} ms, copy {figure['large_copy_ms']:.3f}")
    for figure in kernels["grouped_double_norm"]:
        shape = "x".join(map(str, figure["shape"]))
        times = f"{figure['ms']:.4f} ms, torch {figure['torch_ms']:.4f}, copy {figure['copy_ms']:.4f}"
        lines.append(f"  grouped_double_norm {shape}, G={figure['groups']}: {times}")
    return lines


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__)
    harness.add_cases(parser, SIZES)
    parser.add_argument("--rounds", type=harness.positive, default=10)
    parser.add_argument("--steps", type=harness.positive, default=50, help="steps of one contestant in a round")
    parser.add_argument("--lanes", type=harness.positive, default=4, help="lanes of throughput mode")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each bench measurement")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure [default: all]")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES), help="whose frames [default: all that are here]")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args(words)
    if arguments.json is None and arguments.device == "cuda":
        arguments.json = RESULT
    return arguments


def compare(arguments: argparse.Namespace) -> Json:
    """The whole run. Raises DeployError without torch or, unless --device is cpu, its CUDA: it measures the device's rates."""
    from rtformer_deploy import DeployError

    if reason := why_not("torch", arguments.device):
        raise DeployError(f"benchmarks/gpu.py cannot measure here: {reason}.")
    rates = None
    if arguments.device == "cuda":
        from gpu_kernels import measured_rates

        rates = measured_rates()
        print(f"measured: {rates['gbytes_per_s']:.0f} GB/s copied (read + written), {rates['gmacs_per_s'] / 1000:.0f} FP16 TMAC/s")
    measured = []
    for case in harness.cases(arguments):
        case |= {"device": arguments.device, "steps": arguments.steps}
        with tempfile.TemporaryDirectory() as name:
            measured.append(run_case(Path(name), case, arguments, rates))
        print(report(measured[-1]), flush=True)
    figures = {"rounds": arguments.rounds, "steps": arguments.steps, "lanes": arguments.lanes, "rates": rates, "cases": measured}
    what = "network input to low-resolution logits in ms, one worker process each, called in turn; FP16, batch 1"
    return harness.stamped(what, figures, harness.device_facts(arguments.device))


def main(words: Sequence[str] | None = None) -> int:
    """0: measured; 1: nothing could be, or a contestant failed or a bound was missed (the figures are written all the same)."""
    arguments = parse(words)
    result = harness.run_script(arguments.json, lambda: compare(arguments))
    return 1 if result is None or missed(result) else 0


def missed(result: Mapping[str, Any]) -> bool:
    """Whether a contestant or an engine's frames failed or a bound was missed."""
    failed = any("error" in row for case in result["cases"] for row in (*case["contestants"].values(), *case["benches"].values()))
    return failed or any(verdict["met"] is False for case in result["cases"] for verdict in case["verdicts"])


if __name__ == "__main__":
    raise SystemExit(main())
