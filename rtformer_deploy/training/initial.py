"""Copies the weights of another network as far as they fit, to train from a network with other classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import WeightsError
from ..nn import Translated


def load_fitting(network: nn.Module, read: Translated, path: Path) -> list[str]:
    """Copies every tensor of the same name and shape; returns what was left out, one line each. `path` names the tensors' file.

    Raises WeightsError if less than half of the network's values fit: these are another network's weights.
    """
    if read.differing:
        raise WeightsError(
            f"{path} holds second copies with other values:", "Download it again.", details=[f"  {key}" for key in read.differing]
        )
    loaded = read.weights
    targets = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    left_out, copied = list(read.notes), 0
    with torch.no_grad():
        for name, value in targets.items():
            if name not in loaded:
                left_out.append(f"{name}: not in the file, stays fresh")
            elif loaded[name].shape != value.shape:
                left_out.append(f"{name}: {list(loaded[name].shape)} in the file, {list(value.shape)} in the network, stays fresh")
            elif not loaded[name].is_floating_point():
                left_out.append(f"{name}: integers in the file, stays fresh")
            else:
                value.copy_(loaded[name])
                copied += value.numel()
    unused = (name for name in sorted(loaded.keys() - targets.keys()) if not name.endswith("num_batches_tracked"))
    left_out += [f"{read.in_file(name)}: only in the file" for name in unused]
    total = sum(value.numel() for value in targets.values())
    if 2 * copied < total:
        raise WeightsError(
            f"{path} fits only {copied} of the network's {total} values: these are another network's weights.",
            "Name the recipe that the weights belong to with --recipe.",
        )
    return left_out
