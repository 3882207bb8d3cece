"""What a GPU engine cannot be faster than, and what is asked of it: floors and verdicts from figures, without a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness import Size

#: Multiply-adds of one image at 1024x2048, in 10^9; every layer's work is in proportion to the pixels.
GMACS = {"slim": 37.8, "base": 138.9}
GMACS_SIZE = (1024, 2048)
STRIDE = 8

SPEEDUP, THROUGHPUT_SHARE, TAIL, UPSAMPLE_SPEEDUP, OVER_COPY = 1.5, 0.9, 1.2, 10.0, 2.0

#: The least that the large batch of a kernel's copy test moves, so that no cache holds it.
LARGE_BYTES = 256_000_000


def gmacs(variant: str, size: Size) -> float:
    """10^9 multiply-adds of one image of (H, W) `size`."""
    return GMACS[variant] * size[0] * size[1] / (GMACS_SIZE[0] * GMACS_SIZE[1])


def engine_bytes(size: Size, classes: int, parameters: int, weight_bytes: int = 2, io_bytes: int = 4) -> int:
    """Weights read once, input read, low-resolution logits written. Activations are left out, so an engine moves more than this."""
    height, width = size
    logits = classes * -(-height // STRIDE) * -(-width // STRIDE)
    return parameters * weight_bytes + (3 * height * width + logits) * io_bytes


def upsample_bytes(size: Size, classes: int, logit_bytes: int) -> int:
    """What `upsample_argmax` must move for one image: the low-resolution logits in, a byte a pixel out."""
    height, width = size
    return classes * -(-height // STRIDE) * -(-width // STRIDE) * logit_bytes + height * width


def large_batch(image_bytes: int, least: int = LARGE_BYTES) -> int:
    """How many images of `image_bytes` move at least `least` bytes."""
    return -(-least // image_bytes)


def floors(gigamacs: float, moved: int, rates: Mapping[str, float]) -> dict[str, float]:
    """Work and bytes over the device's measured `gmacs_per_s` and `gbytes_per_s` -> the two floors in ms."""
    return {"matrix_ms": 1000 * gigamacs / rates["gmacs_per_s"], "copy_ms": moved / 1e6 / rates["gbytes_per_s"]}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that is asked for: `found` beside the `bound`; `met` is None where it was not measured, and `why` says why not."""

    what: str
    bound: float
    found: float | None
    met: bool | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        word = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        found = f"{self.found:.2f}" if self.found is not None else self.why
        return f"{word:13}{self.what}: {found}"


def at_least(what: str, found: float | None, bound: float, why: str = "") -> Verdict:
    return Verdict(f"{what}, >= {bound:g}", bound, found, None if found is None else found >= bound, why)


def at_most(what: str, found: float | None, bound: float, why: str = "") -> Verdict:
    return Verdict(f"{what}, <= {bound:g}", bound, found, None if found is None else found <= bound, why)


def engine_verdicts(rows: Mapping[str, Mapping[str, Any]], benches: Mapping[str, Mapping[str, Any]], ours: Sequence[str]) -> list[Verdict]:
    """A case's rows by contestant and our own bench reports ({"latency": ..., "throughput": ...}) -> what is asked of each of ours."""
    if not ours:
        return [at_least("ours over torch.compile", None, SPEEDUP, "no TensorRT here")]
    return [verdict for name in ours for verdict in _verdicts_of(name, rows, benches.get(name))]


def _verdicts_of(name: str, rows: Mapping[str, Mapping[str, Any]], bench: Mapping[str, Any] | None) -> list[Verdict]:
    peer, mine = rows.get("torch-compile", {}).get("p50_ms"), rows.get(name, {}).get("p50_ms")
    missing = "torch.compile gave no time" if peer is None else "the engine gave no time"
    speedup = at_least(f"{name} over torch.compile", peer / mine if peer and mine else None, SPEEDUP, missing)
    return [speedup, *frame_verdicts(name, bench if mine else None, mine)]


def frame_verdicts(name: str, bench: Mapping[str, Any] | None, engine_ms: float | None = None) -> list[Verdict]:
    """An engine's bench reports -> what is asked of its frames. `engine_ms` is its own time, the GPU's in the reports if None."""
    if bench is not None and engine_ms is None:
        engine_ms = (bench["latency"].get("engine_without_copies") or bench["latency"]["engine"])["p50_ms"]
    share = throughput_share(bench["throughput"], engine_ms) if bench and engine_ms else None
    found = [at_least(f"{name} end to end over engine FPS", share, THROUGHPUT_SHARE, "no bench report")]
    for part in ("engine", "end_to_end"):
        tail = bench["latency"][part]["p99_ms"] / bench["latency"][part]["p50_ms"] if bench else None
        found.append(at_most(f"{name} p99 over p50, {part.replace('_', ' ')}", tail, TAIL, "no bench report"))
    return found


def throughput_share(throughput: Mapping[str, Any], engine_ms: float) -> float:
    """End-to-end FPS over engine-only FPS: the higher of what the lanes reach with copies and what the GPU's busy time allows without."""
    best = max(throughput["engine"]["fps"], 1000 / engine_ms)
    return float(throughput["end_to_end"]["fps"] / best)


def kernel_verdicts(upsamples: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Figures of `upsample_argmax` (see gpu_kernels.measure_upsample) -> the two things that are asked of the form that lanes use.

    They are asked for each type and kind of logits. The other forms are measured beside it.
    """
    found = []
    for figure in upsamples:
        if figure["form"] != "upsample_argmax":
            continue
        name = f"upsample_argmax {figure['dtype']} {figure['logits']}"
        found.append(at_least(f"{name} over torch", figure["torch_ms"] / figure["ms"], UPSAMPLE_SPEEDUP))
        found.append(at_most(f"{name} x{figure['large_batch']} over copy", figure["large_ms"] / figure["large_copy_ms"], OVER_COPY))
    return found
