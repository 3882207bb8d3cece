"""What the OpenAPI document says beside the routes: refusals, bodies that are pictures, how to send the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .pictures import picture_types


class RefusalDocument(BaseModel):
    """What a client gets instead of an answer."""

    error: str
    hint: str | None = None


_TEXTS = {
    400: "The request is wrong, or the picture cannot be decoded.",
    401: "The service needs an API key.",
    403: "The request comes from another site's page.",
    404: "There is no such model.",
    408: "The upload took too long.",
    413: "The body or the picture is too large.",
    415: "The body is not of a type that is read.",
    429: "The service has as many requests as it takes; Retry-After says when to try again.",
    500: "The engine failed on this request.",
    503: "The service is stopping, holds as many uploads as it can, or its engine is down.",
    504: "The answer would have come after the request's deadline.",
}
#: status -> what FastAPI puts into the document for it.
REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": RefusalDocument, "description": text} for status, text in _TEXTS.items()}

_BINARY = {"schema": {"type": "string", "format": "binary"}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of these statuses."""
    return {status: REFUSALS[status] for status in statuses}


def picture_body(field: str) -> dict[str, Any]:
    """The request body of a route that reads it itself: a picture, or a form with the picture as `field`."""
    form = {"type": "object", "required": [field], "properties": {field: {"type": "string", "format": "binary"}}}
    content = dict.fromkeys(sorted(picture_types()), _BINARY) | {"multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def write_document(app: FastAPI, schemas: Sequence[type[BaseModel]], with_key: bool) -> None:
    """Makes the app's OpenAPI document, with `schemas` that routes refer to by name beside those that FastAPI finds.

    Bad parameters are a 400 here, so FastAPI's own 422 is taken out.
    """
    document = app.openapi()
    _, named = models_json_schema([(each, "serialization") for each in schemas], ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= named["$defs"]
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    if with_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    app.openapi_schema = document
