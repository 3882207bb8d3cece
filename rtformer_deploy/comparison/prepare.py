"""One who takes part -> an engine on disk, built with the same steps as `export` and `build-engine`. One that fits is taken as it is."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from .. import machine
from ..backends import backend_row
from ..errors import DeployError, EngineError, RecipeError, WeightsError
from ..files import PLAN_BYTES, json_bytes, read_text, sha256, sha256_of, write_atomic
from ..formats.conversion import convert_tolerant
from ..formats.documents import JSON_BYTES, DocumentError, parse_json
from ..formats.engine_file import load_info, save_engine
from ..formats.external_model import ExternalModel
from ..formats.model_file import load_stamped, serialize_model
from ..formats.preprocessing import prepared, scale_fault
from ..formats.safetensors_file import is_weights
from ..graph.quantised import refuse_quantised
from ..graph.work import work_of
from ..pipeline import build_engine, export_model, read_model
from ..types import Backend, BuildOptions, Count, EngineInfo, Feedback, ModelSpec, PrecisionName, Ranges, Say, Sha256, scaled_size
from .suite import SEED, Entrant

if TYPE_CHECKING:
    from ..export.weights_choice import Choice

#: Takes a model, its spec and its file (None: it has none), and finds its ranges for INT8.
FindRanges = Callable[[ir.Model, ModelSpec, Path | None], Ranges]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How all of them are built, for frames of (H, W) `frame_size`, and the folder where their plans are kept.

    `find_ranges` is for INT8, and `images` says which images it measures them on.
    """

    folder: Path
    frame_size: tuple[int, int]
    backend: Backend
    precision: PrecisionName
    find_ranges: FindRanges
    images: str | None = None
    threads: int | None = None
    device: int = 0
    external: ExternalModel = field(default_factory=ExternalModel)

    def plan(self, entrant: Entrant) -> Path:
        return self.folder / f"{entrant.name}.plan"

    def facts(self, entrant: Entrant) -> Path:
        """What is known of a plan besides its sidecar."""
        return self.folder / f"{entrant.name}.facts.json"


@dataclass(frozen=True, slots=True)
class Built:
    """A plan on disk, what it is, and how much it computes; `parameters` are the network's, without what only training uses."""

    plan: Path
    info: EngineInfo
    parameters: int
    macs: int | None
    products: int | None

    @property
    def all_macs(self) -> int | None:
        """Multiplications with weights and between activations; None if the graph does not say some size."""
        return None if self.macs is None or self.products is None else self.macs + self.products

    @property
    def plan_mb(self) -> float:
        return os.path.getsize(self.plan) / 2**20

    def to_json(self) -> dict[str, Any]:
        spec, precision = self.info.spec, self.info.precision
        return {
            "model": spec.name,
            "weights": spec.weights,
            "classes": len(spec.classes),
            "input": list(spec.size),
            "parameters": self.parameters,
            "macs": self.macs,
            "products": self.products,
            "backend": self.info.backend,
            "builder_version": self.info.builder_version,
            "precision_asked": precision.asked,
            "precision_found": precision.state,
            "layers": dict(precision.layers),
            "flips": self.info.flips,
            "notes": list(self.info.notes),
            "plan_mb": round(self.plan_mb, 2),
        }


@dataclass(frozen=True, slots=True)
class _Facts:
    """The document beside a plan: what it was made of, as a hash, and what the plan's sidecar does not say."""

    key: Sha256
    plan_sha256: Sha256
    parameters: Count
    macs: Count | None
    products: Count | None


def key_of(entrant: Entrant, preparation: Preparation) -> str:
    """The hash of what an entrant's plan and its speed depend on. Raises the DeployError of a file that cannot be read."""
    row = backend_row(preparation.backend)
    what: dict[str, Any] = {
        "versions": machine.versions(("rtformer-deploy", row.package, "torch")),
        "backend": preparation.backend,
        "precision": preparation.precision,
        "images": preparation.images,
        "device": preparation.device if row.on_gpu else None,
    }
    network, file = entrant.network, entrant.file
    if network is not None:
        what |= {"arch": dict(network.recipe.arch), "classes": network.recipe.labels.names, **prepared(network.recipe)}
        what |= {"seed": SEED} if file is None else {"weights": sha256_of(file, WeightsError, "weights")}
        what["frame"] = preparation.frame_size
    elif file is not None and is_weights(file):
        what |= {"weights": sha256_of(file, WeightsError, "weights"), "frame": preparation.frame_size}
    else:
        model, spec = _read(entrant, preparation)
        what |= {"model": sha256(serialize_model(model)), **prepared(spec)}
    return sha256(json.dumps(what, sort_keys=True).encode())


