"""benchmarks/gpu.py without a GPU: arithmetic, verdicts, table, refusals, eager torch on the CPU, our kernel's call under the emulation."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from emulated_cuda import Cuda
from helpers import hide, load_file
from kernel_calls import model_spec

from rtformer_deploy.image import frames as image
from rtformer_deploy.lanes.kernels import UPSAMPLE_FORMS
from rtformer_deploy.nvidia.driver import GpuInfo

RATES = {"gbytes_per_s": 2000.0, "gmacs_per_s": 200_000.0}
SIBLINGS = ("harness", "gpu_floors", "gpu_lanes", "gpu_kernels", "gpu_contestants")


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module, its neighbours with it."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    yield load_file(root / "benchmarks" / "gpu.py", "benchmark_gpu")
    for name in SIBLINGS:
        sys.modules.pop(name, None)


@pytest.fixture
def harness(bench: ModuleType) -> ModuleType:
    return importlib.import_module("harness")


@pytest.fixture
def floors(bench: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_floors")


@pytest.fixture
def contestants(bench: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_contestants")


@pytest.fixture
def kernels(bench: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_kernels")


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.nvidia.driver._ask", lambda: ((), "no NVIDIA driver is installed"))


def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.nvidia.driver._ask", lambda: ((GpuInfo(0, "A GPU", "9.0", 81920, "13.0"),), ""))


# ------------------------------------------------------------------------------------------------------------- arithmetic


def test_work_is_in_proportion_to_the_pixels(floors: ModuleType) -> None:
    assert floors.gmacs("slim", (1024, 2048)) == 37.8
    assert floors.gmacs("base", (512, 1024)) == pytest.approx(138.9 / 4)
    assert floors.gmacs("slim", (720, 960)) == pytest.approx(37.8 * 720 * 960 / 2**21)


def test_bytes_of_an_engine_and_of_the_upsampling(floors: ModuleType) -> None:
    assert floors.engine_bytes((16, 32), 19, 1000) == 2000 + 4 * (3 * 16 * 32 + 19 * 2 * 4)
    assert floors.engine_bytes((17, 32), 1, 0) == 4 * (3 * 17 * 32 + 3 * 4)
    assert floors.upsample_bytes((1024, 2048), 19, 2) == 19 * 128 * 256 * 2 + 2**21


def test_the_large_batch_moves_at_least_what_is_asked(floors: ModuleType) -> None:
    assert floors.large_batch(100, 1000) == 10
    assert floors.large_batch(99, 1000) == 11
    size = floors.upsample_bytes((720, 960), 19, 4)
    assert floors.large_batch(size) * size >= 256_000_000 > (floors.large_batch(size) - 1) * size


def test_floors_in_ms(floors: ModuleType) -> None:
    assert floors.floors(40.0, 10_000_000, RATES) == {"matrix_ms": pytest.approx(0.2), "copy_ms": pytest.approx(0.005)}


# --------------------------------------------------------------------------------------------------------------- verdicts


def bench_report(p50: float, p99: float, fps: float, whole_fps: float) -> dict[str, Any]:
    part = {"p50_ms": p50, "p99_ms": p99}
    return {"latency": {"engine": part, "end_to_end": part}, "throughput": {"engine": {"fps": fps}, "end_to_end": {"fps": whole_fps}}}


@pytest.mark.parametrize(("mine", "p99", "whole_fps", "met"), [(1.0, 2.4, 900.0, True), (1.01, 2.41, 899.0, False)])
def test_an_engine_at_its_bounds(floors: ModuleType, mine: float, p99: float, whole_fps: float, met: bool) -> None:
    rows = {"torch-compile": {"p50_ms": 1.5}, "tensorrt": {"p50_ms": mine}}
    found = floors.engine_verdicts(rows, {"tensorrt": bench_report(2.0, p99, 1000.0, whole_fps)}, ["tensorrt"])
    assert [verdict.met for verdict in found] == [met] * 4
    assert [verdict.bound for verdict in found] == [1.5, 0.9, 1.2, 1.2]


def test_the_share_is_of_the_faster_engine_figure(floors: ModuleType) -> None:
    throughput = {"engine": {"fps": 800.0}, "end_to_end": {"fps": 760.0}}
    assert floors.throughput_share(throughput, 1.0) == pytest.approx(0.76)  # the GPU's busy time allows 1000
    assert floors.throughput_share(throughput, 2.0) == pytest.approx(0.95)


def test_what_was_not_measured_is_neither_met_nor_missed(floors: ModuleType) -> None:
    rows = {"torch-compile": {"error": "it broke"}, "tensorrt": {"p50_ms": 1.0}}
    found = floors.engine_verdicts(rows, {}, ["tensorrt"])
    assert {verdict.met for verdict in found} == {None}
    assert found[0].line() == "not measured tensorrt over torch.compile, >= 1.5: torch.compile gave no time"
    assert floors.engine_verdicts({}, {}, [])[0].why == "no TensorRT here"


def upsample_figure(ms: float, large_ms: float, form: str = "upsample_argmax") -> dict[str, Any]:
    measured = {"ms": ms, "torch_ms": 1.0, "large_batch": 78, "large_ms": large_ms, "large_copy_ms": 0.1}
    return {"form": form, "dtype": "float16", "logits": "even", **measured}


def test_the_upsampling_at_its_bounds(floors: ModuleType) -> None:
    assert [verdict.met for verdict in floors.kernel_verdicts([upsample_figure(0.1, 0.2)])] == [True, True]
    assert [verdict.met for verdict in floors.kernel_verdicts([upsample_figure(0.11, 0.21)])] == [False, False]
    assert floors.kernel_verdicts([upsample_figure(0.11, 0.21, "upsample_argmax_warp")]) == []


# ----------------------------------------------------------------------------------------------------------- rows and table


def test_a_row_is_made_of_all_bursts(bench: ModuleType) -> None:
    row = bench.row_of([{"ms": [1.0, 2.0]}, {"ms": [3.0]}], 0.25)
    assert row["p50_ms"] == 2.0
    assert row["p99_ms"] == pytest.approx(2.98)
    assert (row["min_ms"], row["steps"], row["fps"], row["unlike_torch"]) == (1.0, 3, 500.0, 0.25)
    assert bench.row_of([{"ms": [1.0]}, {"error": "it broke"}], None) == {"error": "it broke"}


def test_the_table(bench: ModuleType, floors: ModuleType) -> None:
    rows = {"torch": bench.row_of([{"ms": [12.0]}], 0.0), "tensorrt-rtx": bench.row_of([{"ms": [0.5]}], 0.001)}
    two_forms = upsample_figure(0.01, 0.15), upsample_figure(0.02, 0.6, "upsample_argmax_warp")
    norm = {"shape": [1, 256, 2048], "groups": 8, "ms": 0.01, "torch_ms": 0.1, "copy_ms": 0.001}
    case = {
        "variant": "slim",
        "size": (1024, 2048),
        "weights": "random, seed 0",
        "contestants": rows | {"torch-compile": {"error": "RuntimeError: no"}},
        "left_out": {"tensorrt": "tensorrt is not installed"},
        "benches": {"tensorrt-rtx": frames_report(0.7), "standin": {"error": "out of memory"}},
        "no_frames": {"tensorrt": "tensorrt is not installed"},
        "floors": {"matrix_ms": 0.25, "copy_ms": 0.01},
        "kernels": {
            "upsample_argmax": [*two_forms],
            "grouped_double_norm": [norm],
        },
        "verdicts": [verdict.to_json() for verdict in floors.kernel_verdicts([upsample_figure(0.01, 0.3)])],
    }
    text = bench.report(json.loads(json.dumps(case)))
    assert max(map(len, text.splitlines())) <= 80
    assert "tensorrt-rtx          0.500    0.500   2000.0      2.0x    50.0x    0.100%" in text
    assert "torch-compile      FAILED: RuntimeError: no" in text
    assert "left out: tensorrt is not installed" in text
    assert "tensorrt-rtx frames   0.700    0.770 ms; 4 lanes 1900.0 FPS, engine 2000.0" in text
    assert "standin      frames FAILED: out of memory" in text
    assert "tensorrt     frames left out: tensorrt is not installed" in text
    assert "  upsample_argmax_warp float16 even: 0.0200 ms, torch 1.0000\n    x78 0.600 ms, copy 0.100\n" in text
    assert "met          upsample_argmax float16 even over torch, >= 10: 100.00" in text
    assert "MISSED       upsample_argmax float16 even x78 over copy, <= 2: 3.00" in text
    assert bench.missed({"cases": [case]})
    right = {"contestants": rows, "benches": {"standin": frames_report(1.0)}, "verdicts": [{"met": True}, {"met": None}]}
    assert not bench.missed({"cases": [right]})
    assert bench.missed({"cases": [right | {"benches": {"standin": {"error": "out of memory"}}}]})


def frames_report(p50: float) -> dict[str, Any]:
    """The bench reports of one lane and of four, whose p99 is 10% above p50."""
    one = {"engine": {"p50_ms": 0.6, "p99_ms": 0.6}, "end_to_end": {"p50_ms": p50, "p99_ms": 1.1 * p50}}
    many = {"lanes": 4, "engine": {"fps": 2000.0}, "end_to_end": {"fps": 1900.0}}
    return {"latency": one | {"engine_without_copies": {"p50_ms": 0.5}}, "throughput": many}


def test_without_tensorrt_the_frames_of_the_others_are_judged(bench: ModuleType) -> None:
    """Against the GPU's own time for the engine, which is 0.5 ms here: 1900 FPS of 2000."""
    slow = frames_report(1.0)
    slow["latency"]["end_to_end"]["p99_ms"] = 1.3
    found = bench.judge({}, {"standin": frames_report(1.0), "torch": slow, "tensorrt": {"error": "no"}}, [])
    assert [(verdict.what.split(" ")[0], verdict.met) for verdict in found] == [
        *[("standin", True)] * 3,
        *[("torch", True)] * 2,
        ("torch", False),
    ]
    assert found[0].what == "standin end to end over engine FPS, >= 0.9"
    assert found[0].found == pytest.approx(0.95)
    rows = {"torch": {"p50_ms": 9.0}}
    assert bench.judge(rows, {"torch": slow}, [])[0].what == "ours over torch.compile, >= 1.5"
    assert bench.judge(rows, {"torch": slow}, [])[1].found == pytest.approx(0.95), "eager PyTorch's time is not that of the lanes' engine"


