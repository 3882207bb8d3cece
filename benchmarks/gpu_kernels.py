"""The device's own rates, and our kernels beside what torch does in their place. Never run on a GPU yet.

Times come from CUDA graphs that hold a call many times over, so that neither side pays for Python's launches.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import harness
import numpy as np
from gpu_floors import large_batch, upsample_bytes
from harness import Size
from numpy.typing import NDArray

#: (B, C, N) and groups of the attention in Slim's and Base's low-resolution branch at 1024x2048.
NORMS = (((1, 256, 2048), 8), ((1, 512, 2048), 8))


def graph_ms(call: Callable[[], Any], repeats: int = 20, replays: int = 15) -> float:
    """Median ms of one call, which enqueues on torch's current stream: `repeats` of them in a CUDA graph, replayed `replays` times."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # whatever a first call compiles or loads may not be captured
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(repeats):
            call()
    graph.replay()
    times: list[float] = []
    for _ in range(replays):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / repeats)
    return statistics.median(times)


def measured_rates(copy_bytes: int = 2**30, side: int = 8192) -> dict[str, float]:
    """The device's `gbytes_per_s` (a copy within it, read and written bytes both counted) and `gmacs_per_s` (an FP16 matrix product)."""
    import torch

    source = torch.empty(copy_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = graph_ms(lambda: target.copy_(source), 5)
    a, b = (torch.randn(side, side, dtype=torch.float16, device="cuda") for _ in range(2))
    out = torch.empty_like(a)
    product = graph_ms(lambda: torch.matmul(a, b, out=out), 5)
    return {"gbytes_per_s": 2 * copy_bytes / copy / 1e6, "gmacs_per_s": side**3 / product / 1e6}


def even_logits(classes: int, grid: Size, seed: int = 0) -> NDArray[np.float32]:
    """(C, h, w) float32 in even regions with sharp edges, a quarter of whose cells are mixed. Seven classes may win in such a cell.

    That is a hard case: on a photograph three may in those of a trained RTFormer-Slim. On pure noise every cell has to be interpolated.
    """
    draw = np.random.default_rng(seed)
    rows, columns = (-(-length // 8) for length in grid)
    coarse = 8 * draw.standard_normal((classes, rows, columns)).astype(np.float32)
    even = coarse.repeat(8, 1).repeat(8, 2)[:, : grid[0], : grid[1]]
    return even + 0.1 * draw.standard_normal((classes, *grid)).astype(np.float32)


def sloped_logits(classes: int, grid: Size, seed: int = 0) -> NDArray[np.float32]:
    """(C, h, w) float32 that change slowly, as a trained network's: a quarter of the cells is mixed, and three classes may win in these."""
    draw = np.random.default_rng(seed)
    (rows, down), (columns, right) = (np.divmod(np.arange(length) / 12, 1) for length in grid)
    y, x = rows.astype(int), columns.astype(int)
    coarse = 8 * draw.standard_normal((classes, y[-1] + 2, x[-1] + 2))
    beside = coarse[:, :, x] * (1 - right) + coarse[:, :, x + 1] * right
    slopes = beside[:, y] * (1 - down[:, None]) + beside[:, y + 1] * down[:, None]
    drawn: NDArray[np.float32] = (slopes + 0.1 * draw.standard_normal((classes, *grid))).astype(np.float32)
    return drawn


#: What `upsample_argmax` is measured on.
DRAWN = {"even": even_logits, "slopes": sloped_logits}


def candidates(logits: NDArray[np.float32]) -> float:
    """Logits (C, h, w) -> how many classes may win in a mixed cell, on average: those that reach what some class never falls below."""
    corners = np.stack([logits[:, :-1, :-1], logits[:, :-1, 1:], logits[:, 1:, :-1], logits[:, 1:, 1:]])
    winners = corners.argmax(1)
    mixed = (winners != winners[0]).any(0)
    may_win = corners.max(0) >= corners.min(0).max(0)
    return float(may_win.sum(0)[mixed].mean()) if mixed.any() else 0.0


class UpsampleCall:
    """A form of our `upsample_argmax` on torch's memory: logits (N, C, h, w) on `device` -> `labels` (N, H, W) uint8, and `flag`.

    `cuda` is the module cuda.core and `gpu` its Device, `form` a name in lanes.kernels.UPSAMPLE_FORMS.
    """

    def __init__(self, cuda: Any, gpu: Any, spec: Any, logits: Any, form: str = "upsample_argmax") -> None:
        import torch

        from rtformer_deploy.lanes.kernels import FrameKernels

        self._kernels = FrameKernels(cuda, gpu, spec, "float32", str(logits.dtype).removeprefix("torch."), form)
        self._logits, self._tables = logits, self._kernels.tables(spec.size)
        self._blob = torch.from_numpy(self._tables.blob.copy()).to(logits.device)
        self.labels = torch.empty((len(logits), *spec.size), dtype=torch.uint8, device=logits.device)
        self.flag = torch.zeros(1, dtype=torch.int32, device=logits.device)

    def __call__(self, stream: Any) -> None:
        addresses = self._logits.data_ptr(), self._tables, self._blob.data_ptr(), self.labels.data_ptr(), self.flag.data_ptr()
        self._kernels.upsample_argmax(stream, *addresses, count=len(self._logits))


def torch_upsample(logits: Any, size: Size) -> Any:
    """What is usually written: logits (N, C, h, w) -> labels (N, H, W) uint8, full-size logits in between."""
    import torch
    import torch.nn.functional as F

    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1).to(torch.uint8)


def current_stream(cuda: Any) -> Any:
    """torch's current stream as cuda.core's."""
    import torch

    return cuda.Stream.from_handle(torch.cuda.current_stream().cuda_stream)


def measure_upsample(cuda: Any, gpu: Any, spec: Any, rates: Mapping[str, float], dtype: str, form: str, logits: str) -> dict[str, Any]:
    """One form on one kind of DRAWN logits: batch 1 beside torch, and a batch of at least 256 MB beside its bytes at the copy rate.

    `spec` says classes and size. Raises ValueError if a label of the large batch is not that of batch 1.
    """
    import torch

    from rtformer_deploy.image.upsample import mixed_share

    classes, height, width = (int(length) for length in spec.output.shape[1:])
    drawn = DRAWN[logits](classes, (height, width))
    one = torch.from_numpy(drawn[None]).to("cuda", getattr(torch, dtype))
    image_bytes = upsample_bytes(spec.size, classes, one.element_size())
    batch = large_batch(image_bytes)
    single, many = (UpsampleCall(cuda, gpu, spec, values, form) for values in (one, one.repeat(batch, 1, 1, 1)))
    ours = graph_ms(lambda: single(current_stream(cuda)))
    large = graph_ms(lambda: many(current_stream(cuda)), 5)
    if not bool((many.labels == single.labels).all()):
        raise ValueError(f"{form} {dtype}: an image of the batch of {batch} has other labels than alone")
    differ = float((single.labels != torch_upsample(one, spec.size)).float().mean())
    return {
        "form": form,
        "dtype": dtype,
        "logits": logits,
        "mixed_cells": mixed_share(drawn),
        "candidates": candidates(drawn),
        "ms": ours,
        "torch_ms": graph_ms(lambda: torch_upsample(one, spec.size)),
        "pixels_unlike_torch": differ,
        "large_batch": batch,
        "large_bytes": batch * image_bytes,
        "large_ms": large,
        "large_copy_ms": batch * image_bytes / 1e6 / rates["gbytes_per_s"],
    }


def measure_norm(cuda: Any, kernels: Any, shape: tuple[int, int, int], groups: int, rates: Mapping[str, float]) -> dict[str, Any]:
    """grouped_double_norm in FP16 on x (B, C, N): ours, torch eager, and one reading and writing of x at the copy rate, in ms."""
    import torch

    from rtformer_deploy.nn.layers import grouped_double_norm

    x = torch.randn(shape, dtype=torch.float16, device="cuda")
    out = torch.empty_like(x)
    ours = graph_ms(lambda: kernels.double_norm(current_stream(cuda), x.data_ptr(), out.data_ptr(), shape, groups))
    wanted = grouped_double_norm(x.float()[..., None], groups)[..., 0]
    return {
        "shape": list(shape),
        "groups": groups,
        "ms": ours,
        "torch_ms": graph_ms(lambda: grouped_double_norm(x[..., None], groups)),
        "copy_ms": 2 * x.numel() * x.element_size() / 1e6 / rates["gbytes_per_s"],
        "largest_difference": float((out.float() - wanted).abs().max()),
    }


def measure_kernels(spec: Any, rates: Mapping[str, float]) -> dict[str, Any]:
    """The kernels on GPU 0, for the classes and the size of `spec`: `upsample_argmax` in all its forms, and the double normalisation."""
    import cuda.core as cuda

    from rtformer_deploy.lanes.kernels import UPSAMPLE_FORMS, FrameKernels

    gpu = cuda.Device(0)
    gpu.set_current()
    kernels = FrameKernels(cuda, gpu, spec)
    return {
        "upsample_argmax": [
            measure_upsample(cuda, gpu, spec, rates, *case) for case in itertools.product(("float16", "float32"), UPSAMPLE_FORMS, DRAWN)
        ],
        "grouped_double_norm": [measure_norm(cuda, kernels, shape, groups, rates) for shape, groups in NORMS],
    }


def measure_alone(sizes: Sequence[Size]) -> dict[str, Any]:
    """The rates and both kernels at each size, for 19 classes. Raises DeployError without a GPU, or without torch's CUDA."""
    from gpu_contestants import why_not

    from rtformer_deploy import DeployError, load_recipe

    if reason := why_not("torch", "cuda"):
        raise DeployError(f"benchmarks/gpu_kernels.py cannot measure here: {reason}.")
    rates, recipe = measured_rates(), load_recipe("rtformer-slim-cityscapes")
    measured = [{"size": size, **measure_kernels(recipe.spec(size=size), rates)} for size in sizes]
    return harness.stamped("kernels of plugins/ beside torch, ms", {"rates": rates, "cases": measured}, harness.device_facts("cuda"))


def main(words: Sequence[str] | None = None) -> int:
    parser = harness.command_line(__doc__)
    parser.add_argument("--sizes", nargs="+", type=harness.size_of, default=[(1024, 2048), (720, 960)], metavar="HxW")
    arguments = parser.parse_args(words)
    result = harness.run_script(arguments.json, lambda: measure_alone(arguments.sizes))
    if result is not None:
        print(json.dumps(result["cases"], indent=1))
    return int(result is None)


if __name__ == "__main__":
    raise SystemExit(main())
