"""/v2: the Open Inference Protocol, in JSON and binary, written out by hand as the protocol has it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from helpers import frames
from numpy.typing import NDArray
from served import Served, jpeg, open_tiny, served

from rtformer_deploy.image.decode import decode_image

PICTURES = [jpeg(frame) for frame in frames((40, 60), (40, 60))]
INFER = "/v2/models/tiny/infer"
CURL = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl says unless told otherwise


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def wanted() -> NDArray[np.uint8]:
    """The labels of both pictures (2, 40, 60)."""
    with open_tiny() as runner:
        return np.stack(runner.run([decode_image(data) for data in PICTURES]))


def strings(*items: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def binary(service: Served, document: dict[str, Any], data: bytes = b"", length: str | None = None) -> httpx.Response:
    header = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)) if length is None else length}
    return service.client.post(INFER, content=header + data, headers=headers)


def tensor(shape: list[int], datatype: str, **more: Any) -> dict[str, Any]:
    return {"name": "image", "shape": shape, "datatype": datatype, **more}


def labels_of(answer: httpx.Response) -> NDArray[np.uint8]:
    """The answer's labels, from JSON or from the binary part."""
    assert answer.status_code == 200, answer.text
    length = answer.headers.get("inference-header-content-length")
    document = json.loads(answer.content[: int(length)] if length else answer.content)
    (output,) = document["outputs"]
    assert (document["model_name"], document["model_version"]) == ("tiny", "1")
    assert (output["name"], output["datatype"]) == ("labels", "UINT8")
    if length:
        assert output["parameters"]["binary_data_size"] == len(answer.content) - int(length)
        return np.frombuffer(answer.content[int(length) :], np.uint8).reshape(output["shape"])
    return np.array(output["data"], np.uint8).reshape(output["shape"])


def test_the_server_and_its_model_describe_themselves(service: Served) -> None:
    server = service.client.get("/v2").json()
    assert server["name"] == "rtformer-deploy"
    assert server["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1"):
        model = service.client.get(path).json()
        assert (model["name"], model["versions"], model["platform"]) == ("tiny", ["1"], "rtformer-deploy_onnxruntime")
        assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert model["outputs"] == [{"name": "labels", "datatype": "UINT8", "shape": [-1, -1, -1]}]
        assert service.client.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}
    assert service.client.get("/v2/health/live").json() == {"live": True}
    assert service.client.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("asked", ["every output", "this output", "json"])
def test_jpegs_as_bytes(service: Served, wanted: NDArray[np.uint8], asked: str) -> None:
    data = strings(*PICTURES)
    document: dict[str, Any] = {"id": "a", "inputs": [tensor([2], "BYTES", parameters={"binary_data_size": len(data)})]}
    if asked == "every output":
        document["parameters"] = {"binary_data_output": True}
    if asked == "this output":
        document["outputs"] = [{"name": "labels", "parameters": {"binary_data": True}}]
    answer = binary(service, document, data)
    np.testing.assert_array_equal(labels_of(answer), wanted)
    assert ("inference-header-content-length" in answer.headers) == (asked != "json")
    assert b'"id": "a"' in answer.content[:500] or asked == "json"


def test_one_jpeg_as_uint8_in_binary_and_in_json(service: Served, wanted: NDArray[np.uint8]) -> None:
    picture = PICTURES[0]
    answer = binary(service, {"inputs": [tensor([len(picture)], "UINT8", parameters={"binary_data_size": len(picture)})]}, picture)
    np.testing.assert_array_equal(labels_of(answer), wanted[:1])
    answer = service.client.post(INFER, json={"id": "7", "inputs": [tensor([len(picture)], "UINT8", data=list(picture))]})
    np.testing.assert_array_equal(labels_of(answer), wanted[:1])
    assert answer.json()["id"] == "7"
    as_curl = json.dumps({"inputs": [tensor([len(picture)], "UINT8", data=list(picture))]})
    np.testing.assert_array_equal(labels_of(service.client.post(INFER, content=as_curl, headers=CURL)), wanted[:1])
    floats = {"id": None, "parameters": None, "outputs": None, "inputs": [tensor([len(picture)], "UINT8", data=list(map(float, picture)))]}
    np.testing.assert_array_equal(labels_of(service.client.post(INFER, json=floats)), wanted[:1])


