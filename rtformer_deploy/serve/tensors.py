"""Tensors of the Open Inference Protocol, in JSON and in its binary extension: requests to pictures, label maps to responses.

A picture is an encoded file (JPEG, PNG, ...) as one element of a BYTES tensor [N] or as a UINT8 tensor [length], or raw RGB as UINT8
[H, W, 3] or [N, H, W, 3]. Label maps are UINT8 [N, H, W].
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import shorten
from ..types import Frame, LabelMap
from .refusal import Refusal

#: The header that says how long the JSON before the binary data is, in requests and responses.
LENGTH_HEADER = "Inference-Header-Content-Length"
INPUT, OUTPUT = "image", "labels"

_DATATYPES = ("BYTES", "UINT8")
_MOST_PICTURES = 1024
_PARAMETERS = dict[str, Any]
_SHARED_MEMORY = "shared_memory_region"
_DIGITS = np.frombuffer(b"".join(f"{value:3d},".encode() for value in range(256)), np.uint32)  # a uint8 as JSON, four characters each

Dimension = Annotated[int, Field(ge=0, le=2**31)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")

    parameters: Annotated[_PARAMETERS, BeforeValidator(lambda value: {} if value is None else value)] = Field(default_factory=dict)


class RequestInput(_Part):
    """An input tensor; `data` is flat or nested, and missing if it is in the binary part."""

    name: Annotated[str, Field(json_schema_extra={"enum": [INPUT]})]
    shape: Annotated[list[Dimension], Field(min_length=1, max_length=8)]
    datatype: Annotated[str, Field(json_schema_extra={"enum": list(_DATATYPES)})]
    data: list[Any] | None = None


class RequestOutput(_Part):
    """An output that is asked for; `parameters.binary_data` asks for it in binary."""

    name: Annotated[str, Field(json_schema_extra={"enum": [OUTPUT]})]


class InferenceRequest(_Part):
    """The JSON of a request."""

    id: str | None = None
    inputs: Annotated[list[RequestInput], Field(min_length=1, json_schema_extra={"maxItems": 1})]
    outputs: Annotated[list[RequestOutput], BeforeValidator(lambda value: [] if value is None else value)] = Field(default_factory=list)


class ResponseOutput(BaseModel):
    """An output tensor; `data` is flat, and missing if it is in the binary part."""

    name: str
    shape: list[int]
    datatype: Literal["UINT8"]
    parameters: dict[str, Any] | None = None
    data: list[int] | None = None


class InferenceResponse(BaseModel):
    """The JSON of a response."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a request asks for: encoded pictures or raw frames, its id, and whether the answer is to be binary."""

    items: tuple[bytes | Frame, ...]
    id: str | None
    binary: bool


def parse_request(body: bytes, header_length: str | None) -> Pictures:
    """A request's body, and its LENGTH_HEADER if it has one -> its pictures. Raises a 400 that says what is wrong.

    A length of 0 is the extension's raw request: the body is one encoded picture, and the answer is binary.
    """
    if header_length == "0":
        return Pictures((body,), None, binary=True)
    header, rest = _split(body, header_length)
    try:
        request = InferenceRequest.model_validate_json(header)
    except ValidationError as error:
        raise _wrong(_first(error)) from error
    binary = _asked_in_binary(request)
    tensor = _only_input(request)
    items = _items(tensor, *_data_of(tensor, rest))
    if not 1 <= len(items) <= _MOST_PICTURES:
        raise _wrong(f"the input holds {len(items)} pictures; 1 to {_MOST_PICTURES} are taken")
    return Pictures(items, request.id, binary)


def write_response(labels: Sequence[LabelMap], model: str, version: str, request: Pictures) -> tuple[bytes, dict[str, str]]:
    """Label maps of one size -> the response's body and headers. Raises a 400 if their sizes differ."""
    if len({each.shape for each in labels}) > 1:
        raise Refusal(400, "The pictures of one request have different sizes, so their labels are not one tensor.", "Send them one by one.")
    stacked: NDArray[np.uint8] = np.stack(labels)
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "UINT8", "shape": list(stacked.shape)}
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request.id is not None:
        document["id"] = request.id
    if request.binary:
        output["parameters"] = {"binary_data_size": stacked.nbytes}
        header = json.dumps(document).encode()
        return header + stacked.tobytes(), {LENGTH_HEADER: str(len(header)), "Content-Type": "application/octet-stream"}
    output["data"] = []
    before, _, after = json.dumps(document).rpartition('"data": []')
    return before.encode() + b'"data": [' + _numbers(stacked) + b"]" + after.encode(), {"Content-Type": "application/json"}


