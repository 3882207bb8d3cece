"""What the pipeline composes beyond its rooms."""

from __future__ import annotations

from helpers import tiny_model, tiny_spec

from rtformer_deploy import pipeline
from rtformer_deploy.types import BuildOptions


def test_strict_at_the_build_travels_with_the_plan() -> None:
    spec = tiny_spec()
    engine = pipeline.build_engine(tiny_model(), spec, "onnxruntime", BuildOptions(), strict=True)
    assert engine.info.options["strict"] is True
