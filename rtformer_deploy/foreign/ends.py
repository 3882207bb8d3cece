"""A foreign model's two ends: which output counts, which input takes the image, and at which size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..errors import ModelError, shorten
from ..formats.documents import DocumentError
from ..formats.external_model import ExternalModel
from ..formats.model_spec import check_size
from ..graph.clean import clean, infer_shapes, keep_output

#: The name of the batch dimension of a model that takes any batch.
BATCH = "batch"
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})
_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model in order, with one output and one input of one size. `channels_last`: the input is (N, H, W, 3).

    `batch` is fixed, or BATCH.
    """

    model: ir.Model
    size: tuple[int, int]
    batch: int | str
    channels_last: bool

    @property
    def source(self) -> ir.Value:
        return self.model.graph.inputs[0]

    @property
    def target(self) -> ir.Value:
        return self.model.graph.outputs[0]

    def shape(self, batch: int | str) -> tuple[int | str, ...]:
        """The input's shape with a batch."""
        return (batch, *self.size, 3) if self.channels_last else (batch, 3, *self.size)

    def fix_batch(self, batch: int | str) -> Prepared:
        """The same with this batch; changes the model."""
        self.source.shape = ir.Shape(self.shape(batch))
        infer_shapes(self.model)
        return Prepared(self.model, self.size, batch, self.channels_last)


def prepare(model: ir.Model, name: str, external: ExternalModel, *, convert: bool = True) -> Prepared:
    """A model as it was read, and what the user says about it -> the model in order; `model` changes. Without `convert` it keeps
    its opset.

    Raises ModelError if it does not say which output or size to take, or cannot be fed one image; the message lists what to say.
    """
    model = clean(model, name, convert=convert)
    keep_output(model, _pick_output(model, name, external.output_name))
    wanted_name, wanted_size = external.parse_input()
    source = _pick_input(model, name, wanted_name)
    dims = _dimensions(source, name)
    last = _channels_last(dims, source, name)
    size = _size(dims[1:3] if last else dims[2:4], wanted_size, name)
    infer_shapes(model)
    if model.graph.outputs[0].dtype == ir.DataType.STRING:
        raise ModelError(f"{name}: the output {describe(model.graph.outputs)} is no tensor of scores or labels.")
    _check_said(external, size, model.graph.outputs[0], name)
    assert size is not None, "_check_said says that it is missing"
    return Prepared(model, size, dims[0] or BATCH, last).fix_batch(dims[0] or BATCH)


def refuse_empty(prepared: Prepared, shape: Sequence[int | str], name: str) -> None:
    """Raises ModelError if an output of this shape holds no numbers."""
    if 0 in shape:
        raise ModelError(f"{name}: the output {prepared.target.name} is {'x'.join(map(str, shape))}, which holds nothing.")


def describe(values: Iterable[ir.Value]) -> str:
    """Names, types and shapes of inputs or outputs, for a message."""
    listed = [_text(value) for value in values]
    more = [f"and {len(listed) - _MOST_LISTED} more"] if len(listed) > _MOST_LISTED else []
    return ", ".join(listed[:_MOST_LISTED] + more) or "none"


def _text(value: ir.Value) -> str:
    return f"{shorten(str(value.name), 80)} ({_kind(value)})"


def _kind(value: ir.Value) -> str:
    """A value's type and shape."""
    if not isinstance(value.type, ir.TensorType):
        return "no tensor"
    kind = "text" if value.type.dtype == ir.DataType.STRING else value.type.dtype.numpy().name
    shape = [] if value.shape is None else ["x".join(str(size) if isinstance(size, int) else "?" for size in value.shape) or "one number"]
    return " ".join([kind, *shape])


def _no_image(source: ir.Value, name: str) -> ModelError:
    shown = f"the input {shorten(str(source.name), 80)} is {_kind(source)}"
    return ModelError(f"{name}: {shown}; it must be float32 (N, 3, H, W): an image, normalised RGB.")


