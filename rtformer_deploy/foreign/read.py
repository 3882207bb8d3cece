"""An ONNX file without a ModelSpec and what the user says about it -> the model in order, and its ModelSpec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..errors import ModelError
from ..files import MODEL_BYTES, sha256_of
from ..formats.documents import DocumentError
from ..formats.external_model import ExternalModel
from ..formats.model_file import file_sha256, load_model
from ..formats.model_spec import check_spec
from ..formats.names import clean_name
from ..formats.recipe import Labels, load_labels, numbered_labels
from ..formats.tensor_types import is_tensor
from ..graph.edit import free_name, initializer
from ..graph.notes import add_note
from ..types import FOREIGN, Backend, Head, ModelSpec, TensorSpec
from .ends import Prepared, prepare
from .meaning import Meaning, Step, read_meaning
from .seen import Observed, Seen
from .trial import observe

#: What the two classes of one channel are called if nobody says.
_TWO = ("background", "object")
_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"})


def read_foreign(path: Path, external: ExternalModel, builder: Backend | None = None) -> tuple[ir.Model, ModelSpec]:
    """A file -> its model, with one image (N, 3, H, W) float32 in and scores or labels out, and its ModelSpec.

    The model runs once in a process of its own first, if it never did, and what `builder` does is tried there too. Raises ModelError,
    which names what is missing or wrong.
    """
    file_hash = sha256_of(path, ModelError, "an ONNX model", MODEL_BYTES)
    observed = observe(path, file_hash, external, builder)
    model = load_model(path)
    if file_sha256(model) != observed.sha256:  # the data beside the file is not what it was
        observed = observe(path, file_hash, external, builder, again=True)
        model = load_model(path)
    digest = model.meta.copy()
    prepared = prepare(model, path.name, external, convert=observed.convert).fix_batch(observed.batch)
    _fill(prepared.model, observed)
    meaning, labels = _understand(prepared, observed.tensors[str(prepared.target.name)], external, path.name)
    finished = _finish(prepared, meaning)
    _tell(finished, meaning)
    finished.meta.update(digest)
    return finished, _spec(finished, prepared, meaning, labels, external, path.name)


def _tell(model: ir.Model, meaning: Meaning) -> None:
    """Notes what of a model makes its classes less certain than they look."""
    if meaning.apart:
        what = f"A sigmoid judges each of {meaning.channels} channels by themselves, and a pixel that is of none gets the largest"
        add_note(model, f"{what}: --threshold 0.5 adds a background.")
    drawn = sorted({node.op_type for node in model.graph.all_nodes() if node.op_type in _RANDOM and node.domain == ""})
    if drawn:
        add_note(model, f"The model draws random numbers ({', '.join(drawn)}): it gives something else in each run, and on each backend.")


def _fill(model: ir.Model, observed: Observed) -> None:
    """Gives every tensor whose type or size does not follow from the input's the one that was seen."""
    for node in model.graph:
        for output in node.outputs:
            seen = observed.tensors.get(str(output.name))
            if seen is None or not is_tensor(model, output):
                continue
            output.dtype = output.dtype or ir.DataType[seen.dtype]
            if seen.shape and (output.shape is None or any(not isinstance(size, int) for size in output.shape)):
                output.shape = ir.Shape(seen.shape)


def _understand(prepared: Prepared, seen: Seen, external: ExternalModel, name: str) -> tuple[Meaning, Labels]:
    said = None if external.classes is None else _said_labels(external.classes)
    count = None if said is None else len(said.names)
    meaning = read_meaning(prepared, seen, name, count, external.threshold)
    one = meaning.channels == 1
    if one and (said is None or count == 1):
        return meaning, replace(numbered_labels(len(_TWO)), names=_TWO)
    channels = meaning.channels if meaning.threshold is None else int(meaning.shape_of_classes[1])
    if said is None and meaning.threshold is not None and channels is not None:
        return meaning, _with_background(numbered_labels(channels))
    if said is None:
        if channels is None:
            raise ModelError(f"{name} gives labels and does not say of how many classes: --classes missing.")
        return meaning, numbered_labels(channels)
    if channels not in (None, count):
        what = "one channel, for background and object" if one else f"{channels} classes"
        raise ModelError(f"{name} gives {what}; --classes {external.classes} are {count}.")
    return meaning, said


def _with_background(labels: Labels) -> Labels:
    return replace(labels, names=(_TWO[0], *labels.names[1:]))


def _said_labels(classes: str) -> Labels:
    return numbered_labels(int(classes)) if classes.isdigit() else load_labels(classes)


def _finish(prepared: Prepared, meaning: Meaning) -> ir.Model:
    """Puts what is missing around a prepared model; changes it."""
    ends = _Ends(prepared.model.graph)
    ends.lead_in(prepared)
    output = ends.graph.outputs[0]
    name = str(output.name)
    if meaning.steps or meaning.threshold is not None:
        output.name = ends.free(f"{name}/raw")
    for step in meaning.steps:
        output = ends.append(step, output, name)
    if meaning.threshold is not None and meaning.channels == 1:
        output = ends.two_channels(output, meaning.threshold, meaning.probabilities, name)
    elif meaning.threshold is not None:
        output = ends.with_background(output, meaning.threshold, name)
    output.name, output.shape = name, ir.Shape(meaning.shape_of_classes)
    ends.graph.outputs[0] = output
    return prepared.model


