"""An RTSP server on loopback that stops, comes back and changes its size. `make test-services`."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from clips import times_of
from helpers import tiny_model

from rtformer_deploy.cli import main
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.stream.items import StreamFrame
from rtformer_deploy.stream.live import LiveOptions
from rtformer_deploy.stream.network import network_source

pytest.importorskip("av")
pytestmark = pytest.mark.services

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_server.py")
NEEDS = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    "assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
)


@pytest.fixture(scope="module", autouse=True)
def _needs_the_server() -> None:
    with contextlib.suppress(OSError):
        if subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, check=False).returncode == 0:
            return
    pytest.skip("needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi and GStreamer's plugins good and ugly")


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def rtsp(port: int, size: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([PYTHON, str(SCRIPT), str(port), size], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_server_that_stops_comes_back_and_changes_its_size(port: int) -> None:
    said: list[str] = []
    options = LiveOptions(answer_s=5, patience_s=30, backoff_s=(0.2, 0.5), say=said.append)
    source = network_source(f"rtsp://127.0.0.1:{port}/live", options)
    frames = (item for item in source.items(threading.Event()) if isinstance(item, StreamFrame))
    with rtsp(port, "320x240"):
        first = list(itertools.islice(frames, 20))
    with rtsp(port, "160x120"):
        while next(frames).frame.shape == (240, 320, 3):  # what was on its way
            pass
        second = list(itertools.islice(frames, 20))
    frames.close()
    assert {item.frame.shape for item in first} == {(240, 320, 3)}
    assert {item.frame.shape for item in second} == {(120, 160, 3)}
    assert source.counts.lost == 1
    assert any("is back: 160x120." in line for line in said)
    times = [float(item.time) for item in [*first, *second] if item.time is not None]
    assert times == sorted(set(times))
    steps = [later - earlier for earlier, later in itertools.pairwise(times[:20])]
    assert sorted(steps)[len(steps) // 2] == pytest.approx(1 / 30, abs=0.005), "the sender's clock"
    assert all(item.frame.max() > 100 for item in [*first, *second]), "no black frames"


def test_the_command_records_a_stream(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("model.onnx"))
    with rtsp(port, "320x240"):
        address = f"rtsp://user:secret@127.0.0.1:{port}/live"
        result = CliRunner().invoke(main, ["segment", "model.onnx", address, "--output", "out", "--seconds", "2"])
    assert result.exit_code == 0, result.output
    assert "secret" not in result.output
    [path] = Path("out").iterdir()
    assert path.name == "127_0_0_1_live_overlay.mp4"
    times = times_of(path)
    assert len(times) > 10
    assert 1.5 < times[-1] <= 2.1