def _pick_output(model: ir.Model, name: str, wanted: str | None) -> ir.Value:
    outputs = list(dict.fromkeys(model.graph.outputs))  # a file may list one twice
    named = [value for value in outputs if wanted in (None, value.name)]
    if wanted is not None and not named:
        raise ModelError(
            f"{name} has no output {shorten(wanted)}; its outputs: {_inferred(model)}.", "Name one of them: --output-name NAME"
        )
    if len(named) > 1:
        raise ModelError(f"{name} has {len(outputs)} outputs: {_inferred(model)}.", "Say which one holds the classes: --output-name NAME")
    if named[0].producer() is None:
        raise ModelError(f"{name}: the output {shorten(str(named[0].name))} does not come from any node of the graph.")
    if not isinstance(named[0].type, ir.TensorType):
        raise ModelError(f"{name}: the output {describe(named)} is no tensor of scores or labels.")
    return named[0]


def _inferred(model: ir.Model) -> str:
    infer_shapes(model)
    return describe(model.graph.outputs)


def _pick_input(model: ir.Model, name: str, wanted: str | None) -> ir.Value:
    inputs = list(model.graph.inputs)
    if not inputs:
        raise ModelError(f"{name}: the output {shorten(str(model.graph.outputs[0].name))} does not depend on any input.")
    if len(inputs) > 1:
        raise ModelError(
            f"{name} needs {len(inputs)} inputs, and an engine takes one image: {describe(inputs)}.",
            "Export it again with the others as constants, so that the image is its only input.",
        )
    if wanted is not None and inputs[0].name != wanted:
        raise ModelError(f"{name} has no input {shorten(wanted)}; its input: {describe(inputs)}.", "Leave the name out of --input.")
    if inputs[0].dtype not in FLOATS:
        raise _no_image(inputs[0], name)
    return inputs[0]


def _dimensions(source: ir.Value, name: str) -> list[int | None]:
    """The input's four dimensions; None for one that is open."""
    if source.shape is None:
        return [None] * 4
    if 0 in source.shape:
        raise ModelError(f"{name}: the input {shorten(str(source.name), 80)} is {_kind(source)}, which holds no picture.")
    dims = [size if isinstance(size, int) and size > 0 else None for size in source.shape]
    if len(dims) != 4:
        raise _no_image(source, name)
    return dims


def _channels_last(dims: list[int | None], source: ir.Value, name: str) -> bool:
    if dims[1] in (3, None) and not (dims[1] is None and dims[3] == 3):
        return False
    if dims[3] == 3:
        return True
    raise _no_image(source, name)


def _size(dims: list[int | None], wanted: tuple[int, int] | None, name: str) -> tuple[int, int] | None:
    """The height and width: the model's own, or those that were asked for where it leaves them open."""
    if wanted is not None:
        try:
            check_size(*wanted, "--input")
        except DocumentError as error:
            raise ModelError(f"{name} cannot be used: {error}.") from error
    if wanted is None:
        return None if dims[0] is None or dims[1] is None else (dims[0], dims[1])
    if any(own not in (None, asked) for own, asked in zip(dims, wanted, strict=True)):
        shown = "x".join("any" if own is None else str(own) for own in dims)
        raise ModelError(f"{name} takes {shown} and nothing else, not {wanted[0]}x{wanted[1]}.", "Leave the size out of --input.")
    return wanted


def _check_said(external: ExternalModel, size: tuple[int, int] | None, output: ir.Value, name: str) -> None:
    """Raises ModelError that lists what the user has to say and did not."""
    missing = [flag for flag, value in (("--mean", external.mean), ("--std", external.std)) if value is None]
    if size is None:
        missing.append("--input HxW")
    if external.classes is None and output.dtype is not None and output.dtype not in FLOATS:
        missing.append("--classes")
    if missing:
        raise ModelError(
            f"{name} was not exported by rtformer-deploy and does not say how it wants its input: {', '.join(missing)} missing.",
            "For example: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --classes cityscapes --input 1024x2048",
        )
