"""FrameRunner over an engine that watches how it is used: never by two at once, never overwritten, every result its own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import CLASSES, SIZE, tiny_spec
from numpy.typing import NDArray

from rtformer_deploy.errors import EngineError, UsageError
from rtformer_deploy.runtime.cpu_session import CpuSession
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Frame


class Watched:
    """Gives class k everywhere for a frame of grey value 40 * k; fails for class 4; raises AssertionError where it is misused."""

    def __init__(self, seed: int) -> None:
        self.input: NDArray[np.float32] = np.zeros((2, 3, *SIZE), np.float32)
        self.starts: list[int] = []
        self.closed = False
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._seen: NDArray[np.float32] | None = None

    def start(self, batch: int) -> None:
        assert self._lock.acquire(blocking=False), "started while in flight"
        self.starts.append(batch)
        self._seen = self.input[:batch].copy()

    def wait(self) -> NDArray[Any]:
        assert self._lock.locked(), "waited for nothing"
        time.sleep(self._random.random() * 1e-3)
        assert self._seen is not None
        assert np.array_equal(self._seen, self.input[: len(self._seen)]), "the input was overwritten in flight"
        output = np.zeros((len(self._seen), CLASSES, 8, 12), np.float32)
        spec = tiny_spec()
        classes = np.rint((self._seen[:, 0, 0, 0] * spec.std[0] + spec.mean[0]) * 255 / 40).astype(int)
        output[np.arange(len(output)), np.clip(classes, 0, 4)] = 1
        self._lock.release()
        if 4 in classes:
            raise RuntimeError("class 4")
        return output

    def close(self) -> None:
        assert not self._lock.locked(), "closed while in flight"
        self.closed = True


def grey(kind: int) -> Frame:
    return np.full((20 + kind, 30, 3), 40 * kind, np.uint8)


def watched(lanes: int, smallest: int = 1) -> tuple[FrameRunner, list[Watched]]:
    engines = [Watched(seed) for seed in range(lanes)]
    sessions = [CpuSession(engine, tiny_spec(), smallest, threads=1) for engine in engines]
    return FrameRunner(sessions, tiny_spec(), (smallest, 2, 2), threads=1), engines


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_many_threads_and_few_sessions(lanes: int) -> None:
    runner, engines = watched(lanes)

    def work(seed: int) -> None:
        chosen = random.Random(seed)
        waiting: list[tuple[Any, int]] = []
        for _ in range(40):
            kind = chosen.randrange(5)
            waiting.append((runner.submit([grey(kind)]), kind))
            if len(waiting) > chosen.randrange(5):
                check(*waiting.pop(chosen.randrange(len(waiting))))
        for ticket, kind in waiting:
            check(ticket, kind)

    def check(ticket: Any, kind: int) -> None:
        if kind == 4:
            with pytest.raises(EngineError, match="The engine failed on this request: class 4"):
                runner.result(ticket)
            return
        (labels,) = runner.result(ticket)
        assert labels.shape == (20 + kind, 30)
        assert np.all(labels == kind)

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work, seed) for seed in range(6)]:
            future.result()
    assert sum(len(engine.starts) for engine in engines) == 240
    assert all(engine.starts for engine in engines)
    runner.close()
    assert all(engine.closed for engine in engines)


def test_lanes_take_turns() -> None:
    runner, engines = watched(3)
    given = [grey(index % 4) for index in range(12)]
    assert [int(labels[0, 0]) for labels in runner.run(given)] == [index % 4 for index in range(12)]
    assert [engine.starts for engine in engines] == [[2, 2]] * 3


def test_a_small_submission_is_padded_to_the_smallest_batch() -> None:
    runner, engines = watched(1, smallest=2)
    assert [labels.shape for labels in runner.run([grey(1), grey(2), grey(3)])] == [(21, 30), (22, 30), (23, 30)]
    assert engines[0].starts == [2, 2]
    assert runner.logits([grey(1)]).shape == (1, CLASSES, 8, 12)


def test_a_part_that_fails_takes_its_run_with_it_and_nothing_else() -> None:
    runner, _ = watched(2)
    kept = runner.submit([grey(2)])
    with pytest.raises(EngineError, match="class 4"):
        runner.run([grey(1), grey(1), grey(4), grey(1), grey(3)])
    assert np.all(runner.result(kept)[0] == 2)
    assert np.all(runner.run([grey(3)])[0] == 3)
    assert not runner._tickets


def test_closing_among_threads_ends_them_all() -> None:
    runner, engines = watched(2)
    started = threading.Barrier(5)

    def work() -> str:
        started.wait()
        for _ in range(10_000):
            try:
                assert np.all(runner.run([grey(1)])[0] == 1)
            except UsageError as error:
                return error.what
        raise AssertionError("nobody closed the runner")

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work) for _ in range(4)]
        started.wait()
        time.sleep(0.02)
        runner.close()
        for future in futures:
            assert future.result(30) == "This runner was closed."
    assert all(engine.closed for engine in engines)


def test_an_interrupted_wait_leaves_the_request_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, engines = watched(1)
    ticket = runner.submit([grey(1)])
    with monkeypatch.context() as patch:
        patch.setattr(engines[0], "wait", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.result(ticket)
    runner.close()
    assert engines[0].closed


def _interrupted() -> NDArray[Any]:
    raise KeyboardInterrupt


class Interrupted:
    """A session whose first `take` waits for `enter` and is then interrupted; the second gives the label maps."""

    notes: tuple[str, ...] = ()
    engine: Any = None

    def __init__(self) -> None:
        self.taken = 0
        self.entered, self.interrupt = threading.Event(), threading.Event()

    def frame(self, size: Any) -> Any: ...

    def check(self, frames: Any, kind: Any, stream: Any) -> Any:
        return frames

    def load(self, frames: Any, stream: Any = None) -> None: ...

    def begin(self, kind: Any) -> None: ...

    def synchronize(self) -> None: ...

    def take(self) -> Any:
        self.taken += 1
        if self.taken == 1:
            self.entered.set()
            assert self.interrupt.wait(30)
            raise KeyboardInterrupt
        return [np.full((2, 3), 7, np.uint8)]

    def close(self) -> None: ...


def test_a_result_is_finished_by_who_waits_for_it_if_the_thread_that_finishes_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Interrupted()
    runner = FrameRunner([session], tiny_spec(), (1, 1, 1))
    ticket = runner.submit([grey(1)])
    waiting = threading.Event()
    wait_for = runner._changed.wait_for

    def told(predicate: Callable[[], Any]) -> Any:
        waiting.set()  # the condition's lock is held until it waits
        return wait_for(predicate)

    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(runner.submit, [grey(2)])  # needs the session, so it finishes the first request
        assert session.entered.wait(30)
        monkeypatch.setattr(runner._changed, "wait_for", told)
        result = pool.submit(runner.result, ticket)
        assert waiting.wait(30)
        session.interrupt.set()
        with pytest.raises(KeyboardInterrupt):
            other.result(30)
        try:
            (labels,) = result.result(5)
        except TimeoutError:
            with runner._changed:  # so that the test ends
                runner._running[0].done = True
                runner._changed.notify_all()
            raise
    assert np.all(labels == 7)
    assert session.taken == 2
    runner.close()
