"""Checks a mean and a standard deviation of RGB from 0 to 1, as recipes, weights and the command line give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..types import IMAGENET_MEAN, IMAGENET_STD

Triple = tuple[float, float, float]
#: Writes a name and its three numbers as the user writes them.
Form = Callable[[str, Sequence[float]], str]

#: A larger standard deviation belongs to samples from 0 to 255: samples from 0 to 1 have at most 0.5, and 1 changes nothing.
_LARGEST_STD = 2.0


def as_toml(name: str, values: Sequence[float]) -> str:
    """As in a recipe: mean = [0.485, 0.456, 0.406]."""
    return f"{name} = [{', '.join(map(_number, values))}]"


def as_option(name: str, values: Sequence[float]) -> str:
    """As on the command line: --mean 0.485,0.456,0.406."""
    return f"--{name} {','.join(map(_number, values))}"


def normalisation_fault(mean: Triple | None, std: Triple | None, form: Form = as_toml) -> str | None:
    """What is wrong with a mean and a standard deviation and what to write instead, without a full stop; None if nothing is.

    A value that is None is not checked.
    """
    given = {name: values for name, values in (("mean", mean), ("std", std)) if values is not None}
    for name, values in given.items():
        if not all(map(math.isfinite, values)):
            return f"{form(name, values)} has a number that is not finite"
    if std is not None and min(std) <= 0:
        return f"{form('std', std)} has a number that is not above 0, and frames are divided by it; usual is {form('std', IMAGENET_STD)}"
    if mean is not None and min(mean) < 0:
        return f"{form('mean', mean)} has a negative number; usual is {form('mean', IMAGENET_MEAN)}"
    if (mean is not None and max(mean) > 1) or (std is not None and max(std) > _LARGEST_STD):
        large = {name: values for name, values in given.items() if max(values) >= 1}
        said = " and ".join(form(name, values) for name, values in large.items())
        write = " ".join(form(name, [value / 255 for value in values]) for name, values in large.items())
        return f"{said} belong{'s' if len(large) == 1 else ''} to RGB from 0 to 255, and here RGB goes from 0 to 1: write {write}"
    return None


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1 else f"{value:g}"
