"""An engine that fails is reported and opened again once in a row; other lanes' batches are not lost by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import numpy as np
import pytest
from served import LARGEST, SlowRunner, open_tiny

from rtformer_deploy.errors import EngineError
from rtformer_deploy.serve.engine_host import EngineDownError, EngineHost

FRAME = np.zeros((4, 6, 3), np.uint8)


def failing(*errors: Exception | None) -> Callable[[], Exception | None]:
    """Gives these errors one after the other, then none."""
    left = list(errors)
    return lambda: left.pop(0) if left else None


def run(host: EngineHost) -> int:
    return len(asyncio.run(host.run([FRAME], "labels")).values)


def test_a_batch_gives_labels_or_logits_and_the_times_it_took() -> None:
    host = EngineHost("tiny", open_tiny)
    host.warm_up()
    frames = [np.full((50 + index, 70, 3), 40 * index, np.uint8) for index in range(LARGEST)]
    labels = asyncio.run(host.run(frames, "labels"))
    for one, wanted in zip(labels.values, host.runner.run(frames), strict=True):
        np.testing.assert_array_equal(one, wanted)
    assert labels.input_s > 0
    assert labels.infer_s > 0
    np.testing.assert_array_equal(np.stack(asyncio.run(host.run(frames, "logits")).values), host.runner.logits(frames))
    host.close()


def test_after_a_failure_the_engine_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    fails = failing(RuntimeError("out of luck\nand more"), None, RuntimeError("again"))
    runners = [SlowRunner(fails=fails) for _ in range(3)]
    opened = iter(runners)
    host = EngineHost("one", lambda: next(opened).as_runner())
    with caplog.at_level(logging.WARNING, "rtformer_deploy.serve"):
        with pytest.raises(RuntimeError, match="out of luck"):
            run(host)
        assert run(host) == 1  # proved: a later failure opens it once more
        with pytest.raises(RuntimeError, match="again"):
            run(host)
    assert run(host) == 1
    assert [runner.closed for runner in runners] == [True, True, False]
    assert host.down is None
    assert [record.getMessage() for record in caplog.records][:2] == [
        "The engine one failed: out of luck",
        "The engine one was opened again.",
    ]
    host.close()


def test_an_engine_that_fails_twice_in_a_row_is_down() -> None:
    fails = failing(RuntimeError("first"), RuntimeError("second"))
    opened = []

    def opener() -> SlowRunner:
        opened.append(SlowRunner(fails=fails))
        return opened[-1]

    host = EngineHost("one", lambda: opener().as_runner())
    for text in ("first", "second"):
        with pytest.raises(RuntimeError, match=text):
            run(host)
    with pytest.raises(EngineDownError, match="The engine one is down: it failed again after it was opened again: second"):
        run(host)
    assert len(opened) == 2
    host.close()


def test_an_engine_that_cannot_be_opened_again_is_down() -> None:
    def opener() -> SlowRunner:
        if runners:
            raise EngineError("the plan is gone")
        runners.append(SlowRunner(fails=failing(RuntimeError("first"))))
        return runners[0]

    runners: list[SlowRunner] = []
    host = EngineHost("one", lambda: opener().as_runner())
    with pytest.raises(RuntimeError, match="first"):
        run(host)
    assert host.down == "it could not be opened again: the plan is gone"
    with pytest.raises(EngineDownError):
        run(host)
    host.close()


def test_the_batch_of_another_lane_is_run_again_on_the_new_engine() -> None:
    """When one lane fails, the engine closes under the other's batch; that batch must not fail with it."""
    first = SlowRunner(0.05)
    answers = iter([RuntimeError("mine"), EngineError("This runner was closed.")])
    first.fails = lambda: next(answers)
    opened = iter([first, SlowRunner(), SlowRunner()])
    host = EngineHost("one", lambda: next(opened).as_runner(), lanes=2)

    async def both() -> list[object]:
        return list(await asyncio.gather(host.run([FRAME], "labels"), host.run([FRAME], "labels"), return_exceptions=True))

    done = asyncio.run(both())
    errors = [each for each in done if isinstance(each, Exception)]
    assert [str(error) for error in errors] == ["mine"]
    assert host.down is None
    host.close()
