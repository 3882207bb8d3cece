"""`serve` on the command line: what is wrong is said before an engine is opened; a process that serves ends in order."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from helpers import frames
from served import jpeg, tiny_engine

from rtformer_deploy.cli import main
from rtformer_deploy.formats.engine_file import save_engine

KEY = "a-key-of-more-than-16-characters"

# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=localhost
#   -addext subjectAltName=IP:127.0.0.1 -addext keyUsage=digitalSignature,keyCertSign
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBnTCCAUOgAwIBAgIUXxXBh0V6S1hTmIujtZ1ftJKptP8wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNjAwMDkwMloYDzIxMjYxMTAy
MDAwOTAyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASrhEHYIFCe/Lb375JrwUph+r9zRavuEZlYXY9DQw+FBF7sHFHlBBko
YE7+RF4CKMtGriywhVaobyKYOxq3lJ/ho3EwbzAdBgNVHQ4EFgQU8jhv7G+sdAbl
3g5Cz+AyX5pAYWYwHwYDVR0jBBgwFoAU8jhv7G+sdAbl3g5Cz+AyX5pAYWYwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAsGA1UdDwQEAwIChDAKBggq
hkjOPQQDAgNIADBFAiB+Owjm+xrQg4/sPHzez46fhPXov10qH0R4hFugYXuWkAIh
AOuDGCS7QbmsGiY+M6CLZ3XJU1AhL4cxK+9AuzG0m8ay
-----END CERTIFICATE-----
"""
PRIVATE = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgL0tTJ7EgScB89fbL
FW9Od77ocKt7/NemzW5taBxm0ymhRANCAASrhEHYIFCe/Lb375JrwUph+r9zRavu
EZlYXY9DQw+FBF7sHFHlBBkoYE7+RF4CKMtGriywhVaobyKYOxq3lJ/h
-----END PRIVATE KEY-----
"""


def run(*arguments: str | Path, **environment: str) -> Result:
    without_key: dict[str, str | None] = {"RTFORMER_API_KEY": None}
    return CliRunner().invoke(main, ["serve", *map(str, arguments)], env=without_key | environment)


def refused(result: Result, pattern: str, code: int) -> None:
    assert result.exit_code == code, result.output
    assert result.output.count("Error: ") == 1
    assert "Traceback" not in result.output
    assert re.search(pattern, result.output), result.output


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_missing_plan(here: Path) -> None:
    refused(run("engine.plan", "--port", "0"), r"Cannot read an engine plan engine\.plan: No such file", 1)


def test_a_port_in_use_is_known_before_the_plan_is_read(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(run("no.plan", "--port", str(port)), rf"Cannot listen on 127\.0\.0\.1 port {port}: Address already in use", 1)


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.7", "a" * 300, "127.0.0.1 "])
def test_an_address_that_is_not_this_machines(here: Path, host: str) -> None:
    refused(run("no.plan", "--port", "0", "--host", host, "--no-auth"), "Cannot listen on ", 1)


def test_names_that_are_equal_or_cannot_stand_in_an_address(here: Path) -> None:
    refused(run("a/engine.plan", "b/engine.plan"), "Two models have the name engine", 2)
    refused(run("a.plan", "b.plan", "--name", "one"), "1 names were given for 2 models", 2)
    refused(run("a.plan", "b.plan", "--name", "one", "--name", "one"), "Two models have the name one", 2)
    for name in ("..", "a/b", "", "a b", "-a", "x" * 65, "é"):
        refused(run("a.plan", "--name", name), "cannot stand in an address", 2)
    refused(run("my engine.plan"), "The name 'my engine' cannot stand in an address", 2)


def test_others_need_a_key(here: Path) -> None:
    refused(run("no.plan", "--host", "0.0.0.0"), r"On 0\.0\.0\.0 other machines can reach the service, so it needs an API key", 2)
    refused(run("no.plan", "--no-auth", RTFORMER_API_KEY=KEY), "--no-auth was given together with an API key", 2)
    refused(run("no.plan", "--host", "0.0.0.0", "--port", "0", RTFORMER_API_KEY=KEY), "Cannot read an engine plan", 1)
    refused(run("no.plan", "--host", "0.0.0.0", "--port", "0", "--no-auth"), "Cannot read an engine plan", 1)


def test_a_key_file_that_is_none(here: Path) -> None:
    refused(run("no.plan", "--api-key-file", "keys"), "Cannot read a file of API keys keys: No such file", 1)
    (here / "keys").write_text("\n  \n")
    refused(run("no.plan", "--api-key-file", "keys"), "keys holds no API key", 1)
    (here / "keys").write_text(f"{KEY}\nshort-secret\n")
    result = run("no.plan", "--api-key-file", "keys")
    refused(result, "A key in keys is not at least 16 printable ASCII characters", 2)
    assert "short-secret" not in result.output
    refused(run("no.plan", RTFORMER_API_KEY="short-secret"), "A key in RTFORMER_API_KEY is not at least 16", 2)


def test_a_certificate_that_is_none(here: Path) -> None:
    (here / "c.pem").write_text("no certificate")
    (here / "good.pem").write_text(CERTIFICATE)
    (here / "key.pem").write_text(PRIVATE)
    refused(run("no.plan", "--keyfile", "key.pem"), "--keyfile is for a certificate", 2)
    refused(run("no.plan", "--certfile", "missing.pem"), r"Cannot read a certificate or key missing\.pem: No such file", 1)
    refused(run("no.plan", "--certfile", "c.pem"), r"c\.pem cannot be used for TLS", 1)
    refused(run("no.plan", "--certfile", "good.pem"), r"good\.pem cannot be used for TLS", 1)
    refused(run("no.plan", "--certfile", "good.pem", "--keyfile", "c.pem"), r"good\.pem and c\.pem cannot be used for TLS", 1)
    good = run("no.plan", "--certfile", "good.pem", "--keyfile", "key.pem", "--port", "0")
    refused(good, "Cannot read an engine plan", 1)


def test_without_the_extra_it_says_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(run("no.plan"), r"Serving needs the package fastapi, which is not installed\.\nRun: pip install 'rtformer-deploy\[serve\]'", 1)


class Process:
    """`serve` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        save_engine(tiny_engine(), folder / "tiny.plan")
        command = [sys.executable, "-m", "rtformer_deploy", "serve", str(folder / "tiny.plan"), "--port", "0", "--drain", "0", *arguments]
        environment = os.environ | {"RTFORMER_API_KEY": KEY, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.split()[-1]

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "both.pem").write_text(CERTIFICATE + PRIVATE)
    process = Process(tmp_path, "--certfile", str(tmp_path / "both.pem"), "--log-json")
    yield process
    process.process.kill()
    process.process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.services)])
def test_a_process_serves_over_tls_and_ends_in_order(process: Process, tmp_path: Path, number: int, code: int) -> None:
    assert re.fullmatch(r"Serving tiny on https://127\.0\.0\.1:\d+\n", process.line)
    trusted = ssl.create_default_context(cadata=CERTIFICATE)
    with httpx.Client(base_url=process.url, verify=trusted, trust_env=False) as client:
        request = {"content": jpeg(frames((40, 60))[0]), "headers": {"Content-Type": "image/jpeg", "Authorization": f"Bearer {KEY}"}}
        assert client.post("/v1/segment", **request).status_code == 200  # type: ignore[arg-type]
        assert client.get("/metrics").status_code == 401
    returned, errors = process.end(number)
    assert returned == code, errors
    assert "Traceback" not in errors
    assert KEY not in errors
    assert '"message": "Stopping: everything inside is answered."' in errors
