from __future__ import annotations

import pytest

from worker.api.origin import LOOPBACK_HOSTS, host_name, refusal


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:8765", "127.0.0.1"),
        ("LOCALHOST", "localhost"),
        ("localhost.:80", "localhost"),
        ("[::1]:8765", "[::1]"),
        ("[::1]", "[::1]"),
        ("", ""),
    ],
)
def test_host_name(host: str, name: str):
    assert host_name(host) == name


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8765"},  # curl
        {"host": "localhost:8765", "origin": "http://localhost:8765", "sec-fetch-site": "same-origin"},
        {"host": "127.0.0.1:8765", "sec-fetch-site": "none", "sec-fetch-mode": "navigate"},  # address bar
        {"host": "127.0.0.1:8765", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a link
    ],
)
def test_what_may_pass(headers: dict[str, str]):
    assert refusal("GET", "/v1/jobs", headers, LOOPBACK_HOSTS) is None


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "evil.example:8765"}, 421),  # DNS rebinding
        ("GET", {}, 421),
        ("GET", {"host": "127.0.0.1.evil.example"}, 421),
        ("POST", {"host": "127.0.0.1:8765", "origin": "https://evil.example"}, 403),
        ("POST", {"host": "127.0.0.1:8765", "origin": "null"}, 403),
        ("POST", {"host": "127.0.0.1:8765", "origin": "http://127.0.0.1:9999"}, 403),  # another local port
        ("GET", {"host": "127.0.0.1:8765", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        (
            "POST",
            {"host": "127.0.0.1:8765", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
            403,
        ),
        ("GET", {"host": "localhost:1", "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
    ],
)
def test_what_is_refused(method: str, headers: dict[str, str], status: int):
    refused = refusal(method, "/v1/jobs", headers, LOOPBACK_HOSTS)
    assert refused is not None
    assert refused[0] == status
