"""Live sources: the newest frame wins, lost connections come back, nothing hangs and nothing grows."""

from __future__ import annotations

import gc
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from mjpeg_server import serve

from rtformer_deploy.errors import UsageError, VideoError
from rtformer_deploy.stream.camera import camera_number, camera_source, device_source
from rtformer_deploy.stream.connection import LiveClock
from rtformer_deploy.stream.items import StreamFrame
from rtformer_deploy.stream.live import LiveOptions, LiveSource
from rtformer_deploy.stream.network import address_name, network_source, shown

pytest.importorskip("av")

QUICK = LiveOptions(answer_s=2.0, patience_s=3.0, backoff_s=(0.01, 0.05))


def frames_of(source: LiveSource, stop: threading.Event | None = None) -> Iterator[StreamFrame]:
    return (item for item in source.items(stop or threading.Event()) if isinstance(item, StreamFrame))


def test_a_stream_that_ends_is_opened_again_also_at_another_size() -> None:
    said: list[str] = []
    options = LiveOptions(answer_s=2.0, patience_s=3.0, backoff_s=(0.01, 0.05), say=said.append)
    with serve([((48, 64), 5), ((32, 40), 5), ((48, 64), None)]) as camera:
        source = network_source(camera.address, options)
        frames = list(itertools.islice(frames_of(source), 14))
    sizes = [size for size, _ in itertools.groupby(frame.frame.shape[:2] for frame in frames)]
    assert sizes == [(48, 64), (32, 40), (48, 64)]
    assert source.counts.lost == 2
    assert all(frame.frame.max() > 150 for frame in frames), "no frame is made up: a lost one is no black one"
    times = [frame.time for frame in frames if frame.time is not None]
    assert times == sorted(set(times))
    assert times[-1] < 5
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))
    assert [line.split(": ")[-1] for line in said if "is back" in line] == ["40x32.", "64x48."]
    assert sum(line.endswith("Trying again for 3 s.") for line in said) == 2


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    with serve([((48, 64), None)], fps=200) as camera:
        source = network_source(camera.address, QUICK)
        frames = frames_of(source)
        first = next(frames)
        time.sleep(0.5)
        later = list(itertools.islice(frames, 3))
        frames.close()  # type: ignore[attr-defined]
    assert source.live
    assert source.counts.dropped > 20
    assert later[1].index - first.index > 20, "what waited is at most one frame"
    assert source.counts.read >= source.counts.dropped + 4


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_never_answers_is_one_message(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}://user:secret@127.0.0.1:{server.getsockname()[1]}/live"
        source = network_source(address, LiveOptions(answer_s=0.3))
        began = time.monotonic()
        with pytest.raises(VideoError, match=r"127\.0\.0\.1:\d+/live.*(no answer|no frame) in 0\.3 s") as error:
            list(source.items(threading.Event()))
        assert time.monotonic() - began < 5
        assert "secret" not in str(error.value)


def test_a_server_that_is_not_there_is_one_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(VideoError, match="Connection refused"):
        list(network_source(f"rtsp://127.0.0.1:{port}/live", QUICK).items(threading.Event()))


def test_a_stream_that_stays_away_is_given_up() -> None:
    options = LiveOptions(answer_s=2.0, patience_s=0.3, backoff_s=(0.01, 0.05))
    with serve([((48, 64), 3)]) as camera:
        source = network_source(camera.address, options)
        frames = frames_of(source)
        assert next(frames).frame.shape == (48, 64, 3)
    with pytest.raises(VideoError, match=r"It was tried again for \d s"):
        list(frames)
    assert source.counts.lost == 1


def test_a_stubborn_source_waits_for_its_first_frame() -> None:
    attempts = itertools.count()

    def opener(*, nvdec: object = None) -> object:
        if next(attempts) < 3:
            raise VideoError("not yet.")
        return device._opener()

    device = device_source("testsrc2=size=64x48:rate=50", "lavfi", "camera 0", "camera0")
    source = LiveSource("camera 0", "camera0", opener, LiveOptions(backoff_s=(0.01, 0.01), stubborn=True))  # type: ignore[arg-type]
    assert next(frames_of(source)).frame.shape == (48, 64, 3)
    assert next(attempts) == 4


