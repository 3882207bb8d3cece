"""The file format of an OpenVINO plan, for the builder that writes it and the runner that opens it: a stored zip of the IR."""

from __future__ import annotations

import functools
import io
import zipfile
from typing import Any

import numpy as np

from ...errors import MissingPackageError
from ...files import temporary_folder
from ...formats.archive import open_stored

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes


def import_openvino() -> Any:
    """The openvino module. Raises MissingPackageError."""
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError("openvino", None, "An OpenVINO engine") from error
    return openvino


def core() -> Any:
    """The one openvino.Core of this process. Raises MissingPackageError.

    Each Core loads the CPU plugin again, which gives the thread a signal stack of its own and puts the one before back when it ends. If
    Cores do not end in the reverse order of their beginning, what is put back was freed already, and the next Ctrl-C or SIGTERM is a crash.
    """
    return _core_of(import_openvino())


@functools.cache
def _core_of(openvino: Any) -> Any:
    return openvino.Core()


def version() -> str:
    """OpenVINO's version as three numbers ("2026.4.1"), without its build number. Raises MissingPackageError."""
    return str(import_openvino().get_version()).split("-")[0]


def pack(model: Any, *, compress: bool) -> bytes:
    """An openvino.Model as the bytes of a plan: `model.xml` and `model.bin`, stored uncompressed; `compress` stores weights as FP16."""
    buffer = io.BytesIO()
    with temporary_folder() as folder, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as plan:
        import_openvino().save_model(model, folder / "model.xml", compress_to_fp16=compress)
        for name in ("model.xml", "model.bin"):
            plan.writestr(zipfile.ZipInfo(name, _EPOCH), (folder / name).read_bytes())
    return buffer.getvalue()


def compile_plan(plan: bytes, threads: int | None, lanes: int = 1, *, profiling: bool = False) -> Any:
    """A plan as an openvino.CompiledModel on the CPU that computes in FP32.

    One lane is tuned for latency (all threads work on one request); more share the threads, one stream each. With
    `profiling` its requests measure each layer. Raises zipfile.BadZipFile, KeyError or RuntimeError if the bytes are not a plan.
    """
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if lanes > 1:
        config |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": lanes}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    if profiling:
        config["PERF_COUNT"] = True
    return core().compile_model(read_plan(plan), "CPU", config)


def read_plan(plan: bytes) -> Any:
    """A plan as an openvino.Model. Raises zipfile.BadZipFile, KeyError or RuntimeError if the bytes are not a plan."""
    ov = import_openvino()
    with open_stored(plan) as file:
        weights = ov.Tensor(np.frombuffer(file.read("model.bin"), np.uint8))
        return core().read_model(file.read("model.xml"), weights)


def note(layer: Any, key: str) -> str:
    """What OpenVINO notes about a layer of its execution graph; empty if it notes nothing."""
    notes = layer.get_rt_info()
    if key not in notes:
        return ""
    value = notes[key]
    return str(getattr(value, "value", value))
