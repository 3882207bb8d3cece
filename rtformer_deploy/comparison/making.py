"""A model in each format: built into a folder, or the reason why not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from ..backends.here import can_run_here
from ..errors import DeployError, EngineError, MissingPackageError, WeightsError, is_interrupted
from ..files import size_of_file
from ..formats.engine_file import load_engine, save_engine
from ..formats.recipe import load_recipe, recipe_names
from ..machine import require
from ..nvidia.driver import why_none
from ..pipeline import build_alone, opening_notes
from ..types import BuildOptions, Engine, ModelSpec, PrecisionFound, Progress, Ranges
from .contestant import AsNetwork, Contestant
from .formats import Format
from .records import Journal, Planned

if TYPE_CHECKING:
    from torch import nn

Status = Literal["done", "built, not run here", "failed"]


@dataclass(frozen=True, slots=True)
class Made:
    """A format of a model. `contestant` is what can run on this machine, None if nothing can; then `reason` says why.

    `size` is the file's in bytes, `precision` what its layers have.
    """

    format: Format
    status: Status
    reason: str | None = None
    contestant: Contestant | None = None
    size: int | None = None
    precision: PrecisionFound | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Maker:
    """A model and what its formats are made with. `ranges` are INT8's, or the error that says why there are none.

    `journal` keeps the hashes of the plans: one that an interrupted run of the same model left in `folder` is taken as it is.
    """

    model: ir.Model
    spec: ModelSpec
    folder: Path
    ranges: Ranges | DeployError
    journal: Journal
    weights: Path | None = None
    threads: int | None = None
    device: int = 0

    def make(self, format_: Format, progress: Progress) -> Made:
        """One format of the model. It raises no DeployError: what is missing or fails is the reason."""
        try:
            return self._network(format_) if format_.backend is None else self._engine(format_, progress)
        except MissingPackageError as error:
            return Made(format_, "failed", f"the package {error.package} is not installed. {error.hint}.")
        except DeployError as error:
            if is_interrupted(error):
                raise
            return Made(format_, "failed", reason_of(error))

    def _network(self, format_: Format) -> Made:
        require("torch", "export", format_.name)
        from ..backends.torch.run import layer_precisions
        from ..backends.verdict import judge

        path = self.weights or _shipped(self.spec)
        network = AsNetwork(self.spec.size, self._batch, format_.compiled)
        precision = judge(format_.precision, layer_precisions(_own_network(path, self.spec)), "cpu")
        contestant = Contestant(format_.name, str(path), self.threads, self.device, network)
        return Made(format_, "done", None, contestant, size_of_file(path, WeightsError), precision)

    def _engine(self, format_: Format, progress: Progress) -> Made:
        assert format_.backend is not None
        batch = self._batch
        options = BuildOptions(precision=format_.precision, batch=(batch, batch, batch), threads=self.threads, device=self.device)
        ranges = self.ranges if format_.precision == "int8" else None
        if isinstance(ranges, DeployError):
            raise ranges
        path = self.folder / format_.file_name
        engine = self._kept(format_, path)
        if engine is None:
            provider = format_.provider
            engine = build_alone(self.model, self.spec, format_.backend, options, ranges=ranges, provider=provider, progress=progress)
            save_engine(engine, path)
            self.journal.add(Planned(format_.name, engine.info.plan_sha256))
        reason = self._why_not_here(engine)
        contestant = None if reason else Contestant(format_.name, str(path), self.threads, self.device)
        status: Status = "built, not run here" if reason else "done"
        return Made(format_, status, reason, contestant, len(engine.plan), engine.info.precision, engine.info.notes)

    def _kept(self, format_: Format, path: Path) -> Engine | None:
        """The plan that the journal knows of a format; None if there is none, or it is damaged or another."""
        known = self.journal.plans().get(format_.name)
        try:
            engine = load_engine(path) if known is not None else None
        except EngineError:
            return None
        return engine if engine is not None and engine.info.plan_sha256 == known else None

    def _why_not_here(self, engine: Engine) -> str | None:
        """Why this machine cannot run an engine; None if it may."""
        if not can_run_here(engine):
            return f"there is no GPU here ({why_none()})."
        return next(iter(opening_notes(self.spec, engine.info.backend)), None)

    @property
    def _batch(self) -> int:
        """The model's batch; one if it is free."""
        batch = self.spec.input.shape[0]
        return batch if isinstance(batch, int) else 1


def reason_of(error: DeployError) -> str:
    """A DeployError as a row's reason, in one line."""
    return " ".join(line.strip() for line in error.lines)


def _shipped(spec: ModelSpec) -> Path:
    """The weights that come with a model's recipe. Raises WeightsError if there are none."""
    path = load_recipe(spec.name).weights if spec.name in recipe_names() else None
    if path is None or not os.path.isfile(path):
        raise WeightsError(f"It needs the weights of the model, and none come with {spec.name}.", "Give them with --weights FILE.")
    return path


def _own_network(path: Path, spec: ModelSpec) -> nn.Module:
    """The network in a file of weights. Raises WeightsError if they are not those of the model, by their hash."""
    from ..export.weights_choice import network_in

    if spec.sha256 is None:
        raise WeightsError("The model does not say which weights it holds, so none can be known to be its own.")
    choice = network_in(path)
    if choice.sha256 != spec.sha256:
        what = f"{path} holds other weights than the model: {choice.sha256[:12]}, and the model's are {spec.sha256[:12]}."
        raise WeightsError(what, "Give those that the model was exported from with --weights FILE.")
    return choice.network
