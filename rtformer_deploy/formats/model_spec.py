"""The plain values of a ModelSpec -> a ModelSpec whose parts fit each other."""

from __future__ import annotations

from ..errors import ModelError
from ..types import MOST_BATCH_PIXELS, MOST_PIXELS, MOST_SIDE, ModelSpec, TensorSpec
from .documents import DocumentError
from .normalisation import normalisation_fault
from .preprocessing import scale_fault


def check_spec(spec: ModelSpec, where: str = "") -> None:
    """Raises DocumentError if the parts of a spec contradict each other; `where` is put before a field's name."""
    if len(spec.palette) != len(spec.classes):
        raise DocumentError(f"{where}palette has {len(spec.palette)} colours for {len(spec.classes)} classes")
    fault = normalisation_fault(spec.mean, spec.std)
    if fault is not None:
        raise DocumentError(f"{where}{fault}")
    _check_input(spec.input, f"{where}input")
    check_size(*spec.frame_size, f"{where}input over scale")
    fault = scale_fault(spec.size, spec.scale)
    if fault is not None:
        raise DocumentError(f"{where}input: {fault}")
    _check_output(spec, f"{where}output")


def check_size(height: int, width: int, where: str) -> None:
    """Raises DocumentError unless an input may have this height and width."""
    if not (1 <= height <= MOST_SIDE and 1 <= width <= MOST_SIDE):
        raise DocumentError(f"{where} is {height}x{width}; height and width are from 1 to {MOST_SIDE}")
    if height * width > MOST_PIXELS:
        raise DocumentError(f"{where} is {height}x{width}: {height * width:,} pixels, more than {MOST_PIXELS:,}")


def check_same_ends(built: ModelSpec, spec: ModelSpec) -> None:
    """Raises ModelError unless a model's input and output are those that an engine was built for."""
    ends = ((built.input, spec.input), (built.output, spec.output))
    wrong = next(((engine, model) for engine, model in ends if engine != model), None)
    if wrong is not None:
        engine, model = wrong
        what = f"The model's {model.name[:100]} is {_text(model)}; the engine was built for {engine.name[:100]}, {_text(engine)}."
        raise ModelError(what, "Export the model at that size and with that head, or build an engine of it.")


def _check_input(tensor: TensorSpec, where: str) -> None:
    shape = tensor.shape
    if len(shape) != 4 or shape[1] != 3 or tensor.dtype != "float32" or not isinstance(shape[2], int) or not isinstance(shape[3], int):
        raise DocumentError(f"{where} is {_text(tensor)}; expected float32 Nx3xHxW")
    check_size(shape[2], shape[3], where)
    if isinstance(shape[0], int) and shape[0] * shape[2] * shape[3] > MOST_BATCH_PIXELS:
        raise DocumentError(f"{where} takes {shape[0]} frames of {shape[2]}x{shape[3]}, more than {MOST_BATCH_PIXELS:,} pixels")


def _check_output(spec: ModelSpec, where: str) -> None:
    tensor = spec.output
    if spec.head == "labels":
        if len(tensor.shape) != 3 or tensor.dtype not in ("uint8", "int32", "int64"):
            raise DocumentError(f"{where} is {_text(tensor)}; expected labels, NxHxW")
    elif len(tensor.shape) != 4 or tensor.dtype != "float32":
        raise DocumentError(f"{where} is {_text(tensor)}; expected logits, float32 NxCxHxW")
    elif isinstance(tensor.shape[1], int) and tensor.shape[1] != len(spec.classes):
        raise DocumentError(f"{where} gives {tensor.shape[1]} classes; classes names {len(spec.classes)}")
    if spec.threshold is not None and (spec.head == "labels" or len(spec.classes) < 2):
        raise DocumentError(f"{where.removesuffix('output')}threshold belongs to scores of a background and other classes")


def _text(tensor: TensorSpec) -> str:
    return f"{tensor.dtype[:20]} {'x'.join(str(size)[:20] for size in tensor.shape)}"
