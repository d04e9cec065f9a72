"""Pictures sent ahead of the jobs that name them."""

from __future__ import annotations

import io

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from worker.api.auth import Caller, ServiceOf, Writer
from worker.api.errors import ApiError, responses
from worker.api.images import MAX_IMAGE_BYTES, MEDIA_TYPES, clean_png
from worker.api.jobs_schema import Upload
from worker.api.service import Service
from worker.api.submissions import keep_picture

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.post(
    "/uploads",
    status_code=201,
    responses=responses(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES},
        }
    },
)
async def upload_picture(request: Request, service: ServiceOf, caller: Writer) -> Upload:
    """A PNG, JPEG or WebP as the body, up to 20 MB and 40 megapixels. It is kept for a day, and as long as
    a job uses it. Sending it again answers the same id."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in MEDIA_TYPES:
        raise ApiError(415, f"Content-Type {kind[:60]!r} is not read. Send {', '.join(MEDIA_TYPES)}.")
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_IMAGE_BYTES:
            raise ApiError(413, f"The picture has more than {MAX_IMAGE_BYTES // 2**20} MB.")
        parts.append(chunk)
    return await run_sync(_keep, service, caller, b"".join(parts))


def _keep(service: Service, caller: Caller, data: bytes) -> Upload:
    from PIL import Image

    png = clean_png(data, service.decoding)
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    return Upload(id=keep_picture(service, caller.owner, png), width=width, height=height)
