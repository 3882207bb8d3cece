"""What is printed: text from files acts on no terminal and begins no line; a closed or full stdout ends quietly; Ctrl-C is 130."""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from helpers import tiny_model, tiny_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from rtformer_deploy.cli import main
from rtformer_deploy.cli.safe_console import SafeConsole
from rtformer_deploy.cli.show import console, table
from rtformer_deploy.cli.terminal import escape, escape_json
from rtformer_deploy.cli.training_progress import Display
from rtformer_deploy.commands import bench as bench_module
from rtformer_deploy.commands import export as export_module
from rtformer_deploy.errors import DeployError, ModelError
from rtformer_deploy.formats.model_file import save_model, stamp_spec
from rtformer_deploy.image.odd_files import OddFiles

#: A colour, a title, a C1 sequence, a writing direction, half a surrogate pair, and a line that pretends.
EVIL = "\x1b[31mred\x1b]0;title\x07\x9b1m\u202edne\udcff\nError: all is well\r"
SHOWN = r"\x1b[31mred\x1b]0;title\x07\x9b1m\u202edne\udcff\nError: all is well\r"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def evil_model(path: str = "m.onnx") -> None:
    """A model whose classes, producer and nodes are hostile text, as far as ONNX holds it; a hostile name is refused."""
    from dataclasses import replace

    evil = EVIL.replace("\udcff", "")
    model = tiny_model()
    stamp_spec(model, replace(tiny_spec(), classes=(evil, *tiny_spec().classes[1:])))
    model.producer_name = evil
    save_model(model, Path(path))


def acts(text: str) -> list[str]:
    """The characters that would act on a terminal, and lines that pretend to be ours."""
    return [char for char in text if char != "\n" and escape(char) != char] + [
        line for line in text.splitlines() if line.startswith("Error: all is well")
    ]


def test_escape() -> None:
    assert escape(EVIL) == SHOWN
    assert escape("Straße 街 naïve ‍👩‍🚀 \\ é") == "Straße 街 naïve ‍👩‍🚀 \\ é"
    document = {"name": EVIL + "\x7f"}
    assert json.loads(escape_json(json.dumps(document, indent=1, ensure_ascii=False))) == document


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_one_line_that_acts_on_nothing(text: str) -> None:
    assert not acts(escape(text))
    assert len(escape(text).splitlines()) <= 1
    assert escape(escape(text)) == escape(text)
    escape(text).encode()
    shown = escape_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(shown) == [text]
    assert not acts(shown)


@pytest.mark.parametrize(
    "command", [("inspect", "m.onnx"), ("inspect", "m.onnx", "--json"), ("bench", "m.onnx", "--seconds", 0.02, "--warmup", 0)]
)
def test_names_in_a_model_act_on_nothing(run: Run, command: tuple[Any, ...]) -> None:
    evil_model()
    result = run(*command)
    assert result.exit_code == 0
    assert ("red" in result.output) == (command[0] == "inspect")  # bench names no class
    assert not acts(result.output)


def test_the_name_of_a_file_acts_on_nothing(run: Run) -> None:
    name = EVIL.replace("/", "") + ".onnx"
    result = run("inspect", name)
    assert result.exit_code == 1
    assert result.stderr == f"Error: Cannot read a model, an engine or weights {SHOWN}.onnx: No such file or directory.\n"
    Path(name).mkdir()
    assert not acts(run("segment", name, ".", "-o", "out").output)
    assert not acts(run("bench", f"--{EVIL}").output)
    assert SHOWN in run(f"--{EVIL}").stderr
    assert SHOWN in run(EVIL).stderr


