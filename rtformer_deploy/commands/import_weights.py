"""What `import-weights` does with files: weights from elsewhere in, one safetensors file that names its recipe out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import WeightsError
from ..export.foreign import naming_the_network, read_weights
from ..export.recorded import check_named, described_recipe
from ..files import read_bytes, sha256
from ..formats.recipe import load_recipe, numbered_labels
from ..formats.weights_file import weights_metadata
from ..nn import StateDict, architecture_row
from ..nn.fitting import count_fitting, to_store
from ..nn.weights import save_weights


@dataclass(frozen=True, slots=True)
class Imported:
    """Checked tensors and what the file will say about itself; `parameters` leaves out the running statistics
    and what only training uses. `notes` says what was left out or changed."""

    weights: StateDict
    metadata: dict[str, str]
    recipe: str
    classes: int
    parameters: int
    notes: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Writes the safetensors file, whole or not at all."""
        save_weights(self.weights, path, self.metadata)


def import_weights(file: Path, recipe_name: str, classes: int | None = None, half: bool = False) -> Imported:
    """A .pdparams, .pth, .bin or .safetensors file -> checked weights of the recipe's network, with its ModelSpec by the recipe.

    Checkpoints of the network's authors and of PaddleSeg are translated to its keys.
    Raises WeightsError with every key that does not fit, or if a safetensors file says that it is something else.
    """
    described = described_recipe(file)
    recipe = load_recipe(recipe_name) if described is None else check_named(described, recipe_name, file)
    row = architecture_row(recipe.arch)
    row.check_size(recipe.size)
    read = read_weights(file, recipe)
    count = classes if classes is not None else len(recipe.labels.names)
    own = row.classes_of(read.weights)
    if own is not None and own != count:
        raise WeightsError(f"{file} gives {own} classes, {recipe_name} has {count}.", f"Add --num-classes {own}, or name their recipe.")
    with naming_the_network(file, recipe):
        parameters = count_fitting(read, recipe.arch, count, str(file))
    labels = recipe.labels if count == len(recipe.labels.names) else numbered_labels(count)
    metadata = weights_metadata(replace(recipe, labels=labels), row.stride) | {
        "source": file.name,
        "source_sha256": sha256(read_bytes(file, WeightsError, "weights")),
    }
    return Imported(to_store(read.weights, half, str(file)), metadata, recipe.name, count, parameters, read.notes)
