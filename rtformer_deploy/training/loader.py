"""A dataset -> batches of random views, made ahead in threads; batch k is a function of the seed and k alone.

torch's DataLoader is not used: its workers are processes, each of which would keep its own decoded frames, and a run that goes on at step k
needs batch k without the ones before it. OpenCV leaves Python's lock alone while it works, so threads are enough.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets import Dataset
from ..evaluation.census import Census
from ..types import Frame, LabelMap
from .augment import Augmentation, random_view
from .schedule import Schedule

#: Views (N, H, W, 3) and their label maps (N, H, W).
Batch = tuple[NDArray[np.uint8], NDArray[np.uint8]]

#: A class with a smaller share of the pixels than this is rare, and is pasted.
RARE_SHARE = 0.02


class Frames:
    """The samples of a dataset by index, kept decoded in memory up to `limit` bytes. Threads may share it."""

    def __init__(self, dataset: Dataset, limit: int = 2 << 30) -> None:
        self.dataset = dataset
        self._left = limit
        self._kept: dict[int, tuple[Frame, LabelMap]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> tuple[Frame, LabelMap]:
        entry = self._kept.get(index)
        if entry is not None:
            return entry
        frame, label = self.dataset.load(index)
        with self._lock:
            if index not in self._kept and frame.nbytes + label.nbytes <= self._left:
                self._kept[index] = frame, label
                self._left -= frame.nbytes + label.nbytes
        return frame, label


@dataclass(frozen=True, slots=True)
class Sampling:
    """How samples are drawn: `rare` is the share of views made around a pixel of a class drawn with a weight of
    1/sqrt(its share of the pixels); `paste` the share of views onto which the rare classes of a second view are pasted."""

    rare: float = 0.0
    paste: float = 0.0


class Batches:
    """Batch k of the run: (views (N, H, W, 3) uint8, labels (N, H, W) uint8), drawn from the seed, the schedule and k."""

    def __init__(
        self, dataset: Dataset, schedule: Schedule, options: Augmentation, sampling: Sampling, census: Census | None, seed: int
    ) -> None:
        self.frames = Frames(dataset)
        self.schedule, self.options, self.sampling, self.census, self.seed = schedule, options, sampling, census, seed
        self.ignore = dataset.labels.ignore_index
        if census is not None:
            shares = census.shares
            weights = np.where(shares > 0, 1 / np.sqrt(np.maximum(shares, 1e-5)), 0.0)
            self._class_weights = weights / weights.sum()
            self._rare_classes = np.flatnonzero((shares > 0) & (shares < RARE_SHARE))

    def batch(self, step: int) -> Batch:
        """The batch of step `step`."""
        stage = self.schedule.stage(step)
        first = self.schedule.first_sample(step)
        views = [self._view(first + number, stage.crop) for number in range(stage.batch)]
        return np.stack([view for view, _ in views]), np.stack([label for _, label in views])

    def _view(self, number: int, crop: tuple[int, int]) -> tuple[Frame, LabelMap]:
        rng = np.random.default_rng((self.seed, 1, number))
        view, label = self._draw(self._in_turn(number), crop, rng)
        if self.census is not None and rng.random() < self.sampling.paste:
            other, other_label = self._draw(self._in_turn(number), crop, rng, always_rare=True)
            mask = np.isin(other_label, self._rare_classes)
            view[mask], label[mask] = other[mask], other_label[mask]
        return view, label

    def _draw(self, index: int, crop: tuple[int, int], rng: np.random.Generator, always_rare: bool = False) -> tuple[Frame, LabelMap]:
        around = None
        if self.census is not None and (always_rare or rng.random() < self.sampling.rare):
            class_id = int(rng.choice(len(self._class_weights), p=self._class_weights))
            index = int(rng.choice(np.flatnonzero(self.census.counts[:, class_id])))
            label = self.frames[index][1]
            pixels = np.flatnonzero(label.ravel() == class_id)
            y, x = divmod(int(pixels[rng.integers(len(pixels))]), label.shape[1])
            around = (y, x)
        frame, label = self.frames[index]
        return random_view(frame, label, crop, self.options, self.ignore, rng, around)

    def _in_turn(self, number: int) -> int:
        """The sample of draw `number`: every sample once an epoch, in an order drawn for that epoch."""
        epoch, place = divmod(number, len(self.frames.dataset))
        order: NDArray[np.int64] = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.frames.dataset))
        return int(order[place])

    def ahead(self, start: int, stop: int, threads: int) -> Generator[Batch, None, None]:
        """The batches of steps `start` to `stop`, in order, made by `threads` threads up to four batches each ahead."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="loader") as pool:
            try:
                for step in range(start, stop):
                    while len(waiting) < 4 * threads and step + len(waiting) < stop:
                        waiting.append(pool.submit(self.batch, step + len(waiting)))
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
