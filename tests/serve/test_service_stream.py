"""/v1/stream: frames in, the newest answered, and how it ends."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import frames
from served import Served, SlowRunner, jpeg, open_tiny, pixels, served, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from rtformer_deploy.image.decode import decode_image
from rtformer_deploy.image.frames import overlay
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.serve.settings import Access, Limits

FRAMES = [jpeg(frame) for frame in frames((40, 60), (48, 64))]
KEY = "a-key-of-more-than-16-characters"


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served() as running:
        yield running


def stream(service: Served, path: str = "/v1/stream", **more: Any) -> ClientConnection:
    connection: ClientConnection = connect(f"ws://127.0.0.1:{service.port}{path}", proxy=None, open_timeout=10, **more)
    return connection


def answer(socket: ClientConnection) -> tuple[dict[str, Any], bytes]:
    facts, picture = socket.recv(10), socket.recv(10)
    assert isinstance(facts, str)
    assert isinstance(picture, bytes)
    return json.loads(facts), picture


def test_each_frame_gets_its_facts_and_its_labels(service: Served) -> None:
    with open_tiny() as runner, stream(service) as socket:
        for number, data in enumerate(FRAMES):
            socket.send(data)
            facts, picture = answer(socket)
            labels = runner.run([decode_image(data)])[0]
            np.testing.assert_array_equal(pixels(picture), labels)
            assert (facts["frame"], facts["skipped"], facts["height"], facts["width"]) == (number, 0, *labels.shape)
            assert facts["total_ms"] >= facts["engine_ms"] > 0


def test_overlays_are_jpegs(service: Served) -> None:
    with open_tiny() as runner, stream(service, "/v1/stream/tiny?output=overlay&alpha=1") as socket:
        socket.send(FRAMES[0])
        _, picture = answer(socket)
        frame = decode_image(FRAMES[0])
        drawn = overlay(frame, runner.run([frame])[0], runner.spec.palette, 1.0)
        assert picture.startswith(b"\xff\xd8")
        assert np.abs(pixels(picture).astype(int) - drawn).mean() < 12


def test_the_newest_frame_wins() -> None:
    runner = SlowRunner(0.2)
    with served(EngineHost("slow", runner.as_runner)) as service, stream(service) as socket:
        socket.send(FRAMES[0])
        wait_until(lambda: runner.batches)  # the first is being worked on
        for _ in range(9):
            socket.send(FRAMES[0])
        assert [answer(socket)[0][name] for name in ("frame",)] == [0]
        facts, _ = answer(socket)
        assert (facts["frame"], facts["skipped"]) == (9, 8)
        assert len(runner.batches) == 2


def test_a_frame_that_cannot_be_decoded_does_not_end_the_stream(service: Served) -> None:
    with stream(service) as socket:
        socket.send(b"not a jpeg")
        facts = json.loads(socket.recv(10))
        assert facts["frame"] == 0
        assert "not an image that can be read" in facts["error"]
        socket.send(FRAMES[0])
        assert answer(socket)[0]["frame"] == 1


def test_text_ends_the_stream(service: Served) -> None:
    with stream(service) as socket:
        socket.send("a text")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1003, "Send JPEG frames as binary messages.")


def test_a_message_larger_than_a_body_may_be_ends_the_stream(service: Served) -> None:
    with served(limits=Limits(body=1000)) as small, stream(small) as socket:
        socket.send(bytes(1001))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/stream/other", 404, "no model of that name"),
        ("/v1/stream?output=logits", 400, "no such output"),
        ("/v1/stream?output=overlay&alpha=7", 400, "alpha is not a number from 0 to 1"),
        ("/v1/nowhere", 403, ""),
    ],
)
def test_a_stream_that_is_refused(service: Served, path: str, status: int, error: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        stream(service, path)
    assert refused.value.response.status_code == status
    assert error in refused.value.response.body.decode()


def test_a_key_is_needed_in_a_header_or_as_a_subprotocol() -> None:
    code = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
    with served(access=Access((KEY,), local=False)) as service:
        for protocols in ([], ["rtformer.v1"], ["rtformer.v1", "bearer.d3Jvbmc"], ["rtformer.v1", "bearer.d"]):
            with pytest.raises(InvalidStatus) as refused:
                stream(service, subprotocols=protocols or None)
            assert refused.value.response.status_code == 401
        with stream(service, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket:
            socket.send(FRAMES[0])
            answer(socket)
        with stream(service, subprotocols=["rtformer.v1", f"bearer.{code}"]) as socket:
            assert socket.subprotocol == "rtformer.v1"
            socket.send(FRAMES[0])
            answer(socket)


def test_a_page_of_another_site_gets_no_stream(service: Served) -> None:
    with pytest.raises(InvalidStatus) as refused:
        stream(service, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with stream(service, origin=f"http://127.0.0.1:{service.port}") as socket:
        socket.send(FRAMES[0])
        answer(socket)


def test_half_a_frame_and_a_closed_connection_leave_nothing_behind(service: Served) -> None:
    with stream(service) as whole:
        raw: socket.socket = whole.socket
        raw.sendall(b"\x82\xfe\x10\x00\x01\x02\x03\x04half")  # a masked binary frame of 4096 bytes, cut off after four
        time.sleep(0.05)
        raw.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: not service.server.server_state.tasks)
    with stream(service) as another:
        another.send(FRAMES[0])
        answer(another)


def test_a_client_that_stalls_in_the_middle_of_a_frame_is_cut_off() -> None:
    with served(limits=Limits(transfer_s=0.4)) as quick, stream(quick) as whole:
        whole.socket.sendall(b"\x82\xfe\x10\x00\x01\x02\x03\x04half")
        with pytest.raises(ConnectionClosed):
            whole.recv(10)


def test_a_service_that_stops_says_so() -> None:
    with served() as other, stream(other) as socket:
        socket.send(FRAMES[0])
        answer(socket)
        other.service.stop()
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        with pytest.raises(InvalidStatus) as refused:
            stream(other)
        assert refused.value.response.status_code == 503
