"""What the numbers of a foreign model's output are: scores of classes, one channel of scores, or labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from ..errors import ModelError
from ..graph.edit import constant
from .ends import BATCH, FLOATS, Prepared, refuse_empty
from .seen import Dim, Seen

#: Operators between what makes the output's numbers and the output, which leave the numbers' kind as it is.
_PASSING = frozenset({
    "Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Resize", "Upsample", "Slice", "Clip", "Concat",
})  # fmt: skip
_LABELS = frozenset({ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64})
_HINT = "Models that give every pixel a class are taken, not those that classify whole pictures, find boxes or read text."
_FARTHEST = 64  # nodes that are looked at


@dataclass(frozen=True, slots=True)
class Step:
    """A node to add behind the output: its operator, its axes or permutation, or the type to cast to."""

    operator: Literal["Squeeze", "Unsqueeze", "Transpose", "Cast"]
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an output is, and the steps that bring it into the usual form: scores (N, C, h, w) float32, or labels (N, h, w) integers.

    `shape` is the one after them. One channel of scores has a `threshold`; so have several that a sigmoid made, if the user says one: a
    pixel on which none is above it is background. `probabilities` went through a sigmoid or a softmax. `apart`: a sigmoid made several
    channels, and without a threshold the largest wins also where all are small.
    """

    kind: Literal["scores", "labels"]
    shape: tuple[int | str, ...]
    steps: tuple[Step, ...] = ()
    threshold: float | None = None
    probabilities: bool = False
    apart: bool = False

    @property
    def channels(self) -> int | None:
        """How many channels the scores have; None for labels."""
        return None if self.kind == "labels" else int(self.shape[1])

    @property
    def shape_of_classes(self) -> tuple[int | str, ...]:
        """The shape once the background has a channel."""
        return self.shape if self.threshold is None else (self.shape[0], int(self.shape[1]) + 1, *self.shape[2:])


def read_meaning(prepared: Prepared, seen: Seen, name: str, classes: int | None, threshold: float | None) -> Meaning:
    """A prepared model and what a run showed of its output -> what that is; `classes` is how many the user says there are.

    Raises ModelError if it is nothing of the kind.
    """
    target = prepared.target
    output = _Output(_known(seen, prepared, name), prepared, name)
    integers = ir.DataType[seen.dtype] not in FLOATS
    labels = integers or _is_label(target)
    if labels:
        output.to_labels()
        if ir.DataType[seen.dtype] not in _LABELS:
            output.add("Cast", ir.DataType.INT64)
    else:
        output.to_scores(classes)
        if ir.DataType[seen.dtype] != ir.DataType.FLOAT:
            output.add("Cast", ir.DataType.FLOAT)
    one = not labels and output.shape[1] == 1
    likely = not labels and _is_likely(target, one)
    apart = not (labels or one) and _is_sigmoid(_source(target))
    if threshold is not None and not (one or apart):
        what = "labels" if labels else f"{output.shape[1]} channels"
        why = "--threshold belongs to a model of one channel, or of several that a sigmoid made"
        raise ModelError(f"{name} gives {what}; {why}.", "Leave --threshold out.")
    usual = (0.5 if likely else 0.0) if one else None
    return Meaning(
        "labels" if labels else "scores",
        tuple(output.shape),
        tuple(output.steps),
        usual if threshold is None else threshold,
        likely,
        apart and threshold is None,
    )


def _known(seen: Seen, prepared: Prepared, name: str) -> list[int | str]:
    """The shape, all of it numbers but for the batch."""
    shape = [size for size in seen.shape if size is not None]
    refuse_empty(prepared, shape, name)
    if len(shape) != len(seen.shape) or not shape:
        raise ModelError(f"{name}: the size of the output {prepared.target.name} depends on the picture: {_shape(seen.shape)}.")
    return shape


