"""What passes did to a model that a person should know, kept with the model in memory; it does not go into the file."""

from __future__ import annotations

import onnx_ir as ir

_KEY = "rtformer_deploy.notes"


def add_note(model: ir.Model, text: str) -> None:
    """Adds a sentence to a model's notes, once."""
    if text not in notes_of(model):
        model.meta[_KEY] = (*notes_of(model), text)


def notes_of(model: ir.Model) -> tuple[str, ...]:
    """The notes that passes have left on a model, in their order."""
    notes: tuple[str, ...] = model.meta.get(_KEY, ())
    return notes
