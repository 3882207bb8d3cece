"""ONNX Runtime engines to sessions: inputs and outputs bound to preallocated NumPy memory, and a thread for each session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ...errors import EngineError, MissingPackageError
from ...machine import usable_cores
from ...runtime.cpu_session import CpuSession
from ...runtime.session import Session, WorkerSession, rebuild_hint, refuse_newer
from ...types import FOREIGN, Engine, EngineInfo
from .providers import PROVIDER, assignment, open_on_provider


def check(info: EngineInfo) -> None:
    """Raises MissingPackageError or EngineError if a plan of this kind cannot be opened here."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingPackageError("onnxruntime", None, "An ONNX Runtime engine") from error
    refuse_newer(info, "onnxruntime", str(ort.__version__))


def open_sessions(engine: Engine, device: int, threads: int | None, lanes: int) -> Sequence[Session]:
    """An ONNX Runtime plan to `lanes` sessions over one InferenceSession.

    It runs on the CPU, where `device` is ignored, or on the plug-in execution provider that the sidecar names: see `providers`. Raises
    EngineError, MissingPackageError.
    """
    info = engine.info
    options = session_options(threads)
    if info.spec.arch.get("name") == FOREIGN:  # the accuracy and the speed of our own models were measured without
        options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI: kernels whose sums do not overflow
    model = open_model(engine, options, device)
    sessions = [CpuSession(ONNXRuntimeSession(model, info), info.spec, info.batch[0], threads) for _ in range(lanes)]
    if PROVIDER in info.options:
        sessions[0].notes = (assignment(model),)
    return sessions


def session_options(threads: int | None) -> Any:
    """The onnxruntime.SessionOptions that every session here uses; `threads` None: all cores."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads or available_threads()
    options.inter_op_num_threads = 1
    return options


def open_model(engine: Engine, options: Any, device: int = 0) -> Any:
    """A plan and its SessionOptions to an onnxruntime.InferenceSession; see `open_sessions`. Raises EngineError, MissingPackageError."""
    import onnxruntime as ort

    if PROVIDER in engine.info.options:
        return open_on_provider(engine, options, device)
    try:
        return ort.InferenceSession(engine.plan, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EngineError(f"ONNX Runtime cannot open this plan: {error}", rebuild_hint(engine.info)) from error


class ONNXRuntimeSession(WorkerSession):
    """An EngineSession around one IOBinding; the engine writes its output straight into memory that was allocated here."""

    def __init__(self, model: Any, info: EngineInfo) -> None:
        source, target = info.inputs[0], info.outputs[0]
        largest = info.batch[2]
        super().__init__((largest, *map(int, source.shape[1:])), "onnxruntime", source.dtype)
        self._names = source.name, target.name
        self._output: NDArray[Any] = np.zeros((largest, *map(int, target.shape[1:])), np.dtype(target.dtype))
        self._model = model
        self._binding = model.io_binding()
        self._bound = 0
        # the OpenVINO EP 1.8 reads the input when it is bound, and gives the labels of the first frame for every later one
        self._each_time = PROVIDER in info.options

    def execute(self, batch: int) -> NDArray[Any]:
        if batch != self._bound or self._each_time:
            self._bind(batch)
        self._model.run_with_iobinding(self._binding)
        return self._output[:batch]

    def _bind(self, batch: int) -> None:
        """Points the binding at the first `batch` images of both buffers; nothing is copied."""
        source, target = self.input[:batch], self._output[:batch]
        self._binding.bind_input(self._names[0], "cpu", 0, source.dtype.type, source.shape, source.ctypes.data)
        self._binding.bind_output(self._names[1], "cpu", 0, target.dtype.type, target.shape, target.ctypes.data)
        self._bound = batch


def available_threads() -> int:
    """The physical cores this process may use; ONNX Runtime's own default ignores the process's CPU affinity."""
    allowed = usable_cores()
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
