"""Checks and converts TOML values. Each function raises ValueError, which says what is wrong; the caller adds the file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=str)


def only(data: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raises ValueError if a table has unknown keys."""
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"{where} has keys that mean nothing: {', '.join(unknown)}")


def table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The table [key]; empty if there is none."""
    value = data.get(key, {})
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} is not a table: write [{key}]")
    return value


def text(data: Mapping[str, Any], key: str, where: str) -> str | None:
    """A text; None if the key is not there."""
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: {key} is not a text")
    return value


def needed(data: Mapping[str, Any], key: str, where: str) -> str:
    """A text that must be there."""
    value = text(data, key, where)
    if value is None:
        raise ValueError(f"{where} has no {key}")
    return value


def texts(data: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A list of texts; empty if the key is not there."""
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{where}: {key} is not a list of names")
    return tuple(value)


def choice(value: Any, choices: tuple[T, ...]) -> T:
    """One of the choices."""
    for one in choices:
        if value == one:
            return one
    raise ValueError(f"{value!r} is none of {', '.join(choices)}")


def size(value: Any) -> tuple[int, int]:
    """(height, width)."""
    numbers = _numbers(value)
    if len(numbers) != 2 or not all(number >= 1 and number.is_integer() for number in numbers):
        raise ValueError(f"[input] size is {value}, not [height, width]")
    return int(numbers[0]), int(numbers[1])


def triple(value: Any) -> tuple[float, float, float]:
    """Three numbers, one for each colour channel."""
    numbers = _numbers(value)
    if len(numbers) != 3:
        raise ValueError(f"{value} is not three numbers")
    return numbers[0], numbers[1], numbers[2]


def colour(value: Any) -> tuple[int, int, int]:
    """An RGB colour."""
    numbers = _numbers(value)
    if len(numbers) != 3 or not all(0 <= number <= 255 and number.is_integer() for number in numbers):
        raise ValueError(f"colour {value} is not three numbers from 0 to 255")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def _numbers(value: Any) -> list[float]:
    """A list's numbers; empty for anything else."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (int, float)) for item in value):
        return []
    return [float(item) for item in value]
