"""`triton --check`: against a server of the same protocol, our own, and against what is no Triton."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from served import SlowRunner, open_tiny, served
from triton_repositories import run, write_model, write_plan, write_tensorrt

from rtformer_deploy.errors import EngineError, UsageError
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.triton.client import TritonClient, frames_tensor

FOLDERS = ("tiny", "tiny_rgb", "tiny_decode")
AROUND = (*FOLDERS, "tiny_engine", "tiny_preprocess", "tiny_postprocess")


def repository(folder: Path, model: Path) -> Path:
    result = run(folder / "repo", model)
    assert result.exit_code == 0, result.output
    return folder / "repo"


@contextmanager
def triton(*names: str, wrong: bool = False) -> Iterator[str]:
    """The address of a server with models of these names that takes pictures and frames alike."""
    hosts = [EngineHost(name, SlowRunner().as_runner if wrong else open_tiny) for name in names]
    with served(*hosts) as running:
        yield f"127.0.0.1:{running.port}"


def test_labels_that_are_the_same(tmp_path: Path) -> None:
    repo = repository(tmp_path, write_plan(tmp_path / "tiny.plan"))
    with triton(*FOLDERS) as address:
        for form in (address, f"http://{address}/"):
            result = run(repo, "--check", form)
            assert result.exit_code == 0, result.output
            assert "tiny: the sample's labels, 600x800: class4 " in result.output
            assert "tiny: they are those that segment writes here, bit for bit." in result.output


def test_an_engine_that_does_not_open_here_is_not_compared(tmp_path: Path) -> None:
    repo = repository(tmp_path, write_tensorrt(tmp_path / "tiny.plan"))
    with triton(*AROUND) as address:
        result = run(repo, "--check", address)
    assert result.exit_code == 0, result.output
    assert "tiny: they were not compared, as the engine does not open here: " in result.output


def test_an_onnx_model_is_compared_through_onnx_runtime(tmp_path: Path) -> None:
    repo = repository(tmp_path, write_model(tmp_path / "tiny.onnx"))
    with triton(*AROUND) as address:
        result = run(repo, "--check", address)
    assert result.exit_code == 0, result.output
    assert "bit for bit" in result.output


def test_other_labels(tmp_path: Path) -> None:
    repo = repository(tmp_path, write_plan(tmp_path / "tiny.plan"))
    with triton(*FOLDERS, wrong=True) as address:
        result = run(repo, "--check", address)
    assert result.exit_code == 3
    assert "of the sample's pixels have another class" in result.output


def test_a_model_that_is_missing(tmp_path: Path) -> None:
    repo = repository(tmp_path, write_plan(tmp_path / "tiny.plan"))
    with triton("tiny", "tiny_rgb") as address:
        result = run(repo, "--check", address)
    assert result.exit_code == 1
    assert f"The Triton at {address} has no model tiny_decode that is ready (404): There is no model of that name here." in result.output


def test_nobody_answers(tmp_path: Path) -> None:
    repo = repository(tmp_path, write_plan(tmp_path / "tiny.plan"))
    result = run(repo, "--check", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "No Triton answers at 127.0.0.1:1: Connection refused." in result.output
    assert "Start it: tritonserver" in result.output
    result = run(tmp_path / "elsewhere", "--check", "127.0.0.1:1")
    assert (result.exit_code, "is no repository that rtformer-deploy wrote" in result.output) == (1, True)


@pytest.mark.parametrize("address", ["", "ftp://a", "http://", "a:b", "a:99999", "http://[", "http://user@a", "a?b=c"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a Triton"):
        TritonClient(address)


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[TritonClient]:
    """A client of a server that answers everything alike."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """It says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        client = TritonClient(f"127.0.0.1:{server.server_port}", timeout=5)
        try:
            yield client
        finally:
            client.close()
            server.shutdown()
            thread.join()


OUTPUT = b'{"model_name":"a","outputs":[{"name":"labels","datatype":"UINT8","shape":[1,2],"parameters":{"binary_data_size":2}}]}'


@pytest.mark.parametrize(
    ("status", "length", "body", "words"),
    [
        (400, None, b'{"error":"in ensemble, wrong."}', r"did not answer for a \(400\): in ensemble, wrong\."),
        (502, None, b"<html>", r"did not answer for a \(502\)\."),
        (200, None, b"<html>", "is not Triton, or not of a version that is known: no binary data"),
        (200, "x", b"", "no binary data"),
        (200, "5", b"<html>", "it is not JSON"),
        (200, str(len(OUTPUT)), OUTPUT + b"abc", "in 3 bytes"),
        (200, str(len(OUTPUT)), OUTPUT.replace(b"UINT8", b"INT64") + b"ab", "INT64"),
        (200, "2", b"{}", "it has no model_name"),
    ],
)
def test_what_does_not_answer_as_triton(status: int, length: str | None, body: bytes, words: str) -> None:
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    with answering(status, headers, body) as client, pytest.raises(EngineError, match=words):
        client.infer("a", frames_tensor(np.zeros((1, 1, 2, 3), np.uint8)), "labels")
