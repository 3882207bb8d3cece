"""ONNX Runtime's plug-in execution providers: packages of their own that run a graph, or parts of it, in place of ONNX Runtime's kernels.

The plan is the ONNX file that such a provider reads; its sidecar names the provider, so that every command opens it there.
"""

from __future__ import annotations

import collections
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ...errors import EngineError, MissingPackageError, first_line
from ...files import sha256
from ...formats.model_file import serialize_model
from ...types import Backend, BuildOptions, Engine, EngineInfo, ModelSpec, PrecisionFound, PrecisionName, TensorSpec
from ..shapes import batch_range, output_shape, tensors

#: The option of an engine's sidecar that names its provider.
PROVIDER = "provider"
#: Makes ONNX Runtime remember which provider got which node.
_RECORD = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider: its `title`, the `package` that an `extra` brings, whose `module` says where the library is.

    It takes the `graphs` that are prepared for that backend, in these `precisions`. `fits` says whether one of the devices that it lists
    (an OrtEpDevice) is to be used, `options` what it is told, given the number of CPU threads. It `needs` a device of some maker;
    `on_gpu`: that is an NVIDIA GPU.
    """

    name: str
    title: str
    extra: str
    package: str
    module: str
    graphs: Backend
    precisions: tuple[PrecisionName, ...]
    needs: str
    on_gpu: bool
    fits: Callable[[Any], bool]
    options: Callable[[int], Mapping[str, str]]


def _is_cpu(device: Any) -> bool:
    return bool(device.ep_metadata.get("ov_device") == "CPU")


def _openvino_options(threads: int) -> dict[str, str]:
    return {"num_of_threads": str(threads), "precision": "FP32"}


_ROWS = (
    ProviderRow(
        "openvino", "OpenVINO EP", "openvino-ep", "onnxruntime-ep-openvino", "onnxruntime_ep_openvino",
        "openvino", ("fp32", "int8"), "an Intel processor", False, _is_cpu, _openvino_options,
    ),
    ProviderRow(
        "tensorrt-rtx", "TensorRT-RTX EP", "tensorrt-rtx-ep", "onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx",
        "tensorrt-rtx", ("fp32", "fp16", "int8"), "an NVIDIA GPU", True, lambda device: True, lambda threads: {},
    ),
)  # fmt: skip

#: name -> row.
PROVIDERS: dict[str, ProviderRow] = {row.name: row for row in _ROWS}


def provider_row(name: object) -> ProviderRow:
    """The row of a provider. Raises EngineError if this version does not know the name, for example from a newer version's plan."""
    row = PROVIDERS.get(str(name))
    if row is None:
        raise EngineError(f"The plan is for the execution provider {name!r}, which this version does not know.")
    return row


def build(model: ir.Model, spec: ModelSpec, provider: str, options: BuildOptions, model_sha256: str) -> Engine:
    """A model that was prepared for the provider's graphs -> an engine. Raises BuildError, MissingPackageError without the package."""
    row = provider_row(provider)
    version = _version(row)
    source, target = tensors(model, spec)
    plan = serialize_model(model)
    info = EngineInfo(
        spec=spec,
        backend="onnxruntime",
        inputs=(source,),
        outputs=(TensorSpec(target.name, output_shape(spec, target), target.dtype),),
        batch=batch_range(source, options),
        precision=PrecisionFound(options.precision, "requested", {}, f"{row.title} does not tell the types of its layers"),
        builder_version=version,
        gpu=None,
        plan_sha256=sha256(plan),
        model_sha256=model_sha256,
        options={PROVIDER: row.name},
    )
    return Engine(plan, info)


def open_on_provider(engine: Engine, options: Any, device: int) -> Any:
    """A plan and its SessionOptions -> an InferenceSession on the provider that its sidecar names; what it does not take runs on the CPU.

    Raises EngineError, also if the provider took no node at all, MissingPackageError.
    """
    import onnxruntime as ort

    row = provider_row(engine.info.options[PROVIDER])
    devices = _devices(ort, row)
    if not devices:
        raise EngineError(f"{row.title} finds no device on this machine that it runs on: it needs {row.needs}.")
    if row.on_gpu and device >= len(devices):
        raise EngineError(f"There is no GPU {device} here; {row.title} finds {len(devices)}, counted from 0.")
    chosen = devices[device] if row.on_gpu else devices[0]
    try:
        options.add_provider_for_devices([chosen], dict(row.options(options.intra_op_num_threads)))
        options.add_session_config_entry(_RECORD, "1")
        session = ort.InferenceSession(engine.plan, options)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EngineError(f"ONNX Runtime cannot open this plan on {row.title}: {first_line(error)}") from error
    if not nodes_by_provider(session).get(chosen.ep_name):
        raise EngineError(f"{row.title} took no node of the graph: all of it would run on ONNX Runtime's own kernels.")
    return session


def nodes_by_provider(session: Any) -> dict[str, int]:
    """A session that `open_on_provider` opened -> how many nodes of the graph each provider got."""
    counts: collections.Counter[str] = collections.Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[str(part.ep_name)] += len(part.get_nodes())
    return dict(counts)


def assignment(session: Any) -> str:
    """One line for a person about which provider got how many nodes."""
    counts = nodes_by_provider(session)
    total = sum(counts.values())
    return "Nodes by execution provider: " + ", ".join(f"{name} {count} of {total}" for name, count in counts.items()) + "."


def _version(row: ProviderRow) -> str:
    """ONNX Runtime's version. Raises MissingPackageError if it or the provider's package is not installed."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingPackageError("onnxruntime", None, "An ONNX Runtime engine") from error
    if importlib.util.find_spec(row.module) is None:
        raise MissingPackageError(row.package, row.extra, row.title)
    return str(ort.__version__)


def _devices(ort: Any, row: ProviderRow) -> list[Any]:
    """The devices of a provider that fit; its library is loaded into this process. Raises EngineError, MissingPackageError."""
    _version(row)
    try:
        module = importlib.import_module(row.module)
        name = str(module.get_ep_name())
        if name not in _registered:
            ort.register_execution_provider_library(name, module.get_library_path())
            _registered.add(name)
        return [device for device in ort.get_ep_devices() if device.ep_name == name and row.fits(device)]
    except Exception as error:  # neither the packages' nor ONNX Runtime's exceptions have a base of their own
        hint = f"Run: pip install --upgrade {row.package}, and see whether its release notes name ONNX Runtime {ort.__version__}."
        raise EngineError(f"{row.package} does not load: {first_line(error)}", hint) from error


#: The providers whose libraries this process has loaded.
_registered: set[str] = set()
