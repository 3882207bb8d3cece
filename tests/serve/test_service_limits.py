"""What a service does under load and attack: one clear answer each, and nothing that stays behind."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from helpers import frames
from served import Served, SlowRunner, jpeg, served, wait_until

from rtformer_deploy.serve import model
from rtformer_deploy.serve import service as service_module
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.serve.guard import is_local
from rtformer_deploy.serve.settings import Access, Limits

PICTURE = jpeg(frames((40, 60))[0])
JPEG = {"Content-Type": "image/jpeg"}
KEY, OTHER = "a-key-of-more-than-16-characters", "another-key-that-is-as-good-too"


def post(service: Served, body: bytes = PICTURE, **more: str | bytes) -> httpx.Response:
    headers = {name.encode(): value.encode() if isinstance(value, str) else value for name, value in (JPEG | more).items()}
    return service.client.post("/v1/segment", content=body, headers=headers)


def raw(service: Served, data: bytes) -> socket.socket:
    """A connection that has sent these bytes."""
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=10)
    connection.sendall(data)
    return connection


def all_of(connection: socket.socket) -> bytes:
    """What the service answers until it closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    connection.close()
    return b"".join(parts)


HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def strict() -> Iterator[Served]:
    """A service with small limits."""
    runner = SlowRunner()
    limits = Limits(body=20_000, bodies=30_000, pixels=10_000, transfer_s=0.4, connections=6)
    with served(EngineHost("slow", runner.as_runner), limits=limits) as service:
        yield service


# ------------------------------------------------------------------------------------------------------------ uploads


def test_a_body_that_is_too_large(strict: Served) -> None:
    answer = post(strict, bytes(20_001))
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("The body is larger than 0.019")
    assert answer.headers["connection"] == "close"


def test_a_body_without_a_length_is_counted_as_it_comes(strict: Served) -> None:
    answer = strict.client.post("/v1/segment", content=(bytes(1000) for _ in range(100)), headers=JPEG)
    assert answer.status_code == 413
    form = strict.client.post("/v1/segment", files={"image": bytes(30_000)})
    assert form.status_code == 413


def test_a_picture_with_too_many_pixels(strict: Served) -> None:
    answer = post(strict, jpeg(frames((101, 100))[0]))
    assert answer.status_code == 413
    assert "at most 10,000 pixels" in answer.json()["error"]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_a_compressed_body_is_not_unpacked(strict: Served, coding: str) -> None:
    answer = strict.client.post("/v1/segment", content=PICTURE, headers=JPEG | {"Content-Encoding": coding})
    assert answer.status_code == 415
    assert answer.json()["error"] == "Compressed bodies are not read."


def test_a_body_that_comes_too_slowly(strict: Served) -> None:
    connection = raw(strict, HEAD + b"Content-Length: 100\r\n\r\n12")
    answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not arrive in time." in answer


def test_headers_that_come_too_slowly(strict: Served) -> None:
    connection = raw(strict, b"GET / HTTP/1.1\r\n")
    for _ in range(3):  # each byte comes in time, the whole does not
        time.sleep(0.1)
        connection.sendall(b"A")
    answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"headers did not arrive in time" in answer


def test_a_second_request_that_comes_too_slowly(strict: Served) -> None:
    connection = raw(strict, b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v2")
    assert all_of(connection).count(b"HTTP/1.1 408 ") == 1


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000])
def test_what_is_no_request(strict: Served, data: bytes) -> None:
    connection = raw(strict, data + b"\r\n\r\n")
    try:
        answer = all_of(connection)
    except ConnectionResetError:  # it closed while headers were still coming
        return
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"not an HTTP request" in answer