def test_a_reader_that_hangs_is_given_up_and_few_are_left_hanging() -> None:
    wake, started = threading.Event(), []

    def hanging(*, nvdec: object = None) -> object:
        started.append(threading.current_thread())
        wake.wait(10)
        raise VideoError("woken.")

    options = LiveOptions(answer_s=0.02, patience_s=30, backoff_s=(0.001, 0.002), stubborn=True)
    source = LiveSource("camera 0", "camera0", hanging, options)  # type: ignore[arg-type]
    stop = threading.Event()
    threading.Timer(1.5, stop.set).start()
    assert list(source.items(stop)) == []
    assert 2 <= len(started) <= 3
    wake.set()
    for thread in started:
        thread.join(5)
        assert not thread.is_alive()


def test_nothing_grows_over_many_lost_and_found_streams() -> None:
    def held() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    with serve([((48, 64), 8)], fps=1000) as camera:
        frames = frames_of(network_source(camera.address, LiveOptions(backoff_s=(0.001, 0.001))))
        next(frames)
        connections = camera.connections
        while camera.connections < connections + 5:
            next(frames)
        before = held()
        while camera.connections < connections + 30:
            next(frames)
        after = held()
        frames.close()  # type: ignore[attr-defined]
    assert after[0] <= before[0] + 3
    assert after[1] <= before[1] + 3


def test_a_camera_is_opened_by_its_number_and_a_missing_one_is_one_message() -> None:
    with pytest.raises(VideoError, match=r"Cannot open camera 98: "):
        list(camera_source(98).items(threading.Event()))
    assert camera_number("/dev/video2") == 2
    assert camera_number("12") == 12
    assert camera_number("12.png") is None


def test_seconds_end_a_live_source_also_when_it_is_silent() -> None:
    with serve([((48, 64), 8)], fps=1000) as camera:
        source = network_source(camera.address, LiveOptions(seconds=0.3, backoff_s=(0.05, 0.05)))
        began = time.monotonic()
        assert len(list(frames_of(source))) >= 2
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("address", ["foo://host/x", "file:///etc/passwd", "rtsp://", "concat://a|b"])
def test_an_address_of_another_scheme_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is not an address that can be read"):
        network_source(address)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://user:pa@ss@cam-1.local:554/live/main", "cam-1_local_live_main"),
        ("http://10.0.0.7:8080/a.m3u8?token=secret", "10_0_0_7_a"),
        ("rtsp://[::1]:554/", "1"),
    ],
)
def test_outputs_are_called_after_host_and_path(address: str, name: str) -> None:
    assert address_name(address) == name
    assert not {"pa@ss", "token", "secret"} & {part for part in ("pa@ss", "token", "secret") if part in shown(address)}


def clock() -> LiveClock:
    return LiveClock(Fraction(1, 1000))


def test_the_senders_clock_gives_the_steps() -> None:
    live = clock()
    sent = [Fraction(1000), Fraction(1000) + Fraction(1, 25), Fraction(1000) + Fraction(2, 25)]
    assert [live.time(time, wall) for time, wall in zip(sent, (5.0, 5.07, 5.08), strict=True)] == [0, Fraction(1, 25), Fraction(2, 25)]


def test_a_jump_or_another_connection_sets_the_clock_by_the_wall() -> None:
    live = clock()
    assert live.time(Fraction(100), 5.0) == 0
    assert live.time(Fraction(3), 5.5) == Fraction(1, 2), "it went back by 97 s"
    assert live.time(Fraction(3) + Fraction(1, 10), 5.7) == Fraction(6, 10)
    live.reset()
    assert live.time(Fraction(0), 25.0) == 20, "time went on while the connection was lost"
    assert live.time(None, 26.0) == 21, "no time stamp: the wall's"


def test_times_grow_whatever_comes() -> None:
    live = clock()
    times = [live.time(sent, 5.0) for sent in (Fraction(1), Fraction(1), None, Fraction(1, 2))]
    assert times == sorted(set(times))
