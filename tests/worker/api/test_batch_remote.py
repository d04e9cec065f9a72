"""`maquette batch --server` against the application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from render.errors import InputError
from tests.worker.api.conftest import World, png
from tests.worker.test_batch import Silent
from worker.batch import Batch
from worker.batch_remote import RemoteMaker
from worker.manifest import read_manifest


def maker(world: World, key: str | None = None) -> RemoteMaker:
    return RemoteMaker(
        "http://127.0.0.1:8000", key, client=world.client, sleep=lambda s: world.worker.work() and None
    )


def test_a_batch_by_a_service(guarded: World, tmp_path: Path):
    (tmp_path / "chair.png").write_bytes(png())
    rows = [
        {"id": "a", "prompt": "a crate", "formats": "glb,obj", "preset": "draft"},
        {"id": "b", "prompt": "a crate", "formats": "glb,obj", "preset": "draft"},
        {"id": "c", "image": "chair.png", "height_m": 2},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    remote = maker(guarded, guarded.key())
    out = tmp_path / "out"
    results = Batch(read_manifest(manifest), out, remote, Silent()).run()
    assert [result.state for result in results] == ["ready"] * 3
    assert len(guarded.service.jobs.find()) == 2
    assert (out / "a" / "asset.obj").read_bytes() == (out / "b" / "asset.obj").read_bytes()
    assert guarded.service.jobs.find()[0].params["height_m"] == 2
    # Files that are gone are fetched again from the job that is still there.
    (out / "c" / "asset.glb").unlink()
    again = Batch(read_manifest(manifest), out, remote, Silent()).run()
    assert [result.state for result in again] == ["ready"] * 3
    assert len(guarded.service.jobs.find()) == 2


def test_a_wrong_key_fails_the_rows_with_a_reason(guarded: World, tmp_path: Path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("prompt\na crate\n")
    results = Batch(read_manifest(manifest), tmp_path / "out", maker(guarded, "mq_x"), Silent()).run()
    assert results[0].state == "failed"
    assert "MAQUETTE_KEY" in results[0].reason


@pytest.mark.parametrize("server", ["", "localhost:8000", "ftp://a"])
def test_addresses_that_are_none(server: str):
    with pytest.raises(InputError, match="--server"):
        RemoteMaker(server)
