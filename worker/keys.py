"""API keys: `id.secret`, of which only a keyed hash is kept, so that a copy of the database opens nothing.

The id finds the row; the secret (32 random bytes) is compared in constant time with the
HMAC-SHA256 under the service's own secret. What a key may do is its scopes; how much, its quota.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from render.errors import InputError

Scope = Literal["read", "write", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""read: own jobs and files. write: also create, cancel and delete. metrics: the numbers for Prometheus.
admin: all of it, for all owners."""

PREFIX = "mq_"
"""So that scanners of leaked secrets find them."""
_SHAPE = re.compile(r"mq_([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Quota:
    """Limits of one owner's key; None is no limit."""

    requests_per_minute: int | None = 600
    creates_per_minute: int | None = 60
    unfinished_jobs: int | None = 2000
    jobs_per_day: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "creates_per_minute", "unfinished_jobs", "jobs_per_day"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10_000_000:
                raise InputError(f"{name} must be between 1 and 10,000,000, not {value}.")


@dataclass(frozen=True)
class NewKey:
    """A key when it is made: the only time that its secret is there."""

    key_id: str
    plain: str
    """What the user keeps: `mq_<id>.<secret>`."""
    mac: bytes
    """What the database keeps."""


def mint(service_secret: bytes) -> NewKey:
    """A new key."""
    key_id = secrets.token_hex(8)
    secret = secrets.token_urlsafe(32)
    return NewKey(key_id, f"{PREFIX}{key_id}.{secret}", mac_of(secret, key_id, service_secret))


def mac_of(secret: str, key_id: str, service_secret: bytes) -> bytes:
    """The keyed hash of a key's secret, bound to its id."""
    return hmac.new(service_secret, f"api-key\n{key_id}\n{secret}".encode(), hashlib.sha256).digest()


def split(text: str) -> tuple[str, str] | None:
    """Id and secret of what a client sent, or None when it is no key."""
    match = _SHAPE.fullmatch(text.strip())
    return (match.group(1), match.group(2)) if match else None


def matches(secret: str, key_id: str, mac: bytes, service_secret: bytes) -> bool:
    """Whether the secret belongs to the kept hash, in constant time."""
    return hmac.compare_digest(mac_of(secret, key_id, service_secret), mac)


def checked_scopes(names: tuple[str, ...] | list[str]) -> tuple[Scope, ...]:
    """Known scopes; `InputError` for an unknown one or none."""
    for name in names:
        if name not in SCOPES:
            raise InputError(f"Unknown scope {name!r}. Known: {', '.join(SCOPES)}.")
    if not names:
        raise InputError(f"A key needs at least one scope of {', '.join(SCOPES)}.")
    return tuple(scope for scope in SCOPES if scope in names)
