"""The native API: jobs, pictures, files, events, batches."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from tests.worker.api.conftest import MakeWorld, World, png
from tests.worker.test_fetching import answering, serving
from worker.api.app import _sender
from worker.webhooks import signing_secret


def make(world: World, **body: object) -> dict[str, object]:
    answer = world.client.post("/v1/jobs", json={"prompt": "a crate", "preset": "draft", **body})
    assert answer.status_code == 202, answer.text
    made: dict[str, object] = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{made['id']}"
    return made


def test_a_job_with_a_picture(world: World):
    upload = world.client.post("/v1/uploads", content=png(80), headers={"Content-Type": "image/png"})
    assert upload.status_code == 201
    assert (upload.json()["width"], upload.json()["height"]) == (80, 80)
    job = make(world, image=upload.json()["id"], name="mine", formats=["obj"])
    assert job["params"]["formats"] == ["glb", "obj"]  # type: ignore[index]
    world.worker.work()
    view = world.client.get(f"/v1/jobs/{job['id']}").json()
    assert (view["state"], view["progress"], view["report"]["seed"]) == ("succeeded", 1.0, 0)
    assert {file["role"] for file in view["files"]} == {"input", "picture", "asset", "report"}


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"GIF89a", "image/gif", 415),
        (b"<svg/>", "image/svg+xml", 415),
        (b"", "image/png", 422),
        (png()[:60], "image/png", 422),
        (png(16), "image/png", 422),
        (b"x" * (21 * 2**20), "image/png", 413),
    ],
)
def test_uploads_that_are_refused(world: World, content: bytes, kind: str, status: int):
    answer = world.client.post("/v1/uploads", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json().keys() == {"message", "code"}


def test_bodies_are_capped_announced_or_not(make_world: MakeWorld):
    world = make_world(max_body_bytes=2000)

    def chunks():  # type: ignore[no-untyped-def]
        for _ in range(10):
            yield b" " * 1000

    for content in (b" " * 5000, chunks()):
        answer = world.client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "PayloadTooLarge")


def test_files_are_immutable_and_come_in_parts(world: World):
    job = make(world)
    world.worker.work()
    files = world.client.get(f"/v1/jobs/{job['id']}").json()["files"]
    url = next(file["url"] for file in files if file["name"] == "asset.glb")
    whole = world.client.get(url)
    assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert "sandbox" in whole.headers["content-security-policy"]
    data, etag = whole.content, whole.headers["etag"]
    head = world.client.head(url)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert head.headers["content-length"] == str(len(data))
    assert world.client.get(url, headers={"If-None-Match": f'"x", W/{etag}'}).status_code == 304
    for wanted, part in (("0-3", data[:4]), ("10-", data[10:]), ("-5", data[-5:]), ("0-999999", data)):
        answer = world.client.get(url, headers={"Range": f"bytes={wanted}"})
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["content-range"].endswith(f"/{len(data)}")
    assert world.client.get(url, headers={"Range": "bytes=999999-"}).status_code == 416
    for ignored in ("bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=-"):
        assert world.client.get(url, headers={"Range": ignored}).status_code == 200
    assert world.client.get(url, headers={"Range": "bytes=0-3", "If-Range": '"other"'}).status_code == 200
    saved = world.client.get(url, params={"download": True})
    assert saved.headers["content-disposition"].startswith("attachment")
    assert world.client.get("/a/" + "0" * 64 + "/x.glb").status_code == 404
    assert world.client.get("/a/..%2f..%2fetc%2fpasswd/x").status_code in (404, 422)


def test_events_go_on_after_the_last_one_that_was_seen(world: World):
    job = make(world)
    world.worker.work()
    path = f"/v1/jobs/{job['id']}/events"
    with world.client.stream("GET", path) as answer:
        numbers = [int(line[4:]) for line in answer.iter_lines() if line.startswith("id: ")]
    assert numbers == list(range(1, len(numbers) + 1))
    with world.client.stream("GET", path, headers={"Last-Event-ID": str(numbers[-3])}) as answer:
        rest = [int(line[4:]) for line in answer.iter_lines() if line.startswith("id: ")]
    assert rest == numbers[-2:]
    assert world.client.get(path, headers={"Last-Event-ID": str(numbers[-1])}).status_code == 204
    assert world.client.get(path, headers={"Last-Event-ID": "x"}).status_code == 422
    assert world.client.get("/v1/jobs/none/events").status_code == 404


def test_picking_a_variant_makes_a_job_with_its_seed(world: World):
    job = make(world, variants=4, seed=10)
    world.worker.work(1)
    answer = world.client.post(f"/v1/jobs/{job['id']}/pick", json={"seed": 12})
    assert answer.status_code == 202
    assert (answer.json()["params"]["seed"], answer.json()["params"]["variants"]) == (12, 1)
    assert answer.json()["from_job"] == job["id"]
    assert world.client.get(f"/v1/jobs/{job['id']}").json()["state"] == "canceled"
    assert world.client.post(f"/v1/jobs/{job['id']}/pick", json={"seed": 14}).status_code == 422


def test_changes_keep_the_views(world: World):
    job = make(world, seed=3)
    world.worker.work()
    answer = world.client.post(f"/v1/jobs/{job['id']}/again", json={"preset": "standard", "polycount": 800})
    params = answer.json()["params"]
    assert (params["preset"], params["views_preset"], params["polycount"], params["seed"]) == (
        "standard",
        "draft",
        800,
        3,
    )


def test_cancel_retry_delete(world: World):
    job = make(world)
    path = f"/v1/jobs/{job['id']}"
    assert world.client.post(f"{path}/retry").status_code == 409
    assert world.client.post(f"{path}/cancel").json()["state"] == "canceled"
    assert world.client.post(f"{path}/cancel").json()["state"] == "canceled"
    assert world.client.post(f"{path}/retry").json()["state"] == "queued"
    world.worker.work()
    assert world.client.delete(path).status_code == 204
    assert world.client.get(path).status_code == 404


def test_history_is_searched(world: World):
    make(world, prompt="a red barrel")
    make(world, prompt="a 100% green crate")
    found = world.client.get("/v1/jobs", params={"q": "BARREL"}).json()
    assert [job["prompt"] for job in found["jobs"]] == ["a red barrel"]
    assert len(world.client.get("/v1/jobs", params={"q": "%"}).json()["jobs"]) == 1
    page = world.client.get("/v1/jobs", params={"limit": 1}).json()
    assert page["more"] is True


def test_a_batch_makes_equal_rows_once(world: World):
    rows = [{"id": f"r{i}", "prompt": f"crate {i % 3}", "preset": "draft"} for i in range(9)]
    answer = world.client.post(
        "/v1/batches", json={"name": "night", "rows": rows}, headers={"Idempotency-Key": "n"}
    )
    batch = answer.json()
    assert answer.status_code == 202, answer.text
    assert (batch["rows"], batch["assets"], batch["states"], batch["done"]) == (9, 3, {"queued": 9}, False)
    again = world.client.post(
        "/v1/batches", json={"name": "night", "rows": rows}, headers={"Idempotency-Key": "n"}
    )
    assert again.json()["id"] == batch["id"]
    assert len(world.service.jobs.find()) == 3
    world.worker.work(8)
    path = f"/v1/batches/{batch['id']}"
    assert world.client.post(f"{path}/cancel").json()["canceled"] is True
    view = world.client.get(path).json()
    assert view["done"] is True
    assert view["states"].get("succeeded", 0) + view["states"].get("canceled", 0) == 9
    listed = world.client.get(f"{path}/rows", params={"limit": 4}).json()
    assert [row["id"] for row in listed["rows"]] == ["r0", "r1", "r2", "r3"]
    assert listed["more"] is True
    assert world.client.get("/v1/batches").json()[0]["id"] == batch["id"]
    twice = world.client.post("/v1/batches", json={"rows": [rows[0], rows[0]]})
    assert (twice.status_code, "r0" in twice.json()["message"]) == (422, True)


def test_webhooks_are_signed_retried_and_logged(make_world: MakeWorld):
    world = make_world(private_hosts=("127.0.0.1",))
    seen: list[bytes] = []
    bad = iter([True, False])

    def handle(connection, request):  # type: ignore[no-untyped-def]
        while b"\r\n\r\n" not in request or len(request.split(b"\r\n\r\n", 1)[1]) < _length(request):
            request += connection.recv(65536)
        seen.append(request)
        answering(b"", "500 No" if next(bad) else "204 Ok")(connection, request)

    with serving(handle) as port:
        job = make(world, callback_url=f"http://127.0.0.1:{port}/hook")
        world.worker.work()
        sender = _sender(world.service)
        sender.deliver_due()
        log = world.client.get(f"/v1/jobs/{job['id']}/webhooks").json()
        while not log[0]["tries"]:  # the thread of the application may have been first
            log = world.client.get(f"/v1/jobs/{job['id']}/webhooks").json()
        from sqlalchemy import update

        from worker.schema import webhook_out

        while not log[0]["last_error"]:
            log = world.client.get(f"/v1/jobs/{job['id']}/webhooks").json()
        assert (log[0]["state"], log[0]["tries"], log[0]["last_status"]) == ("pending", 1, 500)
        with world.service.jobs.database.write() as connection:
            connection.execute(update(webhook_out).values(next_at=0.0))
        while log[0]["state"] == "pending":
            sender.deliver_due()
            log = world.client.get(f"/v1/jobs/{job['id']}/webhooks").json()
    assert (log[0]["state"], log[0]["tries"], log[0]["last_status"]) == ("delivered", 2, 204)
    secret = world.client.get("/v1/webhooks/secret").json()["secret"]
    assert secret == signing_secret("local", world.service.secret)
    ids = set()
    for request in seen:
        head, body = request.split(b"\r\n\r\n", 1)
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        headers = {name.lower(): value for name, value in headers.items()}
        ids.add(headers["webhook-id"])
        assert Webhook(secret).verify(body, headers)["state"] == "succeeded"
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert len(ids) == 1


def _length(request: bytes) -> int:
    head = request.split(b"\r\n\r\n", 1)[0].lower()
    return int(head.split(b"content-length: ")[1].split(b"\r\n")[0])


def test_a_shared_link_is_for_looking_alone(guarded: World):
    mine = guarded.bearer("ann")
    job = guarded.client.post("/v1/jobs", json={"prompt": "a crate"}, headers=mine).json()
    guarded.worker.work()
    link = guarded.client.post(f"/v1/jobs/{job['id']}/share", headers=mine).json()["url"]
    token = link.split("?t=")[1]
    view = guarded.client.get(f"/v1/shared/{job['id']}", params={"t": token})
    assert view.status_code == 200
    assert {file["role"] for file in view.json()["files"]} == {"picture", "asset"}
    assert guarded.client.get(view.json()["files"][0]["url"]).status_code == 200
    assert guarded.client.get(f"/v1/jobs/{job['id']}").status_code == 401
    assert guarded.client.get(f"/v1/shared/{job['id']}", params={"t": token[:-1] + "_"}).status_code == 404
    other = guarded.client.post("/v1/jobs", json={"prompt": "b"}, headers=mine).json()
    assert guarded.client.get(f"/v1/shared/{other['id']}", params={"t": token}).status_code == 404
    assert json.dumps(view.json()).find("receipt") == -1
