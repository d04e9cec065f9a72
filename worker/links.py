"""Links that carry their own permission: downloads and shared views, signed and dated.

A signature covers what the link is for, the thing and the last second it is good for, under the
service's secret; nothing is stored, so a link cannot be listed, and ends by itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Literal

Purpose = Literal["artefact", "share", "session"]


def signature(purpose: Purpose, subject: str, expires: int, service_secret: bytes) -> str:
    """43 characters for a URL. `expires` is in seconds since 1970."""
    message = f"{purpose}\n{expires}\n{subject}".encode()
    digest = hmac.new(service_secret, message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def valid(
    purpose: Purpose, subject: str, expires: int, given: str, now_s: float, service_secret: bytes
) -> bool:
    """Whether a link's signature is right and its time not over."""
    wanted = signature(purpose, subject, expires, service_secret)
    # Compared as bytes: compare_digest refuses text that is not ASCII.
    return hmac.compare_digest(wanted.encode(), given.encode()) and now_s <= expires


def token(purpose: Purpose, subject: str, expires: int, service_secret: bytes) -> str:
    """Date and signature as one word: `<expires>.<signature>`."""
    return f"{expires}.{signature(purpose, subject, expires, service_secret)}"


def valid_token(purpose: Purpose, subject: str, word: str, now_s: float, service_secret: bytes) -> bool:
    """Whether a word of `token` holds for the subject now."""
    date, _, given = word.partition(".")
    if not (date.isascii() and date.isdigit() and len(date) <= 12):
        return False
    return valid(purpose, subject, int(date), given, now_s, service_secret)
