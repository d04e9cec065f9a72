"""Hostile files and requests over HTTP: a documented status and one line, in bounded memory, nothing kept."""

from __future__ import annotations

import base64
import io
import json
import resource
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.worker.api.conftest import World
from worker.api.images import clean_png
from worker.api.jobs_schema import JobRequest

REMESH = "/openapi/v1/remesh"
PNG = {"Content-Type": "image/png"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def crafted_png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    """A PNG whose header says what it likes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def picture(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(out, kind, **options)
    return out.getvalue()


def assert_refused(world: World, answer: Any, status: int, says: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"message", "code"}
    message = answer.json()["message"]
    assert says in message
    assert "\n" not in message
    assert not any(word in message for word in ("/tmp", "Traceback", 'File "', ".py"))
    assert world.service.jobs.find() == []
    assert world.worker.rings == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: crafted_png(60_000, 60_000, zeros(100_000)), "40 million pixels"),
        (lambda: crafted_png(13_001, 13_001, zeros(1_000_000)), "40 million"),
        (lambda: crafted_png(20_000, 40, zeros(100)), "16,384 on a side"),
        (lambda: crafted_png(0, 0, b""), "not a PNG"),
        (lambda: crafted_png(64, 64, zeros(12_400), chunk(b"zTXt", b"a\0\0" + zeros(60_000_000))), "damaged"),
        (lambda: crafted_png(64, 64, zeros(12_400), chunk(b"iCCP", b"a\0\0" + zeros(60_000_000))), "damaged"),
        (lambda: picture("PNG")[:900], "damaged"),
        (lambda: picture("GIF"), "not a PNG"),
        (lambda: picture("TIFF"), "not a PNG"),
        (lambda: picture("PNG", save_all=True, append_images=[Image.new("RGB", (64, 64))]), "animated"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG"),
        (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a PNG"),
        (lambda: b"PK\x03\x04" + bytes(200), "not a PNG"),
    ],
)  # fmt: skip
def test_hostile_pictures(world: World, content: Callable[[], bytes], says: str):
    data = content()
    before = peak_mb()
    assert_refused(world, world.client.post("/v1/uploads", content=data, headers=PNG), 422, says)
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    assert_refused(world, world.client.post("/v1/jobs", json={"image_url": uri}), 422, says)
    assert peak_mb() - before < 250


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_what_follows_a_pictures_pixels_is_not_unpacked(world: World):
    data = crafted_png(64, 64, zeros(300_000_000))
    before = peak_mb()
    answer = world.client.post("/v1/uploads", content=data, headers=PNG)
    assert (answer.status_code, answer.json()["width"]) == (201, 64)
    assert peak_mb() - before < 100


def test_few_pictures_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch):
    from pipeline import image

    inside, most, turn = 0, 0, threading.Semaphore(2)
    counting, arrived = threading.Lock(), threading.Barrier(2)

    def slow(path: Any) -> Image.Image:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        arrived.wait(20)  # two of them meet here, each time
        with counting:
            inside -= 1
        return Image.new("RGBA", (64, 64))

    monkeypatch.setattr(image, "load_image", slow)
    threads = [threading.Thread(target=clean_png, args=(b"x", turn)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


POSITIONS = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)


def triangle() -> dict[str, Any]:
    return {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 36}],
    }


def glb(root: Any = None, *, text: bytes | None = None, length: int | None = None, version: int = 2) -> bytes:
    head = json.dumps(root).encode() if text is None else text
    head += b" " * (-len(head) % 4)
    body = struct.pack("<II", len(head), 0x4E4F534A) + head
    body += struct.pack("<II", len(POSITIONS), 0x004E4942) + POSITIONS
    return struct.pack("<III", 0x46546C67, version, length or 12 + len(body)) + body


def changed(**changes: Any) -> Callable[[], bytes]:
    """The triangle's GLB with other top-level values, or with changes to its first accessor."""
    accessor = changes.pop("accessor", {})

    def make() -> bytes:
        root = triangle() | changes
        if accessor:
            root["accessors"][0] |= accessor
        return glb(root)

    return make


def send(world: World, data: bytes) -> Any:
    uri = "data:model/gltf-binary;base64," + base64.b64encode(data).decode()
    return world.client.post(REMESH, json={"model_url": uri})


def test_a_plain_model_is_let_in(world: World):
    assert send(world, glb(triangle())).status_code == 202


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: glb(triangle())[:120], "truncated"),
        (lambda: glb(triangle(), length=2**32 - 1), "truncated"),
        (lambda: glb(triangle(), version=1), "version 1"),
        (changed(buffers=[{"byteLength": 36, "uri": "../../etc/passwd"}]), "not followed"),
        (changed(buffers=[{"byteLength": 36, "uri": "/etc/passwd"}]), "not followed"),
        (changed(buffers=[{"byteLength": 36, "uri": "file:///etc/passwd"}]), "not followed"),
        (changed(buffers=[{"byteLength": 36, "uri": "http://169.254.169.254/"}]), "not followed"),
        (changed(images=[{"uri": "../../etc/passwd"}]), "not followed"),
        (changed(images=[{"bufferView": 7}]), "bufferViews[7]"),
        (changed(accessor={"count": 2**31}), "2147483648 elements"),
        (changed(accessor={"count": -1}), "not a whole number"),
        (changed(accessor={"count": 1e300}), "elements, more than"),
        (changed(accessor={"count": 4}), "needs 48 bytes"),
        (changed(accessor={"byteOffset": 2**40}), "bytes, but its buffer view has 36"),
        (changed(accessor={"bufferView": None, "count": 2**31}), "2147483648 elements"),
        (changed(accessor={"sparse": {"count": 2**31}}), "2147483648 elements"),
        (changed(accessor={"componentType": 9}), "which glTF does not know"),
        (changed(accessors=[7]), "accessors[0] is not an object"),
        (changed(bufferViews=[{"buffer": 0, "byteLength": 36, "byteOffset": 2**40}]), "outside its buffer"),
        (changed(buffers=[{"byteLength": 2**60}]), "only 36 are there"),
        (lambda: glb(text=b"[" * 100_000 + b"]" * 100_000), "JSON"),
        (lambda: glb(text=b'{"asset":{"version":"2.0"},"x":NaN}'), "JSON"),
        (lambda: glb(text=b'{"a":"\xff\xfe"}'), "JSON"),
        (lambda: glb([]), "JSON"),
        (lambda: b"PK\x03\x04" + bytes(500), "no GLB"),
        (lambda: b"", "no GLB"),
    ],
)
def test_hostile_models(world: World, content: Callable[[], bytes], says: str):
    data, before = content(), peak_mb()
    assert_refused(world, send(world, data), 422, says)
    assert peak_mb() - before < 150


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"{", "application/json", 400, "not valid JSON"),
        (b"\xff\xfe", "application/json", 400, "not valid JSON"),
        (b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b'{"seed":' + b"9" * 5000 + b"}", "application/json", 400, "too long a number"),
        (b"[]", "application/json", 422, "dictionary"),
        (b"", "application/json", 422, "required"),
        (b'{"prompt":"a crate"}', "text/plain", 415, "Content-Type 'text/plain' is not read here"),
        (b"prompt=a", "application/x-www-form-urlencoded", 415, "Send application/json"),
        (b"<a/>", "application/xml", 415, "Send application/json"),
        (b'{"prompt":"a crate"}', "", 415, "Content-Type '' is not read here"),
        (b'{"prompt":"\\ud800"}', "application/json", 422, "prompt"),
        (b'{"prompt":"a\\u0000b"}', "application/json", 422, "U+0000"),
        (b'{"prompt":"a","name":"x\\u0000y"}', "application/json", 422, "U+0000"),
        (b'{"prompt":"a","formats":["glb\\u0000"]}', "application/json", 422, "U+0000"),
        (b'{"prompt":"a","x\\u0000":1}', "application/json", 422, "U+0000"),
        (b'{"prompt":"a","seed":1e400}', "application/json", 422, "seed"),
    ],
)
def test_hostile_bodies(world: World, content: bytes, kind: str, status: int, says: str):
    for path in ("/v1/jobs", "/openapi/v1/image-to-3d"):
        answer = world.client.post(path, content=content, headers={"Content-Type": kind})
        if path == "/v1/jobs":
            assert_refused(world, answer, status, says)
        assert (answer.status_code < 500, world.service.jobs.find()) == (True, [])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/jobs/a%00b", 404),
        ("/openapi/v2/text-to-3d/a%00b", 404),
        ("/v1/batches/%00", 404),
        ("/web/%00", 404),
        ("/web/js/none.js", 404),
        ("/web/..%2f..%2fapi%2fapp.py", 404),
        ("/share/%00", 404),
        ("/v1/jobs?q=%00", 422),
        ("/a/..%2f..%2fetc%2fpasswd/x", 404),
        (f"/a/{'0' * 64}/..%2f..%2fetc", 404),
        (f"/a/{'z' * 64}/x", 422),
        ("/v1/jobs/" + "a" * 9000, 422),
        ("/v1/jobs/x'%20OR%201=1--", 404),
    ],
)
def test_hostile_addresses(world: World, path: str, status: int):
    answer = world.client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"message", "code"}


def test_every_body_is_looked_through():
    with pytest.raises(ValueError, match=r"U\+0000"):
        JobRequest.model_validate({"prompt": "a", "formats": [["b", {"c": "\0"}]]})
    assert JobRequest.model_validate({"prompt": "a", "name": "x\ty"}).name == "x\ty"
