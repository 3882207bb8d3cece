"""An ONNX file without a ModelSpec and what the user says about it -> the model in order, and its ModelSpec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..errors import ModelError
from ..files import MODEL_BYTES, sha256_of
from ..formats.external_model import ExternalModel
from ..formats.model_file import file_sha256, load_model
from ..formats.model_spec import check_spec
from ..formats.documents import DocumentError
from ..formats.names import clean_name
from ..formats.recipe import Labels, load_labels, numbered_labels
from ..graph.edit import initializer
from ..types import Head, ModelSpec, TensorSpec
from .attempt import Observed, Seen
from .ends import Prepared, prepare
from .meaning import Meaning, Step, read_meaning
from .trial import observe

#: What the two classes of one channel are called if nobody says.
_TWO = ("background", "object")


def read_foreign(path: Path, external: ExternalModel) -> tuple[ir.Model, ModelSpec]:
    """A file -> its model, with one image (N, 3, H, W) float32 in and scores or labels out, and its ModelSpec.

    The model runs once in a process of its own first, if it never did. Raises ModelError, which names what is missing or wrong.
    """
    file_hash = sha256_of(path, ModelError, "an ONNX model", MODEL_BYTES)
    observed = observe(path, file_hash, external)
    model = load_model(path)
    if file_sha256(model) != observed.sha256:  # the data beside the file is not what it was
        observed = observe(path, file_hash, external, again=True)
        model = load_model(path)
    digest = model.meta.copy()
    prepared = prepare(model, path.name, external, convert=observed.convert).fix_batch(observed.batch)
    _fill(prepared.model, observed)
    meaning, labels = _understand(prepared, observed.tensors[str(prepared.target.name)], external, path.name)
    finished = _finish(prepared, meaning)
    finished.meta.update(digest)
    return finished, _spec(finished, prepared, meaning, labels, external, path.name)


def _fill(model: ir.Model, observed: Observed) -> None:
    """Gives every tensor whose type or size does not follow from the input's the one that was seen."""
    for node in model.graph:
        for output in node.outputs:
            seen = observed.tensors.get(str(output.name))
            if seen is None:
                continue
            output.dtype = output.dtype or ir.DataType[seen.dtype]
            if seen.shape and (output.shape is None or any(not isinstance(size, int) for size in output.shape)):
                output.shape = ir.Shape(seen.shape)


def _understand(prepared: Prepared, seen: Seen, external: ExternalModel, name: str) -> tuple[Meaning, Labels]:
    said = None if external.classes is None else _said_labels(external.classes)
    count = None if said is None else len(said.names)
    meaning = read_meaning(prepared, seen, name, count, external.threshold)
    if meaning.threshold is not None and (said is None or count == 1):
        return meaning, Labels(_TWO, numbered_labels(len(_TWO)).palette)
    channels = 2 if meaning.threshold is not None else meaning.channels
    if said is None:
        if channels is None:
            raise ModelError(f"{name} gives labels and does not say of how many classes: --classes missing.")
        return meaning, numbered_labels(channels)
    if channels not in (None, count):
        what = "one channel, for background and object" if meaning.threshold is not None else f"{channels} classes"
        raise ModelError(f"{name} gives {what}; --classes {external.classes} are {count}.")
    return meaning, said


def _said_labels(classes: str) -> Labels:
    return numbered_labels(int(classes)) if classes.isdigit() else load_labels(classes)


def _finish(prepared: Prepared, meaning: Meaning) -> ir.Model:
    """Puts what is missing around a prepared model; changes it."""
    graph = prepared.model.graph
    _lead_in(graph, prepared)
    output = graph.outputs[0]
    name = str(output.name)
    if meaning.steps:
        output.name = f"{name}/raw"
    for number, step in enumerate(meaning.steps, 1):
        node = _node(graph, step, output, f"{name}/{step.operator}")
        graph.append(node)
        output = node.outputs[0]
        output.name = name if number == len(meaning.steps) else f"{name}/{number}"
    if meaning.threshold is not None:
        output = _two_channels(graph, output, meaning, name)
    output.shape = ir.Shape(meaning.shape_of_classes)
    graph.outputs[0] = output
    return prepared.model