def test_whose_frames_can_be_measured(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = importlib.import_module("gpu_lanes")
    assert set(frames.ENGINES) == {"standin", "torch", "tensorrt-rtx", "tensorrt"}
    assert frames.why_no_frames("standin", "cpu") == "needs a GPU, and --device is cpu"
    no_gpu(monkeypatch)
    assert frames.why_no_frames("standin", "cuda") == "no GPU: no NVIDIA driver is installed"
    one_gpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    hide(monkeypatch, "tensorrt")
    assert frames.why_no_frames("standin", "cuda") == frames.why_no_frames("torch", "cuda") == ""
    assert frames.why_no_frames("tensorrt", "cuda") == "tensorrt is not installed"
    monkeypatch.setattr(frames.importlib.util, "find_spec", lambda name: None)
    assert frames.why_no_frames("standin", "cuda") == "cuda.core is not installed"


# --------------------------------------------------------------------------------------------------------------- refusals


def test_without_a_gpu_there_is_one_message_and_no_file(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_gpu(monkeypatch)
    assert bench.main(["--json", str(tmp_path / "gpu.json")]) == 1
    told = capsys.readouterr()
    assert told.err == "benchmarks/gpu.py cannot measure here: no GPU: no NVIDIA driver is installed.\n"
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told_before_anything_runs(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--device", "cpu", "--json", str(tmp_path / "nowhere" / "gpu.json")]) == 1
    assert "does not exist; make it first" in capsys.readouterr().err


def test_bad_input_is_one_message_and_no_file(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cpu", "--variants", "slim", "--sizes", "64x128", "--json", str(tmp_path / "gpu.json")]
    assert bench.main([*words, "--frames", str(tmp_path / "nowhere")]) == 1
    assert "Cannot read the folder" in capsys.readouterr().err
    assert bench.main([*words, "--weights", str(tmp_path / "none.pdparams")]) == 1
    assert "none.pdparams" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_why_a_contestant_is_left_out(contestants: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants.importlib.util, "find_spec", lambda name: object() if name != "tensorrt" else None)
    no_gpu(monkeypatch)
    assert contestants.why_not("tensorrt", "cuda") == "tensorrt is not installed"
    assert contestants.why_not("tensorrt-rtx", "cuda") == "no GPU: no NVIDIA driver is installed"
    assert contestants.why_not("torch", "cpu") == ""
    assert contestants.why_not("torch-compile", "cpu") == "needs a GPU, and --device is cpu"
    one_gpu(monkeypatch)
    assert contestants.why_not("tensorrt-rtx", "cuda") == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert contestants.why_not("torch-compile", "cuda") == f"this torch ({torch.__version__}) has no CUDA"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert contestants.why_not("torch-compile", "cuda") == ""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert contestants.why_not("onnxruntime-cuda", "cuda") == "no CUDA provider: there are CPUExecutionProvider"


def test_arguments(bench: ModuleType, harness: ModuleType) -> None:
    given = bench.parse(["--sizes", "64x128", "720x960", "--variants", "base"])
    assert (given.sizes, given.variants, given.device, given.json) == ([(64, 128), (720, 960)], ["base"], "cuda", bench.RESULT)
    assert bench.parse([]).sizes == [(1024, 2048), (720, 960)]
    assert bench.parse(["--device", "cpu"]).json is None
    for wrong in ("64", "0x64", "64x", "axb"):
        with pytest.raises(argparse.ArgumentTypeError):
            harness.size_of(wrong)
    with pytest.raises(SystemExit):
        bench.parse(["--rounds", "0"])
    given = bench.parse(["--parts", "frames", "--engine", "standin", "torch"])
    assert (given.parts, given.engine) == (["frames"], ["standin", "torch"])
    assert set(bench.parse([]).parts) == {"engines", "frames", "kernels"}
    with pytest.raises(SystemExit):
        bench.parse(["--engine", "openvino"])


# ---------------------------------------------------------------------------------------------------------- what runs on a CPU


def test_eager_torch_on_the_cpu_from_the_command_line_to_the_file(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--device", "cpu", "--variants", "slim", "--sizes", "64x128", "--rounds", "2", "--steps", "3"]
    assert bench.main([*words, "--json", str(tmp_path / "gpu.json")]) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert {"what", "when", "rounds", "steps", "lanes", "rates", "environment", "cases"} == result.keys()
    assert result["environment"]["device"] == "cpu"
    (case,) = result["cases"]
    row = case["contestants"]["torch"]
    assert row["steps"] == 6
    assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p99_ms"]
    assert row["unlike_torch"] == 0
    assert case["left_out"].keys() == {"torch-compile", "onnxruntime-cuda", "tensorrt-rtx", "tensorrt"}
    assert "slim 64x128, FP16, batch 1, random, seed 0" in capsys.readouterr().out


def test_a_contestant_that_fails_says_so_each_time(contestants: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(folder: Path, case: dict[str, Any]) -> Any:
        calls.append(case)
        print("a library's chatter")
        raise RuntimeError("out of memory")

    (tmp_path / "case.json").write_text('{"steps": 2}')
    monkeypatch.setitem(contestants.MAKERS, "torch", broken)
    one = contestants.Contestant("torch", tmp_path)
    assert [one.answer(0), one.answer(0)] == [{"error": "RuntimeError: out of memory"}] * 2
    assert len(calls) == 1


def test_a_contestant_is_made_once_and_answers_with_its_times(
    contestants: ModuleType, bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = np.zeros((1, 2, 3, 4), np.float32)

    def made(folder: Path, case: dict[str, Any]) -> Any:
        print("a library's chatter")
        return lambda count: [1.0] * count, logits

    (tmp_path / "case.json").write_text('{"steps": 2}')
    monkeypatch.setitem(contestants.MAKERS, "tensorrt", made)
    assert contestants.Contestant("tensorrt", tmp_path).answer(0) == {"ms": [1.0, 1.0]}
    assert capsys.readouterr().out == ""  # stdout is for answers
    assert bench.unlike_torch(tmp_path, "tensorrt") is None
    logits[0, 1, 0, 0] = 1
    np.save(tmp_path / "torch.npy", logits)
    assert bench.unlike_torch(tmp_path, "tensorrt") == pytest.approx(1 / 12)


def test_what_the_engines_are_built_from(bench: ModuleType, harness: ModuleType, tmp_path: Path) -> None:
    case = {"recipe": "rtformer-slim-cityscapes", "size": (64, 128), "weights": None}
    made = bench.prepare(tmp_path, case, harness.frames_at(None, (64, 128), 1)[0], ["torch", "onnxruntime-cuda"])
    assert {path.name for path in tmp_path.iterdir()} == {"frame.npy", "input.npy", "case.json", "frame.png", "fp16.onnx"}
    assert made["parameters"] == 5365043
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "fp16.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: np.load(tmp_path / "input.npy")})
    assert logits.shape == (1, 19, 8, 16)


@pytest.mark.parametrize("form", UPSAMPLE_FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_our_upsampling_on_torchs_memory(kernels: ModuleType, dtype: str, form: str) -> None:
    spec = model_spec((64, 128), (8, 16), 19)
    drawn = kernels.even_logits(19, (8, 16))
    logits = torch.from_numpy(np.stack([drawn, drawn[::-1].copy()])).to(getattr(torch, dtype))
    cuda = Cuda()
    call = kernels.UpsampleCall(cuda, cuda.gpu, spec, logits, form)
    call("a stream")
    for labels, values in zip(call.labels.numpy(), logits.float().numpy(), strict=True):
        np.testing.assert_array_equal(labels, image.upsample_argmax(values, (64, 128), (64, 128)))
    assert call.flag.item() == 0
    usual = kernels.torch_upsample(logits.float(), (64, 128)).numpy()
    assert np.mean(usual != call.labels.numpy()) < 0.001


@pytest.mark.parametrize(("name", "classes"), [("even", 7.2), ("slopes", 2.6)])
def test_the_drawn_logits_are_of_two_kinds(kernels: ModuleType, name: str, classes: float) -> None:
    from rtformer_deploy.image.upsample import mixed_share

    drawn = kernels.DRAWN[name](19, (128, 256))
    assert (drawn.shape, drawn.dtype) == ((19, 128, 256), np.float32)
    assert mixed_share(drawn) == pytest.approx(0.25, abs=0.02)
    assert kernels.candidates(drawn) == pytest.approx(classes, abs=0.1)
    assert kernels.DRAWN[name](3, (5, 13)).shape == (3, 5, 13)


def test_candidates_are_those_that_may_win(kernels: ModuleType) -> None:
    corners = np.array([[[4, 4], [0, 0]], [[0, 0], [4, 4]], [[3, 3], [1, 1]], [[0, 0], [0, 0]]], np.float32)
    assert kernels.candidates(corners) == 3, "the last class never reaches the 1 below which the third never falls"
    assert kernels.candidates(corners[:1]) == 0
