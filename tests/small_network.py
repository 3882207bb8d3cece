"""A small segmentation network in ONNX with its dataset, on disk: what calibration, INT8 and tuning are tried on in seconds.

    stem.0 - body.0.conv - body.1.left  \\
                         \\ body.1.right - join - tail.conv - head.conv

It is random but for its first operator, so that different colours give different classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from small_training import CLASSES, write_dataset

from rtformer_deploy.formats.model_file import parse_model, save_model, stamp_spec
from rtformer_deploy.formats.recipe import load_labels, output_spec
from rtformer_deploy.types import ModelSpec, TensorSpec

SIZE = (48, 64)
#: name -> what it reads, channels in and out, stride
CONVOLUTIONS = {
    "stem.0": ("input", 3, 16, 2),
    "body.0.conv": ("stem.0/Relu", 16, 16, 2),
    "body.1.left": ("body.0.conv/Relu", 16, 16, 1),
    "body.1.right": ("body.0.conv/Relu", 16, 32, 1),
    "tail.conv": ("join/Concat", 48, 32, 2),
    "head.conv": ("tail.conv/Relu", 32, len(CLASSES), 1),
}


@dataclass(frozen=True, slots=True)
class Small:
    """Where everything lies: the dataset file with its folders beside it, the model."""

    dataset: Path
    model: Path

    @property
    def root(self) -> Path:
        return self.dataset.parent

    @property
    def images(self) -> Path:
        return self.root / "images" / "train"


def write_small(folder: Path, batch: int | str = 1, seed: int = 0) -> Small:
    """The network and its dataset of four frames a split, in a folder."""
    dataset = write_dataset(folder / "data", frames=4)
    save_model(small_network(dataset, batch, seed), folder / "model.onnx")
    return Small(dataset, folder / "model.onnx")


def small_network(dataset: Path, batch: int | str = 1, seed: int = 0) -> ir.Model:
    """The network, stamped with its spec."""
    rng = np.random.default_rng(seed)
    nodes, weights = [], []
    for name, (source, inputs, outputs, stride) in CONVOLUTIONS.items():
        if name == "tail.conv":
            nodes.append(helper.make_node("Concat", ["body.1.left/Relu", "body.1.right/Relu"], [source], source, axis=1))
        scale = np.sqrt(2 / (9 * inputs))
        weights.append(numpy_helper.from_array(rng.normal(0, scale, (outputs, inputs, 3, 3)).astype(np.float32), f"{name}.weight"))
        target = "logits" if name == "head.conv" else name
        nodes.append(
            helper.make_node("Conv", [source, f"{name}.weight"], [target], name, strides=[stride] * 2, pads=[1] * 4, kernel_shape=[3, 3])
        )
        if name != "head.conv":
            nodes.append(helper.make_node("Relu", [name], [f"{name}/Relu"], f"{name}/Relu"))
    spec = small_spec(dataset, batch)
    ends = [helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.shape) for each in (spec.input, spec.output)]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    proto = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    model = parse_model(proto.SerializeToString())
    stamp_spec(model, spec)
    return model


def small_spec(dataset: Path, batch: int | str = 1) -> ModelSpec:
    labels = load_labels(str(dataset))
    return ModelSpec(
        name="small",
        arch={"name": "small", "channels": 16},
        classes=labels.names,
        palette=labels.palette,
        input=TensorSpec("input", (batch, 3, *SIZE), "float32"),
        output=output_spec("lowres", len(labels.names), batch, SIZE),
    )