def prepare(entrant: Entrant, preparation: Preparation, key: str, feedback: Feedback) -> Built:
    """An entrant and its `key_of` -> its plan: the one in the folder if it was built of the same, else a new one.

    Raises the DeployError of what fails.
    """
    kept = _kept(entrant, preparation, key)
    if kept is not None:
        return kept
    model, spec, parameters = _model(entrant, preparation, feedback.say)
    work = work_of(model)
    engine = build_engine(
        model,
        spec,
        preparation.backend,
        _options(preparation, spec),
        ranges=_ranges(entrant, model, spec, preparation),
        progress=feedback.progress,
    )
    plan = preparation.plan(entrant)
    save_engine(engine, plan)
    facts = _Facts(key, engine.info.plan_sha256, work.parameters if parameters is None else parameters, work.macs, work.products)
    write_atomic(preparation.facts(entrant), json_bytes({"version": 1, **dataclasses.asdict(facts)}))
    return _built(plan, engine.info, facts)


def _kept(entrant: Entrant, preparation: Preparation, key: str) -> Built | None:
    """The plan of an earlier run; None if there is none of this key, or it is damaged."""
    plan, path = preparation.plan(entrant), preparation.facts(entrant)
    if not os.path.isfile(plan) or not os.path.isfile(path):
        return None
    try:
        facts, _ = convert_tolerant(parse_json(read_text(path, EngineError, "facts about a plan", JSON_BYTES)), _Facts)
        info = load_info(plan)
    except (DocumentError, DeployError):
        return None
    if facts.key != key or {info.plan_sha256, facts.plan_sha256} != {sha256_of(plan, EngineError, "an engine plan", PLAN_BYTES)}:
        return None
    return _built(plan, info, facts)


def _built(plan: Path, info: EngineInfo, facts: _Facts) -> Built:
    return Built(plan, info, facts.parameters, facts.macs, facts.products)


def _options(preparation: Preparation, spec: ModelSpec) -> BuildOptions:
    batch = spec.input.shape[0]
    sizes = (batch, batch, batch) if isinstance(batch, int) else (1, 1, 1)
    return BuildOptions(preparation.precision, sizes, threads=preparation.threads, device=preparation.device)


def _ranges(entrant: Entrant, model: ir.Model, spec: ModelSpec, preparation: Preparation) -> Ranges | None:
    if preparation.precision != "int8":
        return None
    refuse_quantised(model)
    return preparation.find_ranges(model, spec, entrant.file if entrant.is_own else None)


def _model(entrant: Entrant, preparation: Preparation, say: Say) -> tuple[ir.Model, ModelSpec, int | None]:
    """An entrant -> its model, what it is, and the network's parameters (None: those that the model holds)."""
    if entrant.is_own and entrant.file is not None and not is_weights(entrant.file):
        return *_read(entrant, preparation), None
    machine.require("torch", "export", "Exporting a network")
    choice = _choice(entrant, say)
    spec = choice.spec(size=_size(choice, preparation.frame_size))
    exported = export_model(choice.network, spec)
    return exported.model, exported.spec, sum(parameter.numel() for parameter in choice.network.parameters())


def _choice(entrant: Entrant, say: Say) -> Choice:
    from ..export.weights_choice import choose_network, network_in, random_network

    network, file = entrant.network, entrant.file
    if network is None:
        assert file is not None  # a model of the user's own
        return network_in(file)
    if file is None:
        return random_network(network.recipe, SEED)
    return choose_network(recipe=network.source, weights=file, say=say)


def _size(choice: Choice, frame_size: tuple[int, int]) -> tuple[int, int]:
    """The (H, W) of a network's input for a frame. Raises RecipeError if the frame has none at the network's scale."""
    size, scale = scaled_size(frame_size, choice.recipe.scale), choice.recipe.scale
    fault = scale_fault(size, scale)
    if fault is not None:
        raise RecipeError(f"{choice.recipe.name} takes {scale:g} of a frame, and {fault}.")
    return size


def _read(entrant: Entrant, preparation: Preparation) -> tuple[ir.Model, ModelSpec]:
    assert entrant.file is not None  # a model of the user's own
    foreign = load_stamped(entrant.file) is None
    return read_model(entrant.file, preparation.external if foreign else None, preparation.backend)