class _Ends:
    """Adds nodes before and behind a graph, under names that are free in it."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._used = {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
        for node in graph.all_nodes():
            self._used |= {str(node.name), *(str(value.name) for value in node.outputs)}

    def free(self, name: str) -> str:
        """The name, or if it is taken the name with a number."""
        found = free_name(name, self._used)
        self._used.add(found)
        return found

    def append(self, step: Step, value: ir.Value, name: str) -> ir.Value:
        node = self._step(step, value, name)
        self.graph.append(node)
        return node.outputs[0]

    def two_channels(self, score: ir.Value, threshold: float, likely: bool, name: str) -> ir.Value:
        """One channel x with the threshold t -> one for the background and one for the object, which is larger where x > t.

        Probabilities become 2t - x and x: for t = 0.5 those of both. Logits become -(x - t)/2 and (x - t)/2, whose softmax is the sigmoid.
        """
        if likely:
            background, thing = self._operator("Sub", name, self._number(2 * threshold, name), score), score
        else:
            above = self._operator("Sub", name, score, self._number(threshold, name)) if threshold else score
            thing = self._operator("Mul", name, above, self._number(0.5, name))
            background = self._operator("Neg", name, thing)
        return self._operator("Concat", name, background, thing, axis=1)

    def with_background(self, scores: ir.Value, threshold: float, name: str) -> ir.Value:
        """Channels (N, C, h, w), each judged by itself -> one more in front, which is the threshold everywhere."""
        bounds = [initializer(self.graph, self.free(f"{name}/bound"), np.array([bound], np.int64)) for bound in (0, 1, 1)]
        first = self._operator("Slice", name, scores, *bounds)
        none = self._operator("Mul", name, first, self._number(0.0, name))
        return self._operator("Concat", name, self._operator("Add", name, none, self._number(threshold, name)), scores, axis=1)

    def lead_in(self, prepared: Prepared) -> None:
        """Makes the input (N, 3, H, W) float32 if it is of another type or has its channels last."""
        old, name = prepared.source, str(prepared.source.name)
        if old.dtype == ir.DataType.FLOAT and not prepared.channels_last:
            return
        old.name = self.free(f"{name}/raw")
        shape = ir.Shape((prepared.batch, 3, *prepared.size))
        new = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
        readers, value, nodes = list(old.uses()), new, []
        steps = [Step("Transpose", (0, 2, 3, 1))] * prepared.channels_last
        if old.dtype is not None and old.dtype != ir.DataType.FLOAT:
            steps.append(Step("Cast", (int(old.dtype),)))
        for step in steps:
            nodes.append(self._step(step, value, name))
            value = nodes[-1].outputs[0]
            value.shape = old.shape
        for reader, index in readers:
            reader.replace_input_with(index, value)
        self.graph.inputs[0] = new
        self.graph.insert_before(self.graph[0], nodes)

    def _step(self, step: Step, value: ir.Value, name: str) -> ir.Node:
        called = self.free(f"{name}/{step.operator}")
        if step.operator in ("Squeeze", "Unsqueeze"):
            axes = initializer(self.graph, self.free(f"{called}/axes"), np.array(step.values, np.int64))
            node = ir.node(step.operator, [value, axes], name=called)
        elif step.operator == "Transpose":
            node = ir.node("Transpose", [value], {"perm": step.values}, name=called)
        else:
            node = ir.node("Cast", [value], {"to": step.values[0]}, name=called)
        node.outputs[0].name = called
        kind = ir.DataType(step.values[0]) if step.operator == "Cast" else value.dtype
        node.outputs[0].type = None if kind is None else ir.TensorType(kind)
        return node

    def _operator(self, operator: str, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(operator, inputs, attributes, name=self.free(f"{name}/{operator}"))
        node.outputs[0].name, node.outputs[0].dtype = node.name, ir.DataType.FLOAT
        self.graph.append(node)
        return node.outputs[0]

    def _number(self, value: float, name: str) -> ir.Value:
        return initializer(self.graph, self.free(f"{name}/constant"), np.array(value, np.float32))


def _spec(model: ir.Model, prepared: Prepared, meaning: Meaning, labels: Labels, external: ExternalModel, name: str) -> ModelSpec:
    assert external.mean is not None
    assert external.std is not None
    target, source = model.graph.outputs[0], model.graph.inputs[0]
    assert target.dtype is not None
    head: Head = "labels" if meaning.kind == "labels" else "logits" if meaning.shape[2:] == prepared.size else "lowres"
    spec = ModelSpec(
        name=clean_name(name),
        arch={"name": FOREIGN},
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
