"""Who may talk to a service without a key: only this machine's own programs and the page it served.

Without keys, a service on 127.0.0.1 is open to every web page that the user visits: the browser sits on
this machine. Two attacks, two checks, before any route:

* DNS rebinding: a page of evil.example makes its name point here and is then "same origin". Its
  requests still say `Host: evil.example`, so only known host names are answered.
* Cross-site requests: a page posts a form or plays an image from here. Browsers then send
  `Origin` and `Sec-Fetch-Site`; what another site caused is refused unless it only opens a page.

Programs (curl, MCP servers) send neither header. Where keys are required the second check protects the
page's cookie, and is left out for requests that bring a key or a signed link themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from worker.api.errors import body_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def host_name(host: str) -> str:
    """The name in a Host header, lower case, without port and the root's dot."""
    host = host.strip().lower()
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    return name.rstrip(".")


def refusal(
    method: str, path: str, headers: Mapping[str, str], hosts: frozenset[str] | None
) -> tuple[int, str] | None:
    """Status and reason when a request is refused, None when it may pass.

    `hosts` are the names that this service answers to; None answers to all (it has a proxy before it).
    `headers` have lower-case names.
    """
    host = headers.get("host", "")
    if hosts is not None and host_name(host) not in hosts:
        return 421, f"This service does not answer to the name {host[:80]!r}."
    site = headers.get("sec-fetch-site", "")
    origin = headers.get("origin")
    opens_page = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    if site in ("cross-site", "same-site") and not opens_page:
        return 403, "Requests from other sites' pages are refused."
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        # "null" has no netloc, so sandboxed frames and files are refused too.
        return 403, f"Requests from {origin[:80]!r} are refused."
    return None


class OriginGuard:
    """The checks as ASGI middleware."""

    def __init__(self, app: App, *, hosts: frozenset[str] | None, keyless: bool) -> None:
        self.app = app
        self.hosts = hosts
        self.keyless = keyless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        signed = scope["path"].startswith("/a/") and scope.get("query_string", b"").startswith(b"t=")
        if signed or (not self.keyless and "authorization" in headers):
            # The permission was sent on purpose; no browser adds it by itself.
            headers.pop("origin", None)
            headers.pop("sec-fetch-site", None)
        refused = refusal(scope.get("method", "GET"), scope["path"], headers, self.hosts)
        if refused is None:
            await self.app(scope, receive, send)
            return
        status, message = refused
        response = JSONResponse(body_of(status, message, "Forbidden"), status)
        await response(scope, receive, send)
