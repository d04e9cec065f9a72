"""Who may do what: keys, scopes, owners, quotas, sessions; and where the service listens."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from tests.worker.api.conftest import MakeWorld, World
from worker.schema import api_key

JOB = {"prompt": "a crate", "preset": "draft"}


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer x", "Basic YTpi", "Bearer mq_0123456789abcdef." + "a" * 43]
)
def test_no_key_or_a_wrong_one(guarded: World, value: str | None):
    headers = {} if value is None else {"Authorization": value}
    for method, path in (
        ("GET", "/v1/jobs"),
        ("POST", "/openapi/v2/text-to-3d"),
        ("GET", "/a/" + "0" * 64 + "/x"),
    ):
        answer = guarded.client.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert guarded.client.get("/healthz").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200


def test_others_jobs_are_not_there(guarded: World):
    ann, bob = guarded.bearer("ann"), guarded.bearer("bob")
    job = guarded.client.post("/v1/jobs", json=JOB, headers=ann).json()
    guarded.worker.work()
    path = f"/v1/jobs/{job['id']}"
    for method, tail in (
        ("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/events"),
        ("POST", "/share"), ("GET", "/webhooks"),
    ):  # fmt: skip
        assert guarded.client.request(method, path + tail, headers=bob).status_code == 404
    task = f"/openapi/v2/text-to-3d/{job['id']}"
    assert guarded.client.get(task, headers=bob).status_code == 404
    remesh = {"input_task_id": job["id"], "target_polycount": 300}
    assert guarded.client.post("/openapi/v1/remesh", json=remesh, headers=bob).status_code == 404
    assert guarded.client.get("/v1/jobs", headers=bob).json()["jobs"] == []
    url = guarded.client.get(path, headers=ann).json()["files"][0]["url"]
    bare, token = url.split("?")
    assert guarded.client.get(bare, headers=bob).status_code == 404
    assert guarded.client.get(bare, headers=ann).status_code == 200
    assert guarded.client.get(url).status_code == 200
    assert guarded.client.get(f"{bare}?{token[:-1]}_").status_code == 403
    assert guarded.client.get(path, headers=guarded.bearer("boss", ("admin",))).status_code == 200


def test_scopes_and_revocation(guarded: World):
    reader = guarded.bearer("ann", ("read",))
    assert guarded.client.get("/v1/jobs", headers=reader).status_code == 200
    assert guarded.client.post("/v1/jobs", json=JOB, headers=reader).status_code == 403
    assert guarded.client.get("/metrics", headers=reader).status_code == 403
    metrics = guarded.client.get("/metrics", headers=guarded.bearer("prometheus", ("metrics",)))
    assert metrics.status_code == 200
    assert "# TYPE maquette_stages gauge" in metrics.text
    with guarded.service.jobs.database.write() as connection:
        connection.execute(update(api_key).values(revoked=1.0))
    assert guarded.client.get("/v1/jobs", headers=reader).status_code == 401


def test_rates_and_quotas_say_when_to_come_back(guarded: World):
    slow = guarded.bearer("ann", creates_per_minute=2)
    codes = [guarded.client.post("/v1/jobs", json=JOB, headers=slow).status_code for _ in range(3)]
    assert codes == [202, 202, 429]
    few = guarded.bearer("bob", unfinished_jobs=1)
    assert guarded.client.post("/v1/jobs", json=JOB, headers=few).status_code == 202
    full = guarded.client.post("/v1/jobs", json=JOB, headers=few)
    assert (full.status_code, full.json()["code"]) == (429, "TooManyPendingTasks")
    assert int(full.headers["retry-after"]) >= 1
    often = guarded.bearer("cid", requests_per_minute=3)
    codes = [guarded.client.get("/v1/jobs", headers=often).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]


def test_guessing_keys_is_slowed_down(guarded: World):
    codes = [
        guarded.client.get("/v1/jobs", headers={"Authorization": "Bearer x"}).status_code for _ in range(61)
    ]
    assert codes[0] == 401
    assert codes[-1] == 429


def test_back_pressure(make_world: MakeWorld):
    world = make_world(max_active_jobs=1)
    assert world.client.post("/v1/jobs", json=JOB).status_code == 202
    answer = world.client.post("/v1/jobs", json=JOB)
    assert (answer.status_code, answer.json()["code"]) == (429, "TooManyPendingTasks")
    assert answer.headers["retry-after"]
    full = make_world(min_free_bytes=2**60)
    assert full.client.post("/v1/jobs", json=JOB).status_code == 429
    assert full.client.get("/readyz").status_code == 503


def test_signing_in_on_the_page(guarded: World):
    assert guarded.client.get("/v1/session").json()["signed_in"] is False
    assert guarded.client.post("/v1/session", json={"key": "mq_x"}).status_code == 401
    answer = guarded.client.post("/v1/session", json={"key": guarded.key("ann")})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert guarded.client.get("/v1/jobs").status_code == 200
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert guarded.client.post("/v1/jobs", json=JOB, headers=evil).status_code == 403
    assert guarded.client.delete("/v1/session").status_code == 204
    assert guarded.client.get("/v1/jobs").status_code == 401


def test_without_keys_only_this_machine_and_its_page(world: World):
    assert (
        world.client.post("/v1/jobs", json=JOB, headers={"Origin": "http://127.0.0.1:8000"}).status_code
        == 202
    )
    for headers, status in (
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Authorization": "Bearer anything", "Origin": "https://evil.example"}, 403),
    ):
        answer = world.client.post("/v1/jobs", json=JOB, headers=headers)
        assert answer.status_code == status
        assert answer.json().keys() == {"message", "code"}
    assert len(world.service.jobs.find()) == 1


def test_keys_are_asked_for_where_others_can_reach(make_world: MakeWorld):
    assert make_world(host="0.0.0.0").client.get("/v1/jobs").status_code == 401
    assert make_world(public_url="https://assets.example").client.get("/v1/jobs").status_code == 401
    assert make_world(host="0.0.0.0", keys="off").client.get("/v1/jobs").status_code == 200


def test_the_page_has_a_strict_policy(world: World):
    page = world.client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert "default-src 'none'" in policy
    assert world.client.get("/web/js/app.js").headers["content-type"].startswith("text/javascript")
    assert world.client.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
    for path in ("/web/../api/app.py", "/web/%2e%2e/api/app.py", "/web/js", "/web/none.js", "/nothing"):
        assert world.client.get(path).status_code == 404
