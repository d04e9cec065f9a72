"""Signing in on the web page with a key: a cookie that scripts cannot read and other sites cannot send."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from worker import keys, links
from worker.api.auth import COOKIE, ServiceOf, authenticate, by_secret
from worker.api.errors import ApiError, responses
from worker.keys import Quota

router = APIRouter(prefix="/v1", tags=["session"])


class SignIn(BaseModel):
    key: Annotated[str, Field(min_length=1, max_length=200)]


class Session(BaseModel):
    """What the page needs to know before it shows itself."""

    signed_in: bool
    keys: bool = Field(description="Keys are asked for here.")
    owner: str | None
    scopes: list[str]
    formats: list[str] = Field(description="That can be asked for.")
    max_image_bytes: int


def _session(service: ServiceOf, owner: str | None, scopes: list[str]) -> Session:
    from worker.api.images import MAX_IMAGE_BYTES

    return Session(
        signed_in=owner is not None,
        keys=not service.keyless,
        owner=owner,
        scopes=sorted(scopes),
        formats=sorted(service.formats),
        max_image_bytes=MAX_IMAGE_BYTES,
    )


@router.get("/session", responses=responses(429))
def get_session(request: Request, service: ServiceOf) -> Session:
    """Who the page is for; nobody before signing in."""
    signed = service.keyless or COOKIE in request.cookies or "authorization" in request.headers
    try:
        caller = authenticate(request, service) if signed else None
    except ApiError as error:
        if error.status != 401:
            raise
        caller = None
    return _session(service, caller.owner if caller else None, list(caller.scopes) if caller else [])


@router.post("/session", responses=responses(401, 422, 429))
def sign_in(body: SignIn, request: Request, response: Response, service: ServiceOf) -> Session:
    """Changes a key for a cookie of half a day."""
    parts = keys.split(body.key)
    caller = None if parts is None else by_secret(service, *parts)
    if caller is None or caller.key_id is None:
        who = request.client.host if request.client is not None else "?"
        service.limits.hit("anonymous", who, Quota())
        raise ApiError(401, "The API key is wrong or revoked.")
    life = int(service.config.session_life_s)
    word = links.token("session", caller.key_id, int(time.time()) + life, service.secret)
    response.set_cookie(
        COOKIE,
        f"{caller.key_id}:{word}",
        max_age=life,
        httponly=True,
        samesite="strict",
        secure=service.base_url(request).startswith("https:"),
        path="/",
    )
    return _session(service, caller.owner, list(caller.scopes))


@router.delete("/session", status_code=204)
def sign_out() -> Response:
    """Forgets the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response
