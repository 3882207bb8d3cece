"""What README and docs show of the command line is what it takes: commands, options, values, extras, make's targets, scripts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest
from docs_pages import PAGES, ROOT, SHOWN, Block, blocks, lines, name, spans

from rtformer_deploy.cli import main
from rtformer_deploy.cli.group import COMMANDS

BLOCKS = [block for page in PAGES for block in blocks(page)]
#: What a block of commands may begin its lines with; of the others, this project knows nothing.
OTHERS = {"curl", "ray", "tritonserver", "pip", "python", "python3", "make", "venv/bin/pip", "cd", "git"}
EXTRAS = re.compile(r"rtformer-deploy\[(.+?)\]")
LANGUAGES = {"", "python", "text", "toml", "yaml", "ini", "dockerfile"}


def parse(words: list[str]) -> None:
    """Parses a command line of rtformer-deploy without running it. Raises click.ClickException."""
    context = click.Context(main, info_name="rtformer-deploy")
    if words[:1] == ["-v"]:
        words = words[1:]
    command_name, command, rest = main.resolve_command(context, list(words))
    assert command is not None
    assert command_name is not None
    command.make_context(command_name, rest, parent=context)


def options_of(command: str) -> set[str]:
    found = main.get_command(click.Context(main), command)
    assert found is not None
    return {text for each in found.params for text in (*each.opts, *each.secondary_opts)} | {"--help"}


def calls(block: Block) -> list[list[str]]:
    """The calls of rtformer-deploy in a block, in whatever language: a line, a unit's ExecStart, a container's args."""
    if block.language == "":
        return [words[1:] for words in lines(block) if words[0] == "rtformer-deploy"]
    starts = re.findall(r"^ExecStart=\S*rtformer-deploy (.+)$", block.text, re.MULTILINE)
    args = re.findall(r"args: \[(.+)\]$", block.text, re.MULTILINE)
    lists = [[word.strip(" \"'") for word in each.split(",")] for each in args]
    return [each.split() for each in starts] + [each for each in lists if each[0] in COMMANDS]


def test_the_pages_show_commands() -> None:
    assert sum(len(calls(block)) for block in BLOCKS) > 60
    assert {words[0] for block in BLOCKS for words in calls(block)} - {"-v"} == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_is_one_that_the_tool_takes(page: Path) -> None:
    wrong = []
    for block in blocks(page):
        for words in calls(block):
            try:
                parse(words)
            except click.ClickException as error:
                wrong.append(f"{block}: rtformer-deploy {' '.join(words)}: {error.format_message()}")
    assert wrong == []


def test_a_wrong_command_line_would_be_seen() -> None:
    for words in (["segmnt", "x"], ["bench", "engine.plan", "--fast"], ["bench", "engine.plan", "--fps", "many"], ["bench"]):
        with pytest.raises(click.ClickException):
            parse(words)


def test_commands_inside_sentences_exist_with_their_options() -> None:
    wrong = []
    for page in PAGES:
        for span in spans(page):
            words = span.split()
            if words[:2] == ["rtformer-deploy", "-v"] or words == ["rtformer-deploy"] or words[:1] != ["rtformer-deploy"]:
                continue
            if words[1].startswith("-"):
                continue
            options = {word.partition("=")[0] for word in words[2:] if word.startswith("-") and word != "-"}
            if words[1] not in COMMANDS or options - options_of(words[1]):
                wrong.append(f"{name(page)}: {span}")
    assert wrong == []


def test_options_inside_sentences_are_options_of_some_command() -> None:
    known = set().union(*(options_of(command) for command in COMMANDS)) | {"--version", "--verbose", "-v"}
    foreign = {"--gpus", "--shm-size", "--backend-config", "--json", "--also"}  # docker's, Triton's, scripts'
    wrong = []
    for page in SHOWN:
        for span in spans(page):
            first = span.split()[0].partition("=")[0].partition("|")[0]
            if first.startswith("--") and first not in known | foreign and first.split("/")[0] not in known:
                wrong.append(f"{name(page)}: {span}")
    assert wrong == []


def test_other_programs_are_called_as_this_project_has_them() -> None:
    """pip with extras that exist, make with targets that exist, Python with scripts and options that exist."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    makefile = (ROOT / "Makefile").read_text()
    for block in (block for block in BLOCKS if block.language == ""):
        for program, *words in lines(block):
            assert program in OTHERS | {"rtformer-deploy"}, f"{block}: {program}; a block that is no command is ```text"
            if program.endswith("pip"):
                asked = EXTRAS.findall(" ".join(words))
                assert set(",".join(asked).split(",")) - {""} <= extras, block
            elif program == "make":
                assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words), block
            elif program == "python" and words[0].startswith("benchmarks/"):
                script = (ROOT / words[0]).read_text() + (ROOT / "benchmarks" / "harness.py").read_text()
                assert all(f'"{word}"' in script for word in words[1:] if word.startswith("--")), block


def test_extras_inside_tables_and_sentences_exist() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    asked = {extra for page in PAGES for span in spans(page) for each in EXTRAS.findall(span) for extra in each.split(",")}
    assert asked <= extras
    assert asked >= extras - {"dev", "docs"}, "the docs show how to install every extra"


@pytest.mark.parametrize("page", SHOWN, ids=name)
def test_every_block_has_a_language_that_the_tests_know(page: Path) -> None:
    assert [str(block) for block in blocks(page) if block.language not in LANGUAGES] == []


def test_every_command_has_its_row_among_the_commands() -> None:
    rows = re.findall(r"^\| `rtformer-deploy ([\w-]+)` \|", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(COMMANDS)
