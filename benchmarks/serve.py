"""The service under load, against what people write today: FastAPI, ONNX Runtime in FP32 with full-size logits, NumPy argmax, PNG.

    python benchmarks/serve.py [--size 1024x2048] [--rounds 3] [--seconds 20] [--overload-seconds 60]
                               [--checked 10000] [--checked-size 128x256] [--json FILE]

RTFormer-Slim for CamVid with its shipped ranges. Every server is a process of its own, and the load comes from another one, whose CPU
time is reported. Three parts, in one run:

    closed loop   each contestant with 1, 2, 4 and 8 clients that send one picture after another. "At equal p99" is the best throughput
                  of ours whose p99 is at most the naive endpoint's p99 at that endpoint's best throughput. The ratio is taken in every
                  round, in which both run within minutes of each other; the median counts, and all of them are kept.
    overload      pictures arrive at 3 times our INT8 capacity, whether or not earlier ones are answered. Every one gets 200, 429 or 504.
    checked       requests of mixed sizes to an engine of --checked-size (the way there and back is what is checked, so a quick one does);
                  every answer is compared with what the engine gives for that picture.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

import harness
import numpy as np
from harness import Json, Size

if TYPE_CHECKING:
    from rtformer_deploy import Engine

RECIPE = "rtformer-slim-camvid"
CONTESTANTS = ("naive", "ours-fp32", "ours-int8")
CLIENTS = (1, 2, 4, 8)
GOALS = {"ours-fp32": 1.2, "ours-int8": 2.0}
TIMES_CAPACITY = 3
DEADLINE_MS, QUEUE = 10_000, 64
PATIENCE_MS = 110_000  # the deadline of the closed loops, in which nothing is to be refused even if the machine stalls
#: Sizes of the checked requests, beside the engine's own.
SIZES: tuple[Size, ...] = ((64, 64), (120, 333), (360, 480), (481, 321), (17, 900))
IDLE_S = 3.0  # uvicorn keeps an idle connection for 5 s by default, and the naive server has that default
MOST_IN_FLIGHT = 200  # connections of the overload; below the service's own limit


# ------------------------------------------------------------------------------------------------------------ the naive server


def naive(folder: Path, threads: int) -> None:
    """The endpoint that people write: a function behind FastAPI's pool of threads."""
    import onnxruntime
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "logits.onnx"), options, providers=["CPUExecutionProvider"])
    height, width = session.get_inputs()[0].shape[2:]
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

    def segment(data: bytes) -> bytes:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        values = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
        logits = session.run(None, {"input": ((values - mean) / std).transpose(2, 0, 1)[None]})[0]
        labels = Image.fromarray(logits.argmax(1)[0].astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
        png = io.BytesIO()
        labels.save(png, "PNG")
        return png.getvalue()

    async def endpoint(request: Request) -> Response:
        return Response(await run_in_threadpool(segment, await request.body()), media_type="image/png")

    app = FastAPI()
    app.add_route("/v1/segment", endpoint, methods=["POST"])
    bound = socket.create_server(("127.0.0.1", 0))
    print(f"Serving naive on http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])


@contextmanager
def serving(name: str, folder: Path, threads: int, deadline_ms: int = DEADLINE_MS) -> Iterator[Running]:
    """A contestant's server in a process of its own, until the block ends."""
    if name == "naive":
        command = [sys.executable, __file__, "--folder", str(folder), "--worker", "naive", "--threads", str(threads)]
    else:
        command = [sys.executable, "-m", "rtformer_deploy", "serve", str(folder / f"{name}.plan"), "--port", "0", "--drain", "0"]
        command += ["--threads", str(threads), "--queue", str(QUEUE), "--deadline", str(deadline_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    found = next(filter(None, (re.search(r"on http://([\d.:]+)", line) for line in process.stdout)), None)
    if found is None:
        raise SystemExit(f"the server {name} did not start")
    try:
        yield Running(process, found[1])
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


class Running:
    """A server's process and address."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address

    def resident_mib(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------------------------------- the load process


def load_worker(folder: Path) -> None:
    """Reads jobs as JSON lines, puts each on its server, and writes what it saw."""
    for line in sys.stdin:
        job = json.loads(line)
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        seen = _LOADS[job["load"]](job, folder)
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps(seen | {"seconds": time.perf_counter() - began, "client_cpu_s": cpu}), flush=True)


class Poster:
    """One connection that posts pictures; opens again after an answer that closes it, and if it was idle for long."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=120)
        self._used = 0.0

    def post(self, picture: bytes) -> tuple[int | str, bytes]:
        """A picture -> the status and the body; the error's name instead of the status if the connection broke."""
        if time.monotonic() - self._used > IDLE_S:  # a server closes such a connection, perhaps while this picture is on its way
            self._connection.close()
        try:
            self._connection.request("POST", "/v1/segment", picture, {"Content-Type": "image/jpeg"})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return type(error).__name__, b""
        finally:
            self._used = time.monotonic()


def closed(job: Json, folder: Path) -> Json:
    """`clients` clients, each sending a picture when the one before is answered, for `seconds` after a warm-up."""
    picture = (folder / "loop.jpg").read_bytes()
    latencies: list[float] = []
    statuses: Counter[int | str] = Counter()
    begin = time.perf_counter() + job["warmup"]
    end = begin + job["seconds"]

    def client() -> None:
        poster = Poster(job["address"])
        while (sent := time.perf_counter()) < end:
            status, _ = poster.post(picture)
            done = time.perf_counter()
            if begin <= done <= end:  # whenever it was sent: one that is on its way at the start stands for one that is at the end
                latencies.append(done - sent)
                statuses[status] += 1

    _run([client] * job["clients"])
    if set(statuses) - {200}:
        raise SystemExit(f"not every request was answered: {dict(statuses)}")
    return {"statuses": dict(statuses), "throughput": len(latencies) / job["seconds"], **percentiles(latencies)}


def open_loop(job: Json, folder: Path) -> Json:
    """Pictures due at a fixed rate for `seconds`; a latency counts from when its picture was due."""
    picture = (folder / "loop.jpg").read_bytes()
    due: SimpleQueue[float | None] = SimpleQueue()
    accepted: list[float] = []
    statuses: Counter[int | str] = Counter()

    def client() -> None:
        poster = Poster(job["address"])
        while (moment := due.get()) is not None:
            status, _ = poster.post(picture)
            statuses[status] += 1
            if status == 200:
                accepted.append(time.perf_counter() - moment)

    def clock() -> None:
        start = time.perf_counter()
        for number in range(int(job["rate"] * job["seconds"])):
            moment = start + number / job["rate"]
            time.sleep(max(0.0, moment - time.perf_counter()))
            due.put(moment)
        for _ in range(MOST_IN_FLIGHT):
            due.put(None)

    _run([clock, *[client] * MOST_IN_FLIGHT])
    return {"sent": int(job["rate"] * job["seconds"]), "statuses": dict(statuses), **percentiles(accepted)}


def checked(job: Json, folder: Path) -> Json:
    """`requests` requests over 8 clients, the pictures in turn; every body is compared with the one expected."""
    pictures = [(folder / f"{index}.jpg").read_bytes() for index in range(job["pictures"])]
    expected = [(folder / f"{index}.png").read_bytes() for index in range(job["pictures"])]
    numbers = iter(range(job["requests"]))
    lock = threading.Lock()
    seen: Counter[str] = Counter()

    def client() -> None:
        poster = Poster(job["address"])
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            status, body = poster.post(pictures[number % len(pictures)])
            same = body == expected[number % len(pictures)]
            seen["right" if status == 200 and same else f"status {status}" if status != 200 else "wrong"] += 1

    _run([client] * 8)
    return {"answers": dict(seen)}


def _run(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def percentiles(seconds: Sequence[float]) -> Json:
    """Latencies -> p50, p99 and the largest in ms; None each without any."""
    if len(seconds) < 2:
        return {"p50_ms": None, "p99_ms": None, "max_ms": None}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50_ms": 1000 * cuts[49], "p99_ms": 1000 * cuts[98], "max_ms": 1000 * max(seconds)}


_LOADS: dict[str, Callable[[Json, Path], Json]] = {"closed": closed, "open": open_loop, "checked": checked}


class Load:
    """The process that the load comes from."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, __file__, "--folder", str(folder), "--worker", "load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, load: str, server: Running, **job: Any) -> None:
        """Begins a job; `answer` waits for it."""
        pipe = self._pipe(self._process.stdin)
        pipe.write(json.dumps({"load": load, "address": server.address, **job}) + "\n")
        pipe.flush()

    def answer(self) -> Json:
        answer: Json = json.loads(self._pipe(self._process.stdout).readline())
        return answer

    def put(self, load: str, server: Running, **job: Any) -> Json:
        """Does a job -> what the load process saw, and the CPU time of the server."""
        before = server.cpu_s()
        self.start(load, server, **job)
        return self.answer() | {"server_cpu_s": server.cpu_s() - before}

    def close(self) -> None:
        self._pipe(self._process.stdin).close()
        self._process.wait()
        self._pipe(self._process.stdout).close()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


# ------------------------------------------------------------------------------------------------------------------- driver


def prepare(folder: Path, asked: argparse.Namespace) -> int:
    """Models, plans, pictures and the answers that they should get into `folder` -> the number of pictures that are checked."""
    from rtformer_deploy import BuildOptions, build_engine, choose_network, export_model, save_engine, save_model
    from rtformer_deploy.formats.ranges import shipped_ranges
    from rtformer_deploy.graph.functions import inline_functions

    choice = choose_network(recipe=RECIPE)
    full = export_model(choice.network, choice.spec(size=asked.size, head="logits"))
    save_model(inline_functions(full.model), folder / "logits.onnx")
    (folder / "loop.jpg").write_bytes(jpeg(harness.frames_at(asked.images, asked.size, 1)[0]))
    plain, int8 = BuildOptions(threads=asked.threads), BuildOptions(precision="int8", threads=asked.threads)
    spec, small = choice.spec(size=asked.size), choice.spec(size=asked.checked_size)
    model = export_model(choice.network, spec).model
    save_engine(build_engine(model, spec, "openvino", plain), folder / "ours-fp32.plan")
    save_engine(build_engine(model, spec, "openvino", int8, ranges=shipped_ranges(spec)), folder / "ours-int8.plan")
    quick = build_engine(export_model(choice.network, small).model, small, "openvino", int8, ranges=shipped_ranges(small))
    save_engine(quick, folder / "ours-checked.plan")
    return write_expected(quick, folder, asked)


def write_expected(engine: Engine, folder: Path, asked: argparse.Namespace) -> int:
    """Pictures of mixed sizes, and for each the PNG that the service should answer -> their number."""
    from rtformer_deploy import open_engine
    from rtformer_deploy.image.decode import decode_image
    from rtformer_deploy.image.png import encode_png

    sizes = (asked.checked_size, *SIZES)
    with open_engine(engine, threads=asked.threads) as runner:
        for index, size in enumerate(sizes):
            picture = jpeg(harness.frames_at(asked.images, size, 1)[0])
            (folder / f"{index}.jpg").write_bytes(picture)
            (folder / f"{index}.png").write_bytes(encode_png(runner.run([decode_image(picture)])[0], level=1))
    return len(sizes)


def jpeg(frame: Any) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=90)
    return data.getvalue()


def closed_loops(load: Load, folder: Path, asked: argparse.Namespace) -> Json:
    """Every contestant with every number of clients -> a row each. They take turns in each round, so that noise falls on all alike."""
    rounds: dict[str, dict[int, list[Json]]] = {name: {clients: [] for clients in CLIENTS} for name in CONTESTANTS}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name, folder, asked.threads, PATIENCE_MS)) for name in CONTESTANTS}
        for _ in range(asked.rounds):
            for clients in CLIENTS:
                for name, server in servers.items():
                    seen = load.put("closed", server, clients=clients, seconds=asked.seconds, warmup=asked.warmup)
                    rounds[name][clients].append(seen)
                    print(f"{name:10} {clients} clients: {_line(seen)}", flush=True)
    rows = {name: {clients: medians(seen) for clients, seen in by_clients.items()} for name, by_clients in rounds.items()}
    each = [{name: {n: seen[index] for n, seen in of.items()} for name, of in rounds.items()} for index in range(asked.rounds)]
    return {"contestants": rows, **ratios_of(each)}


def medians(rounds: Sequence[Json]) -> Json:
    """One row of several rounds: the median of each figure over the rounds that have it."""
    names = ("throughput", "p50_ms", "p99_ms", "max_ms", "client_cpu_s", "server_cpu_s")
    values = {name: [seen[name] for seen in rounds if seen[name] is not None] for name in names}
    return {name: statistics.median(each) if each else None for name, each in values.items()}


def ratios_of(rounds: Sequence[Json]) -> Json:
    """The rows of each round -> our throughput over the naive endpoint's at equal p99: of every round, and the median of those."""
    found = [at_equal_p99(rows) for rows in rounds]
    ratios = {name: [each["ratios"][name] for each in found] for name in GOALS}
    medians_of = {name: None if None in seen else statistics.median(seen) for name, seen in ratios.items()}
    return {
        "naive_best": [each["naive_best"] for each in found],
        "at_equal_p99": {name: {"ratio": medians_of[name], "rounds": ratios[name], "goal": goal} for name, goal in GOALS.items()},
    }


def at_equal_p99(rows: Json) -> Json:
    """The rows of one round: the naive endpoint's best throughput and its p99 there -> ours within that p99, as ratios."""
    best = max((row for row in rows["naive"].values() if row["p99_ms"] is not None), key=lambda row: row["throughput"])
    ratios: Json = {}
    for name in GOALS:
        within = [row["throughput"] for row in rows[name].values() if row["p99_ms"] is not None and row["p99_ms"] <= best["p99_ms"]]
        ratios[name] = max(within) / best["throughput"] if within else None
    return {"naive_best": {"throughput": best["throughput"], "p99_ms": best["p99_ms"]}, "ratios": ratios}


def overload(load: Load, folder: Path, capacity: float, asked: argparse.Namespace) -> Json:
    """Three times what the INT8 service answers -> statuses, latencies of the accepted, memory over time."""
    rate = TIMES_CAPACITY * capacity
    memory: list[float] = []
    with serving("ours-int8", folder, asked.threads) as server:
        load.put("closed", server, clients=4, seconds=asked.warmup, warmup=0)
        load.start("open", server, rate=rate, seconds=asked.overload_seconds)
        end = time.perf_counter() + asked.overload_seconds
        while time.perf_counter() < end:
            memory.append(server.resident_mib())
            time.sleep(0.5)
        seen = load.answer()
        memory.append(server.resident_mib())
        alive = server.process.poll() is None
        after = load.put("closed", server, clients=1, seconds=asked.warmup, warmup=0)
    half = memory[len(memory) // 2]
    return seen | {
        "rate": rate, "alive": alive, "answers_afterwards": after["statuses"], "deadline_ms": DEADLINE_MS,
        "memory_mib": {"start": memory[0], "half": half, "end": memory[-1], "highest": max(memory)},
    }  # fmt: skip


def compare(asked: argparse.Namespace) -> Json:
    """The whole run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = prepare(folder, asked)
        load = Load(folder)
        try:
            loops = closed_loops(load, folder, asked)
            capacity = max(row["throughput"] for row in loops["contestants"]["ours-int8"].values())
            pressed = overload(load, folder, capacity, asked)
            with serving("ours-checked", folder, asked.threads) as server:
                right = load.put("checked", server, requests=asked.checked, pictures=pictures)
        finally:
            load.close()
    case = {
        "recipe": RECIPE, "size": list(asked.size), "checked_size": list(asked.checked_size), "threads": asked.threads,
        "rounds": asked.rounds, "seconds": asked.seconds,
    }  # fmt: skip
    return harness.stamped("the service under load", case | {"closed": loops, "overload": pressed, "checked": right})


def _line(row: Json) -> str:
    if row["p99_ms"] is None:
        return f"{row['throughput']:.2f}/s, statuses {row['statuses']}"
    return f"{row['throughput']:.2f}/s, p50 {row['p50_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms, client CPU {row['client_cpu_s']:.1f} s"


def report(result: Json) -> None:
    for best in result["closed"]["naive_best"]:
        print(f"naive at its best: {best['throughput']:.2f}/s with a p99 of {best['p99_ms']:.0f} ms")
    for name, row in result["closed"]["at_equal_p99"].items():
        ratio = "none within that p99 in some round" if row["ratio"] is None else f"{row['ratio']:.2f} times its throughput"
        rounds = ", ".join("none" if one is None else f"{one:.2f}" for one in row["rounds"])
        print(f"{name}: {ratio} (goal {row['goal']}); by rounds: {rounds}")
    pressed = result["overload"]
    p99 = "none" if pressed["p99_ms"] is None else f"{pressed['p99_ms']:.0f} ms"
    print(f"overload: {pressed['sent']} sent, {pressed['statuses']}, p99 of the accepted {p99}, memory {pressed['memory_mib']}")
    print(f"checked: {result['checked']['answers']}")


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__, harness.RESULTS / "serve.json")
    parser.add_argument("--size", type=harness.size_of, default=(1024, 2048), metavar="HxW", help="the engine's and the pictures' size")
    parser.add_argument("--images", type=Path, help="folder of pictures [default: the bundled photograph]")
    parser.add_argument("--rounds", type=harness.positive, default=3, help="of the closed loops")
    parser.add_argument("--seconds", type=harness.positive, default=20, help="of each closed loop")
    parser.add_argument("--warmup", type=harness.positive, default=5, help="seconds before each closed loop")
    parser.add_argument("--overload-seconds", type=harness.positive, default=60)
    parser.add_argument("--checked", type=harness.positive, default=10_000, help="requests of mixed sizes")
    parser.add_argument("--checked-size", type=harness.size_of, default=(128, 256), metavar="HxW", help="the size of their engine")
    harness.add_threads(parser)
    harness.add_worker(parser)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    asked = parse(words)
    if asked.worker == "naive":
        naive(asked.folder, asked.threads)
        return 0
    if asked.worker == "load":
        load_worker(asked.folder)
        return 0
    result = harness.run_script(asked.json, lambda: compare(asked))
    if result is None:
        return 1
    report(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
