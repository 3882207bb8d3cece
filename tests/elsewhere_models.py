"""Small models as other tools write them: one trait each. The right answer is ONNX Runtime's on the file, without optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rtformer_deploy.calibrate.collect import Collector, float_tensors
from rtformer_deploy.formats.model_file import parse_model, serialize_model
from rtformer_deploy.formats.recipe import numbered_labels
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.functions import inline_functions
from rtformer_deploy.types import FOREIGN, ModelSpec, Ranges, TensorSpec

SIZE = (32, 48)
CLASSES = 5
CHANNELS = 16
Array = NDArray[Any]


@dataclass(slots=True)
class Maker:
    """Nodes and constants of a graph under construction; `features` is what a first convolution made of the image, (1, 16, 16, 24)."""

    opset: int = 13
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def constant(self, name: str, array: Array | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, name: str, *shape: int, spread: int | None = None) -> str:
        """Random weights; along the axis `spread` their sizes go from 0.03 to 3."""
        array = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        if spread is not None:
            sizes = np.logspace(-1.5, 0.5, shape[spread])
            array *= sizes.reshape([-1 if axis == spread else 1 for axis in range(len(shape))])
        return self.constant(name, array.astype(np.float32))

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"/{output}", **attributes))
        return output

    def features(self) -> str:
        self.weight("w_first", CHANNELS, 3, 3, 3)
        self.add("Conv", ["image", "w_first"], "first", pads=[1] * 4, strides=[2, 2])
        return self.add("Relu", ["first"], "features")

    def finish(self, last: str, channels: int = CHANNELS, balance: int | None = None) -> onnx.ModelProto:
        """The classifier over `last`, and the model. With `balance` it undoes the spread of that many channels."""
        array = self.rng.standard_normal((CLASSES, channels, 1, 1)) / np.sqrt(channels)
        if balance is not None:
            array /= np.tile(np.logspace(-1.5, 0.5, balance), channels // balance)[None, :, None, None]
        self.constant("w_last", array.astype(np.float32))
        self.add("Conv", [last, "w_last"], "scores")
        return self.model("scores", (1, CLASSES, SIZE[0] // 2, SIZE[1] // 2))

    def model(self, output: str, shape: Sequence[int | str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "foreign",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *SIZE))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return onnx.shape_inference.infer_shapes(proto)


def weighted(kind: str) -> onnx.ModelProto:
    """A network whose middle is one operator with weights of very different sizes from output channel to output channel.

    `kind`: conv1d, conv2d, conv3d, depthwise, transposed1d, transposed2d, transposed3d, transposed_groups, gemm, gemm_turned,
    matmul_right, matmul_left.
    """
    make = Maker()
    features = make.features()
    height, width = SIZE[0] // 2, SIZE[1] // 2
    if kind == "depthwise":
        make.weight("w", CHANNELS, 1, 3, 3, spread=0)
        make.add("Conv", [features, "w"], "middle", pads=[1] * 4, group=CHANNELS)
        return make.finish("middle", balance=CHANNELS)
    if kind == "transposed_groups":
        make.weight("w", CHANNELS, CHANNELS // 2, 3, 3, spread=1)
        make.add("ConvTranspose", [features, "w"], "middle", pads=[1] * 4, group=2)
        return make.finish("middle", balance=CHANNELS // 2)
    if kind.startswith(("conv", "transposed")):
        return _convolution(make, features, kind)
    flat = make.constant("flat", np.array([1, CHANNELS, height * width], np.int64))
    picture = make.constant("picture", np.array([1, CHANNELS, height, width], np.int64))
    make.add("Reshape", [features, flat], "columns")
    if kind == "matmul_left":
        make.weight("w", CHANNELS, CHANNELS, spread=0)
        make.add("MatMul", ["w", "columns"], "product")
        make.add("Reshape", ["product", picture], "middle")
        return make.finish("middle", balance=CHANNELS)
    make.add("Transpose", ["columns"], "rows", perm=[0, 2, 1])
    if kind == "matmul_right":
        make.weight("w", CHANNELS, CHANNELS, spread=1)
        make.add("MatMul", ["rows", "w"], "product")
    else:
        turned = kind == "gemm_turned"
        make.weight("w", CHANNELS, CHANNELS, spread=0 if turned else 1)
        make.constant("matrix", np.array([height * width, CHANNELS], np.int64))
        make.add("Reshape", ["rows", "matrix"], "a")
        make.add("Gemm", ["a", "w"], "product_2d", transB=int(turned))
        make.constant("batched", np.array([1, height * width, CHANNELS], np.int64))
        make.add("Reshape", ["product_2d", "batched"], "product")
    make.add("Transpose", ["product"], "product_columns", perm=[0, 2, 1])
    make.add("Reshape", ["product_columns", picture], "middle")
    return make.finish("middle", balance=CHANNELS)


def _convolution(make: Maker, features: str, kind: str) -> onnx.ModelProto:
    """A convolution, or a transposed one, in one, two or three dimensions."""
    rank = int(kind[-2])
    operator, spread = ("Conv", 0) if kind.startswith("conv") else ("ConvTranspose", 1)
    height, width = SIZE[0] // 2, SIZE[1] // 2
    shapes = {1: (1, CHANNELS, height * width), 2: (1, CHANNELS, height, width), 3: (1, CHANNELS, 1, height, width)}
    kernel = {1: (3,), 2: (3, 3), 3: (1, 3, 3)}[rank]
    pads = [size // 2 for size in kernel] * 2
    make.weight("w", CHANNELS, CHANNELS, *kernel, spread=spread)
    make.add("Reshape", [features, make.constant("shape", np.array(shapes[rank], np.int64))], "reshaped")
    make.add(operator, ["reshaped", "w"], "product", pads=pads)
    make.add("Reshape", ["product", make.constant("picture", np.array(shapes[2], np.int64))], "middle")
    return make.finish("middle", balance=CHANNELS)


def foreign(proto: onnx.ModelProto) -> ir.Model:
    """The model as it is read from a file."""
    return parse_model(proto.SerializeToString())


def spec() -> ModelSpec:
    """The ModelSpec of these models."""
    labels = numbered_labels(CLASSES)
    return ModelSpec(
        name="foreign",
        arch={"name": FOREIGN},
        classes=labels.names,
        palette=labels.palette,
        input=TensorSpec("image", (1, 3, *SIZE), "float32"),
        output=TensorSpec("scores", (1, CLASSES, SIZE[0] // 2, SIZE[1] // 2), "float32"),
        head="lowres",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def image(seed: int = 0) -> NDArray[np.float32]:
    """An input of these models, (1, 3, 32, 48): even patches, as pictures have."""
    patches = np.random.default_rng(seed).standard_normal((1, 3, SIZE[0] // 8, SIZE[1] // 8)).astype(np.float32)
    return patches.repeat(8, 2).repeat(8, 3)


def exact(model: onnx.ModelProto | ir.Model | bytes, feed: Array) -> Array:
    """The first output of a model by ONNX Runtime without optimisation."""
    if isinstance(model, ir.Model):
        data = serialize_model(model)
    else:
        data = model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: feed})[0])


def error(given: Array, wanted: Array) -> float:
    """The norm of the difference over the norm of what is wanted."""
    return float(np.linalg.norm(given.astype(np.float64) - wanted) / np.linalg.norm(wanted.astype(np.float64)))


def ranges_of_run(model: ir.Model, feed: Array) -> Ranges:
    """The largest values of a model on one input."""
    inlined = inline_functions(clone(model))
    collector = Collector(inlined, float_tensors(model, inlined), 1)
    collector.show(feed, "the image")
    return Ranges({name: histogram.largest for name, histogram in collector.histograms.items()}, "minmax", 1, "0" * 64, "foreign")


def three_convolutions(scale: float = 1.0) -> onnx.ModelProto:
    """Three convolutions of 16 channels and a classifier; the weights of the second are multiplied by `scale`."""
    make = Maker()
    last = make.features()
    for index in (1, 2, 3):
        make.weight(f"w{index}", CHANNELS, CHANNELS, 3, 3)
        last = make.add("Relu", [make.add("Conv", [last, f"w{index}"], f"c{index}", pads=[1] * 4)], f"r{index}")
    for tensor in make.constants:
        if tensor.name == "w2":
            tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * np.float64(scale)).astype(np.float32), "w2"))
    return make.finish(make.add("Add", [last, "r1"], "sum"))


def unnamed_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its weights in Constant nodes, and no node with a name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in copy.graph.initializer]
    nodes += list(copy.graph.node)
    del copy.graph.initializer[:]
    del copy.graph.node[:]
    for node in nodes:
        node.ClearField("name")
    copy.graph.node.extend(nodes)
    return copy


def computed_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with weights that are stored transposed and in FP16, and computed from that."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes = []
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 4:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(array.transpose(2, 3, 1, 0).astype(np.float16), f"{name}/stored"))
            nodes.append(helper.make_node("Cast", [f"{name}/stored"], [f"{name}/wide"], name=f"{name}/cast", to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Transpose", [f"{name}/wide"], [name], name=f"{name}/turn", perm=[3, 2, 0, 1]))
    nodes += list(copy.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def half_inside(proto: onnx.ModelProto, *, ends: bool) -> onnx.ModelProto:
    """The same model in FP16; with `ends` the image and the scores are FP16 too, else casts join them to FP32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in copy.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    if ends:
        for value in (*copy.graph.input, *copy.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        return copy
    for node in copy.graph.node:
        node.input[:] = ["image/half" if name == "image" else name for name in node.input]
        node.output[:] = ["scores/half" if name == "scores" else name for name in node.output]
    copy.graph.node.insert(0, helper.make_node("Cast", ["image"], ["image/half"], name="in", to=TensorProto.FLOAT16))
    copy.graph.node.append(helper.make_node("Cast", ["scores/half"], ["scores"], name="out", to=TensorProto.FLOAT))
    return copy
