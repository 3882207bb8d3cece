"""What the two CPU builders share: which options mean something, the batch, the tensors, and the verdict on precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from ..errors import BuildError
from ..types import BuildOptions, ModelSpec, PrecisionFound, PrecisionName, Progress, TensorSpec

#: Options of a GPU builder, as the command line spells them.
_FOREIGN = {
    "workspace_mib": "--workspace",
    "optimization_level": "--optimization-level",
    "timing_cache": "--timing-cache",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
}


def refuse_foreign_options(options: BuildOptions, backend: str) -> None:
    """Raises BuildError naming every option that was set and means nothing to a CPU builder."""
    defaults = {item.name: item.default for item in dataclasses.fields(BuildOptions)}
    given = [flag for name, flag in _FOREIGN.items() if getattr(options, name) != defaults[name]]
    if given:
        raise BuildError(
            f"{backend} has no {', '.join(given)}: these are options of a GPU builder.",
            f"Leave out {', '.join(given)}, or choose --backend tensorrt or tensorrt-rtx.",
        )


def tensors(model: ir.Model, spec: ModelSpec) -> tuple[TensorSpec, TensorSpec]:
    """The model's input and the output that `spec` names. Raises BuildError where they are not what a runner can feed and read."""
    inputs = [_tensor(value) for value in model.graph.inputs if value.name not in model.graph.initializers]
    outputs = {value.name: value for value in model.graph.outputs}
    if len(inputs) != 1 or inputs[0].dtype != "float32" or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
        raise BuildError(
            f"The model takes {_listing(inputs)}; an engine takes one float32 input (N, 3, H, W).",
            "Export the model with rtformer-deploy export, or with one normalised RGB input.",
        )
    if inputs[0].shape[2:] != spec.input.shape[2:] or not all(isinstance(size, int) for size in inputs[0].shape[2:]):
        raise BuildError(f"The model takes {_listing(inputs)}; its ModelSpec says {_listing([spec.input])}.", "Export the model again.")
    if spec.output.name not in outputs:
        given = ", ".join(map(str, outputs))
        raise BuildError(f"The model has no output {spec.output.name!r}; it gives {given}.", "Export the model again.")
    return inputs[0], _tensor(outputs[spec.output.name])


def batch_range(source: TensorSpec, options: BuildOptions) -> tuple[int, int, int]:
    """(min, opt, max) of the batch: the model's own where it is fixed, else what was asked for. Raises BuildError where they differ."""
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
    """The output's shape with the batch first; the ModelSpec fills in sizes that the model leaves open."""
    shape = output.shape if len(output.shape) == len(spec.output.shape) else spec.output.shape
    return tuple(own if isinstance(own, int) else said for own, said in zip(shape, spec.output.shape, strict=True))


def judge(asked: PrecisionName, layers: Mapping[str, int]) -> PrecisionFound:
    """Counts of compute layers by precision -> PrecisionFound. On a CPU FP16 is storage, so asking for it is never met."""
    found = ", ".join(f"{count} in {name}" for name, count in sorted(layers.items())) or "none"
    if asked == "fp16":
        detail = f"on a CPU FP16 is storage; the layers run in fp32 (compute layers: {found})"
        return PrecisionFound(asked, "verified" if set(layers) == {"fp16"} else "mismatch", dict(layers), detail)
    met = layers.get("int8", 0) > 0 if asked == "int8" else set(layers) <= {"fp32"}
    return PrecisionFound(asked, "verified" if met else "mismatch", dict(layers), f"compute layers: {found}")


def step(progress: Progress | None, phase: str, done: int, total: int) -> None:
    """Reports progress. Raises BuildError where the caller asks the build to stop."""
    if progress is not None and not progress(phase, done, total):
        raise BuildError("The build was stopped.")


def first_line(error: BaseException) -> str:
    """The first line of a library's error that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def _tensor(value: ir.Value) -> TensorSpec:
    shape = () if value.shape is None else tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
    dtype = "unknown" if value.dtype is None else value.dtype.numpy().name
    return TensorSpec(value.name or "", shape, dtype)


def _listing(specs: Iterable[TensorSpec]) -> str:
    return " and ".join(f"{spec.name} {spec.dtype} ({', '.join(map(str, spec.shape))})" for spec in specs) or "no input"
