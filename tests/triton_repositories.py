"""Plans and models for Triton's repositories, tiny ones: what `triton` gets in tests."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from helpers import Batch, tiny_model, tiny_spec
from tensorrt_plans import make_info
from text_protobuf import Fields, parse

from rtformer_deploy.backends import build
from rtformer_deploy.cli import main
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.types import BuildOptions, Engine, Head

LARGEST = 4


def run(*arguments: str | Path) -> Result:
    """`rtformer-deploy triton`."""
    return CliRunner().invoke(main, ["triton", *map(str, arguments)])


@functools.cache
def tiny_plan(backend: str = "onnxruntime", batch: Batch = "batch", largest: int = LARGEST, head: Head = "lowres") -> Engine:
    sizes = (1, min(2, largest), largest) if isinstance(batch, str) else (batch, batch, batch)
    return build(tiny_model(batch, head), tiny_spec(batch, head), backend, BuildOptions(batch=sizes, threads=1))


def write_plan(path: Path, **options: Any) -> Path:
    """A plan of the tiny network for this machine's CPU, with its sidecar."""
    save_engine(tiny_plan(**options), path)
    return path


def write_tensorrt(path: Path, **changes: Any) -> Path:
    """What is a TensorRT plan by its sidecar; its bytes are nothing."""
    data = b"a plan of TensorRT"
    save_engine(Engine(data, make_info(plan_sha256=sha256(data), **changes)), path)
    return path


def write_model(path: Path, batch: Batch = "batch", head: Head = "lowres") -> Path:
    save_model(tiny_model(batch, head), path)
    return path


def config(repository: Path, name: str) -> Fields:
    """A folder's config.pbtxt, parsed."""
    return parse((repository / name / "config.pbtxt").read_text())


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, but for hidden files beside nothing of it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
