"""Engines of RTFormer-Slim for the GPU that is here, and what they are compared with.

A GPU machine may hold little more than PyTorch, TensorRT and CUDA: models come straight from the exporter and its passes, without
`pipeline` (which wants onnxsim and OpenCV), and where ONNX Runtime is missing the PyTorch network is the reference.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtformer_deploy.types import Backend, BuildOptions, Engine, Frame, Head, LabelMap, ModelSpec, PrecisionName, Ranges

SIZE = (256, 512)
Batch = tuple[int, int, int]


@functools.cache
def network() -> Any:
    """RTFormer-Slim with seeded random weights."""
    from rtformer_deploy.export.weights_choice import choose_network

    return choose_network(recipe="rtformer-slim-cityscapes", random_seed=0)


@functools.cache
def exported(head: Head, dynamic: bool) -> tuple[Any, ModelSpec]:
    """The network as the exporter gives it, its tensors named and its attention recognisable."""
    pytest.importorskip("onnxscript", reason="needs onnxscript to export")
    from rtformer_deploy.export.export import export_network
    from rtformer_deploy.graph.functions import add_functions
    from rtformer_deploy.graph.head import set_head
    from rtformer_deploy.graph.names import name_tensors, strip_traces

    choice = network()
    spec = choice.recipe.spec(size=SIZE, batch="batch" if dynamic else 1, head=head, sha256=choice.sha256)
    model = strip_traces(name_tensors(export_network(choice.network, spec)), "rtformer")
    return set_head(add_functions(model), spec), spec


@functools.cache
def ranges() -> Ranges:
    """The ranges of the network's tensors on four drawn frames."""
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime to measure ranges for INT8")
    from smooth_frames import frames

    from rtformer_deploy.calibrate import observer
    from rtformer_deploy.calibrate.collect import Collector, float_tensors
    from rtformer_deploy.graph.edit import clone
    from rtformer_deploy.graph.functions import inline_functions
    from rtformer_deploy.image import frames as image

    model, spec = exported("lowres", False)
    inlined = inline_functions(clone(model))
    collector = Collector(inlined, float_tensors(model, inlined))
    for index, frame in enumerate(frames(*[SIZE] * 4)):
        collector.show(image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None], str(index))
    choose = observer("minmax")
    amax = {name: float(np.float32(choose(histogram))) for name, histogram in collector.histograms.items()}
    return Ranges(amax, "minmax", 4, spec.sha256 or "", spec.name)


@functools.cache
def built(backend: Backend, precision: PrecisionName, batch: Batch = (1, 1, 1), head: Head = "lowres") -> Engine:
    """An engine of the network for this GPU."""
    from rtformer_deploy.backends import build
    from rtformer_deploy.graph.edit import clone
    from rtformer_deploy.graph.fp16 import to_fp16
    from rtformer_deploy.graph.functions import inline_functions

    model, spec = exported(head, batch[2] > 1)
    model = clone(model)
    if precision == "int8":
        from rtformer_deploy.graph.qdq import to_qdq

        to_qdq(model, ranges(), "tensorrt")
    if precision != "fp32":
        to_fp16(model)
    inline_functions(model)
    return build(model, spec, backend, BuildOptions(precision=precision, batch=batch))


@functools.cache
def reference_logits_of() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Normalised images (1, 3, H, W) -> the FP32 logits of ONNX Runtime, or of the PyTorch network where that is missing."""
    model, _ = exported("lowres", False)
    if importlib.util.find_spec("onnxruntime") is None:
        import torch

        plain = network().network.eval()

        def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                logits: NDArray[np.float32] = plain(torch.from_numpy(images)).numpy()
            return logits

        return run
    import onnxruntime

    from rtformer_deploy.formats.model_file import serialize_model
    from rtformer_deploy.graph.edit import clone
    from rtformer_deploy.graph.functions import inline_functions

    session = onnxruntime.InferenceSession(serialize_model(inline_functions(clone(model))), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"input": images})[0], np.float32)


def reference(frame: Frame) -> tuple[NDArray[np.float32], LabelMap]:
    """The reference's logits (classes, h, w) and label map of a frame."""
    from rtformer_deploy.image import frames as image

    _, spec = exported("lowres", False)
    images = image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None]
    logits = reference_logits_of()(images)[0]
    return logits, image.upsample_argmax_reference(logits, frame.shape[:2], spec.size, spec.resize)
