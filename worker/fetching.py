"""Fetching from addresses that a stranger gave: `image_url`, `model_url`, webhook receivers.

A URL in a request makes this machine connect somewhere, so it may reach what only this machine
can (server-side request forgery): cloud metadata at 169.254.169.254, a database on 127.0.0.1. So
every name is resolved here, every address it has must be global, the connection goes to an address
that was checked (not to the name, which may answer differently the second time: DNS rebinding),
every redirect passes the same checks, and bytes and time have caps that hold for a server that
dribbles. Environment proxies are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urljoin, urlsplit

from render.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_READ_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchError(InputError):
    """The address is refused, cannot be reached, or answers what was not asked for."""


@dataclass(frozen=True)
class FetchPolicy:
    """What may be reached, and how much of it."""

    max_bytes: int = 20 * 1024 * 1024
    timeout_s: float = 15.0
    """For all of it: redirects, headers and body."""
    max_redirects: int = 3
    private_hosts: frozenset[str] = frozenset()
    """Host names or addresses that may be private all the same: a studio's own receiver."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_bytes <= 2**31:
            raise InputError(f"max_bytes must be between 1 and {2**31}, not {self.max_bytes}.")
        if not 0 < self.timeout_s <= 600:
            raise InputError(f"timeout_s must be between 0 and 600, not {self.timeout_s:g}.")
        if not 0 <= self.max_redirects <= 10:
            raise InputError(f"max_redirects must be between 0 and 10, not {self.max_redirects}.")


@dataclass(frozen=True)
class Fetched:
    """An answer."""

    status: int
    body: bytes
    content_type: str
    """Without parameters, lower case; empty when the server does not say."""
    url: str
    """Where it came from after redirects."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""


@dataclass(frozen=True)
class Target:
    """A URL that passed the checks, and the address to connect to."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    address: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


def system_resolver(host: str, port: int) -> list[str]:
    """All addresses of a name, in the system's order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_global(address: str) -> bool:
    """Whether an address belongs to the public internet.

    IPv4 addresses inside IPv6 ones (mapped, 6to4, Teredo, NAT64) are judged as well: a gateway would
    unwrap them.
    """
    try:
        parsed: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = [parsed.ipv4_mapped, parsed.sixtofour, *(parsed.teredo or ())]
        if parsed in _NAT64:
            inner.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
        if any(found is not None and not is_global(str(found)) for found in inner):
            return False
        if parsed.ipv4_mapped is not None:
            return True
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified)


def checked_target(url: str, policy: FetchPolicy, resolve: Resolver = system_resolver) -> Target:
    """The parts of a URL and an address that may be connected to; `FetchError` says what is wrong.

    One address that is not global refuses the whole name: which of them the system would pick is chance.
    """
    if len(url) > 2048 or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise FetchError("The URL is too long (2,048 characters) or holds spaces or control characters.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").rstrip(".")
    except ValueError as error:
        raise FetchError(f"{_shown(url)} is not a URL: {error}.") from None
    scheme = parts.scheme
    if scheme not in ("http", "https"):
        raise FetchError(f"{_shown(url)}: only http and https addresses are fetched.")
    if not host:
        raise FetchError(f"{_shown(url)} has no host.")
    if parts.username is not None or parts.password is not None:
        raise FetchError("A URL with a user name or password in it is refused.")
    try:
        host = host if ":" in host else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise FetchError(f"{_shown(url)}: the host name is not valid.") from None
    secure = scheme == "https"
    port = port or (443 if secure else 80)
    try:
        addresses = resolve(host, port)
    except (OSError, UnicodeError):
        raise FetchError(f"{host} cannot be found.") from None
    if not addresses:
        raise FetchError(f"{host} cannot be found.")
    if host not in policy.private_hosts and not all(is_global(address) for address in addresses):
        raise FetchError(f"{host} is a private or local address; only public ones are fetched.")
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path.encode("ascii")
    except UnicodeEncodeError:
        raise FetchError(f"{_shown(url)}: percent-encode what is not ASCII.") from None
    return Target("https" if secure else "http", host, port, path, addresses[0])


def fetch(
    url: str, policy: FetchPolicy | None = None, *, accept: str = "*/*", resolve: Resolver = system_resolver
) -> Fetched:
    """GET with redirects; the body whole. `FetchError` for what is refused, too large, late or not 200."""
    policy = policy or FetchPolicy()
    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    with _Deadline(policy.timeout_s) as deadline:
        for _ in range(policy.max_redirects + 1):
            answer = _exchange("GET", url, None, headers, policy, resolve, deadline)
            if answer.status in _REDIRECTS and "location" in answer.headers:
                url = urljoin(url, answer.headers["location"])
                continue
            if answer.status != 200:
                raise FetchError(f"{_shown(url)} answered {answer.status}.")
            return answer
    raise FetchError(f"{_shown(url)} redirects more than {policy.max_redirects} times.")


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    policy: FetchPolicy | None = None,
    *,
    resolve: Resolver = system_resolver,
) -> Fetched:
    """POST without following redirects: the answer, whatever its status. `FetchError` when there is none."""
    policy = policy or FetchPolicy()
    with _Deadline(policy.timeout_s) as deadline:
        return _exchange("POST", url, body, headers, policy, resolve, deadline)


class _Deadline:
    """Shuts the socket in use when time is up, whatever the server is doing: a socket's own timeout
    starts anew with every byte.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.passed = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._stop)
        self._timer.daemon = True

    def watch(self, opened: socket.socket | None) -> None:
        with self._lock:
            self._socket = opened
            if self.passed and opened is not None:
                _shut(opened)

    def _stop(self) -> None:
        with self._lock:
            self.passed = True
            if self._socket is not None:
                _shut(self._socket)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _shut(opened: socket.socket) -> None:
    try:
        opened.shutdown(socket.SHUT_RDWR)
    except OSError:
        opened.close()


