"""The contract of a source, kept by every kind: what `stream.items.Source` says."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import picture, ticks, write_clip

from rtformer_deploy.image.frames import save_png
from rtformer_deploy.stream.camera import device_source
from rtformer_deploy.stream.image_files import ImageFiles
from rtformer_deploy.stream.items import Source, StreamFrame
from rtformer_deploy.stream.live import LiveOptions
from rtformer_deploy.stream.network import network_source
from rtformer_deploy.stream.video_file import VideoFile

pytest.importorskip("av")

Make = Callable[[Path], contextlib.AbstractContextManager[Source]]


@contextlib.contextmanager
def images(folder: Path) -> Iterator[Source]:
    for index in range(5):
        save_png(folder / f"{index}.png", picture(index))
    yield ImageFiles([folder / f"{index}.png" for index in range(5)])


@contextlib.contextmanager
def video(folder: Path) -> Iterator[Source]:
    yield VideoFile(write_clip(folder / "clip.mp4", ticks(5)))


@contextlib.contextmanager
def camera(folder: Path) -> Iterator[Source]:
    made = "testsrc2=size=64x48:rate=50,realtime"
    yield device_source(made, "lavfi", "camera 7", "camera7", LiveOptions(seconds=0.2))


@contextlib.contextmanager
def http_file(folder: Path) -> Iterator[Source]:
    write_clip(folder / "clip.mp4", ticks(5))
    with serving(functools.partial(Quiet, directory=str(folder))) as address:
        yield network_source(address.replace("//", "//user:secret@") + "/clip.mp4?key=secret")


KINDS: dict[str, Make] = {"images": images, "video": video, "camera": camera, "http": http_file}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and prints nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server on loopback; gives its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    with KINDS[request.param](tmp_path) as made:
        yield made


def test_frames_are_rgb_in_order_and_counted(source: Source) -> None:
    frames = [item for item in source.items(threading.Event()) if isinstance(item, StreamFrame)]
    assert len(frames) >= 5
    assert all(item.frame.shape == (48, 64, 3) and item.frame.dtype == np.uint8 and item.frame.flags.c_contiguous for item in frames)
    assert [item.index for item in frames] == sorted({item.index for item in frames})
    times = [item.time for item in frames if item.time is not None]
    assert times == sorted(set(times))
    assert all((time / item.base).denominator == 1 for item, time in zip(frames, times, strict=False))
    assert source.counts.read >= len(frames)
    assert source.counts.busy > 0
    assert source.counts.broken == 0
    assert source.live == (source.name == "camera7")
    assert source.live or source.total == len(frames)


def test_names_are_fit_for_files_and_tell_no_secret(source: Source) -> None:
    for text in (source.name, source.text):
        assert "secret" not in text
    assert "/" not in source.name
    item = next(source.items(threading.Event()))
    assert isinstance(item, StreamFrame)
    assert item.name


def test_a_stop_ends_it_soon(source: Source) -> None:
    stop = threading.Event()
    items = source.items(stop)
    next(items)
    stop.set()
    assert len(list(items)) <= 1


def test_closing_it_closes_what_it_opened(source: Source) -> None:
    before = open_things()
    items = source.items(threading.Event())
    next(items)
    items.close()
    for thread in threading.enumerate():
        if thread.name.startswith("reader"):
            thread.join(5)
    after = open_things()
    assert after <= before, after - before


def open_things() -> set[str]:
    """The regular files that this process has open, and its readers' threads."""
    readers = {thread.name for thread in threading.enumerate() if thread.name.startswith("reader")}
    if not os.path.isdir("/proc/self/fd"):
        return readers
    files = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            files.add(os.readlink(f"/proc/self/fd/{name}"))
    return readers | {name for name in files if name.startswith("/") and not name.startswith("/dev")}
