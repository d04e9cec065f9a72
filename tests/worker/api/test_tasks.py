"""Meshy's dialect: what its clients send, and what they read back."""

from __future__ import annotations

import base64
import json

import pytest

from tests.worker.api.conftest import World, png

TEXT = "/openapi/v2/text-to-3d"


def preview(world: World, **more: object) -> str:
    answer = world.client.post(TEXT, json={"mode": "preview", "prompt": "a red barrel", **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["result"])


def test_a_preview_is_made_and_downloaded(world: World):
    task_id = preview(world, ai_model="latest", moderation=False, target_formats=["glb", "obj"], seed=7)
    assert world.worker.rings == ["gpu"]
    task = world.client.get(f"{TEXT}/{task_id}").json()
    assert (task["status"], task["type"], task["prompt"]) == ("PENDING", "text-to-3d-preview", "a red barrel")
    assert task["preset"] == "draft"
    assert world.worker.work(2) == 2
    task = world.client.get(f"{TEXT}/{task_id}").json()
    assert task["status"] == "IN_PROGRESS"
    assert 0 < task["progress"] < 100
    world.worker.work()
    task = world.client.get(f"{TEXT}/{task_id}").json()
    assert (task["status"], task["progress"], task["seed"], task["face_count"]) == ("SUCCEEDED", 100, 7, 12)
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]
    assert set(k for k, v in task["model_urls"].items() if v) == {"glb", "obj"}
    glb = world.client.get(task["model_urls"]["glb"])
    assert glb.status_code == 200
    assert glb.content.startswith(b"glb of a red barrel 7")
    assert world.client.get(task["thumbnail_url"]).headers["content-type"] == "image/png"


def test_refining_keeps_seed_and_views(world: World):
    first = preview(world, seed=3, variants=1)
    refine = {"mode": "refine", "preview_task_id": first}
    early = world.client.post(TEXT, json=refine)
    assert early.status_code == 409
    world.worker.work()
    second = world.client.post(TEXT, json=refine).json()["result"]
    job = world.service.jobs.get(second)
    assert (job.params["preset"], job.params["seed"], job.params["prompt"]) == ("standard", 3, "a red barrel")
    assert job.params["views_preset"] == "draft"
    assert world.client.get(f"{TEXT}/{second}").json()["type"] == "text-to-3d-refine"


def test_image_to_3d_by_data_uri(world: World):
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    answer = world.client.post("/openapi/v1/image-to-3d", json={"image_url": uri, "prompt": "a box"})
    assert answer.status_code == 202, answer.text
    job = world.service.jobs.get(answer.json()["result"])
    assert job.stages[0].name == "picture"
    files = world.service.jobs.artefacts(job.id)
    assert [file.role for file in files] == ["input"]
    blue = "data:image/png;base64," + base64.b64encode(png(color="blue")).decode()
    for urls, names in (([uri], {"image"}), ([uri, blue, blue], {"image", "image2", "image3"})):
        answer = world.client.post("/openapi/v1/multi-image-to-3d", json={"image_urls": urls})
        assert answer.status_code == 202, answer.text
        assert {file.name for file in world.service.jobs.artefacts(answer.json()["result"])} == names
        assert world.service.jobs.get(answer.json()["result"]).params["sides"] == []
    multi = {"image_urls": [uri, blue], "sides": ["front", "left"]}
    answer = world.client.post("/openapi/v1/multi-image-to-3d", json=multi)
    assert answer.status_code == 202, answer.text
    assert world.service.jobs.get(answer.json()["result"]).params["sides"] == ["front", "left"]


@pytest.mark.parametrize(
    "sides", [["front"], ["left", "right"], ["front", "front"], ["front", "top"], ["front", "left", "back"]]
)
def test_sides_that_are_refused(world: World, sides: list[str]):
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    body = {"image_urls": [uri, uri], "sides": sides}
    answer = world.client.post("/openapi/v1/multi-image-to-3d", json=body)
    assert answer.status_code == 422, answer.text
    assert "sides" in answer.json()["message"]
    assert world.service.jobs.find() == []


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("data:text/html;base64,aGk=", 422),
        ("data:image/png;base64,!!!", 422),
        ("data:image/png;base64,aGVsbG8=", 422),
        ("data:image/png;base64,", 422),
        ("data:nonsense", 422),
        ("http://127.0.0.1/a.png", 422),
        ("http://169.254.169.254/latest/meta-data", 422),
        ("file:///etc/passwd", 422),
        ("/etc/passwd", 422),
    ],
)
def test_pictures_that_are_refused(world: World, uri: str, status: int):
    answer = world.client.post("/openapi/v1/image-to-3d", json={"image_url": uri})
    assert answer.status_code == status
    body = answer.json()
    assert body.keys() == {"message", "code"}
    assert "/tmp" not in body["message"]
    assert world.service.jobs.find() == []


