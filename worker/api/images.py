"""Pictures that came over the wire: a data URI, an address, or an upload, all to one clean PNG.

What is kept is the picture decoded and encoded anew: upright, RGBA, without metadata, names or
whatever else the file carried. The checks before decoding are those of `pipeline.image`.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import tempfile
import threading
from pathlib import Path
from urllib.parse import unquote_to_bytes

from render.errors import InputError
from worker.api.errors import ApiError
from worker.fetching import FetchError, FetchPolicy, fetch

MAX_IMAGE_BYTES = 20 * 1024 * 1024
MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
_DATA_URI = re.compile(r"data:([A-Za-z0-9.+/-]*)((?:;[A-Za-z0-9=._-]+)*?)(;base64)?,", re.IGNORECASE)


def image_of_url(url: str, policy: FetchPolicy, turn: threading.Semaphore) -> bytes:
    """The picture at an address or inside a data URI, as PNG. `ApiError` 400 or 422 says what is wrong."""
    if url[:5].lower() == "data:":
        return clean_png(data_uri_bytes(url), turn)
    try:
        answer = fetch(url, policy, accept=", ".join(MEDIA_TYPES))
    except FetchError as error:
        raise ApiError(422, f"image_url: {error}") from None
    return clean_png(answer.body, turn)


def data_uri_bytes(uri: str) -> bytes:
    """The bytes of `data:image/png;base64,...`."""
    match = _DATA_URI.match(uri)
    if match is None:
        raise ApiError(422, "image_url: the data URI is malformed; give data:image/png;base64,...")
    kind = match.group(1).lower()
    if kind not in MEDIA_TYPES and kind != "image/jpg":
        raise ApiError(422, f"image_url: {kind[:40] or 'no media type'} is not read. Give PNG, JPEG or WebP.")
    payload = uri[match.end() :]
    if len(payload) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        raise ApiError(413, f"image_url: the picture has more than {MAX_IMAGE_BYTES // 2**20} MB.")
    try:
        if match.group(3):
            return base64.b64decode(payload, validate=True)
        return unquote_to_bytes(payload)
    except (binascii.Error, ValueError):
        raise ApiError(422, "image_url: the data URI's base64 is damaged.") from None


def clean_png(data: bytes, turn: threading.Semaphore) -> bytes:
    """A picture of anyone as a PNG of its pixels alone. `ApiError` 422 or 413 says what is wrong. `turn`
    bounds how many are decoded at once: the largest that is let in takes some 0.4 GB."""
    from pipeline.image import load_image

    if not data:
        raise ApiError(422, "The picture is empty.")
    if len(data) > MAX_IMAGE_BYTES:
        raise ApiError(
            413, f"The picture has {len(data):,} bytes; at most {MAX_IMAGE_BYTES // 2**20} MB are read."
        )
    with tempfile.TemporaryDirectory(prefix="maquette-image-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        with turn:
            try:
                image = load_image(path)
            except InputError as error:
                # The message names a file of ours; the client knows it as the picture.
                raise ApiError(422, str(error).replace(str(path), "The picture")) from None
            out = io.BytesIO()
            image.save(out, format="PNG", compress_level=1)
            return out.getvalue()