def test_a_raw_request_is_one_picture(service: Served, wanted: NDArray[np.uint8]) -> None:
    answer = service.client.post(INFER, content=PICTURES[0], headers={"Inference-Header-Content-Length": "0"} | CURL)
    np.testing.assert_array_equal(labels_of(answer), wanted[:1])
    refused = service.client.post(INFER, content=b"text", headers={"Inference-Header-Content-Length": "0"})
    assert refused.status_code == 400


def test_raw_frames(service: Served, wanted: NDArray[np.uint8]) -> None:
    raw = np.stack([decode_image(data) for data in PICTURES])
    answer = binary(service, {"inputs": [tensor([*raw.shape], "UINT8", parameters={"binary_data_size": raw.nbytes})]}, raw.tobytes())
    np.testing.assert_array_equal(labels_of(answer), wanted)
    nested = service.client.post("/v2/models/tiny/versions/1/infer", json={"inputs": [tensor([40, 60, 3], "UINT8", data=raw[0].tolist())]})
    np.testing.assert_array_equal(labels_of(nested), wanted[:1])


def test_pictures_of_one_request_share_batches(service: Served) -> None:
    data = strings(*(PICTURES * 4))
    labels_of(binary(service, {"inputs": [tensor([8], "BYTES", parameters={"binary_data_size": len(data)})]}, data))
    assert 'rtformer_batch_frames_bucket{le="2.0",model="tiny",version="1"}' in service.client.get("/metrics").text
    sizes = [line for line in service.client.get("/metrics").text.splitlines() if line.startswith("rtformer_batch_frames_sum")]
    assert float(sizes[0].split()[-1]) >= 8


