"""Checkpoints of SegFormer: the keys that transformers has since 5.9 are ours; the older ones, which it still saves, are translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .foreign import Renaming, Translated

if TYPE_CHECKING:
    from .segformer import SegFormerConfig

_BLOCK = {
    "layer_norm_1": "layernorm_before",
    "layer_norm_2": "layernorm_after",
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.self.sr": "attention.sequence_reduction.sequence_reduction",
    "attention.self.layer_norm": "attention.sequence_reduction.layer_norm",
    "attention.output.dense": "attention.o_proj",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
    "mlp.dwconv": "mlp.dwconv",
}
#: The names before 5.9 and ours.
BEFORE_5_9 = Renaming(
    [
        *((f"segformer.encoder.block.*.*.{old}", f"segformer.stages.*.blocks.*.{ours}") for old, ours in _BLOCK.items()),
        ("segformer.encoder.patch_embeddings.*", "segformer.stages.*.patch_embeddings"),
        ("segformer.encoder.layer_norm.*", "segformer.stages.*.layer_norm"),
        ("decode_head.linear_c", "decode_head.linear_projections"),
    ]
)


def translate(state: Mapping[str, Tensor], config: SegFormerConfig) -> Translated:
    """A checkpoint of transformers -> its tensors by our keys."""
    if not any(key.startswith("segformer.encoder.") for key in state):
        return Translated(dict(state))
    return Translated(BEFORE_5_9.apply(state), BEFORE_5_9.theirs)