@dataclass(slots=True)
class _Output:
    """An output's shape while steps are added."""

    shape: list[int | str]
    prepared: Prepared
    name: str
    steps: list[Step] = field(default_factory=list)
    given: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        self.given = tuple(self.shape)

    def add(self, operator: Literal["Squeeze", "Unsqueeze", "Transpose", "Cast"], *values: int) -> None:
        self.steps.append(Step(operator, tuple(map(int, values))))
        if operator == "Squeeze":
            del self.shape[values[0]]
        elif operator == "Unsqueeze":
            self.shape.insert(values[0], 1)
        elif operator == "Transpose":
            self.shape = [self.shape[axis] for axis in values]

    def to_labels(self) -> None:
        """(N, 1, h, w), (N, h, w, 1) or (h, w) -> (N, h, w)."""
        shape = self.shape
        if len(shape) == 2 and self.prepared.batch == 1:
            self.add("Unsqueeze", 0)
        elif len(shape) == 4 and 1 in (shape[1], shape[3]):
            self.add("Squeeze", 1 if shape[1] == 1 else 3)
        if len(self.shape) != 3 or self.shape[0] != self.prepared.batch:
            raise self.refused("labels must be (N, H, W) or (N, 1, H, W)")

    def to_scores(self, classes: int | None) -> None:
        """(N, h, w, C), (N, h, w), (C, h, w) or (h, w) -> (N, C, h, w)."""
        if len(self.shape) == 2 and self.prepared.batch == 1:
            self.add("Unsqueeze", 0)
        whole = len(self.shape) == 4
        if len(self.shape) == 3:
            self.add("Unsqueeze", 1 if self.shape[0] == self.prepared.batch else 0)
        if len(self.shape) != 4 or self.shape[0] != self.prepared.batch or not (whole or self._is_map(*self.shape[2:])):
            raise self.refused("scores must be (N, classes, h, w)")
        if whole and self._channels_last(classes):
            self.add("Transpose", 0, 3, 1, 2)

    def _channels_last(self, classes: int | None) -> bool:
        """Whether the last axis is the classes': by their number, or by which two axes have the picture's proportions."""
        _, one, two, three = self.shape
        first, last = self._fits(two, three), self._fits(one, two)
        if first and last and classes is not None and classes not in (one, _channels(one)):
            return classes in (three, _channels(three))
        if first or last:
            return not first
        if isinstance(one, int) and isinstance(two, int) and isinstance(three, int):
            if one <= min(two, three):
                return False
            if three <= min(one, two):
                return True
        height, width = self.prepared.size
        raise self.refused(f"for a picture of {height}x{width} that is neither (N, classes, h, w) nor (N, h, w, classes)")

    def _is_map(self, height: int | str, width: int | str) -> bool:
        """Whether two axes are a picture's and no list of numbers about it, as (N, classes) is."""
        return 1 not in (height, width) and self._fits(height, width)

    def _fits(self, height: int | str, width: int | str) -> bool:
        """Whether two axes may be a picture's, at any stride, with a row or two more or less."""
        full_height, full_width = self.prepared.size
        if not isinstance(height, int) or not isinstance(width, int):
            return False
        return abs(height * full_width - width * full_height) <= 2 * max(full_height, full_width)

    def refused(self, why: str) -> ModelError:
        return ModelError(f"{self.name}: the output {self.prepared.target.name} is {_shape(self.given)}: {why}.", _HINT)


def _channels(size: int | str) -> int | str:
    """How many classes an axis of this size stands for."""
    return 2 if size == 1 else size


def _shape(shape: Sequence[Dim]) -> str:
    return "x".join("?" if size is None else "N" if size == BATCH else str(size) for size in shape)


def _is_label(value: ir.Value) -> bool:
    """Whether a float output was made of integers or truth values: an ArgMax that was cast, a comparison."""
    found = _source(value, lambda node: node.op_type == "Cast" and _is_integer(node.inputs[0]))
    return found is not None and found.op_type == "Cast" and _is_integer(found.inputs[0])


def _is_integer(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and (value.dtype.is_integer() or value.dtype == ir.DataType.BOOL)


def _is_likely(value: ir.Value, one: bool) -> bool:
    """Whether an output is probabilities: a sigmoid's, or, of several channels, a softmax's."""
    node = _source(value)
    return _is_sigmoid(node) or (not one and node is not None and node.op_type == "Softmax")


def _is_sigmoid(node: ir.Node | None) -> bool:
    return node is not None and (node.op_type in ("Sigmoid", "HardSigmoid") or _is_written_sigmoid(node))


def _is_written_sigmoid(node: ir.Node) -> bool:
    """Whether a node is the last of 1 / (1 + e^-x), operator by operator."""
    if node.op_type == "Div" and _is_one(node.inputs[0]):
        below = node.inputs[1]
    elif node.op_type == "Reciprocal":
        below = node.inputs[0]
    else:
        return False
    addition = None if below is None else below.producer()
    if addition is None or addition.op_type != "Add" or not any(map(_is_one, addition.inputs)):
        return False
    sources = [None if value is None else value.producer() for value in addition.inputs]
    return any(source is not None and source.op_type == "Exp" for source in sources)


def _is_one(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.size > 0 and bool(np.all(array == 1))


def _source(value: ir.Value, stop: Callable[[ir.Node], bool] = lambda node: False) -> ir.Node | None:
    """The node that makes a value's numbers: the first before it that is not a passing one, or for which `stop` holds."""
    current: ir.Value | None = value
    for _ in range(_FARTHEST):
        node = None if current is None else current.producer()
        if node is None or node.domain != "" or node.op_type not in _PASSING or stop(node):
            return node
        current = node.inputs[0]
    return None
