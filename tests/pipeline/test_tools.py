"""Tools on a user's own GLB: what goes in comes out, smaller, elsewhere, or in another format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.cli import invoke
from pipeline.tools import PackageOptions, bake, convert, simplify, unwrap
from recon.export.glb import glb_bytes
from recon.inspect import inspect
from recon.package import package_of_scene
from render.cameras import orbit_cameras
from render.errors import InputError
from render.glb import load_scene
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of

CAMERAS = orbit_cameras([20.0, 160.0], [20.0, 40.0], 96, half_extent=0.8)
SMALL = PackageOptions(texture_size=512)
ONE = np.ones((1, 1), np.float32)
GREY = Material(np.stack([ONE] * 3, -1) * 0.5, ONE * 0, ONE, name="grey")


def two_parts() -> Scene:
    """A red ball with a normal map beside a metallic blue box, open below."""
    ball = trimesh.creation.icosphere(3, 0.3)
    ball.apply_translation((-0.35, 0, 0))
    box = trimesh.creation.box((0.5, 0.5, 0.5))
    box.apply_translation((0.35, 0, 0))
    open_below = box.faces[box.face_normals[:, 1] > -0.9]

    def material(color: tuple[float, float, float], metal: float, name: str) -> Material:
        one = np.ones((1, 1), np.float32)
        return Material(np.array(color, np.float32).reshape(1, 1, 3), one * metal, one * 0.6, name=name)

    return Scene(
        (
            Part(
                Mesh(
                    ball.vertices.astype(np.float32),
                    ball.faces.astype(np.int32),
                    ball.vertex_normals.astype(np.float32),
                ),
                material((0.8, 0.1, 0.1), 0.0, "red"),
                "ball",
            ),
            Part(
                Mesh(box.vertices.astype(np.float32), open_below.astype(np.int32)),
                material((0.1, 0.2, 0.9), 1.0, "blue"),
                "box",
            ),
        )
    )


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("asset") / "My Toy.glb"
    path.write_bytes(glb_bytes(package_of_scene(two_parts(), "toy")))
    return path


def same_look(a: Path, b: Path, limit: float = 0.02) -> None:
    first, second = gbuffer_of(load_scene(a), CAMERAS), gbuffer_of(load_scene(b), CAMERAS)
    for name in ("alpha", "base_color_srgb", "metallic", "roughness"):
        difference = (getattr(first, name) - getattr(second, name)).abs().mean()
        assert float(difference) < limit, name


def test_convert_keeps_parts_materials_and_names(asset: Path, tmp_path: Path) -> None:
    files = convert(asset, tmp_path, PackageOptions(formats=("glb", "obj", "3mf")))
    assert [path.name for path in files[:3]] == ["my-toy.glb", "my-toy.obj", "my-toy.mtl"]
    scene = load_scene(tmp_path / "my-toy.glb")
    assert [part.material.name for part in scene.parts] == ["red", "blue"]
    same_look(asset, tmp_path / "my-toy.glb", 1e-3)
    assert len(trimesh.load(tmp_path / "my-toy.obj", force="scene").geometry) == 2


def test_convert_scales_moves_and_adds_levels(asset: Path, tmp_path: Path) -> None:
    (path,) = convert(asset, tmp_path, PackageOptions(pivot="floor", height_m=3.0, lods=3, texture_size=512))
    found = inspect(load_scene(path))
    assert found.size[1] == pytest.approx(3.0, rel=1e-5)
    everything = load_scene(path, everything=True)
    triangles = [len(part.mesh.faces) for part in everything.parts]
    assert triangles[0] + triangles[1] == found.triangles
    assert triangles[2] <= found.triangles / 2
    assert triangles[3] <= found.triangles / 4


def test_simplify_keeps_budget_look_and_hole(asset: Path, tmp_path: Path) -> None:
    made = simplify(asset, tmp_path, 400, SMALL)
    assert made.triangles_before == 1290
    assert 392 <= made.triangles <= 400
    assert made.fidelity.lost_parts == 0
    same_look(asset, made.files[0])
    assert inspect(load_scene(made.files[0])).border_edges == 4
    assert made.symmetry is None


def test_what_is_not_symmetric_is_told_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = trimesh.transformations.rotation_matrix(0.5, (0, 1, 0))[:3, :3].T.astype(np.float32)
    parts = [replace(p, mesh=replace(p.mesh, vertices=p.mesh.vertices @ turned)) for p in two_parts().parts]
    file = tmp_path / "turned.glb"
    file.write_bytes(glb_bytes(package_of_scene(Scene(tuple(parts)), "turned")))
    plain = simplify(file, tmp_path / "a", 400, SMALL)
    arguments = ["simplify", str(file), "--out", str(tmp_path / "b"), "--polycount", "400", "--symmetrise"]
    assert invoke([*arguments, "--texture-size", "512"]) == 0
    assert "The object is not symmetric" in capsys.readouterr().err
    assert (tmp_path / "b" / "turned.glb").read_bytes() == plain.files[0].read_bytes()


def test_unwrap_makes_one_atlas_without_overlap(asset: Path, tmp_path: Path) -> None:
    (path,) = unwrap(asset, tmp_path, SMALL)
    scene = load_scene(path)
    assert len(scene.parts) == 1
    found = inspect(scene)
    assert found.triangles == 1290
    assert found.uv_overlap < 0.001
    same_look(asset, path)


def test_bake_puts_another_assets_look_on_given_uvs(asset: Path, tmp_path: Path) -> None:
    made = simplify(asset, tmp_path / "low", 400, SMALL)
    plain = load_scene(made.files[0])
    bare = tmp_path / "bare.glb"
    bare.write_bytes(glb_bytes(package_of_scene(Scene((Part(plain.parts[0].mesh, GREY),)), "bare")))
    # A grey mesh without textures loses its UVs on the way, so this one is unwrapped anew.
    (path,) = bake(bare, asset, tmp_path / "out", SMALL)
    same_look(asset, path)
    (other,) = bake(made.files[0], asset, tmp_path / "again", SMALL, maps=("roughness",))
    assert load_scene(other).parts[0].material.normal is None


def test_mistakes_are_named(asset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--formats"):
        PackageOptions(formats=())
    with pytest.raises(InputError, match="--texture-size"):
        PackageOptions(texture_size=100)
    with pytest.raises(InputError, match="--polycount"):
        simplify(asset, tmp_path, 2, SMALL)
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / "nothing.glb", tmp_path, PackageOptions())
    same = tmp_path / "same.glb"
    same.write_bytes(asset.read_bytes())
    with pytest.raises(InputError, match=r"replace same\.glb itself"):
        convert(same, tmp_path, PackageOptions())


def test_what_is_too_large_is_refused_with_one_line(
    asset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 5,000,000 triangles, and of 500,000 where UVs are to be made; lowered here."""

    def refusal(*arguments: str) -> str:
        assert invoke([*arguments, "--out", str(tmp_path / "out"), "--quiet"]) == 2
        assert not (tmp_path / "out").exists()
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        return said

    monkeypatch.setattr("recon.uv.MAX_TRIANGLES", 1000)
    bare = tmp_path / "bare.glb"
    bare.write_bytes(glb_bytes(package_of_scene(Scene((Part(two_parts().parts[0].mesh, GREY),)), "bare")))
    assert "1,290 triangles would take hours" in refusal("unwrap", str(asset))
    assert "1,280 triangles would take hours" in refusal("bake", str(bare), "--from", str(asset))
    assert "--polycount must be at most 1,000" in refusal("simplify", str(asset), "--polycount", "1100")
    monkeypatch.setattr("pipeline.tools.MAX_TRIANGLES", 1000)
    for arguments in (
        ["unwrap"],
        ["simplify", "--polycount", "100"],
        ["convert"],
        ["bake", "--from", str(bare)],
    ):
        command, *options = arguments
        assert "1,290 triangles; this works on up to 1,000" in refusal(command, str(asset), *options)
