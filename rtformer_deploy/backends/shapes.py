"""What every builder needs from a model's shapes: its input, its output, and the batch to build for."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ..errors import BuildError
from ..formats.external_model import tensor_spec
from ..types import BuildOptions, ModelSpec, TensorSpec


def tensors(model: ir.Model, spec: ModelSpec) -> tuple[TensorSpec, TensorSpec]:
    """The model's input and the output that `spec` names. Raises BuildError if a runner cannot use them."""
    inputs = [tensor_spec(value) for value in model.graph.inputs if value.name not in model.graph.initializers]
    outputs = {value.name: value for value in model.graph.outputs}
    if len(inputs) != 1 or inputs[0].dtype not in ("float32", "float16") or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
        raise BuildError(
            f"The model takes {_listing(inputs)}; an engine takes one float input (N, 3, H, W).",
            "Export the model with rtformer-deploy export, or with one normalised RGB input.",
        )
    if inputs[0].shape[2:] != spec.input.shape[2:] or not all(isinstance(size, int) for size in inputs[0].shape[2:]):
        raise BuildError(f"The model takes {_listing(inputs)}; its ModelSpec says {_listing([spec.input])}.", "Export the model again.")
    if spec.output.name not in outputs:
        output_names = ", ".join(map(str, outputs))
        raise BuildError(f"The model has no output {spec.output.name!r}; it gives {output_names}.", "Export the model again.")
    return inputs[0], tensor_spec(outputs[spec.output.name])


def batch_range(source: TensorSpec, options: BuildOptions) -> tuple[int, int, int]:
    """(min, opt, max) of the batch: the model's own if it is fixed, else the one in the options. Raises BuildError if they differ."""
    smallest, usual, largest = options.batch
    if not 1 <= smallest <= usual <= largest:
        raise BuildError(f"The batch (min, opt, max) = {options.batch} does not rise from 1.", "Give --min, --opt and --max in that order.")
    fixed = source.shape[0]
    if not isinstance(fixed, int):
        return options.batch
    if options.batch not in ((1, 1, 1), (fixed, fixed, fixed)):
        raise BuildError(
            f"The model has a fixed batch of {fixed}; a batch of {smallest} to {largest} cannot be built from it.",
            "Export it with a free batch: rtformer-deploy export --batch dynamic.",
        )
    return fixed, fixed, fixed


def output_shape(spec: ModelSpec, output: TensorSpec) -> tuple[int | str, ...]:
    """The output's shape, batch first. The ModelSpec fills in sizes that the model does not fix."""
    shape = output.shape if len(output.shape) == len(spec.output.shape) else spec.output.shape
    return tuple(own if isinstance(own, int) else fallback for own, fallback in zip(shape, spec.output.shape, strict=True))


def _listing(specs: Iterable[TensorSpec]) -> str:
    return " and ".join(f"{spec.name} {spec.dtype} ({', '.join(map(str, spec.shape))})" for spec in specs) or "no input"
