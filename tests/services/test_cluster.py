"""`--cluster` on a real Ray of two nodes on this machine, with a real server of S3: a killed node, a killed driver, bad places.

Run by `make test-services`, in the environment of tests/services/cluster.txt. Two logical CPUs and two engines: when a node is lost there
is no free place for its engine, which is when Ray alone would wait for ever.
"""

from __future__ import annotations

import http.client
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import frames, load_file
from PIL import Image
from served import jpeg, pixels, tiny_engine

from rtformer_deploy.formats.engine_file import save_engine

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, about its next versions
]
pytest.importorskip("ray", reason="needs the extra cluster: pip install 'rtformer-deploy[cluster]'")
moto_server = pytest.importorskip("moto.server", reason="needs moto[server]")

FRAMES, STALL_S = 40, 120
TIMES = 5  # as many frames in the run that is interrupted
QUEUE, OVERLOAD = 8, 48  # what a copy of the service takes in, and how many ask it at once
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"}
local: Any = load_file(Path(__file__).parents[2] / "benchmarks/local_cluster.py")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server of S3; what follows the question mark in its addresses."""
    server = moto_server.ThreadedMotoServer(port=0)
    server.start()
    os.environ.update(KEYS)
    _, port = server.get_host_and_port()
    yield f"endpoint_override=127.0.0.1:{port}&scheme=http&allow_bucket_creation=true"
    server.stop()


@pytest.fixture(scope="module")
def cluster(s3: str) -> Iterator[Any]:
    """Two nodes with one logical CPU each. The store's keys are in the environment of both."""
    with local.LocalCluster(2, 1) as started:
        yield started


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan, images large enough that a run lasts, and what one machine makes of them (alone/)."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "in").mkdir()
    save_engine(tiny_engine(), folder / "engine.plan")
    rng = np.random.default_rng(0)
    for index in range(FRAMES):
        small = rng.integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(small.repeat(24, 0).repeat(24, 1)).save(folder / f"in/{index:03}.jpg")
    assert local.segment(folder / "engine.plan", folder / "in", "-o", folder / "alone", "--threads", 1, log=folder / "log").wait() == 0
    return folder


def start(cluster: Any, work: Path, *arguments: object) -> subprocess.Popen[str]:
    options = ("--threads", 1, "--cluster", cluster.address, "--stall", STALL_S)
    process: subprocess.Popen[str] = local.segment(work / "engine.plan", *arguments, *options)
    return process


def end(process: subprocess.Popen[str]) -> str:
    """What a run printed, once it has ended; it must end."""
    try:
        return process.communicate(timeout=600)[0]
    except BaseException:
        process.kill()
        process.communicate()
        raise


def count(folder: Path) -> int:
    return sum(1 for _ in local.finished(folder))


