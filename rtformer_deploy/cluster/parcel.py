"""An engine on its way to the nodes: the plan's bytes and its sidecar, checked where they arrive."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..backends import backend_row, check_engine, open_engine
from ..backends.here import complete_precision, refuse_mismatch
from ..errors import ClusterError, EngineError, UsageError, first_line
from ..files import sha256
from ..formats.engine_file import info_bytes, load_engine, parse_info
from ..formats.external_model import ExternalModel
from ..formats.model_file import is_model
from ..formats.safetensors_file import is_weights
from ..machine import own_version
from ..opening import engine_of
from ..runtime.frame_runner import FrameRunner
from ..types import Engine, EngineInfo

T = TypeVar("T")

_SENT_S = 120.0  # for a plan to reach a node


@dataclass(frozen=True, slots=True)
class Parcel:
    """A plan's bytes and its sidecar's, the SHA-256 of both together, and the version of the program that packed them.

    A model that is only measured has no sidecar (b"").
    """

    name: str
    plan: bytes
    info: bytes
    digest: str
    package: str

    def whole(self) -> bytes:
        """The bytes, as they were sent and by the same version. Raises ClusterError if they are not."""
        check_package(self.package)
        if _digest(self.plan, self.info) != self.digest:
            raise ClusterError(f"{self.name} arrived with another SHA-256 than it was sent with.", "Start the run again.")
        return self.plan

    def engine(self) -> Engine:
        """The engine, checked as `whole`."""
        return Engine(self.whole(), self.spec_info)

    def open(self, threads: int | None, lanes: int = 1) -> FrameRunner:
        """The engine, opened on this node's first GPU that Ray shows, or its CPU. Raises ClusterError, and what opening it raises."""
        engine = self.engine()
        if engine.info.options.get("strict"):
            refuse_mismatch(complete_precision(engine))
        return open_engine(engine, threads=threads, lanes=lanes)

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU; a model that is measured does not."""
        return bool(self.info) and backend_row(self.spec_info.backend).on_gpu

    @property
    def spec_info(self) -> EngineInfo:
        """What the sidecar says. Raises EngineError if it is damaged."""
        return parse_info(self.info, Path(self.name))


def pack(path: Path, threads: int | None = None, external: ExternalModel | None = None) -> Parcel:
    """A plan or an ONNX model (for ONNX Runtime) -> its parcel; nothing is opened here. Raises what reading it raises, UsageError."""
    if is_weights(path):
        raise UsageError(f"{path} holds a network's weights; a cluster runs engine plans and ONNX models.", "Run: rtformer-deploy export")
    engine = engine_of(path, threads=threads, external=external) if is_model(path) else load_engine(path)
    info = info_bytes(engine.info)
    return Parcel(str(path), engine.plan, info, _digest(engine.plan, info), own_version())


def pack_model(name: str, model: bytes) -> Parcel:
    """An ONNX model that is to be measured -> its parcel."""
    return Parcel(name, model, b"", _digest(model, b""), own_version())


def check_package(package: str) -> None:
    """Raises ClusterError if another version of this program sent the work."""
    if own_version() != package:
        what = f"rtformer-deploy {own_version()} is installed on {platform.node()}, and the run was started with {package}."
        raise ClusterError(what, "Install the same version on every node.")


def check_node(package: str, info: bytes, name: str) -> None:
    """Raises a DeployError if this node cannot open the plan: another version, a missing package, another GPU."""
    check_package(package)
    if info:
        check_engine(parse_info(info, Path(name)))


def _digest(plan: bytes, info: bytes) -> str:
    if not plan:
        raise EngineError("The plan is empty.")
    return sha256(sha256(plan).encode() + info)


def send(parcel: object) -> bytes:
    """Anything, such as a Parcel, into Ray's object store -> a ticket for `received`. It goes to each node once, however many ask."""
    import ray

    ticket: bytes = ray.cloudpickle.dumps(ray.put(parcel))
    return ticket


def received(ticket: bytes, kind: type[T]) -> T:
    """A ticket of this run -> what was sent, which is of that type. Raises ClusterError if it does not come."""
    import ray

    try:
        sent: T = ray.get(ray.cloudpickle.loads(ticket), timeout=_SENT_S)
    except ray.exceptions.RayError as error:
        raise ClusterError(f"The {kind.__name__.lower()} did not reach this node: {first_line(error)}.", "Start the run again.") from error
    return sent
