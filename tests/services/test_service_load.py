"""Our service under more load than it can carry: every request is answered, nothing grows, and afterwards all is as before."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import psutil
import pytest
from helpers import frames
from served import SlowRunner, jpeg, open_tiny, pixels, served

from rtformer_deploy.image.decode import decode_image
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.serve.settings import Limits

pytestmark = pytest.mark.services

SECONDS, CLIENTS, DEADLINE_S = 20.0, 60, 0.6
STEP_S = 0.05  # what the engine takes for a batch of up to four


def press(port: int, clients: int, seconds: float) -> tuple[Counter[int], list[float]]:
    """Clients who ask at once, all the time -> the statuses that they got, and how long the service says that each accepted one took."""
    statuses: Counter[int] = Counter()
    inside_s: list[float] = []
    picture = jpeg(frames((40, 60))[0])
    end = time.monotonic() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while time.monotonic() < end:
            connection.request("POST", "/v1/segment", picture, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
            timed = re.search(r"request;dur=([\d.]+)", answer.headers.get("Server-Timing", ""))
            if timed is not None:
                inside_s.append(float(timed[1]) / 1000)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses, inside_s


def test_more_than_it_can_carry() -> None:
    """8 clients keep an engine of 80 frames a second busy, then 60 do: it must not answer much less for being asked more."""
    runner = SlowRunner(STEP_S, max_batch=4)
    memory: list[int] = []
    elsewhere = ProcessPoolExecutor(1, get_context("spawn"))  # as threads of this process, 60 clients would take turns with the service
    with elsewhere, served(EngineHost("slow", runner.as_runner), limits=Limits(queue=32, deadline_s=DEADLINE_S)) as service:
        calm, _ = elsewhere.submit(press, service.port, 8, SECONDS / 4).result()
        pressed = elsewhere.submit(press, service.port, CLIENTS, SECONDS)
        while not pressed.done():
            time.sleep(SECONDS / 10)
            memory.append(psutil.Process().memory_info().rss)
        statuses, inside_s = pressed.result()
        assert service.client.get("/v2/health/ready").status_code == 200
        assert service.service.models["slow"].batcher.inside == 0
    assert set(statuses) <= {200, 429, 504}, statuses
    assert statuses[200] / SECONDS > 0.3 * calm[200] / (SECONDS / 4), (statuses, calm)
    assert statuses[429] > 0
    assert len(inside_s) == statuses[200]
    assert np.percentile(inside_s, 99) < DEADLINE_S + 0.1
    assert memory[-1] < 1.15 * memory[len(memory) // 2]


def test_thousands_of_requests_of_mixed_sizes_are_all_right() -> None:
    sizes = ((40, 60), (64, 96), (131, 50), (9, 200), (100, 100))
    pictures = [jpeg(frame) for frame in frames(*sizes)]
    with open_tiny() as runner:
        expected = [runner.run([decode_image(picture)])[0] for picture in pictures]
    wrong: list[object] = []
    with served() as service:

        def client(start: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
            for number in range(start, start + 250):
                which = number % len(pictures)
                connection.request("POST", "/v1/segment", pictures[which], {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or not np.array_equal(pixels(body), expected[which]):
                    wrong.append((answer.status, number))
            connection.close()

        threads = [threading.Thread(target=client, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 'nv_inference_request_success{model="tiny",version="1"} 2000.0' in service.client.get("/metrics").text
    assert wrong == []