def _exchange(
    method: str,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    policy: FetchPolicy,
    resolve: Resolver,
    deadline: _Deadline,
) -> Fetched:
    target = checked_target(url, policy, resolve)
    connection: http.client.HTTPConnection | None = None
    try:
        raw = socket.create_connection((target.address, target.port), timeout=policy.timeout_s)
        deadline.watch(raw)
        connection = http.client.HTTPConnection(target.host, target.port, timeout=policy.timeout_s)
        if target.scheme == "https":
            secure = ssl.create_default_context().wrap_socket(raw, server_hostname=target.host)
            deadline.watch(secure)
            connection.sock = secure
        else:
            connection.sock = raw
        connection.request(
            method,
            target.path,
            body,
            {"Host": target.host_header, "User-Agent": "maquette", "Connection": "close", **headers},
        )
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        redirect = response.status in _REDIRECTS
        data = b"" if redirect else _limited_body(response, received, policy.max_bytes)
        kind = received.get("content-type", "").partition(";")[0].strip().lower()
        return Fetched(response.status, data, kind, url, received)
    except (FetchError, OSError, http.client.HTTPException, ValueError) as error:
        # A socket that the deadline shut looks like an end of data.
        if deadline.passed or isinstance(error, TimeoutError):
            raise FetchError(f"{target.host} took longer than {policy.timeout_s:g} s.") from None
        if isinstance(error, FetchError):
            raise
        if isinstance(error, ssl.SSLError):
            raise FetchError(f"{target.host} has no valid certificate: {error.reason}.") from None
        raise FetchError(f"{target.host} cannot be reached ({type(error).__name__}).") from None
    finally:
        deadline.watch(None)
        if connection is not None:
            connection.close()


def _limited_body(response: http.client.HTTPResponse, headers: Mapping[str, str], limit: int) -> bytes:
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise FetchError(f"The answer has {int(announced):,} bytes; at most {limit:,} are read.")
    parts: list[bytes] = []
    size = 0
    while chunk := response.read1(_READ_BYTES):
        size += len(chunk)
        if size > limit:
            raise FetchError(f"The answer has more than {limit:,} bytes.")
        parts.append(chunk)
    if announced.isdigit() and size < int(announced):
        raise FetchError("The answer was cut off.")
    return b"".join(parts)


def _shown(url: str) -> str:
    return url if len(url) <= 80 else url[:77] + "..."
