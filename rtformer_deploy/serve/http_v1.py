"""/v1: a picture in, its label map, overlay, confidence map or JSON out; which models there are."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from ..types import Frame
from .documents import REFUSALS, picture_body
from .metrics import Timing
from .model import Model
from .pictures import JSON, PNG, Extra, Output, Wanted, check_picture_type, decode
from .refusal import LeftError, Refusal, refusal_of
from .service import Service

T = TypeVar("T")

#: A class's id in a label map.
ClassId = Annotated[int, Field(ge=0, le=255)]

_FIELD = "image"
_FORM = "multipart/form-data"


class ClassInfo(BaseModel):
    """A class: its id in label maps, its name, its colour in overlays."""

    id: int
    name: str
    colour: tuple[int, int, int]


class ClassShare(ClassInfo):
    """A class's pixels in a picture, and their share of it."""

    pixels: int
    share: float


class Segmentation(BaseModel):
    """What `?output=json` gives. `labels`, `overlay` and `confidence` are PNGs as base64, `polygons` is GeoJSON in pixels."""

    model: str
    height: int
    width: int
    classes: list[ClassShare]
    labels: str | None = None
    overlay: str | None = None
    confidence: str | None = None
    polygons: dict[str, Any] | None = None


class ModelInfo(BaseModel):
    """A served model. `height` and `width` are the engine's own size; pictures may have any."""

    name: str
    network: str
    backend: str
    precision: str | None
    height: int
    width: int
    largest_batch: int
    confidence: bool
    classes: list[ClassInfo]


_ANSWERS: dict[int | str, dict[str, Any]] = REFUSALS | {
    200: {
        "description": "The answer: a PNG, or JSON for output=json.",
        "content": {
            PNG: {"schema": {"type": "string", "format": "binary"}},
            JSON: {"schema": {"$ref": "#/components/schemas/Segmentation"}},
        },
    }
}


def router(service: Service) -> APIRouter:
    """The addresses under /v1, but for the stream."""
    routes = APIRouter(prefix="/v1", tags=["v1"])

    async def named(request: Request, name: str, wanted: Annotated[Wanted, Depends(_wanted)]) -> Response:
        return await _segment(service, request, service.model(name), wanted)

    async def unnamed(request: Request, wanted: Annotated[Wanted, Depends(_wanted)]) -> Response:
        return await _segment(service, request, service.default_model("/v1/segment"), wanted)

    options: dict[str, Any] = {"responses": _ANSWERS, "response_class": Response, "openapi_extra": picture_body(_FIELD)}
    routes.post("/segment", summary="Segment a picture", **options)(unnamed)
    routes.post("/segment/{name}", summary="Segment a picture with one of several models", **options)(named)

    @routes.get("/models", summary="List the models", responses={401: REFUSALS[401], 403: REFUSALS[403]})
    async def models() -> list[ModelInfo]:
        return [_describe(model) for model in service.models.values()]

    return routes


def _wanted(
    output: Annotated[Output, Query(description="What to answer with.")] = "labels",
    alpha: Annotated[float, Query(ge=0, le=1, description="How much the colours cover in an overlay.")] = 0.5,
    legend: Annotated[bool, Query(description="Draw a legend on the overlay.")] = False,
    hide: Annotated[list[ClassId] | None, Query(description="Ids of classes to leave out of an overlay.")] = None,
    include: Annotated[list[Extra] | None, Query(description="What JSON holds beside the classes.")] = None,
) -> Wanted:
    return Wanted(output, alpha, legend, frozenset(hide or ()), frozenset(include or ()))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, whose request was read to its end; cancels it and raises LeftError if the client closes its connection.

    Whatever else `work` raises becomes a Refusal.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise LeftError
        return task.result()
    except LeftError:
        raise
    except Exception as error:
        raise refusal_of(error) from error
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def media_type(request: Request) -> str:
    """The request's media type in lower case, without its parameters; "" if it has none."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def server_timing(timing: Timing) -> dict[str, str]:
    """Where a request's time went, as browsers and curl show it."""
    return {"Server-Timing": ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in timing.phases().items())}


async def _segment(service: Service, request: Request, model: Model, wanted: Wanted) -> Response:
    service.check_open()
    wanted.check(model)
    data = await _picture(request)
    load = partial(_load, data, service.limits.pixels)
    work = model.answer(load, wanted.encoder(model), kind=wanted.kind)
    body, timing = await unless_gone(request, work)
    return Response(body, media_type=wanted.media_type, headers=server_timing(timing))


def _load(data: bytes, pixels: int) -> list[Frame]:
    return [decode(data, pixels)]


async def _picture(request: Request) -> bytes:
    """The picture's bytes, from the body or from the form field `image`. Raises a 400 or a 415."""
    kind = media_type(request)
    if kind == _FORM:
        return await _from_form(request)
    check_picture_type(kind)
    data = await request.body()
    if not data:
        raise Refusal(400, "The body is empty.", f"Send a picture as the body or as the form field {_FIELD}.")
    return data


class _InMemory(MultiPartParser):
    """Keeps an upload in memory, where the limit on bodies holds, instead of in a file."""

    spool_max_size = 2**62


async def _from_form(request: Request) -> bytes:
    try:
        form = await _InMemory(request.headers, request.stream(), max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError, ValueError) as error:  # a boundary that is missing or odd
        raise Refusal(400, "The form cannot be read.", f"Send one file as the form field {_FIELD}.") from error
    try:
        upload = form.get(_FIELD)
        if not isinstance(upload, UploadFile):
            raise Refusal(400, f"The form has no file {_FIELD}.", f"Send one file as the form field {_FIELD}.")
        data = await upload.read()
    finally:
        await form.close()
    if not data:
        raise Refusal(400, f"The file {_FIELD} is empty.", f"Send a picture as the form field {_FIELD}.")
    return data


def _describe(model: Model) -> ModelInfo:
    spec, info = model.spec, model.info
    classes = [ClassInfo(id=index, name=name, colour=spec.palette[index]) for index, name in enumerate(spec.classes)]
    height, width = spec.size
    return ModelInfo(
        name=model.name,
        network=spec.name,
        backend="torch" if info is None else info.backend,
        precision=None if info is None else info.precision.asked,
        height=height,
        width=width,
        largest_batch=model.largest_batch,
        confidence=spec.head != "labels",
        classes=classes,
    )


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
