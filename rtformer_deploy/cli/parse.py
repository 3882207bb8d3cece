"""Values on the command line: click callbacks for sizes and batches, each with the message a person needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

#: The seeds that every library takes.
SEED = click.IntRange(0, 2**32 - 1)


class Number(click.FloatRange):
    """A finite number, in a range if one is given. Every option that takes a real number has this type: "nan" is inside any range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        """What help writes behind the default; click would write x<=None if there is no range."""
        return "" if self.min is None and self.max is None else super()._describe_range()


def size(least: int = 1, most: int = 8192) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, int] | None]:
    """A callback for HxW -> (H, W), height and width from `least` to `most`."""

    def parse(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
        if value is None:
            return None
        parts = _numbers(value)
        if parts is None or len(parts) != 2:
            raise click.BadParameter(f"{value!r} is not a size such as 1024x2048 (height x width).")
        height, width = parts
        if min(parts) < least or max(parts) > most:
            raise click.BadParameter(f"{value}: height and width must be from {least} to {most}.")
        return height, width

    return parse


def scales(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Numbers with commas between them, each from 0.1 to 4; () if there are none."""
    if value is None:
        return ()
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("numbers with commas between them, as in 0.75,1,1.25") from error
    if not all(0.1 <= number <= 4 for number in numbers):
        raise click.BadParameter(f"{value}: scales must be from 0.1 to 4.")
    return numbers


def share(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """0.005 or 0.5% -> a share from 0 to 1."""
    if value is None:
        return None
    try:
        number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError as error:
        raise click.BadParameter("a share such as 0.005, or 0.5%") from error
    if not 0 <= number <= 1:
        raise click.BadParameter(f"{value} is no share from 0 to 1; write percent as 0.5%.")
    return number


def batch(_ctx: click.Context, _parameter: click.Parameter, value: str) -> int | str:
    """N or "dynamic" -> N or the symbolic dimension "batch"."""
    if value == "dynamic":
        return "batch"
    if not value.isdigit() or not 1 <= int(value) <= 256:
        raise click.BadParameter(f"{value!r} is neither a number from 1 to 256 nor 'dynamic'.")
    return int(value)


def profile(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """N or NxCxHxW -> (N,) or the whole shape."""
    if value is None:
        return None
    parts = _numbers(value)
    if parts is None or len(parts) not in (1, 4):
        raise click.BadParameter(f"{value!r} is neither a batch such as 4 nor a shape such as 4x3x1024x2048.")
    return parts


def _numbers(value: str) -> tuple[int, ...] | None:
    """The positive numbers between the x's; None if there is anything else."""
    parts = value.lower().split("x")
    return tuple(map(int, parts)) if all(part.isdigit() and int(part) > 0 for part in parts) else None


def copies(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """ "3" -> (3, 3), "1-8" -> (1, 8): how many copies at least and at most."""
    if value is None:
        return None
    parts = value.split("-")
    numbers = [int(part) for part in parts if part.isascii() and part.isdecimal() and 0 < int(part) < 2**16]
    if len(numbers) != len(parts) or len(parts) > 2 or numbers != sorted(numbers):
        raise click.BadParameter(f"{value!r} is not a number of copies, such as 2 or 1-8.")
    return numbers[0], numbers[-1]
