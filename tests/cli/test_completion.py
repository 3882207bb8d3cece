"""Completion and examples: what a shell offers, and calls in the help that a person can type."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from rtformer_deploy.cli import main
from rtformer_deploy.cli.completion import PROGRAM, SHELLS, VARIABLE
from rtformer_deploy.cli.examples import EXAMPLES
from rtformer_deploy.cli.group import COMMANDS


def offered(*words: str) -> list[str]:
    """What a shell offers for the last of these words."""
    *before, last = words
    return [item.value for item in ShellComplete(main, {}, PROGRAM, VARIABLE).get_completions(before, last)]


def test_commands_are_offered_without_importing_them() -> None:
    code = (
        "import sys; from click.shell_completion import ShellComplete; from rtformer_deploy.cli import main\n"
        "print([item.value for item in ShellComplete(main, {}, '', '').get_completions([], 'b')])\n"
        "print([name for name in sys.modules if name.startswith('rtformer_deploy.cli.b')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["['build-engine', 'bench']", "[]", ""]


def test_options_and_names_are_offered() -> None:
    assert offered("bench", "--la") == ["--lanes"]
    assert offered("build-engine", "--backend", "o") == ["openvino", "onnxruntime"]
    assert offered("export", "--recipe", "rtformer-slim-c") == [
        "rtformer-slim-camvid",
        "rtformer-slim-cityscapes",
        "rtformer-slim-cocostuff",
    ]
    assert "slim" in offered("export", "--variant", "")
    assert offered("compare", "--suite", "p") == ["paper"]
    assert offered("evaluate", "--dataset", "cam") == ["camvid"]


def test_a_name_may_be_a_file() -> None:
    items = ShellComplete(main, {}, PROGRAM, VARIABLE).get_completions(["evaluate", "--dataset"], "./m")
    assert [(item.value, item.type) for item in items] == [("./m", "file")]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_are_for_the_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = CliRunner().invoke(main, ["completion", shell])
    assert named.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in named.stdout
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert CliRunner().invoke(main, ["completion"]).stdout == named.stdout


def test_an_unknown_shell_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/csh")
    result = CliRunner().invoke(main, ["completion"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "bash, zsh or fish" in result.stderr


def test_bash_completes_with_these_lines(tmp_path: Path) -> None:
    """The program that bash asks is the installed one; here a file that says what it was asked with takes its place."""
    lines = CliRunner().invoke(main, ["completion", "bash"]).stdout
    program = tmp_path / PROGRAM
    program.write_text('#!/bin/sh\necho "plain,$(echo "$COMP_WORDS" | tail -n 1)-$COMP_CWORD"\n')
    program.chmod(0o755)
    words = f"COMP_WORDS=({PROGRAM} be); COMP_CWORD=1"
    script = f'{lines}\nPATH={tmp_path}:$PATH; {words}; _rtformer_deploy_completion {PROGRAM}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "be-1"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples_that_parse(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"], terminal_width=80).stdout
    assert "Examples:\n" in shown
    for line in EXAMPLES[name]:
        assert f"  {line}\n" in shown
        assert len(line) <= 76
        parse(line)


def parse(line: str) -> None:
    """Parses a call of this program as click does before the command runs. Raises click's UsageError."""
    words = shlex.split(line.removeprefix('eval "$(').removesuffix(')"').partition(" >")[0])
    assert words[0] == PROGRAM
    context = click.Context(main)
    command = main.get_command(context, words[1])
    assert command is not None, words[1]
    with command.make_context(words[1], words[2:], parent=context):
        pass


def test_every_example_is_of_a_command() -> None:
    assert list(EXAMPLES) == list(COMMANDS)
    with pytest.raises(click.UsageError, match="No such option"):
        parse("rtformer-deploy bench engine.plan --no-such-option")
