"""RTFormer: export the PyTorch network, build engines, segment frames. Importing this loads neither torch nor TensorRT.

docs/library.md shows the library in ten lines; every name here loads when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends import open_engine
    from .errors import DeployError
    from .export.weights_choice import choose_network
    from .formats.engine_file import load_engine, save_engine
    from .formats.model_file import load_model, save_model
    from .formats.recipe import load_recipe, recipe_names
    from .image.frames import colourize, load_image, overlay, save_png
    from .opening import open_any
    from .pipeline import build_engine, export_model, read_model, refit_engine, spec_of
    from .runtime.runner import Runner
    from .stream.result import Result
    from .stream.segment import Results, segment
    from .types import BuildOptions, Engine, EngineInfo, ModelSpec, TensorSpec

#: public name -> the module it lives in
_HOMES = {
    "BuildOptions": "types",
    "DeployError": "errors",
    "Engine": "types",
    "EngineInfo": "types",
    "ModelSpec": "types",
    "Result": "stream.result",
    "Results": "stream.segment",
    "Runner": "runtime.runner",
    "TensorSpec": "types",
    "build_engine": "pipeline",
    "choose_network": "export.weights_choice",
    "colourize": "image.frames",
    "export_model": "pipeline",
    "load_engine": "formats.engine_file",
    "load_image": "image.frames",
    "load_model": "formats.model_file",
    "load_recipe": "formats.recipe",
    "open_any": "opening",
    "open_engine": "backends",
    "overlay": "image.frames",
    "read_model": "pipeline",
    "recipe_names": "formats.recipe",
    "refit_engine": "pipeline",
    "save_engine": "formats.engine_file",
    "save_model": "formats.model_file",
    "save_png": "image.frames",
    "segment": "stream.segment",
    "spec_of": "pipeline",
}

__all__ = [
    "BuildOptions",
    "DeployError",
    "Engine",
    "EngineInfo",
    "ModelSpec",
    "Result",
    "Results",
    "Runner",
    "TensorSpec",
    "build_engine",
    "choose_network",
    "colourize",
    "export_model",
    "load_engine",
    "load_image",
    "load_model",
    "load_recipe",
    "open_any",
    "open_engine",
    "overlay",
    "read_model",
    "recipe_names",
    "refit_engine",
    "save_engine",
    "save_model",
    "save_png",
    "segment",
    "spec_of",
]


def __getattr__(name: str) -> Any:
    """Public names load on first use, so that importing the package stays quick (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
