"""Work on a model with a receipt: made again to the byte, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trimesh

from pipeline.checkpoints import file_sha256
from pipeline.cli import invoke
from pipeline.preset import PreviewConfig
from pipeline.receipt import Receipt
from pipeline.replay import replay
from pipeline.rework import ReworkRequest, rework_again
from pipeline.tools import PackageOptions
from render.errors import InputError
from render.glb import load_scene


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    path = tmp_path / "ball.glb"
    trimesh.creation.icosphere(3, 0.5).export(path)
    return path


def asked(asset: Path) -> ReworkRequest:
    return ReworkRequest(
        "simplify",
        file_sha256(asset),
        PackageOptions(("glb", "stl"), height_m=2.0, texture_size=512),
        PreviewConfig(size_px=64, turntable_frames=0),
        "small",
        polycount=200,
    )


def test_a_receipt_is_replayed(tmp_path: Path, asset: Path, capsys: pytest.CaptureFixture[str]):
    out, again = tmp_path / "out", tmp_path / "again"
    files = rework_again(asked(asset), asset, out)
    names = {"small.glb", "small.stl", "preview.png"}
    assert {path.name for path in files} == names | {"report.json", "receipt.json"}
    assert {path.name for path in out.iterdir()} == {path.name for path in files}
    report = json.loads((out / "report.json").read_text())
    assert (report["operation"], report["source_sha256"]) == ("simplify", file_sha256(asset))
    assert report["asset"]["triangles"] <= 200
    (part,) = load_scene(out / "small.glb").parts
    assert (part.mesh.vertices[:, 1].max() - part.mesh.vertices[:, 1].min()) == pytest.approx(2, abs=1e-4)

    receipt, moved = out / "receipt.json", asset.rename(tmp_path / "other-name.glb")
    assert invoke(["replay", str(receipt), "--asset", str(moved), "--out", str(again), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"same       {name}" for name in sorted(names)]
    assert {path.name for path in again.iterdir()} == {path.name for path in files}
    with pytest.raises(InputError, match="--asset"):
        replay(receipt, again)
    with pytest.raises(InputError, match="not the model that was worked on"):
        replay(receipt, again, asset=out / "small.glb")
    with pytest.raises(InputError, match="another operation"):
        Receipt.load(receipt)


def test_requests_that_are_refused(asset: Path):
    request = asked(asset)
    for wrong, says in (
        ({"polycount": None}, "polycount"),
        ({"operation": "convert"}, "polycount"),
        ({"options": PackageOptions(("obj",))}, "GLB"),
        ({"stem": "../a"}, "stem"),
        ({"stem": "a_b"}, "stem"),
    ):
        with pytest.raises(InputError, match=says):
            replace(request, **wrong)  # type: ignore[arg-type]


def test_what_fails_leaves_nothing(tmp_path: Path, asset: Path):
    asset.write_bytes(asset.read_bytes()[:300])
    with pytest.raises(InputError, match="truncated"):
        rework_again(asked(asset), asset, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
