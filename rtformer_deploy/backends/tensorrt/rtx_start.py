"""How TensorRT-RTX starts: its runtime configuration (its own CUDA graphs, eager kernels) and a cache of kernels beside the plan."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from ...errors import EngineError, OutputError
from ...files import read_bytes, sha256, write_atomic
from ...formats.conversion import convert
from ...formats.documents import parse_json
from ...formats.engine_file import runtime_cache
from ...nvidia.driver import GpuInfo
from ...types import Engine
from .plan import OpenPlan

_MAGIC = "rtformer-deploy runtime cache 1"


@dataclass(frozen=True, slots=True)
class _Header:
    """The first line of a cache: what it was made for, and how long the start took without it."""

    magic: str
    plan: str
    library: str
    gpu: str
    driver: str
    first_ms: Annotated[float, Meta(ge=0, le=1e9)] | None


class RtxStart:
    """`runtime_config` configures execution contexts; None if the library has none, like older versions of standard TensorRT.

    Kernels that TensorRT-RTX compiles for this GPU are stored beside the plan, together with the plan's hash, library, GPU and driver.
    If any of these differ, or if the cache is damaged, it is ignored and replaced.
    """

    def __init__(self, plan: OpenPlan, engine: Engine, gpu: GpuInfo, graphs: bool) -> None:
        self.runtime_config: Any = None
        self.own_graphs = False
        self.first_ms: float | None = None
        self._runtime_cache: Any = None
        self._saved = b""
        self._path = None if engine.path is None else runtime_cache(engine.path)
        self._key = {"plan": sha256(engine.plan), "library": plan.library.version, "gpu": str(gpu), "driver": gpu.driver}
        if not hasattr(plan.engine, "create_runtime_config"):
            return
        self.runtime_config = plan.engine.create_runtime_config()
        trt = plan.library.module
        if hasattr(self.runtime_config, "cuda_graph_strategy") and hasattr(trt, "CudaGraphStrategy"):
            self.own_graphs = True
            strategies = trt.CudaGraphStrategy
            self.runtime_config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if graphs else strategies.DISABLED
        if hasattr(self.runtime_config, "dynamic_shapes_kernel_specialization_strategy"):
            # eager: a shape's kernels are compiled in its first run; lazy would swap them in later, between two frames
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            self.runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
        if self._path is not None and hasattr(self.runtime_config, "create_runtime_cache"):
            self._runtime_cache = self.runtime_config.create_runtime_cache()
            self._read()
            self.runtime_config.set_runtime_cache(self._runtime_cache)

    def save(self, start_ms: float | None = None) -> str | None:
        """Writes the cache if it has grown; `start_ms` is how long a start took without one. Returns a note if it cannot be written."""
        if self._runtime_cache is None or self._path is None:
            return None
        blob = bytes(self._runtime_cache.serialize() or b"")
        if not blob or blob == self._saved:
            return None
        if self.first_ms is None:
            self.first_ms = start_ms
        head = json.dumps({"magic": _MAGIC, **self._key, "first_ms": self.first_ms}).encode()
        try:
            write_atomic(self._path, head + b"\n" + blob)
        except OutputError as error:
            return f"The runtime cache could not be kept, so every start compiles: {error.what}"
        self._saved = blob
        return None

    def note(self, start_ms: float) -> str:
        """One line about how long the start took, and how long it takes without the cache."""
        if self._runtime_cache is None or self._path is None:
            return f"Start: {start_ms:.0f} ms."
        if self._saved and self.first_ms is not None and self.first_ms != start_ms:
            return f"Start: {start_ms:.0f} ms with {self._path.name}; the first one, which compiled, took {self.first_ms:.0f} ms."
        return f"Start: {start_ms:.0f} ms, compiling for this GPU; the next one reads {self._path.name}."

    def _read(self) -> None:
        assert self._path is not None
        with contextlib.suppress(EngineError, ValueError):  # missing, truncated or another file: ignored
            head, blob = read_bytes(self._path, EngineError, "a runtime cache").split(b"\n", 1)
            header = convert(parse_json(head), _Header)
            fits = header.magic == _MAGIC and all(getattr(header, name) == value for name, value in self._key.items())
            if fits and blob and self._runtime_cache.deserialize(blob):
                self._saved, self.first_ms = blob, header.first_ms
