"""What the stand-in engine computes (standin.cu), in NumPy: every value is a whole number until the logits, so both give the same bits."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtformer_deploy.formats.recipe import numbered_labels, output_spec
from rtformer_deploy.image import frames as image
from rtformer_deploy.types import EngineInfo, Frame, Head, LabelMap, ModelSpec, PrecisionFound, Resize, TensorSpec

Float = Literal["float32", "float16"]
Whole = NDArray[np.int64]

# The same numbers as in standin.cu.
CHANNELS, STRIDE = 8, 8
MOST = 1 << 18
HEAD = -1

_NO_FILE = "0" * 64


def standin_info(
    size: tuple[int, int],
    classes: int = 19,
    batch: tuple[int, int, int] = (1, 1, 1),
    *,
    head: Head = "lowres",
    io: Float = "float32",
    resize: Resize = "stretch",
) -> EngineInfo:
    """The stand-in's description for images of (H, W) `size`, both multiples of 8; `io` is the type of its input and logits."""
    assert size[0] % STRIDE == size[1] % STRIDE == 0
    labels = numbered_labels(classes)
    count = batch[0] if batch[0] == batch[2] else "batch"
    source, target = TensorSpec("input", (count, 3, *size), io), output_spec(head, classes, count, size)
    if head != "labels":
        target = TensorSpec(target.name, target.shape, io)
    spec = ModelSpec("standin", {"name": "standin"}, labels.names, labels.palette, source, target, head=head, resize=resize)
    found = PrecisionFound("fp16" if io == "float16" else "fp32", "verified")
    return EngineInfo(spec, "standin", (source,), (target,), batch, found, "standin 1", "any GPU", _NO_FILE, _NO_FILE)


def weight(layer: int, to: int, source: int, tap: int, most: int) -> int:
    """A weight from -`most` to `most`, from a hash of its place."""
    mask = 0xFFFFFFFF
    value = (layer * 0x9E3779B1 ^ to * 0x85EBCA77 ^ source * 0xC2B2AE3D ^ tap * 0x27D4EB2F) & mask
    value = (value ^ value >> 15) * 0x2C1B3C6D & mask
    value = (value ^ value >> 12) * 0x297A2D39 & mask
    return (value ^ value >> 15) % (2 * most + 1) - most


def features(images: NDArray[np.float32]) -> Whole:
    """Images (N, 3, H, W) -> (N, 8, H/8, W/8)."""
    count, _, height, width = images.shape
    quantised = np.rint(np.clip(images * np.float32(32), -127, 127)).astype(np.int64)
    blocks = quantised.reshape(count, 3, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    y, x = np.mgrid[:STRIDE, :STRIDE]
    parts = np.einsum("ncrysx,yx->ncrs", blocks, 1 + ((3 * y + x) & 3))
    weights = np.array([[weight(0, to, source, 0, 3) for source in range(3)] for to in range(CHANNELS)])
    return np.asarray(np.einsum("kc,ncrs->nkrs", weights, parts) >> 1, np.int64)


def layer(first: Whole, source: Whole, number: int) -> Whole:
    """One layer: (N, 8, h, w) -> the same shape."""
    rows, columns = source.shape[2:]
    padded = np.pad(source, ((0, 0), (0, 0), (1, 1), (1, 1)))
    total = np.zeros_like(source)
    for tap in range(9):
        down, right = divmod(tap, 3)
        weights = np.array([[weight(number, to, before, tap, 1) for before in range(CHANNELS)] for to in range(CHANNELS)])
        total += np.einsum("kj,njrs->nkrs", weights, padded[:, :, down : down + rows, right : right + columns])
    return np.clip((first >> 1) + ((source + (total >> 3)) >> 2), -MOST, MOST)


def scores(images: NDArray[np.float32], classes: int, layers: int) -> Whole:
    """Images (N, 3, H, W) -> whole numbers (N, classes, H/8, W/8), which the logits are in proportion to."""
    first = values = features(images)
    for number in range(1, layers + 1):
        values = layer(first, values, number)
    weights = np.array([[weight(HEAD, to, source, 0, 3) for source in range(CHANNELS)] for to in range(classes)])
    return np.asarray(np.einsum("kj,njrs->nkrs", weights, values))


def standin_output(images: NDArray[np.float32], info: EngineInfo, layers: int) -> NDArray[Any]:
    """What the engine gives for normalised images in its input's type: logits, or labels (N, H, W) uint8."""
    found = scores(images.astype(info.inputs[0].dtype).astype(np.float32), len(info.spec.classes), layers)
    if info.spec.head == "labels":
        return np.asarray(found.argmax(1), np.uint8).repeat(STRIDE, 1).repeat(STRIDE, 2)
    return (found * 2.0**-12).astype(np.float32).astype(info.outputs[0].dtype)


def standin_logits(frame: Frame, info: EngineInfo, layers: int) -> NDArray[np.float32]:
    """A frame's logits (classes, h, w)."""
    spec = info.spec
    images = image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None]
    return np.asarray(standin_output(images, info, layers)[0], np.float32)


def standin_labels(frame: Frame, info: EngineInfo, layers: int) -> LabelMap:
    """A frame's label map, as the CPU's pre- and post-processing make it around the engine."""
    spec = info.spec
    if spec.head == "labels":
        images = image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None]
        return image.resize_labels(standin_output(images, info, layers)[0].astype(np.uint8), frame.shape[:2], spec.size, spec.resize)
    return image.upsample_argmax(standin_logits(frame, info, layers), frame.shape[:2], spec.size, spec.resize)
