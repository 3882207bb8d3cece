"""Compares the exported model in ONNX Runtime with the network in PyTorch. If they differ, finds the first tensor that does."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ModelError
from ..formats.model_file import serialize_model
from ..types import ModelSpec

TOLERANCE = 1e-4  # of the largest logit
#: By how many times of the network's own noise an exported model may be off, where that noise is too large for TOLERANCE.
_OF_NOISE = 3
#: Above this share of the largest logit the network's FP32 says nothing, so there is nothing to compare with.
_MOST_NOISE = 0.1


@dataclass(frozen=True, slots=True)
class Parity:
    """`difference` is the largest one, as a share of the largest logit; `flips` is the share of pixels whose class changed by rounding.

    `noise` is how far the network's own FP32 is from FP64, as a share of the largest logit; both figures are then against FP64. None if
    that was not needed.
    """

    difference: float
    flips: float
    noise: float | None = None


def check_export(network: nn.Module, model: ir.Model, spec: ModelSpec, seed: int = 0) -> Parity:
    """Runs both on one seeded input of the export's size; raises ModelError, naming the first tensor that differs, if they disagree.

    They agree when the logits differ by at most 1e-4 of the largest, and a class differs only where the network's two best
    logits are within twice that difference. If they do not, the network runs in FP64 too and decides: the model must be as close to that as
    the network's own FP32 is, times three.
    """
    image = probe_image(spec, seed)
    output: NDArray[Any] = _session(model).run(None, {spec.input.name: image})[0]
    wanted = _run_network(network.eval(), spec, image)
    found = _compare(output, wanted, spec, TOLERANCE)
    if found.agree:
        return Parity(found.difference, found.flips)
    exact = _run_network(copy.deepcopy(network).double(), spec, image.astype(np.float64))
    noise = float((wanted.double() - exact).abs().max()) / float(exact.abs().max())
    bound = _OF_NOISE * noise
    if bound > TOLERANCE and noise <= _MOST_NOISE:
        found = _compare(output, exact, spec, bound)
        if found.agree:
            return Parity(found.difference, found.flips, noise)
    where = first_difference(network, model, spec, image)
    raise ModelError(
        f"The exported model differs from the network: by {found.difference:.2e} of the largest logit, and {found.flips:.2%} of the pixels "
        f"change class; the network's own FP32 is {noise:.2e} from FP64. {where}",
        "Report this with the recipe, the size and the versions of torch, onnx and onnxruntime.",
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How far a model's output is from the network's, as in Parity, and whether that is rounding."""

    difference: float
    flips: float
    agree: bool


def _compare(output: NDArray[Any], wanted: Tensor, spec: ModelSpec, bound: float) -> _Comparison:
    """The model's logits or labels beside the network's logits; `bound` is the largest difference that may be rounding."""
    largest = float(wanted.abs().max())
    if spec.head == "labels":
        difference, labels = 0.0, torch.from_numpy(output.astype(np.int64))
    else:
        difference = float(np.abs(output - wanted.numpy()).max()) / largest
        labels = torch.from_numpy(output).argmax(1)
    changed = labels != wanted.argmax(1)
    margin = 2 * largest * (bound if spec.head == "labels" else difference)
    agree = difference <= bound and not bool((changed & (_margin(wanted) > margin)).any())
    return _Comparison(difference, float(changed.float().mean()), agree)


def _run_network(network: nn.Module, spec: ModelSpec, image: NDArray[Any]) -> Tensor:
    with torch.no_grad():
        return _at_head(network(torch.from_numpy(image)), spec)


def probe_image(spec: ModelSpec, seed: int = 0) -> NDArray[np.float32]:
    """A normalised input of the spec's size with structure at every scale. Plain noise would make large pools nearly constant."""
    draw = torch.Generator().manual_seed(seed)
    batch = spec.input.shape[0] if isinstance(spec.input.shape[0], int) else 2
    height, width = spec.size
    image = 0.3 * torch.randn(batch, 3, height, width, generator=draw)
    for cell in (8, 64):
        coarse = torch.randn(batch, 3, -(-height // cell), -(-width // cell), generator=draw)
        image += F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return image.numpy()


def first_difference(network: nn.Module, model: ir.Model, spec: ModelSpec, image: NDArray[np.float32]) -> str:
    """One sentence: the first tensor in graph order that differs by more than the tolerance from the module of the same name."""
    names = [node.outputs[0].name or "" for node in model.graph]
    modules = {name: module for name, module in network.named_modules() if name in names}
    wanted: dict[str, Tensor] = {}
    hooks = [module.register_forward_hook(lambda _m, _i, out, name=name: wanted.update({name: out})) for name, module in modules.items()]
    try:
        with torch.no_grad():
            network.eval()(torch.from_numpy(image))
    finally:
        for hook in hooks:
            hook.remove()
    wanted = {name: value for name, value in wanted.items() if isinstance(value, Tensor)}
    order = [name for name in names if name in wanted]
    for name, value in zip(order, _run_for(model, spec, image, order), strict=True):
        difference = float(np.abs(value - wanted[name].numpy()).max()) / max(float(wanted[name].abs().max()), 1e-12)
        if not difference <= TOLERANCE:
            return f"They first differ at {name}, by {difference:.2e} of its largest value."
    return "They first differ behind the last module."


def _at_head(logits: Tensor, spec: ModelSpec) -> Tensor:
    if spec.head == "lowres":
        return logits
    return F.interpolate(logits, size=spec.size, mode="bilinear", align_corners=False)


def _margin(logits: Tensor) -> Tensor:
    """How far the best class is ahead of the next, per pixel."""
    if logits.shape[1] == 1:
        return torch.full_like(logits[:, 0], torch.inf)
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def _run_for(model: ir.Model, spec: ModelSpec, image: NDArray[np.float32], names: list[str]) -> list[NDArray[np.float32]]:
    """The values of inner tensors. A copy of the model gets them as outputs."""
    proto = ir.serde.serialize_model(model)
    present = {output.name for output in proto.graph.output}
    for name in names:
        if name not in present:
            proto.graph.output.add().name = name
    results: list[NDArray[np.float32]] = _session_of(proto.SerializeToString()).run(names, {spec.input.name: image})
    return results


def _session(model: ir.Model) -> onnxruntime.InferenceSession:
    return _session_of(serialize_model(model))


def _session_of(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
