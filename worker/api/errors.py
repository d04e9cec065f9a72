"""Errors of the HTTP API: one JSON shape for all, `{"message": ..., "code": ...}`, readable by Meshy clients.

`message` is one line for people; `code` is a stable word for programs. Nothing of a stack, a path or a
database goes out: what is not foreseen answers 500 with a number under which the log has the rest.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from pipeline.safety import RefusedError
from render.errors import InputError

logger = logging.getLogger(__name__)

Code = Literal[
    "InvalidRequest",
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "MethodNotAllowed",
    "Conflict",
    "PayloadTooLarge",
    "UnsupportedMediaType",
    "RangeNotSatisfiable",
    "PreconditionFailed",
    "Moderated",
    "IdempotencyMismatch",
    "LimitExceeded",
    "TooManyPendingTasks",
    "NotImplemented",
    "Unavailable",
    "InternalError",
]

_CODES: dict[int, Code] = {
    400: "InvalidRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    412: "PreconditionFailed",
    413: "PayloadTooLarge",
    415: "UnsupportedMediaType",
    416: "RangeNotSatisfiable",
    422: "InvalidRequest",
    429: "LimitExceeded",
    503: "Unavailable",
}


class ErrorBody(BaseModel):
    """What every error answers."""

    message: str = Field(description="One line for people: what is wrong, where, and what to do.")
    code: Code = Field(description="A stable word for programs.")


class ApiError(Exception):
    """An answer that is an error. Arguments: status, message, code (by status when None), headers."""

    def __init__(
        self, status: int, message: str, code: Code | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, code, headers)
        self.status = status
        self.message = message
        self.code: Code = code or _CODES.get(status, "InvalidRequest")
        self.headers = dict(headers or {})


def not_found(what: str, name: str) -> ApiError:
    """404. Also for what belongs to somebody else: that it is there is not said."""
    return ApiError(404, f"There is no {what} {name[:64]!r}.")


def wrong_input(error: InputError) -> ApiError:
    """422 with what the error says; `Moderated` when the safety policy says it."""
    return ApiError(
        422, " ".join(str(error).split()), "Moderated" if isinstance(error, RefusedError) else None
    )


def too_many(message: str, retry_after_s: float, code: Code = "LimitExceeded") -> ApiError:
    """429 with `Retry-After` in whole seconds, at least one."""
    return ApiError(429, message, code, {"Retry-After": str(max(1, int(retry_after_s + 0.999)))})


def body_of(status: int, message: str, code: Code | None = None) -> dict[str, str]:
    return {"message": message, "code": code or _CODES.get(status, "InvalidRequest")}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: the errors it may answer besides those of every route."""
    return {status: {"model": ErrorBody, "description": _TITLES[status]} for status in statuses}


_TITLES = {
    400: "The request is malformed.",
    401: "No key, or a wrong one.",
    403: "The key may not do this.",
    404: "Not there, or not yours.",
    409: "Not possible in this state.",
    412: "The thing has changed.",
    413: "Too large.",
    415: "A media type that is not read.",
    416: "The range lies outside the file.",
    422: "A value is wrong; the message says which.",
    429: "Too many; Retry-After says when to come back.",
    503: "Not ready; Retry-After says when to come back.",
}


def validation_message(errors: Any) -> str:
    """The first of pydantic's complaints as one line: where and what."""
    first = errors[0]
    where = ".".join(
        str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path", "header")
    )
    text = str(first.get("msg", "is not valid")).removeprefix("Value error, ")
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {text}{more}" if where else f"{text}{more}"


def install(app: FastAPI) -> None:
    """Makes every error of the application answer in the one shape."""

    @app.exception_handler(ApiError)
    async def _api(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(
            body_of(error.status, error.message, error.code), error.status, headers=error.headers
        )

    @app.exception_handler(InputError)
    async def _input(request: Request, error: InputError) -> JSONResponse:
        refused = wrong_input(error)
        return JSONResponse(body_of(refused.status, refused.message, refused.code), refused.status)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = error.errors()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if errors[0]["loc"] == ("body",) and kind != "application/json" and not kind.endswith("+json"):
            message = f"Content-Type {kind[:60]!r} is not read here. Send application/json."
            return JSONResponse(body_of(415, message), 415)
        malformed = any(entry.get("type") == "json_invalid" for entry in errors)
        status = 400 if malformed else 422
        message = "The body is not valid JSON." if malformed else validation_message(errors)
        return JSONResponse(body_of(status, message), status)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        message = {
            404: f"There is nothing at {request.url.path[:200]}.",
            405: f"{request.method} is not possible here.",
            # What Python's parser refuses otherwise than as bad JSON.
            400: "The body cannot be read: its JSON is nested too deeply, or has too long a number.",
        }.get(error.status_code, str(error.detail))
        return JSONResponse(body_of(error.status_code, message), error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        number = secrets.token_hex(4)
        logger.error("%s %s failed, incident %s", request.method, request.url.path, number, exc_info=error)
        return JSONResponse(
            body_of(500, f"Something went wrong here; the log has it as {number}.", "InternalError"), 500
        )
