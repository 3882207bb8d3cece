"""Which models' frames the kernels can take through a lane, and what is said about the others."""

from __future__ import annotations

from ..types import ModelSpec

#: What such a model can be run on.
ON_A_CPU = "Build it for a CPU: --backend openvino or onnxruntime."


def lane_fault(spec: ModelSpec) -> str | None:
    """Why a model's frames cannot go through a lane yet, with a full stop; None if they can.

    The kernels read a frame, and its labels, in one step with half-pixel centres. `scale` alone is nothing to them: an engine has one size.
    """
    if not spec.resize_corners:
        return None
    return f"The GPU's kernels cannot resize from corner to corner yet, as {spec.name} asks (resize_corners)."
