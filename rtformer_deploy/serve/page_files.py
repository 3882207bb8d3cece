"""The page: plain files from this package, read once at the start. No path from a request ever reaches the file system."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, Request, Response

from ..errors import OutputError
from ..files import DOCUMENT_BYTES, read_bytes

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}


def page_files(folder: Path = FOLDER) -> dict[str, Path]:
    """The page's addresses -> its files: / is index.html, /NAME every file, those in folders too. Files of other kinds are left out."""
    files = {f"/{path.relative_to(folder).as_posix()}": path for path in sorted(folder.rglob("*")) if path.suffix in _MEDIA_TYPES}
    return {"/": folder / INDEX} | files


def router(files: Mapping[str, Path]) -> APIRouter:
    """One address for each file."""
    routes = APIRouter(include_in_schema=False)
    for address, path in files.items():
        _add(routes, address, read_bytes(path, OutputError, "a file of the page", DOCUMENT_BYTES), _MEDIA_TYPES[path.suffix])
    return routes


def _add(routes: APIRouter, address: str, content: bytes, media_type: str) -> None:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}  # no-cache: kept, but asked about each time

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    routes.add_api_route(address, answer, methods=["GET", "HEAD"])
