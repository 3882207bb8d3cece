"""A run is refused before its first step if its network cannot take the run's sizes or options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_training import small_recipe, write_dataset

from rtformer_deploy.datasets import open_dataset
from rtformer_deploy.errors import DeployError
from rtformer_deploy.training.options import TrainOptions
from rtformer_deploy.training.run import TrainingRun


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (50, 64)}, r"multiples of 8, and 50x64 is not\.\nThe nearest size is 48x64"),
        ({"final_crop": (48, 60)}, "multiples of 8, and 48x60 is not"),
        ({"drop_path": 0.1}, r"The architecture ddrnet has no drop path\.\nLeave --drop-path out"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    dataset = write_dataset(tmp_path / "data", frames=2)
    recipe = replace(small_recipe(dataset), arch={"name": "ddrnet", "planes": 8, "spp_planes": 16, "head_planes": 8})
    split = open_dataset(str(dataset), dataset.parent, "train")
    with pytest.raises(DeployError, match=message):
        TrainingRun(recipe, TrainOptions(dataset.parent, tmp_path / "run", batch=2, threads=1, **options), split, [split])
