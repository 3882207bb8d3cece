"""Our service under more load than it can carry: every request is answered, nothing grows, and afterwards all is as before."""

from __future__ import annotations

import http.client
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

SECONDS, CLIENTS, DEADLINE_S, BACK_OFF_S = 20.0, 60, 0.6, 0.1
STEP_S = 0.05  # what the engine takes for a batch of up to four


def press(port: int) -> list[Counter[int]]:
    """Clients who ask again as soon as they are answered, or BACK_OFF_S after a refusal -> the statuses of each quarter of the time."""
    quarters: list[Counter[int]] = [Counter() for _ in range(4)]
    picture = jpeg(frames((40, 60))[0])
    began = time.monotonic()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while (quarter := int((time.monotonic() - began) / SECONDS * 4)) < 4:
            connection.request("POST", "/v1/segment", picture, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            quarters[quarter][answer.status] += 1
            if answer.status == 429:
                time.sleep(BACK_OFF_S)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return quarters


def test_more_than_it_can_carry() -> None:
    """60 clients ask all the time; the engine carries 80 frames a second. How fast it answers is for benchmarks/serve.py."""
    runner = SlowRunner(STEP_S, max_batch=4)
    memory: list[int] = []
    elsewhere = ProcessPoolExecutor(1, get_context("spawn"))  # as threads of this process, the clients would take turns with the service
    with elsewhere, served(EngineHost("slow", runner.as_runner), limits=Limits(queue=32, deadline_s=DEADLINE_S)) as service:
        pressed = elsewhere.submit(press, service.port)
        while not pressed.done():
            time.sleep(SECONDS / 10)
            memory.append(psutil.Process().memory_info().rss)
        quarters = pressed.result()
        assert service.client.get("/v2/health/ready").status_code == 200
        assert service.service.models["slow"].batcher.inside == 0
    assert set(sum(quarters, Counter())) <= {200, 429, 504}, quarters
    assert all(statuses[200] > CLIENTS for statuses in quarters), quarters  # it goes on answering, to the end
    assert all(statuses[429] for statuses in quarters), quarters
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
