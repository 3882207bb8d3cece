"""Clients from elsewhere against a server of the Open Inference Protocol; runs in their environment and prints JSON.

    python protocol_clients.py URL MODEL PICTURE...

Each call's outcome is its value, or its error's status and message; label maps are their shape and their hash. Knows nothing of this
project, so that it can be pointed at another server.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest, RequestInput
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

Outcomes = dict[str, Any]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or how it failed."""
    try:
        return call()
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    except ApiError as error:
        return {"status": str(error.status_code), "message": str(error.body)}


def described(labels: Any) -> list[Any]:
    """A label tensor -> its shape and the hash of its bytes."""
    values = np.ascontiguousarray(labels, np.uint8)
    return [list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]


def strings(pictures: list[bytes]) -> Any:
    """Encoded pictures as one BYTES tensor."""
    tensor = triton.InferInput("image", [len(pictures)], "BYTES")
    tensor.set_data_from_numpy(np.array(pictures, dtype=object), binary_data=True)
    return tensor


def uint8(values: Any, name: str = "image", *, binary: bool = True) -> Any:
    tensor = triton.InferInput(name, list(values.shape), "UINT8")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def with_tritonclient(address: str, model: str, pictures: list[bytes]) -> Outcomes:
    client = triton.InferenceServerClient(address, concurrency=4)
    one = np.frombuffer(pictures[0], np.uint8)

    def infer(*inputs: Any, **more: Any) -> list[Any]:
        return described(client.infer(model, list(inputs), **more).as_numpy("labels"))

    def asynchronous() -> list[Any]:
        waiting = [client.async_infer(model, [strings([picture])]) for picture in pictures * 3]
        return [described(each.get_result().as_numpy("labels")) for each in waiting]

    in_json = [triton.InferRequestedOutput("labels", binary_data=False)]
    unknown = [triton.InferRequestedOutput("logits", binary_data=True)]
    metadata = client.get_model_metadata(model)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(model),
        "other ready": client.is_model_ready("other"),
        "extensions": sorted(set(client.get_server_metadata()["extensions"]) & {"binary_tensor_data"}),
        "inputs": [[each["name"], each["datatype"]] for each in metadata["inputs"]],
        "outputs": [[each["name"], each["datatype"]] for each in metadata["outputs"]],
        "bytes": outcome(lambda: infer(strings(pictures))),
        "bytes, labels in json": outcome(lambda: infer(strings(pictures[:1]), outputs=in_json)),
        "uint8": outcome(lambda: infer(uint8(one))),
        "uint8 in json": outcome(lambda: infer(uint8(one, binary=False))),
        "request id": outcome(lambda: client.infer(model, [strings(pictures[:1])], request_id="abc").get_response()["id"]),
        "asynchronous": outcome(asynchronous),
        "another model": outcome(lambda: client.infer("other", [strings(pictures[:1])])),
        "another version": outcome(lambda: client.infer(model, [strings(pictures[:1])], model_version="7")),
        "another input": outcome(lambda: infer(uint8(one, "picture"))),
        "another output": outcome(lambda: infer(uint8(one), outputs=unknown)),
        "metadata of another model": outcome(lambda: client.get_model_metadata("other")),
    }


def with_open_inference(address: str, model: str, pictures: list[bytes]) -> Outcomes:
    client = OpenInferenceClient(base_url=f"http://{address}")
    tensor = RequestInput(name="image", shape=[len(pictures[0])], datatype="UINT8", data=list(pictures[0]))
    request = InferenceRequest(id="7", inputs=[tensor])

    def infer() -> Any:
        answer = client.model_infer(model, request=request)
        (output,) = answer.outputs
        values = np.array([int(float(str(value))) for value in json.loads(output.data.json())], np.uint8).reshape(output.shape)
        return [answer.id, answer.model_name, *described(values)]

    return {
        "live": outcome(client.check_server_liveness),
        "ready": outcome(client.check_server_readiness),
        "model ready": outcome(lambda: client.check_model_readiness(model)),
        "server": outcome(lambda: client.read_server_metadata().name),
        "model": outcome(lambda: client.read_model_metadata(model).name),
        "infer": outcome(infer),
        "another model": outcome(lambda: client.model_infer("other", request=request)),
    }


def main() -> None:
    address, model, *paths = sys.argv[1:]
    pictures = [Path(path).read_bytes() for path in paths]
    print(json.dumps({"tritonclient": with_tritonclient(address, model, pictures), "open": with_open_inference(address, model, pictures)}))


if __name__ == "__main__":
    main()