def _numbers(values: NDArray[np.uint8]) -> bytes:
    """Values as JSON numbers with commas between them; several million take milliseconds, not seconds."""
    return _DIGITS[values.ravel()].tobytes()[:-1]


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON and the binary part of a body."""
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) <= 12) or int(header_length) > len(body):
        raise _wrong(f"{LENGTH_HEADER} is {shorten(header_length, 20)!r}; it should be a number up to the body's {len(body)} bytes")
    length = int(header_length)
    return body[:length], memoryview(body)[length:]


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints, with the place it is about."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return shorten(f"{place}: {first['msg']}" if place else first["msg"], 200)


def _asked_in_binary(request: InferenceRequest) -> bool:
    names = [output.name for output in request.outputs]
    unknown = [name for name in names if name != OUTPUT]
    if unknown or len(names) > 1:
        what = shorten(unknown[0], 50) if unknown else f"{OUTPUT} twice"
        raise _wrong(f"it asks for the output {what!r}; the only output is {OUTPUT!r}")
    parameters = request.outputs[0].parameters if request.outputs else {}
    for name in (_SHARED_MEMORY, "classification"):
        if name in parameters:
            raise _wrong(f"outputs.0.parameters: {name} is not offered")
    binary = parameters.get("binary_data", request.parameters.get("binary_data_output", False))
    if not isinstance(binary, bool):
        raise _wrong("binary_data is true or false")
    return binary


def _only_input(request: InferenceRequest) -> RequestInput:
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        names = shorten(", ".join(repr(each.name) for each in request.inputs))
        raise _wrong(f"its inputs are {names}; the only input is {INPUT!r}")
    tensor = request.inputs[0]
    if tensor.datatype not in _DATATYPES:
        raise _wrong(f"the input's datatype is {shorten(tensor.datatype, 20)!r}; it is BYTES or UINT8")
    if _SHARED_MEMORY in tensor.parameters:
        raise _wrong(f"inputs.0.parameters: {_SHARED_MEMORY} is not offered")
    return tensor


def _data_of(tensor: RequestInput, rest: memoryview) -> tuple[memoryview | None, list[Any]]:
    """The tensor's binary data, or None and its JSON data."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if tensor.data is None:
            raise _wrong("the input has neither data nor binary_data_size")
        if len(rest):
            raise _wrong(f"{len(rest)} bytes follow the JSON, and no input says that they are its own")
        return None, tensor.data
    if tensor.data is not None:
        raise _wrong("the input has both data and binary_data_size")
    if not isinstance(size, int) or isinstance(size, bool) or size != len(rest):
        raise _wrong(f"binary_data_size is {shorten(repr(size), 20)}, and {len(rest)} bytes follow the JSON")
    return rest, []


def _items(tensor: RequestInput, binary: memoryview | None, data: list[Any]) -> tuple[bytes | Frame, ...]:
    if tensor.datatype == "BYTES":
        if len(tensor.shape) != 1:
            raise _wrong(f"the input's shape is {tensor.shape}; BYTES are [N], one encoded picture each")
        if binary is None:
            raise _wrong("JSON cannot hold an encoded picture as BYTES; send it in the binary extension, or as UINT8 [length]")
        return _strings(binary, tensor.shape[0])
    values = _uint8(tensor.shape, binary, data)
    if values.ndim == 1:
        return (values.tobytes(),)
    if values.ndim not in (3, 4) or values.shape[-1] != 3 or 0 in values.shape[-3:]:
        raise _wrong(f"the input's shape is {tensor.shape}; UINT8 is [length], [H, W, 3] or [N, H, W, 3]")
    return tuple(values if values.ndim == 4 else values[None])


def _strings(binary: memoryview, count: int) -> tuple[bytes, ...]:
    """BYTES: a length in four bytes, little-endian, before each element."""
    items: list[bytes] = []
    start = 0
    while start < len(binary) and len(items) <= count:
        if start + 4 > len(binary):
            raise _wrong("the input's BYTES are cut off")
        (length,) = struct.unpack_from("<I", binary, start)
        if start + 4 + length > len(binary):
            raise _wrong("the input's BYTES are cut off")
        items.append(bytes(binary[start + 4 : start + 4 + length]))
        start += 4 + length
    if len(items) != count or start != len(binary):
        raise _wrong(f"the input's shape is [{count}], and its BYTES hold another number of elements")
    return tuple(items)


def _uint8(shape: Sequence[int], binary: memoryview | None, data: list[Any]) -> NDArray[np.uint8]:
    count = math.prod(shape)
    if binary is None:
        values = _from_json(data, count)
    else:
        values = np.frombuffer(binary, np.uint8)
    if values.size != count:
        raise _wrong(f"the input's shape is {list(shape)}, which is {count} values, and it has {values.size}")
    return values.reshape(tuple(shape))


def _from_json(data: list[Any], count: int) -> NDArray[np.uint8]:
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise _wrong("the input's data is not a regular array") from error
    if values.size and (values.dtype.kind not in "if" or not np.all((values >= 0) & (values <= 255) & (values == np.floor(values)))):
        raise _wrong("the input's data are not whole numbers from 0 to 255")  # some clients write every number as 1.0
    return values.astype(np.uint8).ravel()


def _wrong(what: str) -> Refusal:
    return Refusal(400, f"The inference request is wrong: {what}.")
