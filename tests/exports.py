"""Exports that several tests share, made once: PyTorch's exporter takes seconds."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from built import ROOT, built, keep_newest

from rtformer_deploy.export.parity import Parity
from rtformer_deploy.export.weights_choice import Choice, choose_network
from rtformer_deploy.formats.model_file import parse_model, read_spec, serialize_model
from rtformer_deploy.pipeline import Exported, export_model

Head = Literal["lowres", "logits", "labels"]

_SIZE = (128, 256)
#: What an export depends on besides its arguments.
_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim")
_ROOMS = ("nn", "export", "graph", "formats")
_KEPT = 12  # each holds the network's weights


@functools.cache
def network(variant: str = "slim", seed: int = 0) -> Choice:
    return choose_network(recipe=f"rtformer-{variant}-cityscapes", random_seed=seed)


@functools.cache
def exported(
    variant: str = "slim", size: tuple[int, int] = _SIZE, batch: int | str = 1, head: Head = "lowres", opset: int = 20
) -> Exported:
    """A seeded random network, exported and checked; callers must not change the model.

    Exports of the usual size are kept in build/exports, where the next process finds them.
    """
    if size != _SIZE:
        return _export(variant, size, batch, head, opset)
    told = (variant, size, batch, head, opset, [version(package) for package in _PACKAGES])
    file = built("exports", f"{variant}-{batch}-{head}-{opset}", _sources(), told, lambda path: _write(path, _export(*told[:5])))
    keep_newest("exports", _KEPT)
    return _read(file)


def _export(variant: str, size: tuple[int, int], batch: int | str, head: Head, opset: int) -> Exported:
    torch.set_num_threads(2)
    choice = network(variant)
    return export_model(choice.network, choice.recipe.spec(size=size, batch=batch, head=head, sha256=choice.sha256), opset)


def _sources() -> list[Path]:
    package = ROOT / "rtformer_deploy"
    rooms = [path for room in _ROOMS for path in (package / room).rglob("*.py")]
    return [Path(__file__), package / "pipeline.py", package / "types.py", *rooms, *(ROOT / "models").rglob("*.toml")]


def _write(path: Path, made: Exported) -> None:
    """The parity in a line, then the model."""
    path.write_bytes(json.dumps(asdict(made.parity)).encode() + b"\n" + serialize_model(made.model))


def _read(path: Path) -> Exported:
    head, data = path.read_bytes().split(b"\n", 1)
    model = parse_model(data)
    spec = read_spec(model)
    assert spec is not None
    return Exported(model, spec, Parity(**json.loads(head)))