def test_an_error_is_as_many_lines_as_it_has(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise ModelError(EVIL, f"hint {EVIL}", details=[f"  one {EVIL}", "  two"]) from ValueError(EVIL)

    monkeypatch.setattr(bench_module, "bench_path", fail)
    lines = run("-v", "bench", "m.onnx").stderr.splitlines()
    caused = " ".join(EVIL.split())
    assert lines == [f"caused by ValueError: {escape(caused)}", f"Error: {SHOWN}", f"  one {SHOWN}", "  two", f"hint {SHOWN}"]


def test_files_that_could_not_be_read_are_a_line_each() -> None:
    odd = OddFiles(stop=False, errors=[DeployError("a is broken", "a hint"), DeployError("b is empty")], total=9)
    with pytest.raises(DeployError) as caught:
        odd.raise_any(then="The others were done.")
    assert caught.value.lines == ("2 of 9 images could not be read:", "  a is broken", "  b is empty", "The others were done.", "a hint")


def test_tables_and_lines_are_escaped_and_our_colours_stay() -> None:
    out = SafeConsole(file=io.StringIO(), force_terminal=True, width=300, color_system="standard")
    out.print(table(EVIL, (EVIL, "[red]b"), [(EVIL, "[red]x")]))
    out.print(EVIL, style="bold")
    assert isinstance(out.file, io.StringIO)
    text = out.file.getvalue()
    assert text.count(SHOWN) == 4
    assert "[red]b" in text
    assert f"\x1b[1m{SHOWN}\x1b[0m" in text
    for code in ("\x1b[1m", "\x1b[0m"):
        text = text.replace(code, "")
    assert not acts(text)
    assert isinstance(console(), SafeConsole)


def test_training_records_are_escaped() -> None:
    out = SafeConsole(file=io.StringIO(), width=300)
    with Display(1, out) as display:
        display({"kind": "start", "recipe": EVIL, "frames": {EVIL: 1}, "step": 0, "left_out": [EVIL]})
        display({"kind": "scores", "step": 1, "scores": {EVIL: {"miou": 0.5}}})
        display.say(EVIL)
    assert isinstance(out.file, io.StringIO)
    assert not acts(out.file.getvalue())
    assert out.file.getvalue().count(SHOWN) == 5


def test_no_command_goes_round_the_edge(root: Path) -> None:
    """terminal.py and safe_console.py print; nobody else writes to a stream, nor makes a console or a rich text."""
    wrong = []
    for path in sorted((root / "rtformer_deploy" / "cli").glob("*.py")):
        if path.name in ("terminal.py", "safe_console.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("print", "click.echo", "click.secho", "Console", "Text", "sys.stdout.write", "sys.stderr.write"):
                wrong.append(f"{path.name}: {name}")
    assert wrong == []


TABLES, JSON, HELP = ("inspect", "m.onnx"), ("inspect", "m.onnx", "--json"), ("--help",)  # three ways of printing


def printed_to(stdout: int, arguments: tuple[str, ...]) -> tuple[int, bytes]:
    """The exit code and the stderr of a command with this stdout."""
    done = subprocess.run([sys.executable, "-m", "rtformer_deploy", *arguments], stdout=stdout, stderr=subprocess.PIPE, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [TABLES, HELP], ids=" ".join)
def test_a_full_stdout_is_one_message(run: Run, arguments: tuple[str, ...]) -> None:
    evil_model()
    with open("/dev/full", "wb") as full:
        found = printed_to(full.fileno(), arguments)
    assert found == (1, b"Error: Cannot write to the standard output: No space left on device.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end another way on Windows")
@pytest.mark.parametrize("arguments", [TABLES, JSON], ids=" ".join)
def test_a_reader_that_has_gone_is_quiet_and_1(run: Run, arguments: tuple[str, ...]) -> None:
    evil_model()
    reading, writing = os.pipe()
    os.close(reading)
    found = printed_to(writing, arguments)
    os.close(writing)
    assert found == (1, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_without_stdout_or_stderr_the_exit_code_is_the_same(run: Run) -> None:
    command = f"{sys.executable} -m rtformer_deploy inspect missing"
    for end in (">&-", "2>&-", "2>/dev/full", ">&- 2>&-"):
        assert subprocess.run(["sh", "-c", f"{command} {end}"], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("cause", ["cause", "context", "itself"])
def test_ctrl_c_behind_an_error_is_130(run: Run, monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    """PyTorch's exporter turns Ctrl-C into an error of its own."""

    def interrupted(*args: Any, **options: Any) -> None:
        if cause == "itself":
            raise KeyboardInterrupt
        try:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                if cause == "cause":
                    raise RuntimeError("Failed to export") from error
                raise RuntimeError("Failed to export")  # noqa: B904
        except RuntimeError as error:
            raise ModelError("PyTorch could not export") from error

    monkeypatch.setattr(export_module, "export_to_file", interrupted)
    result = run("export", "--variant", "slim")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent another way on Windows")
def test_a_signal_is_130(run: Run) -> None:
    """A real one, while a command waits for its file."""
    code = (
        "import sys, rtformer_deploy.commands.inspect as module; from rtformer_deploy.cli import main\n"
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "module.describe = lambda path: print('ready', flush=True) or time.sleep(60)\n"
        "main(['inspect', 'x'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, b"Interrupted.\n")
