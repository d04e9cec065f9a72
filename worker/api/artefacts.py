"""Files by their content: addresses that never change, caching for ever, parts on request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select

from worker import links
from worker.api.auth import authenticate
from worker.api.errors import ApiError, not_found, responses
from worker.api.service import Service, service_of
from worker.schema import artefact, job, job_artefact, upload

router = APIRouter(tags=["files"])
CHUNK = 256 * 1024
SHOWN = (
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "video/mp4",
    "model/gltf-binary",
    "application/json",
)
"""Types that a browser may open; all others are downloads."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last of a Range header; None for the whole file.

    What is malformed, or asks for several ranges, is ignored, as RFC 9110 section 14.2 allows; what lies
    outside is `ApiError` 416.
    """
    match = _RANGE.fullmatch((header or "").replace(" ", ""))
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
        valid = int(last) > 0 and size > 0
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
        valid = start < size
    if not valid:
        raise ApiError(416, f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _allowed(request: Request, service: Service, sha256: str, name: str, token: str | None) -> None:
    """A signed link, or a caller who has the file; else 404, as if it were not there."""
    if token is not None:
        if links.valid_token("artefact", f"{sha256}/{name}", token, time.time(), service.secret):
            return
        raise ApiError(403, "The link is over or was changed. Ask for the task again.")
    caller = authenticate(request, service)
    if caller.sees is None or service.keyless:
        return
    with service.jobs.database.read() as connection:
        own = (
            connection.execute(
                select(job.c.id)
                .join(job_artefact, job_artefact.c.job_id == job.c.id)
                .where(job_artefact.c.sha256 == sha256, job.c.owner == caller.owner)
                .limit(1)
            ).first()
            or connection.execute(
                select(upload.c.sha256).where(upload.c.sha256 == sha256, upload.c.owner == caller.owner)
            ).first()
        )
    if own is None:
        raise not_found("file", name)


@router.head("/a/{sha256}/{name}", response_model=None, include_in_schema=False)
@router.get(
    "/a/{sha256}/{name}",
    response_model=None,
    response_class=Response,
    responses={
        **responses(401, 403, 404, 416, 422, 429),
        200: {"description": "The file.", "content": {"application/octet-stream": {}}},
        206: {"description": "A part of it."},
        304: {"description": "You have it."},
    },
)
def get_artefact(
    request: Request,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    name: Annotated[str, Path(min_length=1, max_length=120)],
    t: Annotated[str | None, Query(max_length=200, description="The link's token.")] = None,
    download: Annotated[bool, Query(description="Save it instead of showing it.")] = False,
    wanted: Annotated[str | None, Header(alias="Range")] = None,
    have: Annotated[str | None, Header(alias="If-None-Match")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    """A file by the hash of its bytes; the name is for people."""
    service = service_of(request)
    _allowed(request, service, sha256, name, t)
    with service.jobs.database.read() as connection:
        row = connection.execute(select(artefact).where(artefact.c.sha256 == sha256)).one_or_none()
    if row is None:
        raise not_found("file", name)
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        # Should a browser take it for a page after all, it is one without rights.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Disposition": _disposition(name, download or row.mime not in SHOWN),
    }
    if t is not None:
        headers["Access-Control-Allow-Origin"] = "*"
    if have is not None and (
        have.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in have.split(",")]
    ):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        headers["Content-Length"] = str(row.bytes)
        return Response(headers=headers, media_type=row.mime)
    part = asked_range(wanted, row.bytes) if if_range in (None, etag) else None
    start, end = part or (0, row.bytes)
    try:
        source = service.jobs.store.open(sha256, start)
    except FileNotFoundError:
        raise not_found("file", name) from None
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{row.bytes}"
    return StreamingResponse(
        _chunks(source, end - start),
        status_code=206 if part is not None else 200,
        headers=headers,
        media_type=row.mime,
    )


def _chunks(source: BinaryIO, left: int) -> Iterator[bytes]:
    with source:
        while left > 0 and (chunk := source.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _disposition(name: str, attachment: bool) -> str:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    kind = "attachment" if attachment else "inline"
    return f"{kind}; filename=\"{safe}\"; filename*=UTF-8''{quote(name, safe='')}"
