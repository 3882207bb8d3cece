"""Checkpoints of STDC: the official keys are ours once second copies and leftovers are gone; PaddleSeg's are translated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .foreign import Renaming, Translated, after, is_paddle

if TYPE_CHECKING:
    from .architecture import StateDict
    from .stdc import STDCConfig

BACKBONE = "cp.backbone."
#: What InPlaceABNSync adds to |weight|.
INPLACE_EPSILON = 1e-5

_BLOCKS = (("_conv", "conv"), ("_batch_norm", "bn"))
_PAIRS = [(f"{front}.{theirs}", f"{front}.{ours}") for theirs, ours in _BLOCKS for front in ("cp.arm*.conv", "cp.conv_*", "ffm.convblk")]
#: PaddleSeg's names and ours. Since November 2021 it calls the auxiliary heads by their own stride, before it called them as here.
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
_COUNTER = "num_batches_tracked"

_BIAS = "head_bias = true"
_COUNTED = (
    "The keys are PaddleSeg's. Its STDC leaves the padding out of its averages; this recipe's does not. If PaddleSeg trained these weights,"
    " the recipe's [architecture] needs count_padding = false, and its [input] PaddleSeg's mean and std."
)


def translate(state: StateDict, config: STDCConfig) -> Translated:
    """An STDC checkpoint, official or PaddleSeg's, without prefixes -> its tensors by our keys."""
    if all(not key.startswith("cp.") for key in state) and any(key.startswith("features.") for key in state):
        backbone = _of_backbone(state)
        return after(backbone, translate(backbone.weights, config))
    paddle = is_paddle(state)
    renaming = _paddle_renaming(state) if paddle else Renaming([])
    first, differing, copies = _without_copies(state, _starts(config, paddle))
    kept = {key: value for key, value in first.items() if not key.startswith(_CLASSIFIER)}
    left_out = {"second copies of the backbone's tensors": copies, "tensors of the ImageNet classifier": len(first) - len(kept)}
    listed = " and ".join(f"{count} {what}" for what, count in left_out.items() if count)
    weights, in_file, hint = renaming.apply(kept), renaming.theirs if paddle else lambda key: key, _hint(kept, config)
    return Translated(weights, in_file, paddle, tuple(differing), hint=hint).noting(
        f"Left out: {listed}." if listed else "", _COUNTED if paddle and config.count_padding else ""
    )


def with_inplace_norms(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Weights trained with InPlaceABNSync in the heads -> weights for plain batch norms, and how many changed: |weight| + 1e-5 is exact.

    InPlaceABNSync counts no batches, so a norm with a counter is a plain one and stays.
    """
    norms = [key.removesuffix("running_mean") for key in state if key.endswith(".running_mean") and not key.startswith(BACKBONE)]
    inplace = [f"{norm}weight" for norm in norms if f"{norm}weight" in state and norm + _COUNTER not in state]
    return {**state, **{key: _scale(state[key]) for key in inplace}}, len(inplace)


def _of_backbone(state: Mapping[str, Tensor]) -> Translated:
    """The keys of the backbone alone, as its training on ImageNet leaves them -> its keys in the whole network."""
    return Translated({BACKBONE + key: value for key, value in state.items()}, lambda key: key.removeprefix(BACKBONE))


def _scale(weight: Tensor) -> Tensor:
    """In float32 at least: FP16 would lose the epsilon."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32)).abs() + INPLACE_EPSILON


def _paddle_renaming(state: Mapping[str, Tensor]) -> Renaming:
    return PADDLE_BEFORE if any(key.startswith("conv_out32.") for key in state) else PADDLE


def _starts(config: STDCConfig, paddle: bool) -> dict[str, int]:
    """What to add to a copy's number for its place in `features`: PaddleSeg's copies count from 0 in each stage, the official do not."""
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
    if has and not config.head_bias:
        return f"PaddleSeg's STDC has biases in its heads: say {_BIAS} in the recipe's [architecture]."
    if config.head_bias and not has:
        return f"The official STDC has no biases in its heads: leave {_BIAS} out of the recipe's [architecture]."
    return None
