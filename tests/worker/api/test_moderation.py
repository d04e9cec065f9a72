"""What the safety policy's words refuse is answered at once and never queued."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worker.api.conftest import World

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
