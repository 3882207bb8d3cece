"""How the weights of rtformer-slim-camvid are trained: the options that the scripts of training share. models/rtformer-slim-camvid.md has
the whole command."""

from __future__ import annotations

from typing import Any

RECIPE = "rtformer-slim-camvid"
HELD_OUT = "train:0001TP:3/3"  # the card: no run was trained on these frames

#: The fields of TrainOptions that the first run had beside its sizes, steps and learning rate.
OPTIONS: dict[str, Any] = {
    "size": (360, 480), "batch": 8, "crop": (256, 256), "drop_path": 0.05, "balance": 1.1, "scale": (0.75, 2.0), "colour": 0.3,
    "rare": 0.35, "paste": 0.2,
}  # fmt: skip
