"""Checkpoints of DDRNet: the official keys are ours; PaddleSeg's are translated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .foreign import Renaming, Translated, is_paddle

if TYPE_CHECKING:
    from .architecture import StateDict
    from .ddrnet import DDRNetConfig

#: PaddleSeg's names and ours.
PADDLE = Renaming(
    [
        ("conv1.0._conv", "conv1.0"),
        ("conv1.0._batch_norm", "conv1.1"),
        ("conv1.1._conv", "conv1.3"),
        ("conv1.1._batch_norm", "conv1.4"),
        *((f"layer5*.*.conv_bn_relu{number}._conv", f"layer5*.*.conv{number}") for number in (1, 2)),
        *((f"layer5*.*.conv_bn_relu{number}._batch_norm", f"layer5*.*.bn{number}") for number in (1, 2)),
        ("layer5*.*.conv_bn._conv", "layer5*.*.conv3"),
        ("layer5*.*.conv_bn._batch_norm", "layer5*.*.bn3"),
        ("layer*.*.conv_bn_relu._conv", "layer*.*.conv1"),
        ("layer*.*.conv_bn_relu._batch_norm", "layer*.*.bn1"),
        ("layer*.*.conv_bn._conv", "layer*.*.conv2"),
        ("layer*.*.conv_bn._batch_norm", "layer*.*.bn2"),
        ("compression*._conv", "compression*.0"),
        ("compression*._batch_norm", "compression*.1"),
        ("down3._conv", "down3.0"),
        ("down3._batch_norm", "down3.1"),
        ("down4.0._conv", "down4.0"),
        ("down4.0._batch_norm", "down4.1"),
        ("down4.1._conv", "down4.3"),
        ("down4.1._batch_norm", "down4.4"),
        *(
            (f"{theirs}.{part}", f"{ours}.{name}")
            for theirs, ours in (("head", "final_layer"), ("aux_head", "seghead_extra"))
            for part, name in (("bn1", "bn1"), ("conv_bn_relu._conv", "conv1"), ("conv_bn_relu._batch_norm", "bn2"), ("conv", "conv2"))
        ),
    ]
)
_PADDLES_OWN = 'padding = "same" and count_padding = false'
_BY_PADDLE = (
    "The keys are PaddleSeg's. Its DDRNet pads down3 on one side and its averages leave the padding out; this recipe's does not."
    f" If PaddleSeg trained these weights, the recipe's [architecture] needs {_PADDLES_OWN}, and its [input] PaddleSeg's mean and std."
)
_NOT_BY_PADDLE = (
    f"The keys are the official ones, and the recipe says {_PADDLES_OWN}, as PaddleSeg's DDRNet has it: the official network has neither."
)


def translate(state: StateDict, config: DDRNetConfig) -> Translated:
    """A DDRNet checkpoint, official or PaddleSeg's, without prefixes -> its tensors by our keys."""
    as_paddle = config.padding == "same" and not config.count_padding
    if not is_paddle(state):
        return Translated(state).noting(_NOT_BY_PADDLE if as_paddle else "")
    return Translated(PADDLE.apply(state), PADDLE.theirs, paddle=True).noting("" if as_paddle else _BY_PADDLE)
