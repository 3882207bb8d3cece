"""What `export` does with files: it reads a network's weights and writes a checked ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..formats.model_file import save_model
from ..formats.preprocessing import scale_fault
from ..machine import require
from ..pipeline import Exported, export_model
from ..types import Head, Say
from .kinds import MODEL
from .outputs import Output, check_outputs, file_inputs


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Which network (see `choose_network`) to export, how, and to which file. `size` None is the recipe's; `seed` is for random weights;

    `portable` writes the attention as plain operators (see `export_model`).
    """

    output: Path
    variant: str | None = None
    recipe: str | None = None
    weights: Path | None = None
    num_classes: int | None = None
    random_weights: bool = False
    seed: int = 0
    size: tuple[int, int] | None = None
    batch: int | str = 1
    head: Head = "lowres"
    opset: int = 20
    portable: bool = False


def export_to_file(request: ExportRequest, say: Say = print) -> Exported:
    """Exports a network, checks the model against it and writes it to `request.output`.

    Raises OutputError and MissingPackageError before the work, RecipeError, WeightsError, ModelError.
    """
    check_outputs([Output(request.output, MODEL)], file_inputs(request.weights, request.recipe))
    require("torch", "export", "export")
    from ..export.weights_choice import choose_network

    choice = choose_network(
        recipe=request.recipe, variant=request.variant, weights=request.weights, classes=request.num_classes,
        random_seed=request.seed if request.random_weights else None, say=say,
    )  # fmt: skip
    spec = choice.spec(size=request.size, batch=request.batch, head=request.head)
    height, width = spec.size
    fault = scale_fault(spec.size, spec.scale)
    if fault is not None:
        raise UsageError(f"{spec.name}: {fault}.", "Choose another --size, or leave it out.")
    what = f"{height}x{width}, batch {request.batch}, head {request.head}, opset {request.opset}" + ", portable" * request.portable
    say(f"Exporting {spec.name} ({choice.origin}) at {what} ...")
    exported = export_model(choice.network, spec, request.opset, portable=request.portable)
    save_model(exported.model, request.output)
    return exported
