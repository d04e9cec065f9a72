"""What the safety policy's words refuse is answered at once and never queued."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.picture_hash import picture_hash
from pipeline.safety import Verdict
from tests.worker.api.conftest import MakeWorld, World, png
from worker import verdicts

REFUSED = "a p.0.r.n statue"


def jobs_of(world: World) -> int:
    return len(world.service.jobs.find())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jobs", {"prompt": REFUSED}),
        ("/v1/jobs", {"prompt": f"{REFUSED} of wood", "preset": "draft", "variants": 3}),
        ("/openapi/v2/text-to-3d", {"mode": "preview", "prompt": REFUSED}),
        ("/openapi/v2/text-to-3d", {"mode": "preview", "prompt": REFUSED, "moderation": False}),
    ],
)
def test_a_refused_prompt_is_no_job(world: World, path: str, body: dict[str, Any]):
    answer = world.client.post(path, json=body, headers={"Idempotency-Key": "one"})
    assert (answer.status_code, answer.json()["code"]) == (422, "Moderated")
    assert "(sexual)" in answer.json()["message"]
    assert "'porn'" in answer.json()["message"]
    assert (jobs_of(world), world.worker.rings) == (0, [])
    # Said in other words it is admitted; the refusal has not used up the key.
    body = {**body, "prompt": "a stone statue"}
    answer = world.client.post(path, json=body, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 202
    assert jobs_of(world) == 1


def test_the_negative_prompt_may_name_what_is_not_wanted(world: World):
    answer = world.client.post("/v1/jobs", json={"prompt": "a statue", "negative": "nude"})
    assert answer.status_code == 202


def test_what_is_only_meant_is_left_to_the_first_stage(world: World):
    answer = world.client.post("/v1/jobs", json={"prompt": "a woman with no clothes on"})
    assert answer.status_code == 202
    world.worker.fail("Refused by the safety policy 'offline-1' (sexual)")
    assert world.client.get(f"/v1/jobs/{answer.json()['id']}").json()["state"] == "failed"


def test_one_refused_row_refuses_its_batch_before_any_is_queued(world: World):
    rows = [{"id": "fine", "prompt": "a crate"}, {"id": "odd", "prompt": REFUSED}]
    answer = world.client.post("/v1/batches", json={"rows": rows})
    assert (answer.status_code, answer.json()["code"]) == (422, "Moderated")
    assert answer.json()["message"].startswith("row 'odd': Refused by the safety policy")
    assert jobs_of(world) == 0


SAMPLES = Path(__file__).parents[3] / "assets" / "samples"
JPEG = {"Content-Type": "image/jpeg"}


def crate_as_jpeg() -> bytes:
    """The sample at another size in another format."""
    with Image.open(SAMPLES / "crate.png") as picture:
        clear = picture.convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    out = io.BytesIO()
    white.convert("RGB").resize((300, 300)).save(out, "JPEG", quality=60)
    return out.getvalue()


@pytest.fixture
def listing(make_world: MakeWorld, tmp_path: Path) -> World:
    """Knows the sample crate as a picture to refuse."""
    path = tmp_path / "known.txt"
    with Image.open(SAMPLES / "crate.png") as picture:
        path.write_text(f"{picture_hash(picture).hex},case 12\n")
    return make_world(known_pictures=path)


def test_a_known_picture_is_refused_at_the_door(listing: World):
    uri = "data:image/jpeg;base64," + base64.b64encode(crate_as_jpeg()).decode()
    for answer in (
        listing.client.post("/v1/uploads", content=crate_as_jpeg(), headers=JPEG),
        listing.client.post("/v1/jobs", json={"image_url": uri}),
        listing.client.post("/openapi/v1/image-to-3d", json={"image_url": uri}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "Moderated")
        assert "(known_picture)" in answer.json()["message"]
        assert "(case 12)" in answer.json()["message"]
    assert (jobs_of(listing), listing.worker.rings) == (0, [])
    fine = listing.client.post("/v1/uploads", content=png(), headers={"Content-Type": "image/png"})
    assert fine.status_code == 201


def test_a_policy_of_ones_own_is_asked_at_the_door_when_it_is_light(make_world: MakeWorld):
    own = make_world(picture_policy="tests.pipeline.picture_plugin:no_red")
    for color, status in (("red", 422), ("blue", 201)):
        answer = own.client.post(
            "/v1/uploads", content=png(color=color), headers={"Content-Type": "image/png"}
        )
        assert answer.status_code == status
    assert answer.json()["width"] == 64


def test_a_job_shows_what_was_said_of_it(world: World):
    job_id = world.client.post("/v1/jobs", json={"prompt": "a crate"}).json()["id"]
    assert world.client.get(f"/v1/jobs/{job_id}").json()["safety"] == []
    database = world.service.jobs.database
    views = Verdict(True, "p", reason="nobody looked", screened=False, subject="views")
    verdicts.note(database, job_id, [views, Verdict(True, "offline-1", score=0.25)])
    verdicts.note(database, job_id, [Verdict(False, "p", "gore", "blood 0.90", 0.9, subject="views")])
    shown = world.client.get(f"/v1/jobs/{job_id}").json()["safety"]
    assert [(one["subject"], one["allowed"], one["screened"], one["score"]) for one in shown] == [
        ("prompt", True, True, 0.25),
        ("views", False, True, 0.9),
    ]
    assert (shown[1]["category"], shown[1]["reason"]) == ("gore", "blood 0.90")
    assert world.client.get("/v1/jobs").json()["jobs"][0]["safety"] == []
    # They go with the job.
    assert world.client.delete(f"/v1/jobs/{job_id}").status_code in (200, 204)
    assert verdicts.of(database, job_id) == []


def test_the_same_request_again_has_the_same_verdicts(world: World):
    ids = []
    for _ in range(2):
        ids.append(world.client.post("/v1/jobs", json={"prompt": "a crate"}).json()["id"])
        if len(ids) == 1:
            verdicts.note(world.service.jobs.database, ids[0], [Verdict(True, "offline-1", score=0.25)])
            world.worker.work()
    first, second = (world.client.get(f"/v1/jobs/{job_id}").json() for job_id in ids)
    assert second["state"] == "succeeded"
    assert first["safety"] == second["safety"] != []
