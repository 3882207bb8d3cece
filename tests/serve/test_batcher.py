"""The batcher alone: which frames run together, in which order, and which are refused."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from rtformer_deploy.serve.batcher import Answer, Batcher, BatchResult, ClosedError, Kind, LateError, QueueFullError
from rtformer_deploy.serve.model import _together, forget_locals
from rtformer_deploy.types import Frame

FAR = 60.0  # a deadline that nothing here reaches


class Engine:
    """An engine that notes its batches and can be held back; a frame's value is its first pixel."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.seconds = seconds
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def run(self, frames: Sequence[Frame], kind: Kind) -> BatchResult:
        self.batches.append([int(frame[0, 0, 0]) for frame in frames])
        await self.go.wait()
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return BatchResult([int(frame[0, 0, 0]) for frame in frames], 0.1, 0.2)


def frame(number: int) -> Frame:
    return np.full((1, 1, 3), number, np.uint8)


async def ask(batcher: Batcher, number: int, kind: Kind = "labels", within: float = FAR) -> Answer:
    with batcher.reserve(deadline := soon(within)) as place:
        return await place.run(frame(number), kind, deadline)


def soon(seconds: float = FAR) -> float:
    """The event loop's time in that many seconds."""
    return asyncio.get_running_loop().time() + seconds


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_free_engine_takes_the_largest_batch_at_hand_in_order() -> None:
    async def test() -> None:
        engine = Engine()
        engine.go.clear()
        batcher = Batcher(engine.run, largest=4)
        batcher.start()
        asked = [asyncio.create_task(ask(batcher, 0))]
        await settle()
        assert engine.batches == [[0]]  # nobody waits while the engine is free
        for number in range(1, 7):
            asked.append(asyncio.create_task(ask(batcher, number)))
            await settle()
        assert (batcher.waiting, batcher.inside) == (6, 7)
        engine.go.set()
        answers = await asyncio.gather(*asked)
        assert engine.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert [answer.value for answer in answers] == list(range(7))
        assert [answer.batch for answer in answers] == [1, 4, 4, 4, 4, 2, 2]
        assert (batcher.waiting, batcher.inside) == (0, 0)
        await batcher.close()

    run(test)


def test_frames_of_another_kind_run_apart_and_none_overtakes() -> None:
    async def test() -> None:
        engine = Engine()
        batcher = Batcher(engine.run, largest=8)
        kinds: list[Kind] = ["labels", "labels", "logits", "labels"]
        asked = [asyncio.create_task(ask(batcher, number, kind)) for number, kind in enumerate(kinds)]
        await settle()
        batcher.start()
        await asyncio.gather(*asked)
        assert engine.batches == [[0, 1], [2], [3]]
        await batcher.close()

    run(test)


def test_lanes_run_side_by_side() -> None:
    async def test() -> None:
        engine = Engine()
        engine.go.clear()
        batcher = Batcher(engine.run, lanes=2)
        batcher.start()
        asked = [asyncio.create_task(ask(batcher, number)) for number in range(3)]
        await settle()
        assert engine.batches == [[0], [1]]
        engine.go.set()
        await asyncio.gather(*asked)
        await batcher.close()

    run(test)


def test_a_delay_waits_for_company_until_the_batch_is_full() -> None:
    async def test() -> None:
        engine = Engine()
        batcher = Batcher(engine.run, largest=3, max_delay_s=30)
        batcher.start()
        asked = [asyncio.create_task(ask(batcher, 0))]
        await asyncio.sleep(0.02)
        assert engine.batches == []
        asked += [asyncio.create_task(ask(batcher, number)) for number in (1, 2)]
        await asyncio.gather(*asked)
        assert engine.batches == [[0, 1, 2]]
        await batcher.close()

    run(test)


def test_a_delay_ends_after_its_time_or_before_it_makes_anybody_late() -> None:
    async def test() -> None:
        engine = Engine()
        batcher = Batcher(engine.run, largest=3, max_delay_s=0.05)
        batcher.start()
        answer = await ask(batcher, 0)
        assert answer.queue_s >= 0.045
        patient = Batcher(engine.run, largest=3, max_delay_s=30)
        patient.start()
        with pytest.raises(LateError):  # the delay ends at the deadline at the latest
            await ask(patient, 1, within=0.05)
        await batcher.close()
        await patient.close()

    run(test)


def test_a_full_queue_refuses_and_has_room_again_later() -> None:
    async def test() -> None:
        engine = Engine()
        engine.go.clear()
        batcher = Batcher(engine.run, queue=2)
        batcher.start()
        asked = [asyncio.create_task(ask(batcher, number)) for number in (1, 2)]
        await settle()
        with pytest.raises(QueueFullError) as refused:
            await ask(batcher, 3)
        assert 1 <= refused.value.retry_after_s <= 60
        engine.go.set()
        await asyncio.gather(*asked)
        assert (await ask(batcher, 4)).value == 4
        with pytest.raises(QueueFullError):
            batcher.reserve(soon(), 3)
        await batcher.close()

    run(test)


