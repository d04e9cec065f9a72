"""Requests as spans: ASGI middleware that takes a client's `traceparent` and hands it to the jobs made."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from worker.api.origin import App, Receive, Scope, Send
from worker.tracing import Tracing, request_traceparent, valid_traceparent

QUIET = ("/healthz", "/readyz", "/metrics", "/a/", "/web/")
"""Paths that make no spans: asked often, and no work."""


class TraceRequests:
    """The outermost middleware, so that refusals are in the traces too."""

    def __init__(self, app: App, *, tracing: Tracing) -> None:
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(QUIET):
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        parent = valid_traceparent(given.decode("latin-1"))
        facts = {"http.request.method": scope["method"], "url.path": scope["path"][:200]}
        with self.tracing.span(scope["method"], parent=parent, kind="server", facts=facts) as span:
            token = request_traceparent.set(span.traceparent)

            async def told(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    span.fact("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.failed(f"answered {message['status']}")
                    route = getattr(scope.get("route"), "path", None)
                    if route is not None:
                        span.fact("http.route", route)
                await send(message)

            try:
                await self.app(scope, receive, told)
            finally:
                request_traceparent.reset(token)
