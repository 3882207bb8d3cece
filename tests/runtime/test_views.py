"""Frames seen in parts and several times: tiles with blended overlaps, mirrored and scaled views."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from helpers import tiny_spec

from rtformer_deploy.errors import UsageError
from rtformer_deploy.image.tiles import tile_windows
from rtformer_deploy.image.upsample import upsample_argmax, upsampled
from rtformer_deploy.runtime.augmented import AugmentedRunner
from rtformer_deploy.runtime.cpu_session import preprocess_frames
from rtformer_deploy.runtime.tiled import TiledRunner
from rtformer_deploy.types import Frame, Head, LabelMap, Logits, ModelSpec


class Blocks:
    """An engine whose logits are fixed mixtures of each 8x8 block's colours and of the whole input's, as RTFormer sees its whole input."""

    def __init__(self, size: tuple[int, int] = (32, 48), head: Head = "lowres") -> None:
        spec = tiny_spec()
        shape = dataclasses.replace(spec.input, shape=(1, 3, *size))
        self.spec: ModelSpec = dataclasses.replace(spec, input=shape, head=head)
        self._mix = np.random.default_rng(1).standard_normal((len(spec.classes), 3)).astype(np.float32)

    def logits(self, frames: Sequence[Frame]) -> Logits:
        images = np.zeros((len(frames), 3, *self.spec.size), np.float32)
        preprocess_frames(frames, self.spec, images)
        blocks = images.reshape(len(frames), 3, self.spec.size[0] // 8, 8, self.spec.size[1] // 8, 8).mean(axis=(3, 5))
        whole = images.mean(axis=(2, 3), keepdims=True)
        mixed: Logits = np.einsum("kc,nchw->nkhw", self._mix, blocks - whole).astype(np.float32)
        return mixed

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        pairs = zip(frames, self.logits(frames), strict=True)
        return [upsample_argmax(values, frame.shape[:2], self.spec.size, self.spec.resize) for frame, values in pairs]


def picture(height: int, width: int) -> Frame:
    return (
        np.random.default_rng(height)
        .integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
        .repeat(5, 0)
        .repeat(5, 1)[:height, :width]
    )


def softmax(logits: Logits, size: tuple[int, int], spec: ModelSpec) -> Logits:
    planes = np.stack(list(upsampled(logits, size, spec.size, spec.resize)))
    powers = np.exp(planes - planes.max(axis=0))
    share: Logits = powers / powers.sum(axis=0)
    return share


@pytest.mark.parametrize(("size", "overlap"), [((70, 100), 8), ((32, 200), 0), ((33, 49), 24), ((20, 60), 4), ((500, 48), 10)])
def test_tiles_cover_the_frame_and_overlap_enough(size: tuple[int, int], overlap: int) -> None:
    windows = tile_windows(size, (32, 48), overlap)
    times = np.zeros(size, int)
    for part in windows:
        assert (part.height, part.width) == (min(32, size[0]), min(48, size[1]))
        times[part.top : part.top + part.height, part.left : part.left + part.width] += 1
    assert times.min() >= 1
    tops, lefts = sorted({part.top for part in windows}), sorted({part.left for part in windows})
    assert all(next_one - one <= 32 - overlap for one, next_one in itertools.pairwise(tops))
    assert all(next_one - one <= 48 - overlap for one, next_one in itertools.pairwise(lefts))


@pytest.mark.parametrize("size", [(70, 100), (32, 130), (20, 100)])
def test_outside_overlaps_the_labels_are_each_tiles_own(size: tuple[int, int]) -> None:
    engine, frame = Blocks(), picture(*size)
    (labels,) = TiledRunner(engine, 8).run([frame])
    windows = tile_windows(size, engine.spec.size, 8)
    times, alone = np.zeros(size, int), np.zeros(size, np.uint8)
    for part in windows:
        place = slice(part.top, part.top + part.height), slice(part.left, part.left + part.width)
        (alone[place],) = engine.run([np.ascontiguousarray(frame[place])])
        times[place] += 1
    assert (times == 1).mean() > 0.3
    np.testing.assert_array_equal(labels[times == 1], alone[times == 1])


def test_in_an_overlap_the_logits_are_averaged_by_the_distance_to_the_tiles_edge() -> None:
    engine, frame = Blocks((32, 48)), picture(32, 80)
    (labels,) = TiledRunner(engine, 16).run([frame])  # tiles at 0 and 32; they share columns 32 to 47
    left, right = (np.stack(list(upsampled(engine.logits([part])[0], (32, 48), (32, 48)))) for part in (frame[:, :48], frame[:, 32:]))
    steps = np.arange(16)
    mean = left[:, :, 32:] * (16 - steps) + right[:, :, :16] * (steps + 1)
    margins = np.sort(mean, axis=0)
    clear = margins[-1] - margins[-2] > 1e-4
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(labels[:, 32:48][clear], mean.argmax(axis=0)[clear])
    assert (labels[:, 32:48] != engine.run([frame[:, :48]])[0][:, 32:]).any()


def test_a_frame_that_fits_is_not_cut() -> None:
    engine, frame = Blocks(), picture(30, 40)
    np.testing.assert_array_equal(TiledRunner(engine, 8).run([frame])[0], engine.run([frame])[0])


def test_views_need_logits_and_tiles_an_overlap_below_their_size() -> None:
    for make in (lambda: TiledRunner(Blocks(head="labels"), 8), lambda: AugmentedRunner([Blocks(head="labels")], True)):
        with pytest.raises(UsageError, match="need logits"):
            make()
    for overlap in (32, 25):  # nearly the whole of a tile would mean a tile a pixel
        with pytest.raises(UsageError, match=f"cannot overlap by {overlap} pixels.\nChoose 0 to 24."):
            TiledRunner(Blocks(), overlap)
    TiledRunner(Blocks(), 24)


def test_mirrored_and_scaled_views_are_averaged_as_softmax() -> None:
    runners, frame = [Blocks((32, 48)), Blocks((48, 72))], picture(75, 110)
    size = (75, 110)
    (labels,) = AugmentedRunner(runners, flip=True).run([frame])
    views = [softmax(runner.logits([frame])[0], size, runner.spec) for runner in runners]
    views += [softmax(runner.logits([np.ascontiguousarray(frame[:, ::-1])])[0], size, runner.spec)[:, :, ::-1] for runner in runners]
    mean = sum(views)
    top = np.sort(mean, axis=0)
    clear = top[-1] - top[-2] > 1e-5
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(labels[clear], np.argmax(mean, axis=0)[clear])


def test_probabilities_are_averaged_as_they_are() -> None:
    runner, frame = Blocks(), picture(64, 90)
    runner.spec = dataclasses.replace(runner.spec, probabilities=True)
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    one, other = (np.stack(list(upsampled(values, (64, 90), runner.spec.size))) for values in runner.logits([frame, mirrored]))
    (labels,) = AugmentedRunner([runner], flip=True).run([frame])
    mean = one + other[:, :, ::-1]
    margin = np.diff(np.sort(mean, axis=0)[-2:], axis=0)[0]
    assert ((labels == mean.argmax(0)) | (margin < 1e-5)).all()


def test_a_mirrored_frame_gives_mirrored_labels_if_both_are_looked_at() -> None:
    runner, frame = AugmentedRunner([Blocks()], flip=True), picture(64, 90)
    (labels,), (mirrored,) = runner.run([frame]), runner.run([np.ascontiguousarray(frame[:, ::-1])])
    assert (labels == mirrored[:, ::-1]).mean() > 0.999
