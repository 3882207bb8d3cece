"""Makes a ModelSpec for a model without one, from its file and the user's options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ..errors import ModelError, UsageError
from ..types import Head, ModelSpec, TensorSpec
from .names import clean_name
from .normalisation import as_option, normalisation_fault
from .recipe import Labels, load_labels, numbered_labels


@dataclass(frozen=True, slots=True)
class ExternalModel:
    """What the command line says about a model from elsewhere.

    `classes` is a number, a dataset's name or a dataset file; `mean` and `std` belong to RGB from 0 to 1; `input` is the input's
    name, its HxW, or both as NAME:HxW. None: the option was not used. Raises UsageError for a mean or std that no frame can have.
    """

    classes: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    input: str | None = None

    def __post_init__(self) -> None:
        fault = normalisation_fault(self.mean, self.std, as_option)
        if fault is not None:
            raise UsageError(f"{fault}.")

    def is_set(self) -> bool:
        return any(value is not None for value in (self.classes, self.mean, self.std, self.input))


def external_spec(model: ir.Model, name: str, external: ExternalModel) -> ModelSpec:
    """A model and what the user says about it -> its ModelSpec. Raises ModelError, which names what is missing."""
    wanted_name, wanted_size = _parse_input(external.input)
    source = _input(model, name, wanted_name)
    batch, channels = source.shape[:2]
    if channels != 3 or source.dtype != "float32":
        raise ModelError(f"{name}: the input {source.name} is {source.dtype} {_shape(source.shape)}; it must be float32 (N, 3, H, W).")
    size = _size(source, wanted_size, name)
    output, count = _output(model, name)
    missing = [flag for flag, value in (("--mean", external.mean), ("--std", external.std)) if value is None]
    if size is None:
        missing.append("--input HxW")
    if external.classes is None and count is None:
        missing.append("--classes")
    if missing or size is None or external.mean is None or external.std is None:
        raise ModelError(
            f"{name} was not exported by rtformer-deploy and does not say how it wants its input: {', '.join(missing)} missing.",
            "For example: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --classes cityscapes --input 1024x2048",
        )
    labels = _labels(external.classes, count, name)
    output = _output_at(model, source.name, size, output)
    head: Head = "labels" if output.dtype != "float32" else "logits" if tuple(output.shape[-2:]) == size else "lowres"
    return ModelSpec(
        name=clean_name(name),
        arch={"name": "unknown"},
        classes=labels.names,
        palette=labels.palette,
        input=TensorSpec(source.name, (batch, 3, *size), "float32"),
        output=output,
        head=head,
        mean=external.mean,
        std=external.std,
    )


def fix_size(model: ir.Model, spec: ModelSpec) -> None:
    """Writes the spec's height and width into a model, because an engine has one spatial size."""
    _fix_input(model, spec.input.name, spec.size)


def tensor_spec(value: ir.Value) -> TensorSpec:
    """An onnx_ir value's name, shape and NumPy type name."""
    shape = () if value.shape is None else tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape)
    return TensorSpec(value.name or "", shape, "unknown" if value.dtype is None else str(value.dtype.numpy().name))


def _input(model: ir.Model, name: str, wanted: str | None) -> TensorSpec:
    inputs = [tensor_spec(value) for value in model.graph.inputs if value.name not in model.graph.initializers]
    named = [spec for spec in inputs if wanted in (None, spec.name)]
    listed = ", ".join(f"{spec.name} {_shape(spec.shape)}" for spec in inputs) or "none"
    if len(named) != 1:
        raise ModelError(
            f"{name} has no single input to feed{f' named {wanted}' if wanted else ''}; its inputs: {listed}.", "Name it: --input NAME"
        )
    if len(named[0].shape) != 4:
        raise ModelError(f"{name}: the input must be (N, 3, H, W); its inputs: {listed}.")
    return named[0]


def _output(model: ir.Model, name: str) -> tuple[TensorSpec, int | None]:
    """The output, and the number of classes in its shape; None for labels or an open dimension."""
    output = tensor_spec(model.graph.outputs[0])
    if len(output.shape) == 4 and output.dtype == "float32":
        return output, output.shape[1] if isinstance(output.shape[1], int) else None
    if len(output.shape) == 3 and output.dtype in ("uint8", "int32", "int64"):
        return output, None
    raise ModelError(
        f"{name}: the output {output.name} is {output.dtype} {_shape(output.shape)}; it must be float32 logits (N, classes, h, w) or "
        "integer labels (N, H, W)."
    )


def _output_at(model: ir.Model, source: str, size: tuple[int, int], output: TensorSpec) -> TensorSpec:
    """The output at a size of the input `source`; dimensions stay open if they do not follow from it."""
    if all(isinstance(each, int) for each in output.shape[1:]):
        return output
    fixed = model.clone()
    _fix_input(fixed, source, size)
    ShapeInferencePass()(fixed)
    return tensor_spec(fixed.graph.outputs[0])


def _fix_input(model: ir.Model, name: str, size: tuple[int, int]) -> None:
    for value in model.graph.inputs:
        if value.name == name and value.shape is not None:
            value.shape = ir.Shape([value.shape[0], 3, *size])


def _size(source: TensorSpec, wanted: tuple[int, int] | None, name: str) -> tuple[int, int] | None:
    height, width = source.shape[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        return wanted
    if wanted not in (None, (height, width)):
        raise ModelError(f"{name} takes {height}x{width} and nothing else.", "Leave the size out of --input.")
    return height, width


def _labels(classes: str | None, count: int | None, name: str) -> Labels:
    if classes is None:
        assert count is not None
        return numbered_labels(count)
    labels = numbered_labels(int(classes)) if classes.isdigit() else load_labels(classes)
    if count not in (None, len(labels.names)):
        raise ModelError(f"{name} gives {count} classes; --classes {classes} are {len(labels.names)}.")
    return labels


def _parse_input(text: str | None) -> tuple[str | None, tuple[int, int] | None]:
    if text is None:
        return None, None
    name, _, size = text.rpartition(":")
    parts = size.lower().split("x")
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return name or None, (int(parts[0]), int(parts[1]))
    return text, None


def _shape(shape: Sequence[int | str]) -> str:
    return "x".join(str(size) for size in shape)
