"""A cap on request bodies, before anything reads them: by the announced length, and by counting."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.responses import JSONResponse

from worker.api.errors import body_of
from worker.api.origin import App, Receive, Scope, Send


class _TooLargeError(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 for bodies over `max_bytes`, with `Connection: close`, as the rest is not read."""

    def __init__(self, app: App, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > self.max_bytes:
            await self._refuse(scope, receive, send)
            return
        seen = 0
        over = False
        answered = False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen, over
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                over = True
                raise _TooLargeError
            return message

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            if over and not answered:
                return  # the framework's own answer to a body that broke off
            answered = True
            await send(message)

        with suppress(_TooLargeError):
            await self.app(scope, counted, watched)
        if over and not answered:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"The body is too large; at most {self.max_bytes:,} bytes are read."
        await JSONResponse(body_of(413, message), 413, headers={"Connection": "close"})(scope, receive, send)
