"""Graph passes on real exports: names that stay, patterns that are recognised, FP16 that is FP16."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from exports import exported

from rtformer_deploy.errors import ModelError
from rtformer_deploy.export.parity import probe_image
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.graph.batchnorm import plain_batch_norms
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.fp16 import to_fp16
from rtformer_deploy.graph.functions import inline_functions

NODES = {"GroupedDoubleNorm": 2, "CrossResolutionAttention": 2, "AdaptiveMaxPool": 2}


def run(model: ir.Model, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialize_model(model), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": image})[0])


def names(model: ir.Model) -> set[str]:
    """The tensors that ranges may speak of: what the network computes, not shapes, and not what the head adds."""
    return {
        node.outputs[0].name or ""
        for node in model.graph
        if "/shape/" not in (node.name or "") and not (node.name or "").startswith("head/") and node.outputs[0] not in model.graph.outputs
    } - {"seghead.conv2"}


def test_the_attention_is_nodes_with_bodies() -> None:
    model = exported().model
    assert Counter(node.op_type for node in model.graph if node.domain == "rtformer") == NODES
    assert {function.name for function in model.functions.values()} == set(NODES)


def test_names_are_the_modules() -> None:
    found = names(exported().model)
    assert {
        "conv1.1",
        "layer4.attn_l/GroupedDoubleNorm",
        "layer4.attn_h/CrossResolutionAttention",
        "layer5.cross_kv.1",
        "spp/Concat",
    } <= found
    assert not any(name.startswith(("val_", "getitem", "conv2d_", "add_")) for name in found)


@pytest.mark.parametrize(("size", "batch", "head"), [((96, 160), 1, "lowres"), ((128, 256), "batch", "lowres"), ((128, 256), 2, "labels")])
def test_names_stay_across_sizes_batches_and_heads(size: tuple[int, int], batch: int | str, head: str) -> None:
    assert names(exported(size=size, batch=batch, head=head).model) == names(exported().model)


def test_an_older_opset_changes_only_what_gelu_is_made_of() -> None:
    older = names(exported(opset=18).model)
    assert names(exported().model) - older == set()
    assert all(".act/" in name for name in older - names(exported().model))


def test_the_file_says_nothing_about_the_machine_that_made_it() -> None:
    proto = ir.serde.serialize_model(exported().model)
    assert [prop.key for prop in proto.metadata_props] == ["rtformer_deploy.spec"]
    assert all(not node.metadata_props and not node.doc_string for node in proto.graph.node)


def test_inlining_keeps_the_values() -> None:
    made = exported()
    image = probe_image(made.spec)
    inlined = inline_functions(clone(made.model))
    assert not inlined.functions
    assert all(node.domain == "" for node in inlined.graph)
    assert np.abs(run(inlined, image) - run(made.model, image)).max() <= 1e-5 * np.abs(run(made.model, image)).max()


def test_plain_batch_norms_compute_the_same() -> None:
    made = exported()
    image = probe_image(made.spec)
    wanted = run(made.model, image)
    plain = plain_batch_norms(clone(made.model))
    assert np.abs(run(plain, image) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    norms = [node for node in plain.graph if node.op_type == "BatchNormalization"]
    assert norms
    for node in norms:
        assert node.attributes["epsilon"].as_float() == 0.0
        assert np.all(node.inputs[4].const_value.numpy() == 1)  # type: ignore[union-attr]


def types_of(model: ir.Model) -> dict[str, int]:
    """Tensor name -> ONNX type, by ONNX's own inference; strict, so a node that mixes types fails here."""
    proto = onnx.shape_inference.infer_shapes(ir.serde.serialize_model(model), check_type=True, strict_mode=True, data_prop=True)
    known = {item.name: item.type.tensor_type.elem_type for item in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}
    return known | {item.name: item.data_type for item in proto.graph.initializer}


@pytest.mark.parametrize("batch", [1, "batch"])
def test_fp16_is_in_the_graph_and_the_double_norm_stays_fp32(batch: int | str) -> None:
    half = inline_functions(to_fp16(clone(exported(batch=batch).model)))
    types = types_of(half)
    float16, float32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    computing = [node for node in half.graph if node.op_type in ("Conv", "MatMul", "Resize", "Gelu", "Relu", "BatchNormalization")]
    assert len(computing) > 100
    assert {types[node.outputs[0].name or ""] for node in computing} == {float16}
    softmaxes = sorted(types[node.outputs[0].name or ""] for node in half.graph if node.op_type == "Softmax")
    assert softmaxes == sorted([float32, float32, float16, float16])  # two double norms, two cross-resolution attentions
    assert types["input"] == types["logits"] == float32


def test_fp16_changes_few_pixels() -> None:
    made = exported()
    image = probe_image(made.spec)
    wanted, given = run(made.model, image), run(inline_functions(to_fp16(clone(made.model))), image)
    assert np.isfinite(given).all()
    assert np.abs(given - wanted).max() < 0.02 * np.abs(wanted).max()
    assert np.mean(given.argmax(1) != wanted.argmax(1)) < 0.01


def test_a_weight_beyond_fp16_is_named() -> None:
    model = clone(exported().model)
    name = "layer4.mlp_l.conv1.weight"
    array = model.graph.initializers[name].const_value.numpy().copy()  # type: ignore[union-attr]
    array[0, 0, 0, 0] = 1e6
    model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    with pytest.raises(ModelError, match=r"layer4\.mlp_l\.conv1\.weight holds 1e\+06"):
        to_fp16(model)
