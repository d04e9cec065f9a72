"""Work on models: a former task's, or one that is sent along."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import trimesh

from pipeline.checkpoints import file_sha256
from pipeline.replay import replay
from tests.worker.api.conftest import MakeWorld, World, png
from worker.runner import Runner

TEXT = "/openapi/v2/text-to-3d"
RETEXTURE, UNWRAP, REMESH = "/openapi/v1/retexture", "/openapi/v1/uv-unwrap", "/openapi/v1/remesh"


def uri(data: bytes, kind: str = "model/gltf-binary") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def box() -> bytes:
    data = trimesh.creation.box((1.0, 2.0, 3.0)).export(file_type="glb")
    assert isinstance(data, bytes)
    return data


def glb_of(root: dict[str, Any]) -> bytes:
    """A GLB without a buffer."""
    text = json.dumps({"asset": {"version": "2.0"}} | root).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A) + text


def bad_accessor() -> bytes:
    """An accessor of 2^31 triplets that no buffer holds."""
    return glb_of(
        {
            "accessors": [{"componentType": 5126, "count": 2**31, "type": "VEC3"}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "nodes": [{"mesh": 0}],
            "scenes": [{"nodes": [0]}],
            "scene": 0,
        }
    )


def finished(world: World) -> str:
    """A generated task with a GLB."""
    world.worker.glb = box()
    answer = world.client.post(TEXT, json={"mode": "preview", "prompt": "a red barrel"})
    world.worker.work()
    return str(answer.json()["result"])


def work(world: World) -> None:
    """Runs all stages for real."""
    runner = Runner(world.service.settings)
    while any(runner.run_next(name)[0] for name in ("gpu", "cpu")):
        pass
    runner.database.close()


def test_retexturing_a_task(world: World):
    first = finished(world)
    body = {
        "input_task_id": first,
        "text_style_prompt": "a golden barrel",
        "image_style_url": uri(png(), "image/png"),
        "enable_original_uv": False,
        "seed": 3,
        "strength": 0.9,
    }
    answer = world.client.post(RETEXTURE, json=body)
    assert answer.status_code == 202, answer.text
    job = world.service.jobs.get(answer.json()["result"])
    assert job.kind == "retexture"
    assert [one.name for one in job.stages] == ["picture", "paint", "texture", "export", "preview", "finish"]
    assert (job.params["prompt"], job.params["keep_uvs"], job.seed) == ("a golden barrel", False, 3)
    given = {file.name: file for file in world.service.jobs.artefacts(job.id)}
    assert set(given) == {"model", "image"}
    assert given["model"].mime == "model/gltf-binary"
    world.worker.work()
    task = world.client.get(f"{RETEXTURE}/{job.id}").json()
    assert (task["status"], task["type"], task["prompt"]) == ("SUCCEEDED", "retexture", "a golden barrel")
    assert task["model_urls"]["glb"]
    # What was painted can be painted again, and worked on by its own GLB.
    again = world.client.post(RETEXTURE, json={"input_task_id": job.id, "text_style_prompt": "a blue barrel"})
    assert again.status_code == 202
    remesh = world.client.post(REMESH, json={"input_task_id": job.id, "target_polycount": 100})
    assert world.service.jobs.get(remesh.json()["result"]).kind == "rework"
    refine = {"mode": "refine", "preview_task_id": job.id}
    assert world.client.post(TEXT, json=refine).status_code == 422


def test_the_same_retexture_is_answered_at_once(world: World):
    first = finished(world)
    body = {"input_task_id": first, "text_style_prompt": "a golden barrel"}
    made = world.client.post(RETEXTURE, json=body).json()["result"]
    world.worker.work()
    again = world.client.post(RETEXTURE, json=body).json()["result"]
    assert made != again
    assert world.client.get(f"{RETEXTURE}/{again}").json()["status"] == "SUCCEEDED"


def test_unwrapping_a_model_that_is_sent(world: World, tmp_path: Path):
    model = box()
    answer = world.client.post(UNWRAP, json={"model_url": uri(model), "target_formats": ["obj"]})
    assert answer.status_code == 202, answer.text
    task_id = answer.json()["result"]
    work(world)
    task = world.client.get(f"{UNWRAP}/{task_id}").json()
    assert task["status"] == "SUCCEEDED", task["task_error"]
    assert {name for name, url in task["model_urls"].items() if url} == {"glb", "obj", "mtl"}
    glb = world.client.get(task["model_urls"]["glb"]).content
    mesh = trimesh.load(trimesh.util.wrap_as_stream(glb), file_type="glb", force="mesh")
    assert mesh.extents.round(4).tolist() == [1.0, 2.0, 3.0]
    assert mesh.visual.uv is not None
    assert task["face_count"] == 12
    assert task["thumbnail_url"]
    report = world.client.get(task["report_url"]).json()
    assert report["operation"] == "unwrap"
    assert report["safety"][0]["subject"] == "asset"
    # Its receipt makes the same bytes again, without the service.
    (tmp_path / "sent.glb").write_bytes(model)
    (tmp_path / "receipt.json").write_bytes(world.client.get(task["receipt_url"]).content)
    replayed = replay(tmp_path / "receipt.json", tmp_path / "again", asset=tmp_path / "sent.glb")
    delivered = {file.name: file.sha256 for file in world.service.jobs.artefacts(task_id)}
    assert replayed.same == dict.fromkeys(delivered.keys() - {"model", "report.json", "receipt.json"}, True)
    assert {"asset.glb", "asset.obj", "preview.png", "turntable.mp4"} <= replayed.same.keys()
    for name in replayed.same:
        assert file_sha256(tmp_path / "again" / name) == delivered[name]


def test_a_model_whose_inside_is_broken_ends_with_a_message(world: World):
    """What the door does not look for: a node that is its own child."""
    broken = glb_of({"nodes": [{"children": [0]}], "scenes": [{"nodes": [0]}], "scene": 0})
    task_id = world.client.post(UNWRAP, json={"model_url": uri(broken)}).json()["result"]
    work(world)
    task = world.client.get(f"{UNWRAP}/{task_id}").json()
    assert task["status"] == "FAILED"
    assert "loop" in task["task_error"]["message"]
    assert "/" not in task["task_error"]["message"].replace("glTF/GLB", "")


@pytest.mark.parametrize(
    ("model", "status", "says"),
    [
        ("data:model/gltf-binary;base64,!!!", 422, "base64"),
        ("data:text/html;base64,aGk=", 422, "data URI"),
        (uri(b"solid"), 422, "no GLB"),
        (uri(b"glTF"), 422, "model"),
        (uri(box()[:400]), 422, "is truncated"),
        (uri(bad_accessor()), 422, "accessors[0]"),
        ("http://127.0.0.1/a.glb", 422, "model_url"),
        ("file:///etc/passwd", 422, "model_url"),
    ],
)
def test_models_that_are_refused(world: World, model: str, status: int, says: str):
    for path, body in ((RETEXTURE, {"text_style_prompt": "a golden box"}), (UNWRAP, {}), (REMESH, {})):
        answer = world.client.post(path, json={"model_url": model, **body})
        assert answer.status_code == status, answer.text
        assert says in answer.json()["message"]
        assert "/tmp" not in answer.json()["message"]
    assert world.service.jobs.find() == []


def test_a_model_may_not_be_too_large(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.api.models.MAX_MODEL_BYTES", 100)
    answer = world.client.post(UNWRAP, json={"model_url": uri(box())})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (RETEXTURE, {"model_url": uri(b"x")}, "text_style_prompt"),
        (RETEXTURE, {"text_style_prompt": "a golden box"}, "input_task_id or model_url"),
        (RETEXTURE, {"model_url": uri(box()), "text_style_prompt": "a", "strength": 0}, "strength"),
        (UNWRAP, {"model_url": uri(box()), "target_formats": ["splat"]}, "Gaussians"),
        (UNWRAP, {"model_url": uri(box()), "texture_size": 100}, "texture_size"),
    ],
)
def test_requests_that_are_refused(world: World, path: str, body: dict[str, object], says: str):
    answer = world.client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["message"]


def test_somebody_elses_task_is_not_there(guarded: World):
    mine = guarded.bearer("ann")
    guarded.worker.glb = box()
    answer = guarded.client.post(TEXT, json={"mode": "preview", "prompt": "a box"}, headers=mine)
    guarded.worker.work()
    body = {"input_task_id": answer.json()["result"], "text_style_prompt": "a golden box"}
    assert guarded.client.post(RETEXTURE, json=body, headers=guarded.bearer("eve")).status_code == 404
    assert guarded.client.post(RETEXTURE, json=body, headers=mine).status_code == 202


@pytest.mark.slow
def test_retexturing_for_real(make_world: MakeWorld, tmp_path: Path):
    world = make_world()
    body = {"model_url": uri(box()), "text_style_prompt": "a golden crate", "preset": "draft"}
    task_id = world.client.post(RETEXTURE, json=body).json()["result"]
    work(world)
    task = world.client.get(f"{RETEXTURE}/{task_id}").json()
    assert task["status"] == "SUCCEEDED", task["task_error"]
    report = world.client.get(task["report_url"]).json()
    assert report["asset"]["triangles"] == 12
    assert [verdict["subject"] for verdict in report["safety"]] == ["prompt", "views", "asset"]
    assert {"views.png", "preview.png", "turntable.mp4"} <= {
        file.name for file in world.service.jobs.artefacts(task_id)
    }