SMALL = {"inputs": [tensor([1], "UINT8", data=[1])]}
WRONG: dict[str, tuple[Any, str]] = {
    "no inputs": ({}, "inputs: Field required"),
    "empty inputs": ({"inputs": []}, "inputs: List should have at least 1 item"),
    "another name": ({"inputs": [{**tensor([1], "UINT8", data=[1]), "name": "x\n"}]}, r"its inputs are 'x\n'; the only input is 'image'"),
    "two inputs": ({"inputs": SMALL["inputs"] * 2}, "its inputs are 'image', 'image'"),
    "another type": ({"inputs": [tensor([1], "FP32", data=[1])]}, "datatype is 'FP32'; it is BYTES or UINT8"),
    "another shape": ({"inputs": [tensor([2], "UINT8", data=[1])]}, "shape is [2], which is 2 values, and it has 1"),
    "huge shape": ({"inputs": [tensor([2**31, 2**31, 2**31], "UINT8", data=[1])]}, "values, and it has 1"),
    "negative shape": ({"inputs": [tensor([-1], "UINT8", data=[1])]}, "inputs.0.shape.0: Input should be greater than or equal to 0"),
    "two dimensions": ({"inputs": [tensor([1, 1], "UINT8", data=[1])]}, "UINT8 is [length], [H, W, 3] or [N, H, W, 3]"),
    "no frames": ({"inputs": [tensor([0, 8, 8, 3], "UINT8", data=[])]}, "holds 0 pictures"),
    "no pixels": ({"inputs": [tensor([1, 0, 8, 3], "UINT8", data=[])]}, "UINT8 is [length]"),
    "no data": ({"inputs": [tensor([1], "UINT8")]}, "neither data nor binary_data_size"),
    "fractions": ({"inputs": [tensor([1], "UINT8", data=[0.5])]}, "not whole numbers from 0 to 255"),
    "too large": ({"inputs": [tensor([1], "UINT8", data=[256])]}, "not whole numbers from 0 to 255"),
    "enormous": ({"inputs": [tensor([1], "UINT8", data=[10**40])]}, "not whole numbers from 0 to 255"),
    "strings": ({"inputs": [tensor([1], "UINT8", data=["1"])]}, "not whole numbers from 0 to 255"),
    "ragged": ({"inputs": [tensor([3], "UINT8", data=[[1, 2], [3]])]}, "not a regular array"),
    "bytes in json": ({"inputs": [tensor([1], "BYTES", data=["x"])]}, "JSON cannot hold an encoded picture as BYTES"),
    "shared memory": ({"inputs": [tensor([1], "UINT8", parameters={"shared_memory_region": "r"})]}, "shared_memory_region is not offered"),
    "another output": ({**SMALL, "outputs": [{"name": "logits"}]}, "asks for the output 'logits'; the only output is 'labels'"),
    "classification": ({**SMALL, "outputs": [{"name": "labels", "parameters": {"classification": 3}}]}, "classification is not offered"),
    "not a picture": (SMALL, "The image is not an image that can be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_a_400_that_says_what_is_wrong(service: Served, case: str) -> None:
    document, error = WRONG[case]
    answer = service.client.post(INFER, json=document)
    assert answer.status_code == 400, answer.text
    assert error in answer.json()["error"]


@pytest.mark.parametrize(
    ("document", "data", "length", "error"),
    [
        ({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": 3})]}, b"abc", None, "BYTES are cut off"),
        ({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": 8})]}, strings(b"abcdefgh")[:8], None, "BYTES are cut off"),
        ({"inputs": [tensor([2], "BYTES", parameters={"binary_data_size": 7})]}, strings(b"abc"), None, "another number of elements"),
        ({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": 10})]}, strings(b"a", b"b"), None, "another number of elements"),
        (
            {"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": 9})]},
            strings(b"abc"),
            None,
            "binary_data_size is 9, and 7 bytes",
        ),
        ({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": True})]}, b"a", None, "binary_data_size is True"),
        ({"inputs": [tensor([1], "UINT8", data=[1], parameters={"binary_data_size": 1})]}, b"a", None, "both data and binary_data_size"),
        (SMALL, b"more", None, "4 bytes follow the JSON"),
        (SMALL, b"", "9999999", "it should be a number up to the body's"),
        (SMALL, b"", "-1", "it should be a number up to the body's"),
        (SMALL, b"", "", "it should be a number up to the body's"),
    ],
)
def test_a_wrong_binary_part(service: Served, document: dict[str, Any], data: bytes, length: str | None, error: str) -> None:
    answer = binary(service, document, data, length)
    assert answer.status_code == 400, answer.text
    assert error in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"inputs": 1}', b"\xff\xfe", b"null"])
def test_a_body_that_is_no_request(service: Served, body: bytes) -> None:
    answer = service.client.post(INFER, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("The inference request is wrong: ")


def test_pictures_of_different_sizes_are_not_one_tensor(service: Served) -> None:
    data = strings(*(jpeg(frame) for frame in frames((40, 60), (41, 60))))
    answer = binary(service, {"inputs": [tensor([2], "BYTES", parameters={"binary_data_size": len(data)})]}, data)
    assert answer.status_code == 400
    assert "different sizes" in answer.json()["error"]


def test_more_pictures_than_the_queue_holds(service: Served) -> None:
    data = strings(*[b""] * 65)
    answer = binary(service, {"inputs": [tensor([65], "BYTES", parameters={"binary_data_size": len(data)})]}, data)
    assert answer.status_code == 400
    assert "at most 64 are taken at once" in answer.json()["error"]


def test_models_and_versions_that_are_none(service: Served) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/tiny/versions/2"):
        assert service.client.get(path).status_code == 404
    assert service.client.post("/v2/models/tiny/versions/2/infer", json=SMALL).status_code == 404
