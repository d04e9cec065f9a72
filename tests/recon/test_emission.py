"""What glows keeps glowing: through files, tools, renderers and views, also what is brighter than white."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from pipeline.artifacts import load_material, save_material
from pipeline.posed_set import render_views
from pipeline.posed_views import load_views
from pipeline.tools import PackageOptions, convert, simplify, unwrap
from pipeline.transforms_json import read_transforms
from recon.bake import BakeConfig
from recon.emission import emission
from recon.export import export
from recon.export.obj import obj_files
from recon.inspect import inspect
from recon.package import package_of_scene
from recon.uv import unwrap as unwrapped
from render.cameras import orbit_cameras
from render.conventions import srgb_to_linear_np
from render.gbuffer import ViewSet
from render.glb import load_scene
from render.preview import PreviewRenderer, frame_cameras
from render.rigs import RigConfig
from render.scene import Material, Part, Scene, merged
from render.scene_gbuffer import gbuffer_of
from tests.recon.mesh_field import as_mesh

LIGHT = np.array([1.0, 0.5, 0.0], np.float32)
STRENGTH = 4.0


def plain(grey: float = 0.3) -> Material:
    one = np.full((1, 1), grey, np.float32)
    return Material(np.stack([one] * 3, -1), np.zeros((1, 1), np.float32), one)


def lamp() -> Scene:
    """A grey box under a ball that glows orange, four times as bright as white."""
    foot = trimesh.creation.box((0.5, 0.5, 0.5))
    bulb = trimesh.creation.icosphere(3, 0.4)
    bulb.apply_translation((0, 0.6, 0))
    glowing = replace(plain(), emissive_srgb=LIGHT.reshape(1, 1, 3), emissive_strength=STRENGTH, name="bulb")
    return Scene((Part(as_mesh(foot), plain(), "foot"), Part(as_mesh(bulb), glowing, "bulb")))


def written(scene: Scene, folder: Path) -> Path:
    return export(package_of_scene(scene, "lamp"), folder, "lamp", ["glb"])[0]


def emitted(scene: Scene) -> np.ndarray:
    """Largest emitted light of all parts, linear."""
    light = [
        srgb_to_linear_np(part.material.emissive_srgb).reshape(-1, 3).max(0) * part.material.emissive_strength
        for part in scene.parts
        if part.material.emissive_srgb is not None
    ]
    return np.max(light, axis=0)


TRUE = srgb_to_linear_np(LIGHT) * STRENGTH


def test_a_glb_says_how_strong(tmp_path: Path) -> None:
    path = written(lamp(), tmp_path)
    data = path.read_bytes()
    root = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert root["extensionsUsed"] == ["KHR_materials_emissive_strength"]
    assert "extensionsRequired" not in root  # who does not know it shows a dimmer lamp
    scene = load_scene(path)
    assert [part.material.emissive_strength for part in scene.parts] == [1.0, STRENGTH]
    np.testing.assert_allclose(emitted(scene), TRUE, rtol=1e-4)
    assert [line for line in inspect(scene).materials if "emits (strength 4)" in line]


@pytest.mark.parametrize("tool", ["convert", "unwrap", "simplify"])
def test_tools_keep_it(tmp_path: Path, tool: str) -> None:
    path, out = written(lamp(), tmp_path), tmp_path / "out"
    options = PackageOptions(texture_size=512)
    match tool:
        case "convert":
            files = convert(path, out, options)
        case "unwrap":
            files = unwrap(path, out, options)
        case _:
            files = simplify(path, out, 300, options).files
    scene = load_scene(files[0])
    np.testing.assert_allclose(emitted(scene), TRUE, rtol=0.03, atol=0.02)
    cameras = orbit_cameras([30.0], [20.0], 64)
    before = gbuffer_of(lamp(), cameras, emissive=True).emissive_srgb
    after = gbuffer_of(scene, cameras, emissive=True).emissive_srgb
    assert before is not None
    assert after is not None
    assert float((before - after).abs().mean()) < 0.01


def test_the_preview_shows_it_brighter_than_white_is() -> None:
    scene = lamp()
    camera = frame_cameras(scene, 48)
    dim = Scene(tuple(replace(p, material=replace(p.material, emissive_strength=0.1)) for p in scene.parts))
    bright, dark = (PreviewRenderer(s, floor=False).render(camera)[0].astype(int) for s in (scene, dim))
    glows = (gbuffer_of(scene, camera, emissive=True).emissive_srgb[0].max(-1).values > 0.9).numpy()
    assert (bright[glows][:, 0] >= dark[glows][:, 0] + 20).mean() > 0.95


def test_stages_hand_it_on(tmp_path: Path) -> None:
    material = lamp().parts[1].material
    save_material(material, tmp_path / "material.safetensors")
    assert load_material(tmp_path / "material.safetensors").emissive_strength == STRENGTH


def test_obj_has_a_map_of_it() -> None:
    files = obj_files(package_of_scene(lamp(), "lamp"), "lamp")
    assert "map_Ke" in files["lamp.mtl"].decode()


def test_views_tell_it_and_a_bake_finds_it_again(tmp_path: Path) -> None:
    rig = RigConfig(count=10, size_px=96)
    render_views(lamp(), tmp_path, rig, color="base_color", channels=["depth", "emissive"], supersample=2)
    posed = load_views(read_transforms(tmp_path))
    seen = posed.views.gbuffer.emissive_srgb
    assert seen is not None
    assert float(seen[..., 0].max()) > 0.98
    mesh = unwrapped(merged(lamp()), 256)
    moved = (mesh.vertices - posed.placement.center) / posed.placement.radius
    mesh = replace(mesh, vertices=moved.astype(np.float32))
    found = emission(mesh, posed.views, BakeConfig(texture_size=256))
    assert found is not None
    material = replace(plain(), emissive_srgb=found)
    shown = gbuffer_of(Scene((Part(mesh, material),)), orbit_cameras([0.0], [0.0], 64), emissive=True)
    assert shown.emissive_srgb is not None
    # Pictures of eight bits end at white: four times 0.214 (linear) is 0.933 (sRGB); the foot stays dark.
    glowing = shown.emissive_srgb[shown.alpha[..., 0] == 1]
    colors = glowing[glowing[:, 0] > 0.5]
    assert torch.allclose(colors.median(0).values, torch.tensor([1.0, 0.933, 0.0]), atol=0.03)
    assert 0.2 < float((glowing[:, 0] > 0.5).float().mean()) < 0.9
    assert float((glowing[:, 0] < 0.02).float().mean()) > 0.1
    dark = replace(posed.views.gbuffer, emissive_srgb=torch.zeros_like(seen))
    assert emission(mesh, ViewSet(posed.views.cameras, dark), BakeConfig(texture_size=64)) is None