def test_retry_after_is_how_long_those_inside_will_take() -> None:
    async def test() -> None:
        engine = Engine(0.4)
        batcher = Batcher(engine.run, queue=6)
        batcher.start()
        await ask(batcher, 0)
        asked = [asyncio.create_task(ask(batcher, number)) for number in range(6)]
        await settle()
        with pytest.raises(QueueFullError) as refused:
            batcher.reserve(soon())
        assert refused.value.retry_after_s == 3
        await batcher.close()
        await asyncio.gather(*asked, return_exceptions=True)

    run(test)


def test_a_caller_who_leaves_is_dropped_and_costs_the_engine_nothing() -> None:
    async def test() -> None:
        engine = Engine()
        engine.go.clear()
        batcher = Batcher(engine.run, largest=4)
        batcher.start()
        asked = [asyncio.create_task(ask(batcher, 0))]
        await settle()
        asked += [asyncio.create_task(ask(batcher, number)) for number in (1, 2)]
        await settle()
        asked[0].cancel()  # its batch runs already
        asked[1].cancel()
        await settle()
        assert (batcher.waiting, batcher.inside) == (1, 1)
        engine.go.set()
        assert (await asked[2]).value == 2
        assert engine.batches == [[0], [2]]
        await batcher.close()

    run(test)


def test_frames_that_would_be_late_make_way_for_those_that_are_in_time() -> None:
    async def test() -> None:
        engine = Engine(0.05)
        batcher = Batcher(engine.run)
        batcher.start()
        await ask(batcher, 0)  # a batch takes 50 ms
        engine.seconds = 0.3  # and then one takes longer
        asked = [asyncio.create_task(ask(batcher, number, within=within)) for number, within in ((1, FAR), (2, 0.2), (3, FAR))]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(done[1], LateError)
        assert engine.batches == [[0], [1], [3]]
        await batcher.close()

    run(test)


def test_a_request_that_cannot_be_in_time_is_refused_at_once() -> None:
    async def test() -> None:
        engine = Engine(0.4)
        batcher = Batcher(engine.run, queue=64)
        batcher.start()
        assert (await ask(batcher, 0, within=0.5)).value == 0  # a batch takes 0.4 s
        engine.go.clear()
        asked = [asyncio.create_task(ask(batcher, number, within=5)) for number in range(1, 6)]  # the last is due after 2 s
        await settle()
        with pytest.raises(QueueFullError) as refused:
            batcher.reserve(soon(1.0))  # it would be answered after 2.4 s
        assert refused.value.retry_after_s == 2
        with batcher.reserve(soon(3.0)):
            assert batcher.inside == 6
        engine.go.set()
        engine.seconds = 0.0
        await asyncio.gather(*asked)
        await batcher.close()

    run(test)


def test_one_slow_batch_does_not_close_the_service_for_good() -> None:
    async def test() -> None:
        engine = Engine(0.3)
        batcher = Batcher(engine.run)
        batcher.start()
        await ask(batcher, 0)
        engine.seconds = 0.0
        late = 0
        while True:
            try:
                await ask(batcher, 1, within=0.1)
                break
            except LateError:
                late += 1
        assert 5 < late < 60
        assert (await ask(batcher, 2, within=0.1)).value == 2
        await batcher.close()

    run(test)


def test_an_error_of_the_engine_belongs_to_its_batch() -> None:
    async def test() -> None:
        engine = Engine()
        batcher = Batcher(engine.run)
        batcher.start()
        engine.error = RuntimeError("out of luck")
        with pytest.raises(RuntimeError, match="out of luck"):
            await ask(batcher, 1)
        engine.error = None
        assert (await ask(batcher, 2)).value == 2
        assert batcher.inside == 0
        await batcher.close()

    run(test)


def test_whoever_waits_when_it_closes_is_told() -> None:
    async def test() -> None:
        engine = Engine()
        engine.go.clear()
        batcher = Batcher(engine.run)
        batcher.start()
        asked = [asyncio.create_task(ask(batcher, number)) for number in (0, 1)]
        await settle()
        assert batcher.busy_s() >= 0
        await batcher.close()
        done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 1)
        assert [type(each) for each in done] == [ClosedError, ClosedError]

    run(test)


def test_a_request_that_fails_keeps_no_frame() -> None:
    """Frames are large: they must not wait for the garbage collector, which counts objects and not bytes."""

    async def test() -> None:
        engine = Engine()
        engine.go.clear()
        batcher = Batcher(engine.run)
        batcher.start()
        first = asyncio.create_task(ask(batcher, 1))
        await settle()
        pixels = frame(2)
        kept = weakref.ref(pixels)
        place = batcher.reserve(soon())
        call = partial(place.run, pixels, "labels", asyncio.get_running_loop().time())
        del pixels
        waiting = asyncio.create_task(_together([call]))
        del call
        await settle()
        batcher._drop_late()
        error = await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 1)
        assert isinstance(error[0], LateError)
        forget_locals(error[0])
        del waiting, error
        assert kept() is None
        engine.go.set()
        await first
        await batcher.close()

    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()
