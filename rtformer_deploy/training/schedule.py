"""What step k of n does: its learning rate, crop and batch. Pure functions of k and n, so a resumed run does not need to store them.

torch's lr_scheduler keeps a count of its own, which a checkpoint would have to hold, and which knows nothing of a run made longer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A share of the steps with one crop (H, W) and one batch."""

    crop: tuple[int, int]
    batch: int
    share: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up to `rate` over `warmup` steps, then `rate * (1 - progress) ** power`; the stages follow one another."""

    steps: int
    rate: float
    warmup: int
    power: float
    stages: tuple[Stage, ...]

    def learning_rate(self, step: int) -> float:
        """The learning rate of step `step` (from 0)."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return float(self.rate * (1.0 - progress) ** self.power)

    def stage(self, step: int) -> Stage:
        """The stage that step `step` belongs to."""
        return next(stage for stage, _, stop in self._spans() if step < stop or stop == self.steps)

    def first_sample(self, step: int) -> int:
        """How many samples were drawn before step `step`: its place in the shuffled epochs."""
        return sum(max(0, min(step, stop) - start) * stage.batch for stage, start, stop in self._spans())

    def _spans(self) -> list[tuple[Stage, int, int]]:
        spans, start, share = [], 0, 0.0
        for index, stage in enumerate(self.stages):
            share += stage.share
            stop = self.steps if index == len(self.stages) - 1 else round(self.steps * share)
            spans.append((stage, start, stop))
            start = stop
        return spans
