"""How to train: every choice of a run, with its default."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError, shorten
from ..formats.folds import Fold
from .schedule import Schedule, Stage

_SCALES = (0.01, 100.0)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. Sizes are (H, W). Everything else is in the recipe.

    Steps use `crop` and `batch`; the last `final_share` of the steps use `final_crop` and `final_batch`.
    `balance` is the offset of the class weights 1 / ln(balance + share) (0: all classes weigh the same). `hold_out` is a prefix
    of names: the last third of the training frames that have it are not trained on but scored, as a second check. `rare` is the share
    of views made around a rare class, `paste` the share onto which another view's rare classes are pasted. `bit_depth` is that of the
    frames' files, as in `load_image`.
    `aux` is the weight of each auxiliary loss (None: the network's own), `heads` names further auxiliary heads, as `context`.
    `boundary` is how much more pixels near a boundary of classes count. `distill` is the weight of the loss that compares the network with
    its own average, from the end of the warm-up on.
    `fold`, as "1/4" or "DRIVE:1/4", holds out a stretch of every drive of train and scores it alone; see
    `formats.folds`. `also` names further splits to train on.
    `bn_momentum` is torch's: how much a batch moves the running statistics (PaddleSeg trains RTFormer with 0.9).
    """

    root: Path
    output: Path
    size: tuple[int, int] | None = None
    steps: int = 10_000
    batch: int = 8
    crop: tuple[int, int] | None = None
    final_batch: int | None = None
    final_crop: tuple[int, int] | None = None
    final_share: float = 0.0
    rate: float = 1e-3
    warmup: int = 300
    power: float = 0.9
    weight_decay: float = 0.05
    clip: float = 5.0
    drop_path: float | None = None
    bn_momentum: float = 0.1
    ema: float = 0.999
    aux: float | None = None
    heads: tuple[str, ...] = ()
    boundary: float = 0.0
    distill: float = 0.0
    ohem: float | None = None
    balance: float = 0.0
    scale: tuple[float, float] = (0.5, 2.0)
    colour: float = 0.4
    rare: float = 0.0
    paste: float = 0.0
    hold_out: str | None = None
    fold: str | None = None
    also: tuple[str, ...] = ()
    bit_depth: int | None = None
    init: Path | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    evaluate_every: int = 1000
    save_seconds: float = 300.0
    log_every: int = 20

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that no run can use."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not all(math.isfinite(each) for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, float)):
                raise UsageError(f"{field.name} is {value}, which is not a finite number.")
        if self.fold is not None:
            Fold.parse(self.fold)
        low, high = self.scale
        if not _SCALES[0] <= low <= high <= _SCALES[1]:
            bounds = f"from {_SCALES[0]:g} to {_SCALES[1]:g}, the smaller one first"
            raise UsageError(f"--scale {low:g} {high:g} is not a range of zooms: give two numbers {bounds}, such as 0.5 2.")
        if not (self.balance == 0 or self.balance > 1):
            raise UsageError(
                f"--balance {self.balance:g} gives weights that are negative or infinite: a class weighs 1 / ln(BALANCE + its share).",
                "Give 0, which weighs all classes the same, or a number above 1, such as 1.02.",
            )


#: Local paths, which the log leaves out: they mean nothing on another machine.
PATHS = frozenset({"root", "output", "init"})

#: What may differ when a run is resumed: where files lie, how often they are written, and how long the run is.
MAY_CHANGE = PATHS | frozenset({"steps", "threads", "device", "evaluate_every", "save_seconds", "log_every"})


#: Options that earlier versions wrote under another name.
_FORMER = {"paste": "mix"}


def check_resumed(before: Mapping[str, Any], now: TrainOptions) -> None:
    """Raises UsageError if a resumed run has other options than the run began with."""
    values, defaults = plain(now), _defaults()
    earlier = {key: before.get(key, before.get(_FORMER.get(key, key), defaults.get(key))) for key in values}
    changed = sorted(key for key in values if key not in MAY_CHANGE and earlier[key] != values[key])
    if changed:
        was = ", ".join(f"{key} was {shorten(repr(earlier[key]))}, is {values[key]!r}" for key in changed)
        raise UsageError(f"A resumed run keeps its options: {was}.", "Give the options that the run began with, or begin another run.")


def _defaults() -> dict[str, Any]:
    """What an option was before it was there: its default, after a round trip through JSON."""
    fields = dataclasses.fields(TrainOptions)
    data: dict[str, Any] = json.loads(json.dumps({each.name: each.default for each in fields if each.default is not dataclasses.MISSING}))
    return data


def make_schedule(options: TrainOptions, size: tuple[int, int]) -> Schedule:
    """The options' stages, learning rates and steps; `size` is the default of the crops. Raises UsageError."""
    if not 0 <= options.final_share <= 1 or options.steps < 1:
        raise UsageError("The share of the final steps lies between 0 and 1, and there is at least one step.")
    if min(options.batch, options.final_batch or options.batch) < 2:
        raise UsageError("A batch has at least 2 views: the pooled branch normalises over the batch alone.")
    stages = [Stage(options.crop or size, options.batch, 1 - options.final_share)]
    if options.final_share:
        stages.append(Stage(options.final_crop or size, options.final_batch or options.batch, options.final_share))
    return Schedule(options.steps, options.rate, options.warmup, options.power, tuple(stages))


def plain(options: TrainOptions) -> dict[str, Any]:
    """The options after a round trip through JSON."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return data
