"""Opens a file (a plan, an ONNX model or a network's weights) and gives its Runner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .backends import REFERENCE, build, open_engine
from .backends.here import complete_precision, refuse_mismatch
from .errors import OutputError, UsageError
from .formats.engine_file import load_engine, save_precision
from .formats.external_model import ExternalModel
from .formats.model_file import file_sha256, is_model, stamp_notes
from .formats.safetensors_file import is_weights
from .graph.functions import inline_functions
from .machine import require
from .pipeline import read_model
from .runtime.frame_runner import FrameRunner
from .runtime.scaled import ScaledRunner
from .runtime.session import refuse_stripped
from .runtime.whole_logits import OpenLogitsRunner
from .types import BuildOptions, Engine, ModelSpec


def open_any(
    path: Path,
    *,
    device: int = 0,
    threads: int | None = None,
    lanes: int = 1,
    graphs: bool = True,
    strict: bool = False,
    external: ExternalModel | None = None,
) -> FrameRunner:
    """A plan, an ONNX model (through ONNX Runtime) or a network's safetensors (through PyTorch) -> a Runner.

    Weights are opened at their recipe's size. `device`, `threads`, `lanes` and `graphs` are those of `backends.open_engine`; `external`
    describes an ONNX model from elsewhere. With `strict` a plan whose layers do not have the precision that was asked for raises
    PrecisionError. Raises a DeployError that says why a file cannot be opened here.
    """
    path = Path(path)
    if is_weights(path):
        open_at, spec = _network(path, threads)
        return open_at(spec.size)
    engine = engine_of(path, device=device, threads=threads, strict=strict, external=external)
    return open_engine(engine, device=device, threads=threads, lanes=lanes, graphs=graphs)


def engine_of(
    path: Path, *, device: int = 0, threads: int | None = None, strict: bool = False, external: ExternalModel | None = None
) -> Engine:
    """A plan, or an ONNX model that ONNX Runtime is to run -> the Engine, not opened yet; see `open_any`."""
    path = Path(path)
    if is_model(path):
        return _build_in_memory(path, threads, external)
    loaded = load_engine(path)
    refuse_stripped(loaded.info)  # before anything else that may be wrong with it: it could not be opened anywhere
    engine = _with_precision(loaded, path, device)
    if strict or engine.info.options.get("strict"):
        refuse_mismatch(engine)
    return engine


def _with_precision(engine: Engine, path: Path, device: int) -> Engine:
    """Reads the precision of a plan from another machine when it is first opened here, and saves it in the plan's sidecar."""
    complete = complete_precision(engine, device)
    if complete.info != engine.info:
        with contextlib.suppress(OutputError):  # if the folder cannot be written, the layers are read again next time
            save_precision(complete.info.precision, path)
    return complete


def _build_in_memory(path: Path, threads: int | None, external: ExternalModel | None) -> Engine:
    model, spec = read_model(path, external)
    batch = spec.input.shape[0]
    sizes = (batch, batch, batch) if isinstance(batch, int) else (1, 1, 8)
    options = BuildOptions(batch=sizes, threads=threads)
    engine = build(inline_functions(model), spec, REFERENCE, options, model_sha256=file_sha256(model))
    return replace(engine, info=replace(engine.info, notes=stamp_notes(model)))


def open_scales(path: Path, scales: Sequence[float], threads: int | None = None) -> list[OpenLogitsRunner]:
    """A network's safetensors -> a runner for each scale, whose input has the scale times the recipe's height and width.

    If the recipe has a `scale` of its own, the input has both times the height and width of each frame instead. Raises UsageError for any
    other file: an engine and an ONNX model have one size.
    """
    path = Path(path)
    if not is_weights(path):
        what = f"Scales need a network's weights (.safetensors), which take any size; {path} has one size."
        raise UsageError(what, "Leave --scales out, or name the weights.")
    open_at, spec = _network(path, threads)
    if spec.scale < 1:
        return [ScaledRunner(spec, spec.scale * scale, open_at) for scale in scales]
    height, width = spec.size
    return [open_at((round(height * scale), round(width * scale))) for scale in scales]


def open_network_at(
    path: Path, size: tuple[int, int], *, batch: int = 1, device: int = 0, threads: int | None = None, compiled: bool = False
) -> FrameRunner:
    """A network's safetensors -> a runner at an input size (H, W) in PyTorch: on GPU `device` if PyTorch can use GPUs, else on the CPU.

    With `compiled` torch.compile compiles the network first. Raises WeightsError, RecipeError if the network takes no such size,
    EngineError if it cannot be compiled, MissingPackageError.
    """
    require("torch", "export", "Opening a network's weights")
    import torch

    from .backends.torch.run import open_network
    from .export.weights_choice import network_in

    choice = network_in(Path(path))
    place = f"cuda:{device}" if torch.cuda.is_available() else "cpu"
    return open_network(choice.network, choice.spec(size=size), batch=batch, device=place, threads=threads, compiled=compiled)


def _network(path: Path, threads: int | None) -> tuple[Callable[[tuple[int, int]], FrameRunner], ModelSpec]:
    """A network's safetensors -> what opens it at an input size, and its spec at the recipe's."""
    require("torch", "export", "Opening a network's weights")
    from .backends.torch.run import open_network
    from .export.weights_choice import network_in

    choice = network_in(path)

    def open_at(size: tuple[int, int]) -> FrameRunner:
        return open_network(choice.network, choice.spec(size=choice.nearest_size(size)), threads=threads)

    return open_at, choice.spec()