def _two_channels(graph: ir.Graph, score: ir.Value, meaning: Meaning, name: str) -> ir.Value:
    """One channel x with the threshold t -> one for the background and one for the object, which is larger where x > t.

    Probabilities become 2t - x and x: for t = 0.5 those of both. Logits become -(x - t)/2 and (x - t)/2, whose softmax is the sigmoid.
    """
    assert meaning.threshold is not None
    if score.name == name:
        score.name = f"{name}/raw"

    def add(operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(operator, inputs, attributes, name=f"{name}/{operator}_{len(graph)}")
        node.outputs[0].name, node.outputs[0].dtype = node.name, ir.DataType.FLOAT
        graph.append(node)
        return node.outputs[0]

    def number(value: float) -> ir.Value:
        return initializer(graph, f"{name}/constant_{len(graph)}", np.array(value, np.float32))

    if meaning.probabilities:
        background, thing = add("Sub", number(2 * meaning.threshold), score), score
    else:
        above = add("Sub", score, number(meaning.threshold)) if meaning.threshold else score
        thing = add("Mul", above, number(0.5))
        background = add("Neg", thing)
    both = add("Concat", background, thing, axis=1)
    both.name = name
    return both


def _node(graph: ir.Graph, step: Step, value: ir.Value, name: str) -> ir.Node:
    if step.operator in ("Squeeze", "Unsqueeze"):
        axes = initializer(graph, f"{name}/axes", np.array(step.values, np.int64))
        node = ir.node(step.operator, [value, axes], name=name)
    elif step.operator == "Transpose":
        node = ir.node("Transpose", [value], {"perm": step.values}, name=name)
    else:
        node = ir.node("Cast", [value], {"to": step.values[0]}, name=name)
    node.outputs[0].dtype = ir.DataType(step.values[0]) if step.operator == "Cast" else value.dtype
    return node


def _lead_in(graph: ir.Graph, prepared: Prepared) -> None:
    """Makes the input (N, 3, H, W) float32 if it is of another type or has its channels last."""
    old = prepared.source
    if old.dtype == ir.DataType.FLOAT and not prepared.channels_last:
        return
    name = str(old.name)
    old.name = f"{name}/raw"
    new = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((prepared.batch, 3, *prepared.size)))
    readers, value, nodes = list(old.uses()), new, []
    if prepared.channels_last:
        nodes.append(_node(graph, Step("Transpose", (0, 2, 3, 1)), value, f"{name}/Transpose"))
        value = nodes[-1].outputs[0]
        value.name, value.shape = f"{name}/channels_last", old.shape
    if old.dtype != ir.DataType.FLOAT:
        assert old.dtype is not None
        nodes.append(_node(graph, Step("Cast", (int(old.dtype),)), value, f"{name}/Cast"))
        value = nodes[-1].outputs[0]
        value.name, value.shape = f"{name}/cast", old.shape
    for reader, index in readers:
        reader.replace_input_with(index, value)
    graph.inputs[0] = new
    graph.insert_before(graph[0], nodes)


def _spec(model: ir.Model, prepared: Prepared, meaning: Meaning, labels: Labels, external: ExternalModel, name: str) -> ModelSpec:
    assert external.mean is not None
    assert external.std is not None
    target, source = model.graph.outputs[0], model.graph.inputs[0]
    assert target.dtype is not None
    head: Head = "labels" if meaning.kind == "labels" else "logits" if meaning.shape[2:] == prepared.size else "lowres"
    spec = ModelSpec(
        name=clean_name(name),
        arch={"name": "unknown"},
        classes=labels.names,
        palette=labels.palette,
        input=TensorSpec(str(source.name), (prepared.batch, 3, *prepared.size), "float32"),
        output=TensorSpec(str(target.name), meaning.shape_of_classes, str(target.dtype.numpy().name)),
        head=head,
        mean=external.mean,
        std=external.std,
        threshold=meaning.threshold,
        probabilities=meaning.probabilities,
    )
    try:
        check_spec(spec)
    except DocumentError as error:
        raise ModelError(f"{name} cannot be used: {error}.") from error
    return spec
