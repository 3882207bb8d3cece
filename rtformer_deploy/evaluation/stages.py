"""One image through two runners, stage by stage: what each stage gave, and by how much the two differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..image.frames import preprocess
from ..image.upsample import upsampled
from ..runtime.cpu_session import label_maps, preprocess_frames
from ..runtime.frame_runner import FrameRunner
from ..types import Frame, LabelMap, ModelSpec

STAGES = ("decode", "resize", "normalise", "logits", "upsample", "argmax")
#: The difference that rounding may cause in the logits, as a share of A's largest. The stages before the logits must be equal.
ROUNDING = 1e-4

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage gave. `differs` None: it could not be compared, `detail` says why. `difference` is the stage's own measure: levels
    (decode), levels of 255 (resize), input units (normalise), a share of A's largest logit (logits, upsample), of the pixels (argmax)."""

    name: str
    differs: bool | None
    difference: float
    detail: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One image's stages and label maps. `margin` (H, W) is how far A's best class is ahead of its next, None if A has no logits;
    `largest` the largest difference of two logits, None if not both have any."""

    frame: Frame
    stages: tuple[Stage, ...]
    labels_a: LabelMap
    labels_b: LabelMap
    margin: Array | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class _Passed:
    """The result of each stage of one runner, for one image."""

    frame: Frame
    resized: Array  # (3, H, W), 0 to 255
    normalised: NDArray[np.floating]  # of the type of the engine's input
    logits: Array | None
    labels: LabelMap


def compare_image(a: FrameRunner, b: FrameRunner, decode: Callable[[], Frame]) -> Compared:
    """Runs every stage of both runners on one image and compares them. Nothing else may use the runners meanwhile.

    Raises ImageError if it cannot be decoded, EngineError if an engine fails or gives logits that are not finite.
    """
    one, other = _pass(a, decode()), _pass(b, decode())
    stages = [_decoded(one, other), _resized(one, other, a.spec, b.spec), _normalised(one, other, a.spec, b.spec)]
    margin, largest = None, None
    if one.logits is not None and other.logits is not None:
        scale = max(float(np.abs(one.logits).max()), 1e-30)
        logits = _logits(one.logits, other.logits, scale)
        margin, at_frame = _at_frame_size(one, a.spec, other, b.spec)
        same_grid = one.logits.shape == other.logits.shape
        largest = max(at_frame, float(np.abs(one.logits - other.logits).max()) if same_grid else 0.0)
        stages += [logits, _upsample(at_frame, scale, largest)]
    else:
        reason = _without_logits(one, other)
        stages += [Stage(name, None, 0.0, reason) for name in ("logits", "upsample")]
        if one.logits is not None:
            margin, _ = _at_frame_size(one, a.spec)
    stages.append(_argmax(one.labels, other.labels, margin, largest))
    return Compared(one.frame, tuple(stages), one.labels, other.labels, margin, largest)


def _pass(runner: FrameRunner, frame: Frame) -> _Passed:
    spec, engine = runner.spec, runner.sessions[0].engine
    levels = (1 / 255,) * 3  # undoes the division by 255
    resized = preprocess(frame, spec.size, (0.0, 0.0, 0.0), levels, spec.resize, corners=spec.resize_corners, threads=runner.threads)
    preprocess_frames([frame], spec, engine.input, runner.threads)
    normalised = engine.input[0].copy()
    engine.start(runner.engine_batch(1))
    output = engine.wait()[:1]
    labels = label_maps(output, [(frame.shape[0], frame.shape[1])], spec, runner.threads)[0]
    logits = None if spec.head == "labels" else np.array(output[0], np.float32)
    return _Passed(frame, resized, normalised, logits, labels)


def _decoded(one: _Passed, other: _Passed) -> Stage:
    if one.frame.shape != other.frame.shape:
        return Stage("decode", True, float("inf"), f"A read {_shape(one.frame.shape)}, B {_shape(other.frame.shape)}")
    most = float(np.abs(one.frame.astype(np.int16) - other.frame).max())
    return Stage("decode", most > 0, most, f"by up to {most:.0f} of 255" if most else "")


def _resized(one: _Passed, other: _Passed, a: ModelSpec, b: ModelSpec) -> Stage:
    how = f"A is resized to {_shape(a.size)} ({_way(a)}), B to {_shape(b.size)} ({_way(b)})"
    if a.size != b.size:
        return Stage("resize", True, float("inf"), how)
    most = float(np.abs(one.resized - other.resized).max())
    return Stage("resize", most > 0, most, f"by up to {most:.4g} of 255: {how}" if most else "")


def _normalised(one: _Passed, other: _Passed, a: ModelSpec, b: ModelSpec) -> Stage:
    same = a.mean == b.mean and a.std == b.std
    how = "" if same else f"A has mean {_three(a.mean)}, std {_three(a.std)}; B mean {_three(b.mean)}, std {_three(b.std)}"
    if one.normalised.shape != other.normalised.shape:
        return Stage("normalise", None if same else True, 0.0 if same else float("inf"), how or "of another size")
    first, second, halves = _of_one_type(one.normalised, other.normalised)
    most = float(np.abs(first - second).max())
    by = f"by up to {most:.4g}" + (f": {how}" if how else "")
    return Stage("normalise", most > 0, most, by if most else halves)


def _of_one_type(one: NDArray[np.floating], other: NDArray[np.floating]) -> tuple[Array, Array, str]:
    """Two inputs as float32, and a remark. If the engines' types differ, both are first rounded to the smaller one, FP16."""
    if one.dtype == other.dtype:
        return one.astype(np.float32), other.astype(np.float32), ""
    first, second = (each.astype(np.float16).astype(np.float32) for each in (one, other))
    return first, second, f"compared in FP16, the type of {'A' if one.dtype == np.float16 else 'B'}'s input"


