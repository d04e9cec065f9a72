"""Fetching: what is refused, and that the checked address is the one that is connected to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from worker.fetching import FetchError, FetchPolicy, checked_target, fetch, is_global, post

LOCAL = FetchPolicy(private_hosts=frozenset({"127.0.0.1", "ok.example"}), timeout_s=5.0, max_bytes=100_000)


@contextmanager
def serving(handler: Callable[[socket.socket, bytes], None], connections: int = 8) -> Iterator[int]:
    """A server on 127.0.0.1 that hands each connection and its request to `handler`; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def loop() -> None:
        for _ in range(connections):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                handler(connection, connection.recv(65536))

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # close() alone does not wake a thread in accept().
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def answering(body: bytes, head: str = "200 OK", extra: str = "") -> Callable[[socket.socket, bytes], None]:
    def handle(connection: socket.socket, request: bytes) -> None:
        connection.sendall(
            f"HTTP/1.1 {head}\r\nContent-Type: image/png; x=1\r\n{extra}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    return handle


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "not an address",
    ],
)  # fmt: skip
def test_local_addresses_are_not_global(address: str):
    assert not is_global(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_global(address: str):
    assert is_global(address)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://1.1.1.1/a", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("http:///a", "no host"),
        ("http://user:secret@1.1.1.1/", "user name or password"),
        ("http://1.1.1.1:99999/", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://1.1.1.1/a b", "spaces or control"),
        ("http://1.1.1.1/\r\nX: y", "spaces or control"),
        ("http://" + "a" * 3000, "too long"),
        ("http://127.0.0.1/", "private or local"),
        ("http://2130706433/", "private or local"),  # 127.0.0.1 as one number
        ("http://0x7f.1/", "private or local"),
        ("http://localhost/", "private or local"),
        ("http://localhost./", "private or local"),
        ("http://[::ffff:169.254.169.254]/", "private or local"),
        ("http://1.1.1.1/é", "percent-encode"),
    ],
)
def test_refused_urls(url: str, message: str):
    with pytest.raises(FetchError, match=message) as caught:
        checked_target(url, FetchPolicy())
    assert "secret" not in str(caught.value)


def test_one_private_address_refuses_the_name():
    with pytest.raises(FetchError, match="private or local"):
        checked_target("http://mixed.example/", FetchPolicy(), lambda host, port: ["1.1.1.1", "10.0.0.1"])


def test_the_checked_address_is_the_one_connected_to():
    """A name that answers otherwise the second time (DNS rebinding) gains nothing: it is asked once."""
    asked: list[str] = []
    seen: list[bytes] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    def handle(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        answering(b"picture")(connection, request)

    with serving(handle) as port:
        answer = fetch(f"http://ok.example:{port}/a?b=c", LOCAL, resolve=resolve)
    assert (answer.status, answer.body, answer.content_type) == (200, b"picture", "image/png")
    assert asked == ["ok.example"]
    assert seen[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert f"Host: ok.example:{port}\r\n".encode() in seen[0]


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://[::1]/", "file:///etc/passwd"])
def test_redirects_are_checked_again(target: str):
    with (
        serving(answering(b"", "302 Found", f"Location: {target}\r\n")) as port,
        pytest.raises(FetchError, match=r"private or local|only http"),
    ):
        fetch(f"http://127.0.0.1:{port}/", LOCAL)


def test_redirects_are_followed_and_counted():
    again = answering(b"", "302 Found", "Location: /again\r\n")
    with serving(again) as port, pytest.raises(FetchError, match="redirects more than 3"):
        fetch(f"http://127.0.0.1:{port}/", LOCAL)


def test_a_post_is_not_redirected():
    with serving(answering(b"", "307 T", "Location: http://169.254.169.254/\r\n")) as port:
        assert post(f"http://127.0.0.1:{port}/", b"{}", {}, LOCAL).status == 307


def test_bytes_are_capped_whether_announced_or_not():
    def endless(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    for handler in (answering(b"x" * 200_000), endless):
        with serving(handler) as port, pytest.raises(FetchError, match="bytes"):
            fetch(f"http://127.0.0.1:{port}/", LOCAL)


@pytest.mark.parametrize("prefix", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"])
def test_a_server_that_dribbles_is_cut_off_in_time(prefix: bytes):
    def dribble(connection: socket.socket, request: bytes) -> None:
        connection.sendall(prefix)
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.05)

    quick = FetchPolicy(private_hosts=LOCAL.private_hosts, timeout_s=0.5)
    started = time.perf_counter()
    with serving(dribble, 1) as port, pytest.raises(FetchError, match=r"longer than 0\.5 s"):
        fetch(f"http://127.0.0.1:{port}/", quick)
    assert time.perf_counter() - started < 4.0  # it dribbles for five seconds


def test_cut_off_and_wrong_answers():
    def short(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    def nonsense(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"\x00\x01\x02 garbage\r\n\r\n")

    for handler, message in (
        (short, "cut off|cannot be reached"),
        (nonsense, "cannot be reached"),
        (answering(b"", "404 Not Found"), "answered 404"),
    ):
        with serving(handler) as port, pytest.raises(FetchError, match=message):
            fetch(f"http://127.0.0.1:{port}/", LOCAL)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch(f"http://127.0.0.1:{port}/", LOCAL)
