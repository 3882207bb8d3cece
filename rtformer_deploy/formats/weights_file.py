"""What a safetensors file of weights says about itself: its ModelSpec, as one JSON document in the metadata.

The document has the fields of a ModelSpec as an ONNX file carries them, and three more: `version`, `dataset` (the name of the
dataset that the weights were trained on) and `ignore_index`. `weights` and `sha256` are empty, because they follow from the file.

version 2    has `resize_corners` and `scale`
version 1    says neither: false and 1
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError
from ..types import Byte, FileName, ModelSpec
from .conversion import convert_known, split_version
from .documents import DocumentError, parse_json
from .model_file import SPEC_KEY
from .model_spec import check_spec
from .names import check_name, clean_name
from .preprocessing import needed_version, written
from .recipe import Labels, Recipe

VERSION = 2


def weights_metadata(recipe: Recipe, stride: int = 8) -> dict[str, str]:
    """A recipe and its network's stride -> the metadata that says what its weights are; `recipe_in` reads it.

    It names no path: the dataset's file is its name.
    """
    dataset = clean_name(Path(recipe.dataset).stem) if recipe.dataset.endswith(".toml") else recipe.dataset
    spec = recipe.spec(stride=stride)
    values = {**written(spec, spec.to_json()), "dataset": dataset, "ignore_index": recipe.labels.ignore_index}
    document = {"version": needed_version(spec, VERSION), **values}
    return {SPEC_KEY: json.dumps(document, separators=(",", ":"), ensure_ascii=False), "recipe": recipe.name}


def recipe_in(metadata: Mapping[str, str], source: str) -> Recipe | None:
    """A file's metadata -> the recipe of its network: architecture, labels, size and preprocessing; None if it does not say.

    `source` names the file in messages. Raises WeightsError for a document that is damaged or of another version.
    """
    text = metadata.get(SPEC_KEY)
    if text is None:
        return None
    try:
        version, values = split_version(parse_json(text))
        if version > VERSION:
            raise WeightsError(
                f"{source} describes its weights in version {version} of the format; this rtformer-deploy reads up to {VERSION}.",
                "Update it: pip install --upgrade rtformer-deploy",
            )
        document = convert_known(values, _Document)
        document.check()
    except DocumentError as error:
        raise WeightsError(
            f"{source} does not say what its weights are: its {SPEC_KEY} cannot be read ({error}).", "Train or import the weights again."
        ) from error
    return Recipe(
        name=document.name,
        arch=document.arch,
        dataset=document.dataset or document.name,
        labels=Labels(document.classes, document.palette, document.ignore_index),
        size=document.size,
        mean=document.mean,
        std=document.std,
        resize=document.resize,
        resize_corners=document.resize_corners,
        scale=document.scale,
    )


@dataclass(frozen=True, slots=True)
class _Document(ModelSpec):
    """The document without its version."""

    dataset: FileName | None = None
    ignore_index: Byte = 255

    def check(self) -> None:
        """Raises DocumentError if parts of the document contradict each other."""
        check_spec(self)
        check_name(self.name, "name")
        if not isinstance(self.arch.get("name"), str):
            raise DocumentError("arch has no name")
        if self.ignore_index < len(self.classes):
            raise DocumentError(f"ignore_index is {self.ignore_index}, which is one of the {len(self.classes)} classes")
