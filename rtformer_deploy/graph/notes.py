"""What passes did to a model that a person should know, kept with the model in memory; it does not go into the file."""

from __future__ import annotations

import onnx_ir as ir

_KEY = "rtformer_deploy.notes"
_FINITE = "rtformer_deploy.finite_in_fp32"


def add_note(model: ir.Model, text: str) -> None:
    """Adds a sentence to a model's notes, once."""
    if text not in notes_of(model):
        model.meta[_KEY] = (*notes_of(model), text)


def notes_of(model: ir.Model) -> tuple[str, ...]:
    """The notes that passes have left on a model, in their order."""
    notes: tuple[str, ...] = model.meta.get(_KEY, ())
    return notes


def note_finite(model: ir.Model) -> None:
    """Keeps that every output was finite when the model ran in FP32."""
    model.meta[_FINITE] = True


def expects_finite(model: ir.Model) -> bool:
    """Whether the model's outputs were finite in FP32, so that they must be in every other precision."""
    return bool(model.meta.get(_FINITE, False))
