"""How TensorRT-RTX starts, over a fake one: its own CUDA graphs, and the cache of compiled kernels beside the plan."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import RuntimeConfig
from helpers import frames
from tensorrt_lab import SIZES, TensorRTLab, assert_labels, check
from tensorrt_plans import GPU, make_engine, set_gpus

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import EngineError
from rtformer_deploy.types import Engine


@pytest.fixture(autouse=True)
def rtx(machine: TensorRTLab) -> None:
    machine.rtx = True


def rtx_engine(path: Path | None = None, plan: bytes = b"plan") -> Engine:
    engine = make_engine(backend="tensorrt-rtx", builder_version="tensorrt-rtx 10.3.0", gpu="compute capability 8.0, 8.6")
    return dataclasses.replace(engine, plan=plan, path=path)


def start_note(runner: Any) -> str:
    (note,) = (note for note in runner.notes if note.startswith("Start:"))
    return str(note)


@pytest.mark.parametrize("graphs", [True, False])
def test_rtx_captures_its_own_graphs(machine: TensorRTLab, graphs: bool) -> None:
    with open_engine(rtx_engine(), graphs=graphs) as runner:
        for seed in range(3):
            check(runner, frames(*SIZES, seed=seed))
    assert f"TensorRT: graphs {'whole' if graphs else 'disabled'}" in machine.journal()
    assert machine.captured() == 0


def test_kernels_are_settled_at_open_for_each_batch_and_lane_one_lane_after_the_other(machine: TensorRTLab) -> None:
    with open_engine(rtx_engine(), lanes=2):
        assert "TensorRT: kernels eager" in machine.journal()
        ran = [line for line in machine.journal() if line.startswith("TensorRT: execute")]
        assert ran == ["TensorRT: execute 1", "TensorRT: execute 2", "TensorRT: execute 3"] * 2
        assert machine.runs_done == 6, "opening waits for each of them"


@pytest.mark.parametrize(("batch", "run"), [((1, 1, 1), [1]), ((4, 8, 8), [4, 8]), ((1, 4, 16), [1, 4, 16])])
def test_only_the_batches_that_the_plan_names_are_run_at_open(machine: TensorRTLab, batch: tuple[int, int, int], run: list[int]) -> None:
    engine = rtx_engine()
    with open_engine(dataclasses.replace(engine, info=dataclasses.replace(engine.info, batch=batch))):
        assert [line for line in machine.journal() if line.startswith("TensorRT: execute")] == [f"TensorRT: execute {size}" for size in run]


def test_a_tensorrt_rtx_without_the_setting_opens_as_well(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    with open_engine(rtx_engine()) as runner:
        check(runner, frames(SIZES[0]))
    assert "TensorRT: kernels not set" in machine.journal()


def test_other_batches_run_in_the_next_larger_one_that_was_run_at_open(machine: TensorRTLab) -> None:
    engine = rtx_engine()
    with open_engine(dataclasses.replace(engine, info=dataclasses.replace(engine.info, batch=(1, 1, 4)))) as runner:
        for count in (2, 3, 1, 4):
            given = frames(*SIZES[:count], seed=count)
            assert_labels(runner.result(runner.submit(given)), given)
            assert runner.logits(given).shape[0] == count
        ran = {line for line in machine.journal() if line.startswith("TensorRT: execute")}
        assert ran == {
            "TensorRT: execute 1",
            "TensorRT: execute 4",
        }


def test_a_first_run_that_fails_is_opening_that_fails(machine: TensorRTLab) -> None:
    machine.runs = False
    with pytest.raises(EngineError, match="the kernel went missing"):
        open_engine(rtx_engine(), lanes=2)
    assert machine.live() == 0


def test_standard_tensorrt_runs_nothing_at_open(machine: TensorRTLab) -> None:
    machine.rtx = False
    with open_engine(make_engine()):
        assert machine.count("TensorRT: execute") == 0


def test_a_second_start_does_not_compile_again_and_both_times_are_told(machine: TensorRTLab, tmp_path: Path) -> None:
    engine = rtx_engine(tmp_path / "engine.plan")
    with open_engine(engine, lanes=3) as runner:
        check(runner, frames(*SIZES))
        assert re.fullmatch(r"Start: \d+ ms, compiling for this GPU; the next one reads engine.plan.cache\.", start_note(runner))
        assert runner.start_ms is not None
        assert runner.start_ms > 0
    assert machine.compiled == 1
    assert [path.name for path in tmp_path.iterdir()] == ["engine.plan.cache"]
    with open_engine(engine) as runner:
        check(runner, frames(*SIZES))
        assert re.fullmatch(r"Start: \d+ ms with engine.plan.cache; the first one, which compiled, took \d+ ms\.", start_note(runner))
    assert machine.compiled == 1


@pytest.mark.parametrize("what", ["plan", "gpu", "driver", "damaged", "cut", "empty"])
def test_a_cache_that_does_not_fit_is_written_anew(
    machine: TensorRTLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = tmp_path / "engine.plan"
    open_engine(rtx_engine(path)).close()
    cache = tmp_path / "engine.plan.cache"
    engine = rtx_engine(path, b"other" if what == "plan" else b"plan")
    if what in ("gpu", "driver"):
        other = dataclasses.replace(GPU, name="NVIDIA Other") if what == "gpu" else dataclasses.replace(GPU, driver="14.0")
        set_gpus(monkeypatch, other)
    elif what != "plan":
        whole = cache.read_bytes()
        cache.write_bytes({"damaged": whole[:-1] + b"!", "cut": whole[:20], "empty": b""}[what])
    before = machine.compiled
    with open_engine(engine) as runner:
        check(runner, frames(SIZES[0]))
        assert "compiling" in start_note(runner)
    assert machine.compiled == before + 1
    with open_engine(engine) as runner:
        assert "with engine.plan.cache" in start_note(runner)
    assert machine.compiled == before + 1


def test_a_folder_that_cannot_be_written_is_a_note(machine: TensorRTLab, tmp_path: Path) -> None:
    with open_engine(rtx_engine(tmp_path / "gone" / "engine.plan")) as runner:
        check(runner, frames(SIZES[0]))
        assert any(note.startswith("The runtime cache could not be kept, so every start compiles: ") for note in runner.notes)


def test_a_plan_that_is_no_file_has_no_cache(machine: TensorRTLab) -> None:
    with open_engine(rtx_engine()) as runner:
        assert re.fullmatch(r"Start: \d+ ms\.", start_note(runner))
