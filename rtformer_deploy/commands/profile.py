"""What `profile` does with files: opens a plan or an ONNX model, and times its layers."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError
from ..formats.external_model import ExternalModel
from ..formats.safetensors_file import is_weights
from ..opening import engine_of
from ..timing.profile import Profile, profile_engine
from .kinds import DRAWING, PROFILE
from .outputs import check_outputs, file_inputs, model_inputs, outputs


def check_files(model: Path, external: ExternalModel, json_path: Path | None, picture_path: Path | None) -> None:
    """Raises OutputError if the report or the picture cannot be written there, or would replace another file."""
    check_outputs(outputs((json_path, PROFILE), (picture_path, DRAWING)), [*model_inputs(model), *file_inputs(external.classes)])


def profile_path(
    path: Path, *, rounds: int = 20, device: int = 0, threads: int | None = None, external: ExternalModel | None = None
) -> Profile:
    """A plan, or an ONNX model that ONNX Runtime runs -> its Profile; see `timing.profile.profile_engine`.

    `external` describes an ONNX model from elsewhere. Raises what opening raises, and ModelError for a network's weights,
    which have no engine.
    """
    path = Path(path)
    if is_weights(path):
        raise ModelError(f"{path} holds a network's weights, which have no engine's layers.", "Export and build it, then profile the plan.")
    return profile_engine(engine_of(path, device=device, threads=threads, external=external), rounds=rounds, device=device, threads=threads)
