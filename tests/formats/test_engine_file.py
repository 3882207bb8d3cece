"""`engine.plan` and its sidecar: what is written comes back, and whatever was changed, lost or mixed up is said in one message."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import frames, tiny_model, tiny_spec
from tensorrt_plans import half_ends, make_info

from rtformer_deploy.backends import build, open_engine
from rtformer_deploy.errors import EngineError, OutputError, UsageError
from rtformer_deploy.formats.engine_file import load_engine, load_info, save_engine, save_info, save_precision, sidecar
from rtformer_deploy.types import BuildOptions, Engine, Head


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return build(tiny_model(), tiny_spec(), request.param, BuildOptions(threads=1))


@pytest.fixture
def plan(engine: Engine, tmp_path: Path) -> Path:
    path = tmp_path / "engine.plan"
    save_engine(engine, path)
    return path


def edit(path: Path, **values: Any) -> None:
    beside = sidecar(path)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | values))


def test_a_saved_engine_comes_back_and_runs(engine: Engine, plan: Path) -> None:
    loaded = load_engine(plan)
    assert loaded == engine
    assert sidecar(plan).name == "engine.plan.json"
    with open_engine(loaded, threads=1) as runner, open_engine(engine, threads=1) as other:
        given = frames((64, 96))
        assert (runner.run(given)[0] == other.run(given)[0]).all()


def test_a_changed_byte(plan: Path) -> None:
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    with pytest.raises(EngineError, match=r"engine.plan is not the plan that engine.plan.json describes: its SHA-256 differs") as caught:
        load_engine(plan)
    assert "rtformer-deploy build-engine" in str(caught.value)


def test_a_truncated_plan(plan: Path) -> None:
    plan.write_bytes(plan.read_bytes()[:100])
    with pytest.raises(EngineError, match="SHA-256 differs, so it was changed, cut short or mixed up"):
        load_engine(plan)


def test_an_empty_or_missing_plan(plan: Path) -> None:
    plan.write_bytes(b"")
    with pytest.raises(EngineError, match=r"engine.plan is empty; it should be an engine plan"):
        load_engine(plan)
    plan.unlink()
    with pytest.raises(EngineError, match=r"Cannot read an engine plan .*No such file"):
        load_engine(plan)


def test_a_plan_without_its_sidecar(plan: Path) -> None:
    sidecar(plan).unlink()
    with pytest.raises(EngineError, match=r"engine.plan has no engine.plan.json beside it") as caught:
        load_engine(plan)
    assert "Copy both files together" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"spec": 3}', "\ufeff\x00"], ids=["empty", "cut", "list", "bare", "wrong", "binary"]
)
def test_a_damaged_sidecar(plan: Path, text: str) -> None:
    sidecar(plan).write_text(text, encoding="utf-8")
    with pytest.raises(EngineError, match=r"engine.plan.json cannot be read: .*\n.*rtformer-deploy build-engine"):
        load_info(plan)


def test_a_sidecar_from_a_later_version_may_say_more(engine: Engine, plan: Path) -> None:
    edit(plan, colour="green")
    note = "engine.plan.json is of version 1, of which this version of rtformer-deploy does not read: colour."
    assert load_info(plan) == dataclasses.replace(engine.info, notes=(*engine.info.notes, note))
    edit(plan, version=5)
    assert load_info(plan).notes[-1] == note.replace("version 1", "version 5")
    edit(plan, batch="all")
    with pytest.raises(
        EngineError, match=r"it is of version 5, and only 4 is known here \(batch is 'all'; expected a list\): install a newer"
    ):
        load_info(plan)


@pytest.mark.parametrize("head", ["lowres", "labels"])
def test_fp16_ends_are_kept_in_a_newer_version(tmp_path: Path, head: Head) -> None:
    info = half_ends(make_info(head))
    save_info(info, tmp_path / "engine.plan")
    assert json.loads(sidecar(tmp_path / "engine.plan").read_text())["version"] == 4
    loaded = load_info(tmp_path / "engine.plan")
    assert loaded == info
    assert loaded.io == "fp16"
    assert [each.dtype for each in (*loaded.inputs, *loaded.outputs)] == ["float16", "uint8" if head == "labels" else "float16"]
    save_info(make_info(head), tmp_path / "engine.plan")
    assert json.loads(sidecar(tmp_path / "engine.plan").read_text())["version"] == 1


def test_one_end_in_fp16_alone_is_a_damaged_sidecar(tmp_path: Path) -> None:
    whole, half = make_info(), half_ends(make_info())
    for info in (dataclasses.replace(whole, inputs=half.inputs), dataclasses.replace(whole, outputs=half.outputs)):
        save_info(info, tmp_path / "engine.plan")
        with pytest.raises(EngineError, match=r"cannot be read: outputs are not the one that spec.output describes"):
            load_info(tmp_path / "engine.plan")


def test_a_precision_that_is_read_later_leaves_the_rest_of_a_newer_sidecar_alone(engine: Engine, plan: Path) -> None:
    edit(plan, colour="green", version=2)
    before = json.loads(sidecar(plan).read_text())
    save_precision(dataclasses.replace(engine.info.precision, state="mismatch"), plan)
    after = json.loads(sidecar(plan).read_text())
    assert after == before | {"precision": before["precision"] | {"state": "mismatch"}}


def test_a_plan_of_another_backend(engine: Engine, plan: Path) -> None:
    other = "onnxruntime" if engine.info.backend == "openvino" else "openvino"
    edit(plan, backend=other, builder_version="1.0.0")
    loaded = load_engine(plan)
    name = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[other]
    with pytest.raises(EngineError, match=f"{name} cannot open this plan") as caught:
        open_engine(loaded)
    assert f"Build it again here: rtformer-deploy build-engine MODEL.onnx --backend {other} --fp32" in str(caught.value)


def test_a_plan_of_a_backend_that_nobody_knows(plan: Path) -> None:
    edit(plan, backend="abacus")
    with pytest.raises(EngineError, match="for the backend 'abacus', which this version does not know"):
        open_engine(load_engine(plan))


def test_a_plan_of_a_newer_builder(engine: Engine, plan: Path) -> None:
    edit(plan, builder_version="9999.1.0")
    backend = engine.info.backend
    with pytest.raises(
        EngineError, match=rf"The plan was built by {backend} 9999.1.0; here is {backend} \d+\.\d+.*, which is older"
    ) as caught:
        open_engine(load_engine(plan))
    assert f"pip install --upgrade {backend}" in str(caught.value)
    assert f"rtformer-deploy build-engine MODEL.onnx --backend {backend} --fp32" in str(caught.value)


def test_a_plan_of_an_older_builder_opens(plan: Path) -> None:
    edit(plan, builder_version="1.0.0")
    with open_engine(load_engine(plan), threads=1) as runner:
        assert runner.run(frames((20, 30)))[0].shape == (20, 30)


def test_a_builder_version_that_is_none(plan: Path) -> None:
    edit(plan, builder_version="unknown")
    with pytest.raises(EngineError, match="builder version 'unknown' is not a version of"):
        open_engine(load_engine(plan))


def test_lanes_and_threads_start_at_one(engine: Engine) -> None:
    with pytest.raises(UsageError, match="0 lanes"):
        open_engine(engine, lanes=0)
    with pytest.raises(UsageError, match="0 threads"):
        open_engine(engine, threads=0)


def test_an_engine_that_cannot_be_written_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"Cannot write .*nowhere"):
        save_engine(engine, tmp_path / "nowhere" / "engine.plan")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_is_garbage_with_the_right_hash(engine: Engine) -> None:
    with pytest.raises(EngineError, match="cannot open this plan"):
        open_engine(dataclasses.replace(engine, plan=b"garbage" * 100))
