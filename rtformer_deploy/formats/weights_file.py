"""What a safetensors file of weights says about itself: its ModelSpec, as one JSON document in the metadata.

The document has the fields of a ModelSpec as an ONNX file carries them, and three more: `version`, `dataset` (the name of the
dataset that the weights were trained on) and `ignore_index`. `weights` and `sha256` are empty, because they follow from the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ..errors import WeightsError, first_line
from . import values
from .model_file import SPEC_KEY
from .normalisation import normalisation_fault
from .recipe import Labels, Recipe

VERSION = 1


def weights_metadata(recipe: Recipe) -> dict[str, str]:
    """A recipe -> the metadata that says what its weights are; `recipe_in` reads it. It names no path: the dataset's file is its name."""
    dataset = Path(recipe.dataset).stem if recipe.dataset.endswith(".toml") else recipe.dataset
    document = {"version": VERSION, **recipe.spec().to_json(), "dataset": dataset, "ignore_index": recipe.labels.ignore_index}
    return {SPEC_KEY: json.dumps(document, separators=(",", ":"), ensure_ascii=False), "recipe": recipe.name}


def recipe_in(metadata: Mapping[str, str], source: str) -> Recipe | None:
    """A file's metadata -> the recipe of its network: architecture, labels, size and preprocessing; None if it does not say.

    `source` names the file in messages. Raises WeightsError for a document that is damaged or of another version.
    """
    text = metadata.get(SPEC_KEY)
    if text is None:
        return None
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("it is not a table")
        _check_version(data.get("version"), source)
        return _recipe(data)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"{source} does not say what its weights are: its {SPEC_KEY} cannot be read ({first_line(error)}).",
            "Train or import the weights again.",
        ) from error


def _check_version(version: object, source: str) -> None:
    if version == VERSION and type(version) is int:
        return
    if type(version) is int and version > VERSION:
        raise WeightsError(
            f"{source} describes its weights in version {version} of the format; this rtformer-deploy reads version {VERSION}.",
            "Update it: pip install --upgrade rtformer-deploy",
        )
    raise ValueError(f"{version!r} is not a version")


def _recipe(data: Mapping[str, Any]) -> Recipe:
    """The document's recipe. Raises ValueError, TypeError or KeyError for what is missing or wrong."""
    where, arch = "the document", values.table(data, "arch")
    values.needed(arch, "name", "arch")
    name = values.needed(data, "name", where)
    if not name or PurePath(name).name != name or "\\" in name:
        raise ValueError(f"the name {name!r} is not a plain file name")
    mean, std = values.triple(data["mean"]), values.triple(data["std"])
    fault = normalisation_fault(mean, std)
    if fault is not None:
        raise ValueError(fault)
    return Recipe(
        name=name,
        arch=dict(arch),
        dataset=values.text(data, "dataset", where) or name,
        labels=_labels(data),
        size=values.size(values.table(data, "input")["shape"][2:]),
        mean=mean,
        std=std,
        resize=values.choice(data["resize"], ("stretch", "letterbox")),
    )


def _labels(data: Mapping[str, Any]) -> Labels:
    names, ignored = values.texts(data, "classes", "the document"), data.get("ignore_index", 255)
    palette = tuple(values.colour(colour) for colour in data["palette"])
    if not 1 <= len(names) <= 255 or len(palette) != len(names):
        raise ValueError(f"it has {len(names)} classes and {len(palette)} colours")
    if type(ignored) is not int or not 0 <= ignored <= 255:
        raise ValueError(f"the ignored id is {ignored!r}")
    return Labels(names, palette, ignored)
