"""The commands as a person types them: exit codes, what is printed, what is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import tiny_model, tiny_spec
from PIL import Image

from rtformer_deploy.backends import BACKENDS, build
from rtformer_deploy.cli import main
from rtformer_deploy.cli.group import COMMANDS
from rtformer_deploy.commands import bench as bench_module
from rtformer_deploy.commands import build_engine as build_module
from rtformer_deploy.commands import doctor as doctor_module
from rtformer_deploy.commands.build_engine import BuildRequest
from rtformer_deploy.commands.choices import RangesSource
from rtformer_deploy.commands.doctor import Check
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.graph.functions import inline_functions
from rtformer_deploy.types import BuildOptions

#: What --help must never load.
HEAVY = (
    "matplotlib",
    "jinja2",
    "numpy",
    "cv2",
    "PIL",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxsim",
    "openvino",
    "torch",
    "tensorrt",
    "tensorrt_rtx",
    "rich",
    "psutil",
)

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny_model("batch"), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    engine = build(inline_functions(tiny_model("batch")), tiny_spec("batch"), "onnxruntime", BuildOptions(batch=(1, 1, 4)))
    save_engine(engine, tmp_path / "engine.plan")
    return tmp_path / "engine.plan"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    return tmp_path / "street.png"


def quick(*more: Any) -> tuple[Any, ...]:
    return ("--seconds", 0.05, "--warmup", 0, "--threads", 1, *more)


def assert_narrow(text: str) -> None:
    """No line of what was printed is wider than an old terminal."""
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("name", ["model.onnx", "engine.plan"])
def test_bench_prints_a_table_and_writes_both_files(run: Run, model: Path, plan: Path, tmp_path: Path, name: str) -> None:
    result = run("bench", name, *quick("--json", "b.json", "--html", "b.html"))
    assert result.exit_code == 0, result.output
    for word in ("p50 ms", "p99 ms", "frames a second", "preprocess", "postprocess", "Mixed cells", "Peak memory"):
        assert word in result.stdout
    assert_narrow(result.stdout)
    data = json.loads((tmp_path / "b.json").read_text())
    assert data["engine"]["fps"] > 0
    assert data["end_to_end"]["fps"] > 0
    assert (tmp_path / "b.html").read_text().startswith("<!doctype html>")


def test_bench_measures_the_picture_it_is_given(run: Run, plan: Path, picture: Path, tmp_path: Path) -> None:
    result = run("bench", plan, *quick("--image", picture, "--json", "b.json", "--batch", 3, "--lanes", 2))
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "b.json").read_text())
    assert data["frame"] == {"height": 40, "width": 60, "source": str(picture)}
    assert (data["batch"], data["lanes"], data["mode"]) == (3, 2, "throughput")


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("target", ["no/such/folder/file", ".", "/dev/null"])
def test_bench_tries_its_outputs_first(run: Run, plan: Path, monkeypatch: pytest.MonkeyPatch, option: str, target: str) -> None:
    def measuring(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("measured before the output was tried")

    monkeypatch.setattr(bench_module, "bench_path", measuring)
    result = run("bench", plan, *quick(option, target))
    assert result.exit_code == 1
    assert "Error: Cannot write" in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_bench_refuses_a_batch_the_engine_cannot_take(run: Run, plan: Path) -> None:
    result = run("bench", plan, *quick("--batch", 5))
    assert result.exit_code == 2
    assert "1 to 4" in result.stderr


@pytest.mark.parametrize("command", [("bench", "no.plan"), ("segment", "no.plan", "a.png", "--output", "out"), ("inspect", "no.plan")])
def test_a_missing_engine_is_one_message(run: Run, command: tuple[str, ...], picture: Path) -> None:
    result = run(*command)
    assert result.exit_code == 1
    assert "no.plan" in result.stderr
    assert result.stdout == ""


def test_ctrl_c_is_one_line_and_130(run: Run, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_module, "bench_path", interrupted)
    result = run("bench", plan, *quick("--json", "b.json"))
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"
    assert not Path("b.json").exists()


def test_segment_one_picture_prints_its_classes(run: Run, plan: Path, picture: Path, tmp_path: Path) -> None:
    result = run("segment", plan, picture, "--output", "out")
    assert result.exit_code == 0, result.output
    assert "class" in result.stdout
    assert "%" in result.stdout
    assert_narrow(result.stdout)
    with Image.open(tmp_path / "out" / "street_labels.png") as labels:
        assert (labels.mode, labels.size) == ("L", (60, 40))


def test_segment_goes_on_after_a_bad_picture(run: Run, plan: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    result = run("segment", plan, "bad.png", picture, "--output", "out", "--batch", 2)
    assert result.exit_code == 1
    assert "1 of 2 images could not be segmented" in result.stderr
    assert "bad.png" in result.stderr
    assert result.stdout.count("->") == 1
    assert (tmp_path / "out" / "street_overlay.png").is_file()


def test_segment_takes_a_model_from_elsewhere(run: Run, picture: Path, tmp_path: Path) -> None:
    model = tiny_model()
    model.metadata_props.clear()
    save_model(model, tmp_path / "foreign.onnx")
    result = run("segment", "foreign.onnx", picture, "--output", "out")
    assert result.exit_code == 1
    assert "--mean" in result.stderr
    result = run("segment", "foreign.onnx", picture, "--output", "out", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    assert result.exit_code == 0, result.output
    result = run("segment", "foreign.onnx", picture, "--output", "out", "--mean", "half", "--std", "0.2,0.2,0.2")
    assert result.exit_code == 2


def test_segment_needs_an_output_and_an_input(run: Run, plan: Path, picture: Path) -> None:
    assert run("segment", plan, picture).exit_code == 2
    assert run("segment", plan, "--output", "out").exit_code == 2


@pytest.mark.parametrize("name", ["model.onnx", "engine.plan"])
def test_inspect_prints_tables_or_json(run: Run, model: Path, plan: Path, name: str) -> None:
    result = run("inspect", name)
    assert result.exit_code == 0, result.output
    assert "float32" in result.stdout
    assert_narrow(result.stdout)
    data = json.loads(run("inspect", name, "--json").stdout)
    assert data["kind"] == ("onnx" if name == "model.onnx" else "engine")
    assert data["problem"] is None


def test_inspect_shows_a_changed_plan_and_fails(run: Run, plan: Path) -> None:
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    result = run("inspect", plan)
    assert result.exit_code == 1
    assert "differs" in result.stdout
    assert "SHA-256" in result.stderr


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    checks = [
        Check("System", "Python", "ok", "3.11"),
        Check("Optional packages", "torch", "missing", "not installed", "pip install 'rtformer-deploy[export]'"),
    ]
    monkeypatch.setattr(doctor_module, "examine", lambda: checks)
    return checks


def test_doctor_is_content_where_nothing_is_broken(run: Run, findings: list[Check]) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert "pip install 'rtformer-deploy[export]'" in result.stdout
    assert "Nothing is broken." in result.stdout
    assert_narrow(result.stdout)


def test_doctor_fails_where_something_is_broken(run: Run, findings: list[Check]) -> None:
    findings.append(Check("Engines", "openvino", "broken", "cannot be imported", "pip install --force-reinstall openvino"))
    result = run("doctor")
    assert result.exit_code == 1
    assert "openvino: pip install --force-reinstall openvino" in result.stdout
    data = json.loads(run("doctor", "--json").stdout)
    assert [check["state"] for check in data["checks"]] == ["ok", "missing", "broken"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from rtformer_deploy.cli import main\n"
        "from rtformer_deploy.cli.group import COMMANDS\n"
        "for name in (None, *COMMANDS):\n"
        "    main([*filter(None, [name]), '--help'], standalone_mode=False)\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage:") == len(COMMANDS) + 1
    loaded = done.stdout.rsplit("LOADED", 1)[1].split()
    assert not set(HEAVY) & set(loaded)


def test_build_engine_shows_every_build_option_with_the_backends_that_know_it() -> None:
    context = main.make_context("rtformer-deploy", [], resilient_parsing=True)
    command = main.get_command(context, "build-engine")
    assert command is not None
    shown = {parameter.name: (parameter.opts, getattr(parameter, "help", None)) for parameter in command.params}
    for name, flag in BuildOptions.flags().items():
        backends = ", ".join(row.name for row in BACKENDS.values() if name in row.options)
        assert shown[name] == ([flag.name], f"{flag.help} ({backends} only).")


def test_build_engine_hands_over_what_was_typed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BuildRequest] = []
    monkeypatch.setattr(build_module, "build_to_file", lambda request, feedback: asked.append(request))
    tensorrt = ("--workspace", 64, "--optimization-level", 2, "--timing-cache", "t.cache", "--version-compatible", "--plugins")
    mix = ("--int8", "--images", "pictures", "--keep", "a", "--keep", "b*")
    result = run("build-engine", "m.onnx", *tensorrt, *mix, "--opt", 2, "--max", "4x3x64x96", "--device", 1, "--threads", 3, "--strict")
    assert result.exit_code == 0, result.output
    options = BuildOptions(workspace_mib=64, optimization_level=2, version_compatible=True, plugins=True, device=1, threads=3)
    assert asked == [
        BuildRequest(
            Path("m.onnx"),
            Path("engine.plan"),
            options=options,
            precision="int8",
            keep=("a", "b*"),
            ranges=RangesSource(images=Path("pictures")),
            profile=(None, (2,), (4, 3, 64, 96)),
            timing_cache=Path("t.cache"),
            strict=True,
        )
    ]


def test_every_command_and_option_has_a_help_text() -> None:
    context = main.make_context("rtformer-deploy", [], resilient_parsing=True)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), (name, parameter.name)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end another way on Windows")
def test_a_closed_pipe_is_quiet(model: Path) -> None:
    code = "from rtformer_deploy.cli import main; main()"
    command = [sys.executable, "-c", code, "inspect", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
