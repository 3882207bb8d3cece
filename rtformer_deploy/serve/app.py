"""The ASGI application: the routes, and around them the layers that every request passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ..errors import shorten
from ..machine import own_version
from . import http_v1, http_v2, page_files, stream
from .documents import refusals, write_document
from .guard import Guard
from .log import RequestLog
from .metrics import CONTENT_TYPE
from .refusal import LeftError, Refusal, refusal_of
from .responses import SecurityHeaders
from .service import Service
from .uploads import Uploads

_HEALTH = "/v2/health/"
_LEFT = 499  # nginx's status for a client that closed its connection; nobody gets it, the log shows it


def create_app(service: Service) -> ASGIApp:
    """A service -> the application that answers for it. Its lifespan starts and closes the service."""
    page = page_files.page_files()
    app = _routes(service, page)

    def needs_no_key(path: str) -> bool:
        return path in page or path.startswith(_HEALTH)

    guarded = Guard(app, service.access, needs_no_key)
    return RequestLog(SecurityHeaders(Uploads(guarded, service.limits)))


def _routes(service: Service, page: Mapping[str, Path]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.close()

    app = FastAPI(title="rtformer-deploy", version=own_version(), docs_url=None, redoc_url=None, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.include_router(http_v1.router(service))
    app.include_router(http_v2.router(service))
    app.include_router(stream.router(service))
    app.include_router(page_files.router(page))

    @app.get("/metrics", summary="Show figures for Prometheus", responses=refusals(401, 403), response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type=CONTENT_TYPE)

    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(LeftError, _left)
    app.add_exception_handler(Exception, _failed)
    write_document(app, (http_v1.Segmentation, *http_v2.SCHEMAS), with_key=bool(service.access.keys))
    return app


async def _refused(request: Request, error: Exception) -> Response:
    refusal = refusal_of(error)
    return Response(refusal.body(), refusal.status, refusal.headers, media_type="application/json")


async def _bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    what = f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
    return await _refused(request, Refusal(400, shorten(f"The request is wrong: {what}.", 300)))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "There is nothing at this address.", 405: "This address does not take this method."}
    return await _refused(request, Refusal(error.status_code, texts.get(error.status_code, error.detail), None, error.headers))


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=_LEFT)


async def _failed(request: Request, error: Exception) -> Response:
    """An error that nobody expected: the client gets a 500, and the server logs it with its trace."""
    return await _refused(request, refusal_of(error))
