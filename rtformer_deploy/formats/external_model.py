"""What a user says about a model without a ModelSpec, and values of a graph as a TensorSpec."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..errors import UsageError
from ..types import TRY_MEMORY, TRY_SECONDS, TensorSpec
from .normalisation import as_option, normalisation_fault


@dataclass(frozen=True, slots=True)
class ExternalModel:
    """What the command line says about a model from elsewhere.

    `classes` is a number, a dataset's name or a dataset file; `mean` and `std` belong to RGB from 0 to 1; `input` is the input's
    name, its HxW, or both as NAME:HxW. `output_name` says which of several outputs counts; a pixel on which no channel is above
    `threshold` is background. None: the option was not used. `try_seconds` and `try_memory` (GiB) bound the first run of an unknown model.
    Raises UsageError for a mean or std that no frame can have.
    """

    classes: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    input: str | None = None
    output_name: str | None = None
    threshold: float | None = None
    try_seconds: float = TRY_SECONDS
    try_memory: float = TRY_MEMORY

    def __post_init__(self) -> None:
        fault = normalisation_fault(self.mean, self.std, as_option)
        if fault is not None:
            raise UsageError(f"{fault}.")

    def is_set(self) -> bool:
        """Whether anything is said about the model; how long it may be tried says nothing about it."""
        return any(value is not None for value in (self.classes, self.mean, self.std, self.input, self.output_name, self.threshold))

    def parse_input(self) -> tuple[str | None, tuple[int, int] | None]:
        """The name and the (H, W) that `input` says; None for what it does not."""
        if self.input is None:
            return None, None
        name, _, size = self.input.rpartition(":")
        parts = size.lower().split("x")
        if len(parts) == 2 and all(part.isdigit() for part in parts):
            return name or None, (int(parts[0]), int(parts[1]))
        return self.input, None


def tensor_spec(value: ir.Value) -> TensorSpec:
    """An onnx_ir value's name, shape and NumPy type name."""
    shape = () if value.shape is None else tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape)
    return TensorSpec(value.name or "", shape, "unknown" if value.dtype is None else str(value.dtype.numpy().name))
