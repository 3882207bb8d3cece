"""The first run of an unknown model: bounded, once, and in a process of its own."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from foreign_models import SAID, SIZE, net, number, save, value
from onnx import TensorProto, helper

from rtformer_deploy.cli import main
from rtformer_deploy.errors import ModelError
from rtformer_deploy.foreign import attempt, trial
from rtformer_deploy.formats.external_model import ExternalModel
from rtformer_deploy.formats.model_file import load_model
from rtformer_deploy.pipeline import read_model

node = helper.make_node
IMAGE = (1, 3, *SIZE)


def said(**more: Any) -> ExternalModel:
    return ExternalModel(mean=(0.5,) * 3, std=(0.25,) * 3, **more)


def endless(path: Path) -> Path:
    """A Loop whose condition stays true."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["co"]), node("Mul", ["v", "v"], ["vo"])],
        "b",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("v", None)],
        [value("co", [], TensorProto.BOOL), value("vo", None)],
    )
    nodes = [node("Loop", ["", "yes", "x"], ["y"], body=body)]
    return save(path, nodes, [number("yes", True, np.bool_)], outputs=[value("y", IMAGE)])


def large(path: Path) -> Path:
    """16 GiB of ones."""
    nodes = [node("Expand", ["one", "many"], ["big"]), node("ReduceSum", ["big"], ["m"], keepdims=0), node("Add", ["x", "m"], ["y"])]
    return save(path, nodes, [number("one", 1, np.float32), number("many", [2**32])], outputs=[value("y", IMAGE)])


