"""A dataset of six small pictures and a recipe of a small network: enough to train on in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rtformer_deploy.formats.recipe import Recipe, load_labels

CLASSES = ("sky", "road", "pole")


def write_dataset(folder: Path, frames: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    """Pictures whose colours tell their classes, in folders as CamVid's; returns the dataset file."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(frames):
            label = np.ones(size, np.uint8)
            label[: size[0] // 2] = 0
            label[size[0] // 4 :, 10 + 4 * number : 14 + 4 * number] = 2
            label[:2] = 9
            colours = np.array([[90, 140, 220], [90, 80, 80], [220, 200, 40]])[np.minimum(label, 2)]
            noisy = np.clip(colours + rng.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / "images" / split / f"{'night' if number % 2 else 'day'}_{number}.jpg", quality=95)
            Image.fromarray(label).save(folder / "labels" / split / f"{'night' if number % 2 else 'day'}_{number}.png")
    path = folder / "small.toml"
    path.write_text(
        'name = "small"\nignore_index = 9\nclasses = ["sky", "road", "pole"]\n'
        "palette = [[90, 140, 220], [90, 80, 80], [220, 200, 40]]\n"
        '[layout]\nimages = "images/{split}/{name}.jpg"\nlabels = "labels/{split}/{name}.png"\n'
    )
    return path


def small_recipe(dataset: Path) -> Recipe:
    """An RTFormer of 8 base channels for that dataset, at 48x64."""
    arch = {"name": "rtformer", "base_channels": 8, "head_channels": 16, "spp_channels": 16, "cross_size": 4, "drop_path": 0.1}
    return Recipe("small", arch, str(dataset), load_labels(str(dataset)), (48, 64))
