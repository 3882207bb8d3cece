"""Clients of Triton against a repository that it serves; runs in Triton's environment and prints JSON.

    python triton_clients.py PLAN.json

The plan names the repository, the addresses, and the models, each with the pictures to send and the label maps to get (PNG). Knows nothing
of this project but its tensors' names.
"""

from __future__ import annotations

import io
import json
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

Answer = dict[str, Any]
REQUESTS, CLIENTS, FLOOD = 1000, 8, 200


def parsed(repository: Path) -> list[str]:
    """Parses every config.pbtxt with Triton's own schema -> the names of the models."""
    names = []
    for path in sorted(repository.glob("*/config.pbtxt")):
        found = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        assert found.name == path.parent.name, path
        names.append(found.name)
    return names


class Client:
    """A client of one protocol; `infer` sends one tensor and gives the labels."""

    def __init__(self, module: Any, address: str) -> None:
        self.module = module
        self.client = module.InferenceServerClient(address)

    def infer(self, model: str, values: Any, datatype: str | None = None, name: str = "image", output: str = "labels") -> Any:
        kind = datatype or ("BYTES" if values.dtype == object else {"uint8": "UINT8", "float32": "FP32"}[str(values.dtype)])
        tensor = self.module.InferInput(name, list(values.shape), kind)
        tensor.set_data_from_numpy(values)
        wanted = [self.module.InferRequestedOutput(output)]
        return self.client.infer(model, [tensor], outputs=wanted).as_numpy(output)


def pictures(*paths: str) -> Any:
    """Encoded pictures as BYTES."""
    return np.array([Path(path).read_bytes() for path in paths], dtype=object)


def pixels(path: str) -> Any:
    with Image.open(path) as image:
        return np.array(image)


def frame(path: str) -> Any:
    with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
        return np.array(image.convert("RGB"))


def outcome(call: Callable[[], Any]) -> Any:
    """ "answered", or Triton's status and message."""
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return "answered"


def equal(client: Client, model: str, pairs: list[tuple[str, str]]) -> bool:
    """Whether a model's labels of each picture are those of the file beside it, for the encoded picture and for the raw frame."""
    for picture, labels in pairs:
        wanted = pixels(labels)[None]
        for found in (client.infer(model, pictures(picture)), client.infer(f"{model}_rgb", frame(picture)[None])):
            if found.dtype != np.uint8 or not np.array_equal(found, wanted):
                return False
    first, labels = pairs[0]
    two = client.infer(model, pictures(first, first))
    return bool(np.array_equal(two, np.stack([pixels(labels)] * 2)))


def refusals(client: Client, model: str, picture: str) -> Answer:
    """What Triton says to requests that are wrong."""
    one = frame(picture)
    return {
        "type": outcome(lambda: client.infer(model, one[None])),
        "type of frames": outcome(lambda: client.infer(f"{model}_rgb", one[None].astype(np.float32))),
        "rank": outcome(lambda: client.infer(f"{model}_rgb", one[:3])),
        "channels": outcome(lambda: client.infer(f"{model}_rgb", np.zeros((1, 4, 5, 4), np.uint8))),
        "no pixels": outcome(lambda: client.infer(f"{model}_rgb", np.zeros((1, 0, 5, 3), np.uint8))),
        "batch": outcome(lambda: client.infer(model, pictures(*[picture] * 5))),
        "input": outcome(lambda: client.infer(model, pictures(picture), name="picture")),
        "output": outcome(lambda: client.infer(model, pictures(picture), output="logits")),
        "model": outcome(lambda: client.infer("other", pictures(picture))),
        "no picture": outcome(lambda: client.infer(model, np.array([b"text"], dtype=object))),
    }


def load(plan: Answer) -> Answer:
    """CLIENTS clients of both protocols, REQUESTS requests in all; every answer is compared. A wrong one is listed."""
    jobs = [(model, picture, pixels(labels)) for model, pairs in plan["models"].items() for picture, labels in pairs]
    wrong: list[Any] = []
    answered = [0] * CLIENTS

    def press(number: int) -> None:
        client = Client(grpc, plan["grpc"]) if number % 2 else Client(http, plan["http"])
        for index in range(number, REQUESTS, CLIENTS):
            model, picture, wanted = jobs[index % len(jobs)]
            try:
                raw = index % 3 == 0
                found = client.infer(f"{model}_rgb", frame(picture)[None]) if raw else client.infer(model, pictures(picture))
            except InferenceServerException as error:
                wrong.append([model, picture, str(error)])
                continue
            if not np.array_equal(found, wanted[None]):
                wrong.append([model, picture, "other labels"])
            answered[number] += 1

    threads = [threading.Thread(target=press, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"answered": sum(answered), "wrong": wrong[:10]}


def flood(plan: Answer) -> Answer:
    """FLOOD requests at once, more than may wait -> how many are right, how many were refused as too many, and what else there was."""
    model, ((picture, labels), *_) = next(iter(plan["models"].items()))
    client = grpc.InferenceServerClient(plan["grpc"])
    wanted, answers = pixels(labels)[None], queue.Queue[Any]()
    tensor = grpc.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(pictures(picture))
    for _ in range(FLOOD):
        client.async_infer(model, [tensor], callback=lambda result, error: answers.put((result, error)))
    found: Answer = {"right": 0, "refused": 0, "other": []}
    for _ in range(FLOOD):
        result, error = answers.get(timeout=60)
        if error is None and np.array_equal(result.as_numpy("labels"), wanted):
            found["right"] += 1
        elif error is not None and error.status() == "StatusCode.UNAVAILABLE" and "Exceeds maximum queue size" in error.message():
            found["refused"] += 1
        else:
            found["other"].append(str(error or "other labels"))
    return found


def main() -> None:
    plan: Answer = json.loads(Path(sys.argv[1]).read_text())
    found: Answer = {"parsed": parsed(Path(plan["repository"]))}
    for name, module, address in (("http", http, plan["http"]), ("grpc", grpc, plan["grpc"])):
        client = Client(module, address)
        model, pairs = next(iter(plan["models"].items()))
        found[name] = {
            "equal": {each: equal(client, each, of_each) for each, of_each in plan["models"].items()},
            "refusals": refusals(client, model, pairs[0][0]),
        }
    found["load"] = load(plan)
    found["flood"] = flood(plan)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
