"""Every format that `compare MODEL --formats` tries, as one table: what runs the model there, and in which precision it is asked to."""

from __future__ import annotations

from dataclasses import dataclass

from ..backends import REFERENCE, backend_row
from ..backends.onnxruntime.providers import PROVIDERS, provider_row
from ..types import Backend, PrecisionName


@dataclass(frozen=True, slots=True)
class Format:
    """One row. Without a `backend` it is the network in PyTorch, `compiled` by torch.compile or not, and needs the model's weights.

    With a `backend` it is an engine of that backend; with a `provider` too it is ONNX Runtime's, on that plug-in execution provider,
    which takes the backend's graphs. INT8 needs ranges. `package` is what must be installed (as pip knows it).
    """

    name: str
    package: str
    precision: PrecisionName = "fp32"
    backend: Backend | None = None
    provider: str | None = None
    compiled: bool = False

    @property
    def file_name(self) -> str:
        """What the plan of an engine is called."""
        return f"{self.name.lower().replace(' ', '-')}.plan"


def _engines(backend: Backend) -> tuple[Format, ...]:
    row = backend_row(backend)
    precisions: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8")
    return tuple(Format(f"{row.title} {each.upper()}", row.package, each, backend) for each in precisions)


def _on_provider(provider: str) -> tuple[Format, ...]:
    row = provider_row(provider)
    return tuple(Format(f"{row.title} {each.upper()}", row.package, each, row.graphs, provider) for each in row.precisions)


#: All formats, in the order of the table.
FORMATS: tuple[Format, ...] = (
    Format("PyTorch", "torch"),
    Format("torch.compile", "torch", compiled=True),
    *_engines(REFERENCE),
    *_engines("openvino"),
    *(each for provider in PROVIDERS for each in _on_provider(provider)),
    *_engines("tensorrt-rtx"),
    *_engines("tensorrt"),
)

#: The format that the others' speed is relative to: every machine has it.
REFERENCE_FORMAT = FORMATS[2].name