def test_too_many_connections(strict: Served) -> None:
    strict.client.close()
    wait_until(lambda: not strict.server.server_state.connections)
    held = [raw(strict, b"") for _ in range(6)]
    wait_until(lambda: len(strict.server.server_state.connections) == 6)
    answer = all_of(raw(strict, b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"as many connections as it takes" in answer
    for connection in held:
        connection.close()
    wait_until(lambda: not strict.server.server_state.connections)
    assert all_of(raw(strict, b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


def test_uploads_hold_no_more_than_they_may_together() -> None:
    with served(limits=Limits(body=20_000, bodies=30_000)) as service:
        first, second = (raw(service, HEAD + b"Content-Length: 19000\r\n\r\n" + bytes(18_000)) for _ in range(2))
        assert b"HTTP/1.1 503 " in second.recv(1000) + first.recv(0)
        first.close()
        second.close()
        wait_until(lambda: not service.server.server_state.tasks)
        assert post(service).status_code == 200


def test_a_reader_who_takes_nothing_is_cut_off() -> None:
    """Answers of many megabytes, none of them read: the connection ends, the service goes on."""
    with served(limits=Limits(transfer_s=0.4)) as service:
        picture = jpeg(frames((1500, 1500))[0])
        request = (
            HEAD.replace(b"/v1/segment", b"/v1/segment?output=overlay&alpha=0") + b"Content-Length: %d\r\n\r\n" % len(picture) + picture
        )
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", service.port))
        connection.sendall(request * 4)
        wait_until(lambda: service.server.server_state.connections)
        wait_until(lambda: not service.server.server_state.connections, 20)
        connection.close()
        assert post(service).status_code == 200


# --------------------------------------------------------------------------------------------------------------- load


def test_more_requests_than_the_queue_holds() -> None:
    runner = SlowRunner(0.3)
    with served(EngineHost("slow", runner.as_runner), limits=Limits(queue=2)) as service, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(service), range(8)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200, 200] + [429] * 6
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["hint"] == f"Try again in {refused.headers['retry-after']} s."
        assert post(service).status_code == 200


def test_a_request_that_would_be_late() -> None:
    runner = SlowRunner(2)
    with served(EngineHost("slow", runner.as_runner), limits=Limits(deadline_s=0.2)) as service:
        began = time.monotonic()
        answer = post(service)
        assert answer.status_code == 504
        assert time.monotonic() - began < 1.9  # it does not wait for the engine
        assert "after the request's deadline" in answer.json()["error"]


def test_a_client_who_leaves_is_dropped() -> None:
    runner = SlowRunner(1.5)
    with served(EngineHost("slow", runner.as_runner)) as service:
        request = HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE
        batcher = service.service.models["slow"].batcher
        first = raw(service, request)
        wait_until(lambda: runner.batches == [1])  # the engine has it before the other comes
        second = raw(service, request)
        wait_until(lambda: batcher.inside == 2 and batcher.waiting == 1)
        second.close()
        wait_until(lambda: batcher.inside == 1)
        assert first.recv(12) == b"HTTP/1.1 200"
        first.close()
        assert runner.batches == [1]  # the engine never saw the second
        assert 'nv_inference_request_failure{model="slow",reason="CANCELED",version="1"} 1.0' in service.client.get("/metrics").text


def test_an_engine_that_fails_is_opened_again_and_then_down() -> None:
    errors = [RuntimeError("first"), None, RuntimeError("second"), RuntimeError("third")]
    runner = SlowRunner(fails=lambda: errors.pop(0) if errors else None)
    with served(EngineHost("bad", runner.as_runner), EngineHost("good", SlowRunner().as_runner)) as service:

        def ask(name: str) -> httpx.Response:
            return service.client.post(f"/v1/segment/{name}", content=PICTURE, headers=JPEG)

        assert [ask("bad").status_code for _ in range(4)] == [500, 200, 500, 500]
        answer = ask("bad")
        assert answer.status_code == 503
        assert "The engine bad is down: it failed again after it was opened again: third" in answer.json()["error"]
        assert service.client.get("/v2/models/bad/ready").status_code == 503
        assert service.client.get("/v2/health/ready").status_code == 503
        assert service.client.get("/v2/health/live").status_code == 200
        assert ask("good").status_code == 200
        assert 'nv_inference_request_failure{model="bad",reason="BACKEND",version="1"} 4.0' in service.client.get("/metrics").text


def test_without_any_engine_the_service_ends() -> None:
    runner = SlowRunner(fails=lambda: RuntimeError("always"))
    with served(EngineHost("bad", runner.as_runner)) as service:
        assert [post(service).status_code for _ in range(2)] == [500, 500]
        wait_until(lambda: not service.thread.is_alive())
        assert service.service.dead


def test_an_engine_that_hangs_is_not_alive_and_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "STUCK_S", 0.1)
    monkeypatch.setattr(service_module, "_CLOSE_S", 0.1)
    runner = SlowRunner(1.5)
    with served(EngineHost("slow", runner.as_runner), limits=Limits(deadline_s=0.2)) as service:
        assert service.client.get("/v2/health/live").status_code == 200
        assert post(service).status_code == 504
        assert service.client.get("/v2/health/live").status_code == 503
        assert service.client.get("/v2/health/ready").status_code == 503
    assert service.service.hung
    assert not runner.closed


def test_leaving_takes_readiness_first_then_refuses_then_ends() -> None:
    runner = SlowRunner(1.0)
    with served(EngineHost("slow", runner.as_runner), leave_s=0.6) as service, ThreadPoolExecutor(1) as pool:
        service.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: service.service.state == "leaving")
        assert service.client.get("/v2/health/ready").status_code == 503
        assert service.client.get("/v2/health/live").status_code == 200
        inside = pool.submit(post, service)  # not ready, but still answered
        wait_until(lambda: service.service.state == "stopping")
        answer = httpx.post(f"{service.url}/v1/segment", content=PICTURE, headers=JPEG, trust_env=False)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert inside.result().status_code == 200
        wait_until(lambda: not service.thread.is_alive())
        assert runner.closed


# ------------------------------------------------------------------------------------------------------------- access


def test_a_key_is_needed_but_for_the_page_and_the_probes() -> None:
    with served(access=Access((KEY, OTHER), local=False)) as service:
        answer = post(service)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json() == {"error": "The service needs an API key.", "hint": "Send it as Authorization: Bearer KEY."}
        for path in ("/metrics", "/v1/models", "/v2", "/v2/models/tiny", "/openapi.json", "/nowhere"):
            assert service.client.get(path).status_code == 401, path
        for path in ("/", "/js/main.js", "/v2/health/live", "/v2/health/ready"):
            assert service.client.get(path).status_code == 200, path
        for header in ("Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer", "Bearer \xe9"):
            assert post(service, Authorization=header.encode("latin-1")).status_code == 401, header
        for key in (KEY, OTHER):
            assert post(service, Authorization=f"Bearer {key}").status_code == 200
        assert post(service, Authorization=f"bearer {KEY}").status_code == 200
        document = service.client.get("/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
        assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://[", "https://127.0.0.1.evil.example"])
def test_pages_of_other_sites_may_not_use_it(strict: Served, origin: str) -> None:
    with httpx.Client(base_url=strict.url, trust_env=False) as client:
        answer = client.post("/v1/segment", content=PICTURE, headers=JPEG | {"Origin": origin})
        assert answer.status_code == 403
        assert "page of another site" in answer.json()["error"]
        own = client.post("/v1/segment", content=PICTURE, headers=JPEG | {"Origin": strict.url})
        assert own.status_code == 200


def test_without_keys_it_answers_to_its_local_name_only(strict: Served) -> None:
    with httpx.Client(base_url=strict.url, trust_env=False) as client:
        answer = client.get("/", headers={"Host": "rebound.example"})
        assert answer.status_code == 403
        assert "by its local name" in answer.json()["error"]
        assert client.get("/", headers={"Host": "localhost:1234"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1:80", "LOCALHOST", "localhost:8000", "[::1]:8000", "::1"])
def test_hosts_that_are_this_machine(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "localhost.example", "192.168.0.1:8000", "127.0.0.1.example", "[::]:80", "::1:80:1"])
def test_hosts_that_are_not(host: str) -> None:
    assert not is_local(host)


def test_the_threads_of_a_service_end_with_it() -> None:
    before = threading.active_count()
    with served() as service:
        post(service)
    wait_until(lambda: threading.active_count() <= before)
