"""What a service says about itself: figures under Triton's names, and one line a request that no request can forge."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
from collections.abc import Iterator

import pytest
from helpers import frames
from prometheus_client.parser import text_string_to_metric_families
from served import Served, SlowRunner, jpeg, served, wait_until

from rtformer_deploy.serve import log
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.serve.settings import Limits

PICTURE = jpeg(frames((40, 60))[0])
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def loggers() -> Iterator[None]:
    """Puts the loggers back as they were."""
    kept = [
        (each, each.handlers, each.level, each.propagate) for each in map(logging.getLogger, ("rtformer_deploy.serve", "uvicorn.error"))
    ]
    yield
    for logger, handlers, level, propagate in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def post(service: Served) -> int:
    return service.client.post("/v1/segment", content=PICTURE, headers=JPEG).status_code


def samples(service: Served) -> dict[str, float]:
    """name{reason} -> value."""
    text = service.client.get("/metrics").text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels.items() >= {"model": "slow", "version": "1"}.items()
            name = sample.name.removesuffix("_total")  # the parser adds it, as OpenMetrics has it
            found[name + (f" {sample.labels['reason']}" if "reason" in sample.labels else "")] = sample.value
    return found


def test_figures_have_tritons_names_and_add_up() -> None:
    runner = SlowRunner(0.05, max_batch=2)
    with served(EngineHost("slow", runner.as_runner), limits=Limits(pixels=5000)) as service:
        before = samples(service)
        assert before["nv_inference_request_success"] == 0
        assert [post(service) for _ in range(3)] == [200] * 3
        assert service.client.post("/v1/segment", content=b"text", headers=JPEG).status_code == 400
        after = samples(service)
        assert after["nv_inference_request_success"] == 3
        assert after["nv_inference_request_failure OTHER"] == 1
        assert after["nv_inference_count"] == after["nv_inference_exec_count"] == 3
        assert after["nv_inference_pending_request_count"] == 0
        assert after["nv_inference_compute_infer_duration_us"] >= 3 * 50_000
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        spent = sum(after[f"nv_inference_{part}_duration_us"] for part in parts)
        assert 0.5 < spent / after["nv_inference_request_duration_us"] <= 1.0
        assert after["rtformer_request_duration_seconds_count"] == 3
        assert after["rtformer_compute_infer_duration_seconds_sum"] * 1e6 == pytest.approx(
            after["nv_inference_compute_infer_duration_us"], abs=10
        )
        types = re.findall(r"^# TYPE (nv_\w+) (\w+)", service.client.get("/metrics").text, re.MULTILINE)
        assert ("nv_inference_request_success", "counter") in types
        assert ("nv_inference_pending_request_count", "gauge") in types


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize("as_json", [False, True])
def test_a_request_is_one_line_and_cannot_forge_another(as_json: bool) -> None:
    stream = io.StringIO()
    log.set_up(as_json, stream)
    with served(EngineHost("slow", SlowRunner().as_runner)) as service:
        assert post(service) == 200
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=10)
        connection.sendall(b"GET /a%0a2026%1b[31m\x7f HTTP/1.1\r\nHost: localhost\r\nX: \x9b\r\nConnection: close\r\n\r\n")
        while connection.recv(65536):
            pass
        connection.close()
        service.client.get(f"/{'x' * 1000}?api_key=secret")
        wait_until(lambda: stream.getvalue().count("\n") >= 3)
    lines = stream.getvalue().splitlines()
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert "secret" not in stream.getvalue()
    assert max(map(len, lines)) < 500
    if as_json:
        first = json.loads(lines[0])
        assert (first["method"], first["path"], first["status"], first["client"]) == ("POST", "/v1/segment", 200, "127.0.0.1")
        assert first["in"] == len(PICTURE)
        assert first["out"] > 0
        assert first["ms"] > 0
    else:
        pattern = rf"\S+Z INFO request client=127.0.0.1 method=POST path=/v1/segment status=200 in={len(PICTURE)} out=\d+ ms=[\d.]+"
        assert re.fullmatch(pattern, lines[0]), lines[0]


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize("as_json", [False, True])
def test_messages_and_traces_are_escaped_too(as_json: bool) -> None:
    stream = io.StringIO()
    log.set_up(as_json, stream)
    try:
        raise ValueError("one\ntwo \x1b[2J")
    except ValueError:
        logging.getLogger("rtformer_deploy.serve").exception("a message\nof two lines")
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "a message\\nof two lines" in text
    assert text.count("\n") == (1 if as_json else len([line for line in text.splitlines() if line.startswith("    ")]) + 1)
