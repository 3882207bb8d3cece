"""A small client of a Triton that runs: the Open Inference Protocol v2 over HTTP with its binary extension."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..errors import EngineError, UsageError, shorten
from ..formats.conversion import convert
from ..formats.documents import JSON_BYTES, DocumentError, parse_json
from ..types import Text
from .sample import bytes_tensor

#: The header that says how long the JSON before the binary data is.
_LENGTH = "Inference-Header-Content-Length"
_LARGEST = 2**30  # bytes of an answer
_PORT = 8000


@dataclass(frozen=True, slots=True)
class _BinarySize:
    binary_data_size: Annotated[int, Meta(ge=0, le=_LARGEST)]


@dataclass(frozen=True, slots=True)
class _Output:
    name: Text
    datatype: Text
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=8)]
    parameters: _BinarySize


@dataclass(frozen=True, slots=True)
class _Answer:
    model_name: Text
    outputs: Annotated[tuple[_Output, ...], Meta(min_length=1, max_length=1)]


@dataclass(frozen=True, slots=True)
class InputTensor:
    """The one input of a request: its name, shape, datatype in Triton's words, and its data."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: bytes


class TritonClient:
    """Asks the Triton at an address: HOST:PORT, or with http:// or https:// before it. `timeout` is for each answer, in seconds.

    Raises UsageError if the address is none. Every call raises EngineError if nobody answers there, or not as Triton does.
    """

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        self.address = address
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _no_address(address) from error
        if host is None or parts.scheme not in ("http", "https") or parts.query or parts.username:
            raise _no_address(address)
        self._prefix = parts.path.rstrip("/")
        if parts.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port or 443, timeout=timeout)
        else:
            self._connection = http.client.HTTPConnection(host, port or _PORT, timeout=timeout)

    def check_ready(self, model: str) -> None:
        """Raises EngineError unless a model is ready."""
        status, _, body = self._ask("GET", f"/v2/models/{quote(model)}/ready")
        if status != 200:
            raise EngineError(f"The Triton at {self.address} has no model {model} that is ready ({status}){_told(body)}.")

    def infer(self, model: str, tensor: InputTensor, output: str) -> NDArray[np.uint8]:
        """One request -> its output, UINT8 of any shape. Raises EngineError, with Triton's message if it refuses the request."""
        entry = {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(tensor.data)},
        }
        header = json.dumps({"inputs": [entry], "outputs": [{"name": output, "parameters": {"binary_data": True}}]}).encode()
        status, length, body = self._ask("POST", f"/v2/models/{quote(model)}/infer", header + tensor.data, len(header))
        if status != 200:
            raise EngineError(f"The Triton at {self.address} did not answer for {model} ({status}){_told(body)}.")
        return self._labels(body, length, output)

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None = None, header: int | None = None) -> tuple[int, str | None, bytes]:
        """A request -> its answer's status, the length of the JSON in it, and its body."""
        headers = {} if header is None else {_LENGTH: str(header), "Content-Type": "application/octet-stream"}
        with self._explained():
            self._connection.request(method, self._prefix + path, body, headers)
            answer = self._connection.getresponse()
            data = answer.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise self._strange(f"more than {_LARGEST:,} bytes")
            return answer.status, answer.getheader(_LENGTH), data

    def _labels(self, body: bytes, length: str | None, output: str) -> NDArray[np.uint8]:
        if length is None or not length.isdecimal() or len(length) > 12:
            raise self._strange("no binary data")
        header, data = body[: int(length)], body[int(length) :]
        try:
            (found,) = convert(parse_json(header, JSON_BYTES), _Answer).outputs
        except DocumentError as error:
            raise self._strange(str(error)) from error
        size = found.parameters.binary_data_size
        if (found.name, found.datatype) != (output, "UINT8") or not math.prod(found.shape) == size == len(data):
            raise self._strange(f"the output {shorten(found.name, 40)}, {shorten(found.datatype, 20)} {found.shape} in {len(data)} bytes")
        return np.frombuffer(data, np.uint8).reshape(found.shape)

    def _strange(self, what: str) -> EngineError:
        return EngineError(f"What answers at {self.address} is not Triton, or not of a version that is known: {what}.")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            hint = "Start it: tritonserver --model-repository=REPOSITORY, and name the address of its HTTP port, as in localhost:8000."
            raise EngineError(f"No Triton answers at {self.address}: {shorten(why, 200)}.", hint) from error


def frames_tensor(frames: NDArray[np.uint8]) -> InputTensor:
    """Frames (N, H, W, 3) as the input of NAME_rgb."""
    return InputTensor("image", frames.shape, "UINT8", frames.tobytes())


def pictures_tensor(pictures: Sequence[bytes]) -> InputTensor:
    """Encoded pictures as the input of NAME."""
    return InputTensor("image", (len(pictures),), "BYTES", bytes_tensor(pictures))


def _no_address(address: str) -> UsageError:
    return UsageError(f"{address!r} is not the address of a Triton.", "Write it as in --check localhost:8000.")


def _told(body: bytes) -> str:
    """What Triton says about a refusal; empty if it says nothing."""
    try:
        told: Any = parse_json(body, JSON_BYTES)
    except DocumentError:
        return ""
    message = told.get("error") if isinstance(told, dict) else None
    return f": {shorten(message, 300).rstrip('.')}" if isinstance(message, str) and message else ""
