"""Exports a network with its ModelSpec as an onnx_ir.Model: the exporter's own graph, before any pass."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from torch import nn

from ..errors import ModelError, first_line
from ..types import ModelSpec

#: GELU is an operator since opset 20, and TensorRT 10.0 reads no newer opset.
DEFAULT_OPSET = 20


def export_network(network: nn.Module, spec: ModelSpec, opset: int = DEFAULT_OPSET) -> ir.Model:
    """The network as an ONNX graph with input `input` and output `logits` at the network's stride. The spec's head is not added here.

    `spec.input` gives the size; a symbolic batch stays open. Raises ModelError if the exporter fails.
    """
    batch, *rest = spec.input.shape
    dynamic = not isinstance(batch, int)
    example = torch.zeros(2 if dynamic else int(batch), *(int(size) for size in rest))
    shapes = ({0: torch.export.Dim(str(batch), min=1)},) if dynamic else None
    network.eval()
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=shapes,
                optimize=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ModelError(f"PyTorch could not export {spec.name}: {first_line(error)}") from error
    assert program is not None
    model: ir.Model = program.model
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's own messages (torchvision is missing, deprecations inside torch)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
