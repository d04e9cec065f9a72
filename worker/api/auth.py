"""Who asks, and what they may: a Bearer key, the session cookie of the web page, or, without keys, the
user of this machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import select

from pipeline.config import build
from worker import keys, links
from worker.api.errors import ApiError
from worker.api.service import Service, service_of
from worker.keys import Quota, Scope
from worker.schema import api_key

LOCAL_OWNER = "local"
COOKIE = "maquette_session"

# Only for the OpenAPI description; the header is read below.
bearer = HTTPBearer(auto_error=False, scheme_name="key", description="An API key: `mq_<id>.<secret>`.")


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    owner: str
    scopes: frozenset[str]
    quota: Quota
    key_id: str | None = None

    @property
    def sees(self) -> str | None:
        """Whose jobs: their own, or, of an operator, all (None)."""
        return None if "admin" in self.scopes and self.key_id is not None else self.owner


def local_caller() -> Caller:
    """The user of this machine: everything, without limits."""
    return Caller(LOCAL_OWNER, frozenset(keys.SCOPES), Quota(None, None, None, None))


def authenticate(request: Request, service: Service) -> Caller:
    """The caller of a request; `ApiError` 401. A key that is sent is checked even where none is needed."""
    given = request.headers.get("authorization")
    if given is not None:
        scheme, _, text = given.partition(" ")
        parts = keys.split(text) if scheme.lower() == "bearer" else None
        if parts is None and service.keyless:
            # Clients of Meshy's API insist on a key of their own form; on this machine any will do.
            return local_caller()
        caller = None if parts is None else by_secret(service, *parts)
        if caller is None:
            raise _unauthorized(request, service, "The API key is wrong or revoked.")
        return caller
    session = request.cookies.get(COOKIE)
    if session is not None:
        key_id, _, word = session.partition(":")
        if links.valid_token("session", key_id, word, time.time(), service.secret):
            caller = _by_id(service, key_id, None)
            if caller is not None:
                return caller
    if service.keyless:
        return local_caller()
    raise _unauthorized(request, service, "Send an API key: Authorization: Bearer mq_...")


def by_secret(service: Service, key_id: str, secret: str) -> Caller | None:
    """Who has this key; None when nobody has."""
    return _by_id(service, key_id, secret)


def _by_id(service: Service, key_id: str, secret: str | None) -> Caller | None:
    with service.jobs.database.read() as connection:
        row = connection.execute(
            select(api_key).where(api_key.c.id == key_id, api_key.c.revoked.is_(None))
        ).one_or_none()
    # A comparison even without a row, so that the time says nothing of which ids there are.
    mac = bytes(32) if row is None else bytes(row.mac)
    if secret is not None and not keys.matches(secret, key_id, mac, service.secret):
        return None
    if row is None:
        return None
    return Caller(row.owner, frozenset(row.scopes), build(Quota, row.quota, "quota"), key_id)


def _unauthorized(request: Request, service: Service, message: str) -> ApiError:
    who = request.client.host if request.client is not None else "?"
    service.limits.hit("anonymous", who, Quota())
    return ApiError(401, message, headers={"WWW-Authenticate": 'Bearer realm="maquette"'})


def caller_with(*needed: Scope) -> object:
    """A dependency: the caller, when they have one of the scopes and asked not too often."""

    def dependency(request: Request, _: Annotated[object, Security(bearer)] = None) -> Caller:
        service = service_of(request)
        caller = authenticate(request, service)
        if not caller.scopes & {*needed, "admin"}:
            raise ApiError(403, f"This needs a key with the scope {' or '.join(needed)}.")
        service.limits.hit("requests", caller.key_id or caller.owner, caller.quota)
        return caller

    return Depends(dependency)


Reader = Annotated[Caller, caller_with("read", "write")]
Writer = Annotated[Caller, caller_with("write")]
Watcher = Annotated[Caller, caller_with("metrics")]
ServiceOf = Annotated[Service, Depends(service_of)]
