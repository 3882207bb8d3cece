"""OpenVINO engines to sessions: asynchronous requests that read and write preallocated NumPy memory."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError, openvino_reason
from ...runtime.cpu_session import CpuSession
from ...runtime.session import Session, rebuild_hint, refuse_newer
from ...types import Engine, EngineInfo
from .plan import compile_plan, import_openvino, version


def check(info: EngineInfo) -> None:
    """Raises MissingPackageError or EngineError if a plan of this kind cannot be opened here."""
    refuse_newer(info, "openvino", version())


def open_sessions(engine: Engine, device: int, threads: int | None, lanes: int) -> list[Session]:
    """An OpenVINO plan to `lanes` sessions over one compiled model; `device` is ignored on a CPU.

    One session is tuned for latency (all threads work on one request); more share the threads, one stream each. Raises EngineError.
    """
    info = engine.info
    try:
        compiled = compile_plan(engine.plan, threads, lanes)
        return [CpuSession(OpenVINOSession(compiled, info), info.spec, info.batch[0], threads) for _ in range(lanes)]
    except (zipfile.BadZipFile, KeyError, RuntimeError) as error:  # OpenVINO's own exceptions are RuntimeErrors
        raise EngineError(f"OpenVINO cannot open this plan: {openvino_reason(error)}", rebuild_hint(info)) from error


class OpenVINOSession:
    """An EngineSession around one InferRequest; the engine writes its output straight into memory that was allocated here."""

    def __init__(self, compiled: Any, info: EngineInfo) -> None:
        source, target = info.inputs[0], info.outputs[0]
        largest = info.batch[2]
        self.input: NDArray[np.float32] = np.zeros((largest, *map(int, source.shape[1:])), np.float32)
        self._output: NDArray[Any] = np.zeros((largest, *map(int, target.shape[1:])), np.dtype(target.dtype))
        self._ports = compiled.input(source.name), compiled.output(target.name)
        self._request = compiled.create_infer_request()
        self._batch = 0

    def start(self, batch: int) -> None:
        if batch != self._batch:
            self._bind(batch)
        self._request.start_async()

    def wait(self) -> NDArray[Any]:
        self._request.wait()
        return self._output[: self._batch]

    def profiling_info(self) -> list[Any]:
        """OpenVINO's ProfilingInfo of each layer in the last run; the model must have been compiled with `profiling`."""
        return list(self._request.profiling_info)

    def close(self) -> None:
        del self._request

    def _bind(self, batch: int) -> None:
        """Points the request at the first `batch` images of both buffers; nothing is copied."""
        ov = import_openvino()
        source, target = self._ports
        self._request.set_tensor(source, ov.Tensor(self.input[:batch], shared_memory=True))
        self._request.set_tensor(target, ov.Tensor(self._output[:batch], shared_memory=True))
        self._batch = batch
