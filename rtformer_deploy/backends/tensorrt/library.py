"""Finds the TensorRT library of a backend: standard TensorRT, TensorRT-RTX, or RTX behind standard TensorRT's bindings."""

from __future__ import annotations

import ctypes
import importlib
import sys
from dataclasses import dataclass
from typing import Any

from ...errors import BuildError, DeployError, MissingPackageError
from ...types import Backend
from .. import backend_row


@dataclass(frozen=True, slots=True)
class TrtLibrary:
    """The Python module, the library that it really uses, and the version to show in results."""

    module: Any
    name: Backend
    is_rtx: bool

    @property
    def version(self) -> str:
        """ "tensorrt 11.4.0.106", with a remark if the bindings use TensorRT-RTX."""
        text = f"{self.name} {self.module.__version__}"
        return f"{text} (bindings over TensorRT-RTX: an RTX plan)" if self.is_rtx and self.name == "tensorrt" else text


def load_library(backend: Backend, wanted_by: str | None = None, error_class: type[DeployError] = BuildError) -> TrtLibrary:
    """Imports the module of a TensorRT backend. Raises MissingPackageError, or `error_class` if its libraries do not load."""
    name = backend_row(backend).module
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(name, backend, wanted_by or f"--backend {backend}") from error
    except (ImportError, OSError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C while the module initialises itself
            raise KeyboardInterrupt from error
        raise error_class(f"{name} is installed but does not load: {error}.", f"Run: pip install --force-reinstall {name}") from error
    return TrtLibrary(module, backend, backend == "tensorrt-rtx" or _is_rtx_behind(module))


def _is_rtx_behind(module: Any) -> bool:
    """Whether the loaded `libnvinfer` is not standard TensorRT, which would report the same version as the bindings."""
    if sys.platform != "linux":
        return False
    major = module.__version__.split(".")[0]
    try:
        library = ctypes.CDLL(f"libnvinfer.so.{major}")  # loaded already, so this finds it by its name
        number = int(library.getInferLibVersion())
    except OSError:
        return False
    except AttributeError:
        return True
    return number // 10000 != int(major)