def test_tasks_on_tasks(world: World):
    first = preview(world, seed=5, target_polycount=900)
    world.worker.work()
    for path, body, changed in (
        (
            "remesh",
            {"target_polycount": 500, "resize_height": 2.5, "topology": "triangle"},
            ("polycount", 500),
        ),
        ("convert", {"target_formats": ["stl"]}, ("formats", ["glb", "stl"])),
        ("resize", {"resize_height": 3.0}, ("height_m", 3.0)),
    ):
        answer = world.client.post(f"/openapi/v1/{path}", json={"input_task_id": first, **body})
        assert answer.status_code == 202, answer.text
        task_id = answer.json()["result"]
        job = world.service.jobs.get(task_id)
        assert job.params[changed[0]] == changed[1]
        assert job.params["seed"] == 5
        assert job.client["from"] == first
        assert world.client.get(f"/openapi/v1/{path}/{task_id}").json()["type"] == path
        assert world.client.get(f"{TEXT}/{task_id}").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (
            "/openapi/v1/remesh",
            {"model_url": "https://example.com/a.glb", "topology": "quad"},
            "triangles",
        ),
        (TEXT, {"mode": "preview", "prompt": "a", "topology": "quad"}, "triangles"),
        (TEXT, {"mode": "preview", "prompt": "a", "auto_size": True}, "height_m"),
        (TEXT, {"mode": "preview", "prompt": "a", "origin_at": "center"}, "floor"),
    ],
)
def test_what_cannot_be_done_yet_says_so(world: World, path: str, body: dict[str, object], says: str):
    answer = world.client.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "NotImplemented"
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("{", "application/json", 400),
        ("[]", "application/json", 422),
        ("{}", "application/json", 422),
        ('{"mode": "preview"}', "application/json", 422),
        ('{"mode": "other", "prompt": "a"}', "application/json", 422),
        ('{"mode": "preview", "prompt": ""}', "application/json", 422),
        ('{"mode": "preview", "prompt": "' + "a" * 601 + '"}', "application/json", 422),
        ('{"mode": "preview", "prompt": "a\\u0000b"}', "application/json", 422),
        ('{"mode": "preview", "prompt": "a", "seed": -1}', "application/json", 422),
        ('{"mode": "preview", "prompt": "a", "target_formats": ["exe"]}', "application/json", 422),
        ('{"mode": "preview", "prompt": "a", "callback_url": "http://10.0.0.1/x"}', "application/json", 422),
        ("mode=preview", "application/x-www-form-urlencoded", 415),
        ("[" * 100_000, "application/json", 400),
    ],
)
def test_bad_bodies(world: World, content: str, kind: str, status: int):
    answer = world.client.post(TEXT, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"message", "code"}
    assert "\n" not in answer.json()["message"]
    assert world.service.jobs.find() == []


def test_lists_are_paged_and_sorted(world: World):
    ids = [preview(world, prompt=f"a crate {i}") for i in range(5)]
    newest = world.client.get(TEXT, params={"page_size": 2}).json()
    assert [task["id"] for task in newest] == [ids[4], ids[3]]
    page = world.client.get(TEXT, params={"page_size": 2, "page_num": 3, "sort_by": "+created_at"}).json()
    assert [task["id"] for task in page] == [ids[4]]
    assert world.client.get("/openapi/v1/image-to-3d").json() == []
    for wrong in ({"page_size": 51}, {"page_num": 0}, {"sort_by": "name"}):
        assert world.client.get(TEXT, params=wrong).status_code == 422


def test_place_in_the_queue(world: World):
    ids = [preview(world, prompt=f"a crate {i}") for i in range(3)]
    urgent = preview(world, priority=5)
    places = [world.client.get(f"{TEXT}/{i}").json()["preceding_tasks"] for i in (*ids, urgent)]
    assert places == [1, 2, 3, 0]


def test_deleting_cancels_first(world: World):
    task_id = preview(world)
    assert world.client.delete(f"{TEXT}/{task_id}").status_code == 200
    assert world.client.get(f"{TEXT}/{task_id}").json()["status"] == "CANCELED"
    assert world.client.delete(f"{TEXT}/{task_id}").status_code == 200
    assert world.client.get(f"{TEXT}/{task_id}").status_code == 404


def test_a_failed_task_says_why(world: World):
    task_id = preview(world)
    world.worker.fail("The picture is empty.")
    task = world.client.get(f"{TEXT}/{task_id}").json()
    assert (task["status"], task["task_error"]["message"]) == ("FAILED", "The picture is empty.")


def test_the_same_key_makes_one_task(world: World):
    body = {"mode": "preview", "prompt": "a red barrel"}
    headers = {"Idempotency-Key": "k1"}
    ids = {world.client.post(TEXT, json=body, headers=headers).json()["result"] for _ in range(5)}
    assert len(ids) == 1
    other = world.client.post(TEXT, json={**body, "seed": 4}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "IdempotencyMismatch")


def test_the_stream_carries_the_task_to_its_end(world: World):
    task_id = preview(world)
    world.worker.work()
    with world.client.stream("GET", f"{TEXT}/{task_id}/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        tasks = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert tasks[-1]["status"] == "SUCCEEDED"
    assert tasks[-1]["model_urls"]["glb"]