@pytest.mark.own_process
@pytest.mark.parametrize(
    ("make", "limits", "message"),
    [
        (endless, {"try_seconds": 2.0}, "m.onnx does not finish: one picture took more than 2 s in a trial run."),
        (large, {"try_memory": 1.0}, "m.onnx takes too much memory: one picture needed more than 1 GiB in a trial run."),
    ],
)
def test_a_model_that_takes_too_much_is_stopped(make: Any, limits: dict[str, float], message: str, tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx")
    with pytest.raises(ModelError) as error:
        read_model(path, said(**limits))
    assert error.value.what == message
    assert error.value.hint is not None
    assert not psutil.Process().children()


@pytest.mark.own_process
def test_ctrl_c_ends_a_trial_run_at_once(tmp_path: Path) -> None:
    path = endless(tmp_path / "m.onnx")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            read_model(path, said())
    finally:
        signal.signal(signal.SIGINT, before)
    assert not psutil.Process().children()


@pytest.mark.own_process
def test_a_model_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = save(tmp_path / "m.onnx", *net())
    first = read_model(path, said())[1]
    (kept,) = (tmp_path / "cache" / "rtformer-deploy" / "tried").iterdir()

    def fail(*_: object) -> None:
        raise AssertionError("it was tried again")

    monkeypatch.setattr(trial, "_run", fail)
    assert read_model(path, said())[1] == first
    moved = path.rename(tmp_path / "moved.onnx")
    assert read_model(moved, said())[1].output == first.output
    kept.write_text("{}")
    with pytest.raises(AssertionError, match="tried again"):
        read_model(moved, said())


@pytest.mark.own_process
def test_a_trial_run_that_crashes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "m.onnx", *net(node("Mul", ["s", "s"], ["y"])))
    monkeypatch.setattr(trial, "_CODE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ModelError, match=r"cannot be run: its trial run crashed with signal 11"):
        read_model(path, said())
    monkeypatch.setattr(trial, "_CODE", "raise RuntimeError('no such luck')")
    with pytest.raises(ModelError, match=r"ended with code 1 \(RuntimeError: no such luck\)"):
        read_model(path, said())


@pytest.mark.own_process
def test_an_error_in_a_trial_run_is_the_commands_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, weights = net(node("Reshape", ["s", "wrong"], ["y"]))
    path = save(tmp_path / "m.onnx", nodes, [*weights, number("wrong", [1, 5, 8, 12])])
    with pytest.raises(ModelError) as there:
        attempt.attempt(path, said())
    assert "m.onnx does not run: " in there.value.what
    assert "Reshape" in there.value.what
    answer = msgspec.json.encode(attempt.Answer(error=(there.value.what, "Look at it.", ("One line.",))))
    monkeypatch.setattr(trial, "_CODE", f"import sys; open(sys.argv[2], 'wb').write({answer!r})")
    with pytest.raises(ModelError) as here:
        read_model(path, said())
    assert here.value.lines == (there.value.what, "One line.", "Look at it.")


@pytest.mark.own_process
def test_what_openvino_computes_while_it_builds_is_bounded_too(tmp_path: Path) -> None:
    """A branch that is never taken: ONNX Runtime leaves it alone, and OpenVINO fills 16 GiB."""
    taken = helper.make_graph([node("Identity", ["x"], ["o"])], "e", [], [value("o", None)])
    never = helper.make_graph(
        [node("Expand", ["one", "many"], ["b"]), node("ReduceSum", ["b"], ["m"], keepdims=0), node("Add", ["x", "m"], ["t"])],
        "t",
        [],
        [value("t", None)],
        [number("one", 1, np.float32), number("many", [2**32])],
    )
    nodes = [
        node("ReduceMax", ["x"], ["m0"], keepdims=0),
        node("Greater", ["m0", "most"], ["c"]),
        node("If", ["c"], ["y"], then_branch=never, else_branch=taken),
    ]
    path = save(tmp_path / "m.onnx", nodes, [number("most", 1e9, np.float32)], outputs=[value("y", IMAGE)])
    words = [str(path), "-o", str(tmp_path / "e.plan"), *SAID, "--try-memory", "1.5"]
    result = CliRunner().invoke(main, ["build-engine", "--backend", "openvino", *words])
    assert result.exit_code == 1
    assert "OpenVINO does not build m.onnx within 60 s or 1.5 GiB of a trial run, in which ONNX Runtime ran it." in result.output


def test_a_model_that_onnx_runtime_refuses_is_tried_with_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = save(tmp_path / "m.onnx", *net())
    monkeypatch.setattr(attempt, "open_if_possible", lambda data: None)
    model, spec = read_model(path, said())
    assert spec.output.shape == (1, 4, 8, 12)
    assert len(model.graph) == 3


def functions(depth: int, of: int = 2) -> list[Any]:
    """Functions that each call the one before `of` times."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = [helper.make_function("f", "F0", ["a"], ["b"], [node("Neg", ["a"], ["b"])], imports)]
    for number_ in range(1, depth):
        calls = [node(f"F{number_ - 1}", ["a"], [f"t{index}"], domain="f") for index in range(of)]
        made.append(
            helper.make_function("f", f"F{number_}", ["a"], ["b"], [*calls, node("Sum", [f"t{i}" for i in range(of)], ["b"])], imports)
        )
    return made


def circle() -> list[Any]:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return [
        helper.make_function("f", name, ["a"], ["b"], [node(called, ["a"], ["b"], domain="f")], imports)
        for name, called in (("F0", "G"), ("G", "F0"))
    ]


@pytest.mark.parametrize(
    ("nodes", "made", "message"),
    [
        ([node("F39", ["x"], ["y"], domain="f")], functions(40), "more than 100,000 nodes once its functions are written out"),
        ([node("F0", ["x"], ["y"], domain="f")], circle(), "its function F0 calls itself"),
        ([node("Neg", ["x"], ["y"])] * 100_001, [], "has more than 100,000 nodes, which is more than is read"),
        ([node("Neg", ["x"], ["n" * 5000]), node("Neg", ["n" * 5000], ["y"])], [], "has a name of 5,000 characters, more than 1,000"),
        ([node("Neg", ["x"], ["y"], name="n" * 5000)], [], "has a name of 5,000 characters, more than 1,000"),
    ],
)  # fmt: skip
def test_what_is_too_large_to_be_read_is_refused_before_anything_walks_through_it(
    nodes: list[Any], made: list[Any], message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "m.onnx", nodes, functions=made, outputs=[value("y", IMAGE)])
    with pytest.raises(ModelError) as error:
        load_model(path)
    assert message in error.value.what
    assert len(error.value.what) < 400


def test_graphs_that_are_nested_too_deep_are_refused(tmp_path: Path) -> None:
    def field(tag: int, data: bytes) -> bytes:
        length, rest = b"", len(data)
        while rest > 127:
            length, rest = length + bytes([rest & 127 | 128]), rest >> 7
        return bytes([tag << 3 | 2]) + length + bytes([rest]) + data

    graph = field(1, field(1, b"x") + field(2, b"o") + field(4, b"Neg"))
    for _ in range(1000):
        graph = field(1, field(2, b"o") + field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph) + bytes([20 << 3, 5])))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x09" + field(7, graph + field(12, value("o", IMAGE).SerializeToString())))
    with pytest.raises(ModelError, match="nested more than 30 deep"):
        load_model(path)
