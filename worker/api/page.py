"""The web page's files, with the headers that keep it to itself.

They lie in `worker/web/` as they are written: no build, nothing from elsewhere. Names do not carry
versions, so browsers ask each time and are told by ETag that nothing changed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from worker.api.errors import ApiError

WEB = Path(__file__).resolve().parent.parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".hdr": "image/vnd.radiance",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
VIEWER_STYLE = "sha256-PXtZZkJMMyc18o/DN1ZEFOJ2qEGq95IQbVaJFMOXOb0="
"""Of the style element inside model-viewer 4.4.0; the page's browser tests fail when it changes."""
# model-viewer compiles WebAssembly decoders, runs workers from blobs, and makes blob URLs of models.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        f"style-src 'self' '{VIEWER_STYLE}'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self' blob: data:",
        "worker-src 'self' blob:",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), xr-spatial-tracking=(self)",
    "Cache-Control": "no-cache",
}


@lru_cache(maxsize=256)
def _tag(path: Path, modified_ns: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def answer(request: Request, name: str) -> Response:
    """A file of the page; 404 when there is none."""
    path = (WEB / name).resolve()
    if not path.is_relative_to(WEB) or path.suffix not in TYPES or not path.is_file():
        raise ApiError(404, f"There is nothing at {request.url.path[:200]}.")
    found = path.stat()
    etag = f'"{_tag(path, found.st_mtime_ns, found.st_size)}"'
    headers = {**HEADERS, "ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(path.read_bytes(), headers=headers, media_type=TYPES[path.suffix])


def install(app: FastAPI) -> None:
    """The page at `/`, its files under `/web/`, shared assets at `/share/`."""

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    def index(request: Request) -> Response:
        return answer(request, "index.html")

    @app.head("/share/{job_id}", include_in_schema=False)
    @app.get("/share/{job_id}", include_in_schema=False)
    def share(request: Request, job_id: str) -> Response:
        return answer(request, "share.html")

    @app.head("/web/{name:path}", include_in_schema=False)
    @app.get("/web/{name:path}", include_in_schema=False)
    def file(request: Request, name: str) -> Response:
        return answer(request, name)
