"""Our service under more load than it can carry: every request is answered, nothing grows, and afterwards all is as before."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter

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


class Pressed:
    """What clients who ask at once, all the time, were answered, and how the memory of this process went."""

    def __init__(self, port: int, clients: int, seconds: float) -> None:
        self.statuses: Counter[int] = Counter()
        self.accepted: list[float] = []
        self.memory: list[int] = []
        picture = jpeg(frames((40, 60))[0])
        end = time.monotonic() + seconds

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            while (sent := time.monotonic()) < end:
                connection.request("POST", "/v1/segment", picture, {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
                if answer.status == 200:
                    self.accepted.append(time.monotonic() - sent)
            connection.close()

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            time.sleep(seconds / 10)
            self.memory.append(psutil.Process().memory_info().rss)
        for thread in threads:
            thread.join()


def test_more_than_it_can_carry() -> None:
    """8 clients keep an engine of 80 frames a second busy, then 60 do: it must not answer much less for being asked more."""
    runner = SlowRunner(STEP_S, max_batch=4)
    with served(EngineHost("slow", runner.as_runner), limits=Limits(queue=32, deadline_s=DEADLINE_S)) as service:
        calm = Pressed(service.port, 8, SECONDS / 4)
        seen = Pressed(service.port, CLIENTS, SECONDS)
        assert service.client.get("/v2/health/ready").status_code == 200
        assert service.service.models["slow"].batcher.inside == 0
    assert set(seen.statuses) <= {200, 429, 504}, seen.statuses
    assert seen.statuses[200] / SECONDS > 0.3 * calm.statuses[200] / (SECONDS / 4), (seen.statuses, calm.statuses)
    assert seen.statuses[429] > 0
    assert np.percentile(seen.accepted, 99) < DEADLINE_S + 0.5  # the clients share two cores with the service
    assert seen.memory[-1] < 1.15 * seen.memory[len(seen.memory) // 2]


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