def _logits(one: Array, other: Array, scale: float) -> Stage:
    """The logits as the engines gave them."""
    if one.shape != other.shape:
        detail = f"A gives {_shape(one.shape)}, B {_shape(other.shape)}; compared at the frame's size"
        return Stage("logits", None, 0.0, detail)
    most = float(np.abs(one - other).max()) / scale
    first, second = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    cosine = float(first @ second) / max(norms[0] * norms[1], 1e-300)
    detail = f"by up to {most:.2e} of A's largest; cosine {cosine:.6f}, norm B/A {norms[1] / max(norms[0], 1e-300):.4f}"
    return Stage("logits", not most <= ROUNDING, most, detail)


def _upsample(at_frame: float, scale: float, largest: float) -> Stage:
    most = at_frame / scale
    return Stage("upsample", not most <= ROUNDING, most, f"by up to {most:.2e} of A's largest ({largest:.3g} in logits)")


def _argmax(one: LabelMap, other: LabelMap, margin: Array | None, largest: float | None) -> Stage:
    """The stage counts as equal if rounding explains each change: A's two best classes lie within twice the largest logit difference."""
    changed = one != other
    share = float(changed.mean())
    if not share:
        return Stage("argmax", False, 0.0, "")
    detail = f"{share:.4%} of the pixels change class"
    if margin is None or largest is None:
        return Stage("argmax", True, share, detail)
    explained = bool((margin[changed] <= 2 * largest).all())
    more = ", all within twice the difference of the logits" if explained else ", some beyond twice the difference of the logits"
    return Stage("argmax", not explained, share, detail + more)


def _at_frame_size(one: _Passed, a: ModelSpec, other: _Passed | None = None, b: ModelSpec | None = None) -> tuple[Array, float]:
    """The margin of A's best two classes at every pixel of the frame, (H, W), and the largest difference to B's logits there."""
    assert one.logits is not None
    size = (one.frame.shape[0], one.frame.shape[1])
    best, second = np.full(size, -np.inf, np.float32), np.full(size, -np.inf, np.float32)
    theirs = None
    if other is not None and b is not None and other.logits is not None:
        theirs = upsampled(other.logits, size, b.size, b.resize, corners=b.resize_corners)
    largest = 0.0
    for plane in upsampled(one.logits, size, a.size, a.resize, corners=a.resize_corners):
        second = np.maximum(second, np.minimum(best, plane))
        best = np.maximum(best, plane)
        if theirs is not None:
            largest = max(largest, float(np.abs(plane - next(theirs)).max()))
    return best - second, largest


def _without_logits(one: _Passed, other: _Passed) -> str:
    names = " and ".join(name for name, passed in (("A", one), ("B", other)) if passed.logits is None)
    return f"{names} built with --head labels: no logits"


def _way(spec: ModelSpec) -> str:
    return f"{spec.resize}, from corner to corner" if spec.resize_corners else spec.resize


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _three(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
