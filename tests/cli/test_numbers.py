"""Numbers on the command line: every real number is finite and in its range, mean and std are of RGB from 0 to 1; else exit code 2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rtformer_deploy.cli import main
from rtformer_deploy.cli.group import COMMANDS
from rtformer_deploy.cli.parse import Number
from rtformer_deploy.errors import RecipeError, UsageError
from rtformer_deploy.formats.external_model import ExternalModel
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.training.options import TrainOptions

TRAIN = ("train", "--recipe", "rtformer-slim-camvid", "--root", "nowhere", "--output", "out")


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "Warning" not in result.output
    return " ".join(result.output.split())


def real_numbers() -> Iterator[tuple[str, str, int]]:
    """Command, option and how many numbers it takes, for every option of a real number."""
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for parameter in command.params:
            kinds = parameter.type.types if isinstance(parameter.type, click.Tuple) else [parameter.type]
            if any(isinstance(kind, (click.types.FloatParamType, click.FloatRange)) for kind in kinds):
                yield name, max(parameter.opts, key=len), len(kinds)


def test_every_real_number_has_the_one_type() -> None:
    options = list(real_numbers())
    assert len(options) > 20
    for name, option, _ in options:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        kind = next(each.type for each in command.params if option in each.opts)
        kinds = kind.types if isinstance(kind, click.Tuple) else [kind]
        assert all(isinstance(each, Number) for each in kinds), f"{name} {option}"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(("name", "option", "count"), list(real_numbers()), ids=lambda value: str(value).strip("-"))
def test_no_number_is_infinite(name: str, option: str, count: int, value: str) -> None:
    arguments = {"segment": ("e.plan", "x.png", "--output", "out"), "bench": ("e.plan",), "serve": ("e.plan",), "verify": ("a", "b")}.get(
        name, ()
    )
    assert option in refused(name, *arguments, option, *[value] * count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scale", "0", "1"), "--scale 0 1 is not a range of zooms: give two numbers from 0.01 to 100, the smaller one first"),
        (("--scale", "2", "0.5"), "--scale 2 0.5 is not a range of zooms"),
        (("--scale", "-1", "1"), "--scale -1 1 is not a range of zooms"),
        (("--balance", "0.5"), "--balance 0.5 gives weights that are negative or infinite"),
        (("--balance", "1"), "Give 0, which weighs all classes the same, or a number above 1, such as 1.02."),
        (("--balance", "-1.1"), "--balance -1.1"),
        (("--power", "-1"), "--power"),
        (("--lr", "0"), "--lr"),
        (("--seed", "-1"), "--seed"),
        (("--seed", "99999999999999999999"), "--seed"),
    ],
)  # fmt: skip
def test_numbers_that_no_run_can_use(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*TRAIN, *arguments)


@pytest.mark.parametrize("command", [("export", "--variant", "slim", "--random-weights"), ("calibrate", "--images", "x")])
def test_seeds_are_what_every_library_takes(command: tuple[str, ...]) -> None:
    assert "--seed" in refused(*command, "--seed", "-1")


def test_the_library_refuses_them_too() -> None:
    for values in ({"scale": (0.0, 1.0)}, {"balance": 0.5}, {"rate": float("nan")}, {"scale": (0.5, float("inf"))}):
        with pytest.raises(UsageError):
            TrainOptions(Path(), Path(), **values)
    assert TrainOptions(Path(), Path(), balance=1.02, scale=(1, 1)).balance == 1.02


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ("123.675,116.28,103.53", "58.395,57.12,57.375",
         "--mean 123.675,116.28,103.53 and --std 58.395,57.12,57.375 belong to RGB from 0 to 255, and here RGB goes from 0 to 1:"
         " write --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225."),
        ("123.675,116.28,103.53", "1,1,1", "write --mean 0.485,0.456,0.406 --std 0.003922,0.003922,0.003922."),
        ("123.675,116.28,103.53", "0.229,0.224,0.225", "write --mean 0.485,0.456,0.406."),
        ("0,0,0", "255,255,255", "write --std 1,1,1."),
        ("0,0,0", "0,1,1", "--std 0,1,1 has a number that is not above 0"),
        ("0,0,0", "1,-1,1", "--std 1,-1,1 has a number that is not above 0"),
        ("-0.1,0,0", "1,1,1", "--mean -0.1,0,0 has a negative number"),
        ("nan,0,0", "1,1,1", "--mean nan,0,0 has a number that is not finite"),
        ("0,0,0", "inf,1,1", "--std inf,1,1 has a number that is not finite"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [("build-engine", "m.onnx"), ("segment", "m.onnx", "x.png", "--output", "out")])
def test_mean_and_std_on_the_command_line(command: tuple[str, ...], mean: str, std: str, message: str) -> None:
    assert message in refused(*command, f"--mean={mean}", f"--std={std}")


def test_one_of_the_two_is_checked_alone() -> None:
    with pytest.raises(UsageError, match=re.escape("write --std 0.229,0.224,0.225.")):
        ExternalModel(std=(58.395, 57.12, 57.375))
    assert ExternalModel(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).is_set()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mean = [123.675, 116.28, 103.53]", "r.toml: [input] mean = [123.675, 116.28, 103.53] belongs to RGB from 0 to 255"),
        ("mean = [123.675, 116.28, 103.53]", "write mean = [0.485, 0.456, 0.406]."),
        ("std = [0, 1, 1]", "r.toml: input.std[0] is 0; expected a number, at least 1e-06."),
        ("std = [nan, 1, 1]", "r.toml: input.std[0] is nan; expected a number, at least 1e-06."),
    ],
)
def test_mean_and_std_in_a_recipe(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f'name = "r"\ndataset = "camvid"\n[architecture]\nname = "rtformer"\n[input]\nsize = [64, 64]\n{line}\n')
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path))
    assert message in str(error.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_only_ranges_that_there_are(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert "None" not in command.get_help(click.Context(command, info_name=name))