def test_what_a_driver_takes_is_measured_over_every_image(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/scale_model.py builds its figures for a billion images on this; 300 are more than one shard."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))  # its worker process imports it by name
    found = importlib.import_module("scale_driver").measure_driver(work / "engine.plan", 300, tmp_path)
    assert found.images == 300
    assert min(found.plan_us, found.count_us) > 0
    assert 40 < found.manifest_bytes < 1000


def test_a_killed_driver_begins_where_it_was_and_a_killed_node_loses_nothing(cluster: Any, work: Path) -> None:
    """One run: its driver is killed, and after its second start one of the two nodes is."""
    out = work / "out"
    first = start(cluster, work, work / "in", "-o", out)
    local.wait_for(lambda: count(out) >= FRAMES // 4, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(3)  # until Ray has ended what the driver had started
    made = {path: path.stat().st_mtime_ns for path in local.finished(out)}
    assert 0 < len(made) < 2 * FRAMES
    second = start(cluster, work, work / "in", "-o", out)
    local.wait_for(lambda: count(out) > len(made) + 6, second)
    cluster.kill_node()
    printed = end(second)
    assert second.returncode == 0, printed
    assert "Going on with the run" in printed
    assert local.outputs(out) == local.outputs(work / "alone")
    pairs = [(path, path.with_name(path.name.replace("_labels", "_overlay"))) for path in made if path.name.endswith("_labels.png")]
    whole = [path for pair in pairs if pair[1] in made for path in pair]
    assert whole
    assert all(path.stat().st_mtime_ns == made[path] for path in whole), "what was there and whole was made again"


def test_ctrl_c_leaves_what_is_whole_and_a_second_start_makes_the_rest(cluster: Any, work: Path) -> None:
    many, out = work / "many", work / "interrupted"
    many.mkdir()
    for path in (work / "in").iterdir():
        for number in range(TIMES):  # more, so that the run lasts until it is interrupted
            os.link(path, many / f"{path.stem}-{number}.jpg")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so would what it starts
    first = start(cluster, work, many, "-o", out)
    signal.signal(signal.SIGINT, before)
    local.wait_for(lambda: count(out) >= 4, first)
    first.send_signal(signal.SIGINT)
    printed = end(first)
    assert first.returncode == 130, printed
    assert printed.rstrip().endswith("Interrupted.")
    assert "Traceback" not in printed
    assert "Connecting" not in printed, "a thread joined the cluster again"
    alone = {name.replace("_", f"-{number}_"): data for name, data in local.outputs(work / "alone").items() for number in range(TIMES)}
    made = local.outputs(out)
    assert 0 < len(made) < len(alone)
    assert made.items() <= alone.items()
    second = start(cluster, work, many, "-o", out)
    assert "Going on with the run" in end(second)
    assert second.returncode == 0
    assert local.outputs(out) == alone


#: A process that takes every CPU of a cluster, says so, and keeps them until it ends.
HOLD = """
import ray, sys, time
ray.init(sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1)
class Idle:
    def here(self):
        return True
idle = [Idle.remote() for _ in range(int(ray.cluster_resources()["CPU"]))]
ray.get([each.here.remote() for each in idle])
print("held", flush=True)
time.sleep(600)
"""


def test_a_cluster_without_room_ends_the_run_with_a_message(cluster: Any, work: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, cluster.address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        process = local.segment(work / "engine.plan", work / "in", "-o", work / "none", "--cluster", cluster.address, "--stall", 15)
        printed = end(process)
    finally:
        holder.kill()
        holder.communicate()
    assert process.returncode == 1, printed
    assert "Nothing came back from the cluster for 15 s" in printed
    assert "Traceback" not in printed


def test_from_a_store_of_objects_into_another(cluster: Any, work: Path, s3: str) -> None:
    from pyarrow.fs import FileSystem

    system, _ = FileSystem.from_uri(f"s3://pictures/?{s3}")
    system.create_dir("pictures")
    for path in sorted((work / "in").iterdir())[:6]:
        with system.open_output_stream(f"pictures/in/sub/{path.name}") as file:
            file.write(path.read_bytes())
    with system.open_output_stream("pictures/in/broken.png") as file:
        file.write(b"no picture")
    process = start(cluster, work, f"s3://pictures/in?{s3}", "-o", f"s3://pictures/out?{s3}")
    printed = end(process)
    assert process.returncode == 1, printed
    assert "1 of 7 images could not be segmented" in printed
    assert "s3://pictures/in/broken.png" in printed
    for path in sorted((work / "in").iterdir())[:6]:
        for made in (f"{path.stem}_labels.png", f"{path.stem}_overlay.png"):
            with system.open_input_file(f"pictures/out/sub/{made}") as file:
                assert file.read() == (work / "alone" / made).read_bytes()
    again = start(cluster, work, f"s3://pictures/in?{s3}", "-o", f"s3://pictures/out?{s3}")
    printed = end(again)
    assert "Segmented 0 of 7 images, 6 were there already" in printed


@pytest.mark.parametrize(
    ("source", "output", "environment", "said"),
    [
        ("s3://missing/in", "out", {}, "There is no bucket missing"),
        ("s3://pictures/empty", "out", {}, "holds no image"),
        ("s3://pictures/in", "s3://pictures/in/out", {}, "would lie among the images"),
        ("in", "s3://missing/out", {}, "missing"),
    ],
    ids=["no bucket", "no image", "among", "no bucket to write to"],
)
def test_a_bad_place_is_one_message(
    cluster: Any, work: Path, s3: str, source: str, output: str, environment: dict[str, str], said: str
) -> None:
    places = [f"{place}?{s3.replace('&allow_bucket_creation=true', '')}" if "://" in place else work / place for place in (source, output)]
    process = start(cluster, work, places[0], "-o", places[1])
    printed = end(process)
    assert process.returncode in (1, 2), printed
    assert said in printed
    assert "Traceback" not in printed


def test_scores_and_ranges_are_one_machines(cluster: Any, work: Path) -> None:
    """On a real cluster what tests/cluster proves of the sums: the rows come through Ray."""
    from helpers import tiny_model

    from rtformer_deploy.formats.model_file import save_model

    save_model(tiny_model(), work / "model.onnx")
    command = [sys.executable, "-m", "rtformer_deploy", "calibrate", "model.onnx", "--images", "in", "--threads", "1", "-o"]
    subprocess.run([*command, "alone.json"], cwd=work, check=True)
    subprocess.run([*command, "together.json", "--cluster", cluster.address], cwd=work, check=True)
    assert (work / "together.json").read_bytes() == (work / "alone.json").read_bytes()


def free_port() -> int:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def ask(port: int, picture: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/segment", picture, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_service_on_a_cluster(cluster: Any, work: Path) -> None:
    """The same answers as the application gives on one machine; a killed copy costs what it had, as 503, and is replaced."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "rtformer_deploy",
        "serve",
        work / "engine.plan",
        "--cluster",
        cluster.address,
        "--port",
        port,
        "--queue",
        QUEUE,
    ]
    with (work / "serve.log").open("w") as log:
        process = subprocess.Popen([*map(str, command), "--threads", "1"], stdout=log, stderr=subprocess.STDOUT)
    try:
        said = work / "serve.log"
        local.wait_for(lambda: "Serving engine on http" in said.read_text(), process)
        frame = frames((40, 60))[0]
        status, body = ask(port, jpeg(frame))
        assert status == 200, body
        assert pixels(body).shape == (40, 60)
        with ThreadPoolExecutor(OVERLOAD) as pool:
            answers = list(pool.map(lambda _: ask(port, jpeg(frame)), range(4 * OVERLOAD)))
        assert {status for status, _ in answers} <= {200, 429, 503, 504}
        assert {body for status, body in answers if status == 200} == {body}
        assert any(status != 200 for status, _ in answers), "nothing was refused"
        with ThreadPoolExecutor(4) as pool:
            refused = threading.Event()
            pressed = [pool.submit(press, port, jpeg(frame), refused) for _ in range(4)]
            time.sleep(1.0)
            kill_copy()
            statuses = [each.result() for each in pressed]
        assert all(each[-3:] == [200] * 3 for each in statuses), statuses
        assert {status for each in statuses for status in each} == {200, 503}, statuses
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, said.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def press(port: int, picture: bytes, refused: threading.Event) -> list[int]:
    """A client that asks again at once -> its statuses: until a client was refused and three answers have come since."""
    statuses: list[int] = []
    end_by = time.monotonic() + 240
    while time.monotonic() < end_by and not (refused.is_set() and statuses[-3:] == [200] * 3):
        statuses.append(ask(port, picture)[0])
        if statuses[-1] == 503:
            refused.set()
        time.sleep(0.0 if statuses[-1] == 200 else 0.5)
    return statuses


def kill_copy() -> None:
    """Kills the worker in which a copy of the service runs."""
    import psutil

    copies = [each for each in psutil.process_iter(["cmdline"]) if any("ServeReplica" in part for part in each.info["cmdline"] or ())]
    assert copies
    for each in copies:
        each.kill()
