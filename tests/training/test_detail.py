"""STDC's detail loss: the target against one counted pixel by pixel, the losses against their formulas, any number of auxiliary outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtformer_deploy.nn.architecture import Auxiliary
from rtformer_deploy.training.detail import detail_losses, detail_target
from rtformer_deploy.training.losses import Loss


def counted_target(label: NDArray[np.int64]) -> NDArray[np.float32]:
    """The official rule, pixel by pixel: 6/10, 3/10 and 1/10 of the boundaries at strides 1, 2 and 4 are together above 1/10."""
    height, width = label.shape
    padded = np.pad(label, 1)

    def edge(y: int, x: int) -> bool:
        return bool(9 * padded[y + 1, x + 1] - padded[y : y + 3, x : x + 3].sum() > 0)

    target = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            tenths = 0
            for stride, share in ((1, 6), (2, 3), (4, 1)):
                rows, columns = -(-height // stride), -(-width // stride)
                tenths += share * edge(y * rows // height * stride, x * columns // width * stride)
            target[y, x] = tenths > 1
    return target


@pytest.mark.parametrize("size", [(12, 16), (7, 9)])
def test_the_target_is_the_official_one(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0])
    labels = rng.integers(0, 4, (2, *size)).repeat(2, 1).repeat(2, 2)[:, : size[0], : size[1]]
    labels[1, 2:5, 3:8] = 255
    wanted = np.stack([counted_target(label) for label in labels])
    found = detail_target(torch.from_numpy(labels), 255)[:, 0].numpy()
    assert 0.1 < wanted.mean() < 0.9
    assert np.array_equal(found, wanted)


def test_what_is_ignored_has_the_same_target_in_every_dataset() -> None:
    labels = torch.zeros(1, 6, 6, dtype=torch.long)
    labels[0, 2:4, 2:4], labels[0, :, 5] = 3, 255
    other = labels.clone()
    other[labels == 255] = 11
    assert torch.equal(detail_target(labels, 255), detail_target(other, 11))


def test_the_two_losses_are_their_formulas() -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[:, 4:] = 1
    labels[1, :, 4:] = 2
    logits = torch.linspace(-3, 3, 2 * 64).view(2, 1, 8, 8)
    target = detail_target(labels, 255)
    bce, dice = detail_losses(logits, labels, 255)
    found = [1 / (1 + math.exp(-value)) for value in logits.flatten().tolist()]
    wanted = [math.log(share if truth else 1 - share) for share, truth in zip(found, target.flatten().tolist(), strict=True)]
    assert bce.item() == pytest.approx(-sum(wanted) / len(wanted), rel=1e-5)
    overlaps = []
    for image in range(2):
        shares, truth = np.array(found[64 * image : 64 * (image + 1)]), target[image].flatten().numpy()
        overlaps.append((2 * (shares * truth).sum() + 1) / (shares.sum() + truth.sum() + 1))
    assert dice.item() == pytest.approx(1 - np.mean(overlaps), rel=1e-5)


def test_small_logits_are_enlarged_with_corners_that_meet() -> None:
    labels = torch.ones(1, 5, 5, dtype=torch.long)
    small = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).view(1, 1, 2, 2)
    rows, columns = torch.meshgrid(torch.linspace(0, 8, 5), torch.linspace(0, 4, 5), indexing="ij")
    for one, other in zip(detail_losses(small, labels, 255), detail_losses((rows + columns)[None, None], labels, 255), strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-5)


def test_every_auxiliary_output_has_its_part_and_its_weight() -> None:
    kinds = (Auxiliary("aux16"), Auxiliary("aux32", weight=0.5), Auxiliary("detail", "boundary", 2.0))
    loss = Loss(255, auxiliaries=kinds)
    generator = torch.Generator().manual_seed(0)
    logits, first, second = (torch.randn(2, 3, 4, 6, generator=generator) for _ in range(3))
    detail, labels = torch.randn(2, 1, 4, 6, generator=generator), torch.randint(0, 3, (2, 32, 48), generator=generator)
    total, *parts = loss(logits, first, second, detail, labels)
    assert loss.names == ("main", "aux16", "aux32", "detail_bce", "detail_dice")
    wanted = [*(loss.one(each, labels) for each in (logits, first, second)), *detail_losses(detail, labels, 255)]
    assert parts == wanted
    main, one, two, bce, dice = (part.item() for part in parts)
    assert total.item() == pytest.approx(main + one + 0.5 * two + 2 * bce + 2 * dice, rel=1e-6)
    with pytest.raises(ValueError, match="shorter"):
        loss(logits, first, labels)


def test_one_auxiliary_output_is_weighed_as_ever() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, aux = (torch.randn(2, 3, 4, 6, generator=generator) for _ in range(2))
    labels = torch.randint(0, 3, (2, 32, 48), generator=generator)
    loss = Loss(255)
    total, main, extra = loss(logits, aux, labels)
    assert loss.names == ("main", "aux")
    assert torch.equal(total, loss.one(logits, labels) + 0.4 * loss.one(aux, labels))
    assert (main, extra) == (loss.one(logits, labels), loss.one(aux, labels))
