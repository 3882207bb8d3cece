"""build-engine --fastest: what is tried, what is dropped and why, what is chosen, and that nothing is left when it ends early."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from helpers import tiny_model

from rtformer_deploy import pipeline
from rtformer_deploy.agreement import SAMPLE, Agreement
from rtformer_deploy.cli import main
from rtformer_deploy.errors import BuildError, EngineError
from rtformer_deploy.formats.engine_file import load_info
from rtformer_deploy.formats.model_file import save_model, weights_sha256
from rtformer_deploy.formats.ranges import save_ranges
from rtformer_deploy.pipeline import spec_of
from rtformer_deploy.tuning import fastest
from rtformer_deploy.tuning.measure import latency_of
from rtformer_deploy.tuning.records import Latency
from rtformer_deploy.types import Engine, PrecisionName, Ranges

Call = Callable[..., Result]
TENSORS = ("input", "conv0", "relu0", "conv1", "relu1", "conv2", "logits")


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line in a folder with a model and its ranges."""
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    save_model(model, Path("model.onnx"))
    weights = weights_sha256(model, spec_of(model, "model.onnx"))
    save_ranges(Ranges(dict.fromkeys(TENSORS, 8.0), "mse", 1, weights, "tiny"), Path("ranges.json"))
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def call(real: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The same; engines are really built and compared, and their times are given."""
    monkeypatch.setattr(fastest, "latency_of", timed({"fp32": 10.0, "fp16": 10.0, "int8": 5.0}))
    return real


def timed(ms: Mapping[PrecisionName, float]) -> Callable[..., Latency]:
    """What stands in for a measurement: the engine's time by the precision that it was asked for."""
    return lambda runner, frames, seconds: Latency(ms[runner.info.precision.asked], ms[runner.info.precision.asked] + 1)


def changing(shares: Mapping[PrecisionName, float]) -> Callable[..., Agreement]:
    """What stands in for the comparison with ONNX Runtime: the share of changed pixels by precision."""
    return lambda engine, *_: Agreement({SAMPLE: shares[engine.info.precision.asked]})


def build(call: Call, *arguments: object, code: int = 0) -> Result:
    result = call("build-engine", "--fastest", "--backend", "openvino", "--threads", 1, *arguments)
    assert result.exit_code == code, result.output
    return result


def states() -> dict[str, str]:
    return {each.precision: each.state for each in load_info(Path("engine.plan")).candidates}


def test_the_fastest_within_the_bound_is_written_and_the_sidecar_says_from_what(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.pipeline.compare", changing({"fp32": 0.0, "fp16": 0.0, "int8": 0.005}))
    result = build(call, "--ranges", "ranges.json")
    info = load_info(Path("engine.plan"))
    assert (info.precision.asked, info.flips) == ("int8", 0.005)
    assert states() == {"fp32": "kept", "fp16": "kept", "int8": "chosen"}
    assert [each.ms for each in info.candidates] == [10.0, 10.0, 5.0]
    assert "On a CPU FP16 is storage" in result.stdout
    assert "INT8      5.00 ms    0.5000%  chosen   the fastest" in result.stdout
    told = json.loads(call("inspect", "engine.plan", "--json").stdout)
    assert told["candidates"]["fp32"] == "10.00 ms, 0.0000% of the pixels change class: kept, 2.00 times INT8's time"
    assert "2.00 times INT8's time" in call("inspect", "engine.plan").stdout


def test_what_changes_too_much_is_dropped_and_fp32_never_is(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: dict[PrecisionName, float] = {"fp32": 0.02, "fp16": 0.02, "int8": 0.011}
    monkeypatch.setattr("rtformer_deploy.pipeline.compare", changing(shares))
    result = build(call, "--ranges", "ranges.json")
    assert states() == {"fp32": "chosen", "fp16": "dropped", "int8": "dropped"}
    fp32, _, int8 = load_info(Path("engine.plan")).candidates
    assert int8.why == "1.10% of the pixels change class, more than 1.00%"
    assert int8.ms == 5.0
    assert fp32.why == "the fastest; 2.00% of the pixels change class, more than 1.00%, but FP32 is always allowed"
    assert "1.10% of the pixels change class, more than 1.00%" in result.stdout
    build(call, "--ranges", "ranges.json", "--max-flips", "1.5%")
    assert states() == {"fp32": "kept", "fp16": "dropped", "int8": "chosen"}


def test_without_ranges_int8_is_left_out_and_the_others_are_really_timed(real: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.tuning.measure._WARMUP", 0.0)
    monkeypatch.setattr(fastest, "latency_of", lambda runner, frames, seconds: latency_of(runner, frames, 0.001))
    result = build(real)
    assert states()["int8"] == "dropped"
    assert "it needs ranges (--ranges or --images), and none come with this model" in result.stdout
    fp32, fp16, _ = load_info(Path("engine.plan")).candidates
    assert fp32.ms is not None
    assert fp32.ms > 0
    assert fp16.flips is not None


def test_within_noise_the_more_precise_one_is_chosen(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "latency_of", timed({"fp32": 10.0, "fp16": 9.9, "int8": 9.85}))
    result = build(call, "--ranges", "ranges.json", "--max-flips", "1")
    assert states() == {"fp32": "chosen", "fp16": "kept", "int8": "kept"}
    assert "0.99 of FP32's time, which is within noise, and FP32 is more precise" in result.stdout


def rounds(*ratios: float) -> list[dict[PrecisionName, Latency]]:
    return [{"fp32": Latency(10.0, 11.0), "int8": Latency(10.0 * ratio, 11.0)} for ratio in ratios]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((0.5, 0.5, 0.5, 0.5, 0.5), "int8"),
        ((0.5, 0.5, 0.5, 0.5, 1.5), "int8"),  # one busy round
        ((0.5, 0.5, 0.5, 1.5, 1.5), "fp32"),  # more than one: noise
        ((0.99,) * 5, "fp32"),  # a tie
        ((1.2,) * 5, "fp32"),
    ],
)
def test_noise_is_what_the_rounds_do_not_agree_on(ratios: tuple[float, ...], expected: PrecisionName) -> None:
    assert fastest.choose(rounds(*ratios), ("fp32", "int8")) == expected


def test_a_precision_that_cannot_be_built_or_compared_is_dropped_with_the_reason(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipeline.build_engine

    def failing(model: Any, spec: Any, backend: str, options: Any, **more: Any) -> Engine:
        if options.precision == "int8":
            raise BuildError("The builder refused the model.", "A hint.")
        engine = real(model, spec, backend, options, **more)
        return replace(engine, info=replace(engine.info, flips=None)) if options.precision == "fp16" else engine

    monkeypatch.setattr(fastest, "build_engine", failing)
    build(call, "--ranges", "ranges.json")
    fp32, fp16, int8 = load_info(Path("engine.plan")).candidates
    assert (fp32.state, fp16.state, int8.state) == ("chosen", "dropped", "dropped")
    assert (fp16.why, fp16.ms, fp16.flips) == ("it could not be compared with ONNX Runtime", 10.0, None)
    assert (int8.why, int8.ms) == ("The builder refused the model", None)


def test_strict_drops_what_does_not_have_its_precision(call: Call) -> None:
    build(call, "--strict", "--ranges", "ranges.json", "--max-flips", "100%")
    _, fp16, _ = load_info(Path("engine.plan")).candidates
    assert fp16.state == "dropped"
    assert "--strict: fp16 was asked for" in fp16.why


@pytest.mark.parametrize(
    "option", [("--fp32",), ("--fp16",), ("--int8",), ("--fp8",), ("--keep", "conv0"), ("--recipe", "rtformer-slim-camvid")]
)
def test_it_chooses_the_precision_itself(call: Call, option: tuple[str, ...]) -> None:
    result = build(call, *option, code=2)
    assert "--fastest tries FP32, FP16 and INT8 itself" in result.stderr
    assert not Path("engine.plan").exists()


def test_a_plan_without_weights_cannot_be_timed(call: Call) -> None:
    assert "--fastest and --strip cannot be combined" in build(call, "--strip", code=2).stderr
    assert not Path("engine.plan").exists()


def test_ranges_that_do_not_fit_are_an_error_and_no_reason(call: Call) -> None:
    save_ranges(Ranges({"input": 1.0}, "mse", 1, "ab" * 32, "other"), Path("ranges.json"))
    result = build(call, "--ranges", "ranges.json", code=1)
    assert "belong to other weights" in result.stderr
    assert not Path("engine.plan").exists()


def test_it_needs_a_machine_that_runs_the_engine(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtformer_deploy.commands.choices.gpus", lambda: ())
    result = call("build-engine", "--fastest", "--backend", "tensorrt-rtx")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: --fastest runs every engine it builds, and there is no GPU here for tensorrt-rtx")
    assert result.stderr.count("Error:") == 1


@pytest.mark.parametrize("step", ["build_engine", "latency_of"])
def test_ctrl_c_leaves_nothing(call: Call, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """While the second engine is built, or the second is timed."""
    calls = iter([getattr(fastest, step)])

    def stop(*arguments: Any, **more: Any) -> Any:
        first = next(calls, None)
        if first is None:
            raise KeyboardInterrupt
        return first(*arguments, **more)

    monkeypatch.setattr(fastest, step, stop)
    before = sorted(Path().iterdir())
    build(call, code=130)
    assert sorted(Path().iterdir()) == before


def test_a_failing_fp32_engine_ends_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **more: Any) -> Engine:
        raise EngineError("It cannot be opened.")

    monkeypatch.setattr(fastest, "build_engine", failing)
    result = build(call, code=1)
    assert result.stderr == "Error: It cannot be opened.\n"
    assert not Path("engine.plan").exists()
