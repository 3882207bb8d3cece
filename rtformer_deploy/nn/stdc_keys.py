"""Checkpoints of STDC: the official keys are ours once second copies and leftovers are gone; PaddleSeg's are translated."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .foreign import Renaming, Translated, after, is_paddle

if TYPE_CHECKING:
    from .stdc import STDCConfig

BACKBONE = "cp.backbone."
#: What InPlaceABNSync adds to |weight|.
INPLACE_EPSILON = 1e-5

_BLOCKS = (("_conv", "conv"), ("_batch_norm", "bn"))
_PAIRS = [(f"{front}.{theirs}", f"{front}.{ours}") for theirs, ours in _BLOCKS for front in ("cp.arm*.conv", "cp.conv_*", "ffm.convblk")]
#: PaddleSeg's names and ours. It calls the auxiliary heads by the stride of their input; files before November 2021 do as the official ones.
_HEADS = [*_PAIRS, *((f"conv_out*.conv.{theirs}", f"conv_out*.conv.{ours}") for theirs, ours in _BLOCKS)]
PADDLE_BEFORE = Renaming(_HEADS)
PADDLE = Renaming(
    [
        *(
            (f"conv_out{one}.conv.{theirs}", f"conv_out{other}.conv.{ours}")
            for one, other in ((8, 16), (16, 32))
            for theirs, ours in _BLOCKS
        ),
        *((f"conv_out{one}.conv_out", f"conv_out{other}.conv_out") for one, other in ((8, 16), (16, 32))),
        *_HEADS,
    ]
)
_COPY = re.compile(rf"{re.escape(BACKBONE)}x(2|4|8|16|32)\.0\.(\d+)\.(.*)")
_CLASSIFIER = tuple(f"{BACKBONE}{part}." for part in ("conv_last", "fc", "bn", "linear"))
#: Heads for the details at other strides, which the published training does not use.
_UNUSED_HEADS = ("conv_out_sp2.", "conv_out_sp4.", "conv_out_sp16.")
_COUNTER = ".num_batches_tracked"

_BIAS = "attention_bias = true"
_COUNTED = (
    "The keys are PaddleSeg's. Its STDC leaves the padding out of its averages; this recipe's does not. If PaddleSeg trained these weights,"
    " the recipe's [architecture] needs count_padding = false."
)


def translate(state: Mapping[str, Tensor], config: STDCConfig) -> Translated:
    """An STDC checkpoint, official or PaddleSeg's, without prefixes -> its tensors by our keys."""
    if all(not key.startswith("cp.") for key in state) and any(key.startswith("features.") for key in state):
        return after(_of_backbone(state), translate(_of_backbone(state).weights, config))
    paddle = is_paddle(state)
    renaming = _paddle_renaming(state) if paddle else Renaming([])
    kept, differing, copies = _without_copies(state, _starts(config, paddle))
    dropped = {what: [key for key in kept if key.startswith(front)] for what, front in _LEFT_OUT.items()}
    for key in itertools.chain(*dropped.values()):
        del kept[key]
    counts = {"second copies of the backbone's tensors": copies} | {what: len(keys) for what, keys in dropped.items()}
    left_out = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return Translated(
        renaming.apply(kept), renaming.theirs if paddle else lambda key: key, paddle, tuple(differing), hint=_hint(kept, config)
    ).noting(f"Left out: {left_out}." if left_out else "", _COUNTED if paddle and config.count_padding else "")


def with_inplace_norms(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Weights trained with InPlaceABNSync in the heads -> weights for plain batch norms, and how many changed: |weight| + 1e-5 is exact."""
    norms = [key for key in state if not key.startswith(BACKBONE) and key.endswith(".weight") and _statistics(key) in state]
    return {**state, **{key: _scale(state[key]) for key in norms}}, len(norms)


_LEFT_OUT = {"tensors of the ImageNet classifier": _CLASSIFIER, "tensors of detail heads that the training does not use": _UNUSED_HEADS}


def _of_backbone(state: Mapping[str, Tensor]) -> Translated:
    """The keys of the backbone alone, as its training on ImageNet leaves them -> its keys in the whole network."""
    return Translated({BACKBONE + key: value for key, value in state.items()}, lambda key: key.removeprefix(BACKBONE))


def _scale(weight: Tensor) -> Tensor:
    """In float32 at least: FP16 has no room for the sum."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32)).abs() + INPLACE_EPSILON


def _statistics(weight: str) -> str:
    return weight.removesuffix("weight") + "running_mean"


def _paddle_renaming(state: Mapping[str, Tensor]) -> Renaming:
    return PADDLE_BEFORE if any(key.startswith("conv_out32.") for key in state) else PADDLE


def _starts(config: STDCConfig, paddle: bool) -> dict[str, int]:
    """Where each stage begins in `features`, added to a copy's number: PaddleSeg's copies count from 0 in each stage, the official do not."""
    first, second, _ = config.blocks
    starts = {"2": 0, "4": 1, "8": 2, "16": 2 + first, "32": 2 + first + second}
    return starts if paddle else dict.fromkeys(starts, 0)


def _without_copies(state: Mapping[str, Tensor], starts: Mapping[str, int]) -> tuple[dict[str, Tensor], list[str], int]:
    """The tensors with each second copy in the backbone left out, the copies that differ from their first, and how many there were."""
    kept: dict[str, Tensor] = {}
    copies: dict[str, str] = {}
    for key, value in state.items():
        match = _COPY.fullmatch(key)
        if match is None:
            kept[key] = value
        else:
            stage, number, rest = match.groups()
            copies[key] = f"{BACKBONE}features.{int(number) + starts[stage]}.{rest}"
    differing = [key for key, first in copies.items() if first in kept and not _equal(key, state[key], kept[first])]
    for key, first in copies.items():  # a file that has the copies alone is whole
        kept.setdefault(first, state[key])
    return kept, differing, len(copies)


def _equal(key: str, one: Tensor, other: Tensor) -> bool:
    return key.endswith(_COUNTER) or (one.shape == other.shape and torch.equal(one, other))


def _hint(state: Mapping[str, Tensor], config: STDCConfig) -> str | None:
    """How the recipe should be if the biases in front of the norms tell that it is the other form of the network."""
    has = any(key.startswith(("ffm.convblk", "cp.arm")) and key.endswith("conv.bias") for key in state)
    if has and not config.attention_bias:
        return f"PaddleSeg's STDC has biases in its heads: say {_BIAS} in the recipe's [architecture]."
    if config.attention_bias and not has:
        return f"The official STDC has no biases in its heads: leave {_BIAS} out of the recipe's [architecture]."
    return None
