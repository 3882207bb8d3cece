"""/v2: the Open Inference Protocol over HTTP, with its binary extension, for clients such as tritonclient.

https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..machine import own_version
from ..types import Frame
from .documents import REFUSALS, refusals
from .http_v1 import server_timing, unless_gone
from .metrics import VERSION
from .model import Model, Segmented
from .pictures import decode
from .refusal import Refusal
from .service import Service
from .tensors import INPUT, LENGTH_HEADER, OUTPUT, InferenceRequest, InferenceResponse, Pictures, parse_request, write_response

NAME = "rtformer-deploy"
EXTENSIONS = ["binary_tensor_data"]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(Ready):
    name: str


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor; -1 is any size."""

    name: str
    datatype: Literal["BYTES", "UINT8"]
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def router(service: Service) -> APIRouter:
    """The addresses under /v2."""
    routes = APIRouter(prefix="/v2", tags=["v2"])

    @routes.get("", summary="Describe the server", responses=refusals(401, 403))
    async def server() -> ServerMetadata:
        return ServerMetadata(name=NAME, version=own_version(), extensions=EXTENSIONS)

    @routes.get("/health/live", summary="Say whether the process should live", responses=_health(Live))
    async def live(response: Response) -> Live:
        response.status_code = 200 if service.live else 503
        return Live(live=service.live)

    @routes.get("/health/ready", summary="Say whether to send requests here", responses=_health(Ready))
    async def ready(response: Response) -> Ready:
        response.status_code = 200 if service.ready else 503
        return Ready(ready=service.ready)

    for prefix in ("/models/{name}", "/models/{name}/versions/{version}"):
        _add_model_routes(routes, service, prefix, with_version=prefix.endswith("{version}"))
    return routes


def _add_model_routes(routes: APIRouter, service: Service, prefix: str, *, with_version: bool) -> None:
    def find(request: Request) -> Model:
        return _find(service, request.path_params["name"], request.path_params.get("version", VERSION))

    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("name", "version")]
    extra: dict[str, Any] = {"parameters": parameters if with_version else parameters[:1]}
    known = refusals(401, 403, 404)

    async def ready(request: Request, response: Response) -> ModelReady:
        model = find(request)
        is_ready = service.state == "ready" and model.down is None
        response.status_code = 200 if is_ready else 503
        return ModelReady(name=model.name, ready=is_ready)

    async def metadata(request: Request) -> ModelMetadata:
        return _metadata(find(request))

    async def infer(request: Request) -> Response:
        return await _infer(service, request, find(request))

    routes.get(f"{prefix}/ready", summary="Say whether a model answers", responses=known | _health(ModelReady), openapi_extra=extra)(ready)
    routes.get(prefix, summary="Describe a model", responses=known, openapi_extra=extra)(metadata)
    options: dict[str, Any] = {"responses": _INFER_ANSWERS, "response_class": Response, "openapi_extra": extra | _INFER_BODY}
    routes.post(f"{prefix}/infer", summary="Segment the pictures of a tensor", **options)(infer)


async def _infer(service: Service, request: Request, model: Model) -> Response:
    """Any media type is taken, as Triton does: LENGTH_HEADER alone says what the body is."""
    service.check_open()
    body, header_length = await request.body(), request.headers.get(LENGTH_HEADER)
    pictures = await service.codec.run(partial(parse_request, body, header_length))
    if len(pictures.items) > service.limits.queue:
        what = f"The request holds {len(pictures.items)} pictures; at most {service.limits.queue} are taken at once."
        raise Refusal(400, what, "Send fewer at a time.")
    load = partial(_frames, pictures, service.limits.pixels)
    encode = partial(_encode, model=model.name, pictures=pictures)
    (content, headers), timing = await unless_gone(request, model.answer(load, encode, frames=len(pictures.items)))
    return Response(content, headers=headers | server_timing(timing))


def _frames(pictures: Pictures, pixels: int) -> list[Frame]:
    """Decodes encoded pictures; a raw frame is taken as it is, if it is not too large."""
    for item in pictures.items:
        if not isinstance(item, bytes) and item.shape[0] * item.shape[1] > pixels:
            raise Refusal(413, f"The frame is {item.shape[1]}x{item.shape[0]}; at most {pixels:,} pixels are taken.", "Make it smaller.")
    return [decode(item, pixels) if isinstance(item, bytes) else item for item in pictures.items]


def _encode(segmented: Sequence[Segmented], *, model: str, pictures: Pictures) -> tuple[bytes, dict[str, str]]:
    return write_response([each.labels for each in segmented], model, VERSION, pictures)


def _find(service: Service, name: str, wanted: str) -> Model:
    model = service.model(name)
    if wanted != VERSION:
        raise Refusal(404, "The model has no such version.", f"Its only version is {VERSION}.")
    return model


def _metadata(model: Model) -> ModelMetadata:
    backend = "torch" if model.info is None else model.info.backend
    return ModelMetadata(
        name=model.name,
        versions=[VERSION],
        platform=f"{NAME}_{backend}",
        inputs=[TensorMetadata(name=INPUT, datatype="BYTES", shape=[-1])],
        outputs=[TensorMetadata(name=OUTPUT, datatype="UINT8", shape=[-1, -1, -1])],
    )


def _health(document: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": document, "description": "It is not."}}


_INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferenceRequest"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_INFER_ANSWERS: dict[int | str, dict[str, Any]] = REFUSALS | {
    200: {
        "description": "The labels: JSON, or JSON and binary data.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferenceResponse"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
#: Schemas that the document refers to by name, beside those that FastAPI finds itself.
SCHEMAS: tuple[type[BaseModel], ...] = (InferenceRequest, InferenceResponse)
