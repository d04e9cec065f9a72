"""Addresses with U+0000 in them name nothing: Postgres and file systems refuse it with their own errors."""

from __future__ import annotations

from starlette.responses import JSONResponse

from worker.api.errors import body_of
from worker.api.origin import App, Receive, Scope, Send


class PlainAddress:
    """ASGI middleware: 404 for such a path, 422 for such a query."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if "\0" in scope["path"]:
            status, message = 404, "There is nothing at an address with the character U+0000 in it."
        elif b"%00" in scope.get("query_string", b""):
            status, message = 422, "The character U+0000 is in the query; leave it out."
        else:
            await self.app(scope, receive, send)
            return
        await JSONResponse(body_of(status, message), status)(scope, receive, send)
