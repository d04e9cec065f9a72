"""Maps corrected by the views show what the views show, and nothing else changes."""

from __future__ import annotations

import numpy as np
import trimesh

from recon.retouch import retouched
from recon.texels import texels_of
from recon.uv import unwrap
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import GBuffer
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of
from tests.recon.mesh_field import as_mesh

SIZE = 512
CAMERAS = orbit_cameras([40.0 * i for i in range(9)], [35.0, -35.0, 0.0] * 3, 96)
UNSEEN = orbit_cameras([20.0, 140.0, 260.0], [10.0, -25.0, 50.0], 96)


def shown(mesh: Mesh, image: np.ndarray, cameras: Cameras = CAMERAS) -> GBuffer:
    color, metallic, roughness = (np.ascontiguousarray(image[..., k]) for k in (slice(3), 3, 4))
    return gbuffer_of(Scene((Part(mesh, Material(color, metallic, roughness)),)), cameras, 2)


def channels_of(seen: GBuffer) -> np.ndarray:
    assert seen.base_color_srgb is not None
    assert seen.metallic is not None
    assert seen.roughness is not None
    return np.concatenate([seen.base_color_srgb, seen.metallic, seen.roughness], -1)


def error(mesh: Mesh, image: np.ndarray, wanted: GBuffer, cameras: Cameras) -> float:
    solid = wanted.alpha[..., 0].numpy() > 0.99
    return float(((channels_of(shown(mesh, image, cameras)) - channels_of(wanted))[solid] ** 2).mean())


def test_a_blurred_map_becomes_sharper_at_unseen_views() -> None:
    mesh = unwrap(as_mesh(trimesh.creation.icosphere(4, 0.8)), SIZE)
    texels = texels_of(mesh, SIZE)
    known = texels.face >= 0
    places = np.zeros((SIZE, SIZE, 3), np.float32)
    places[known] = texels.interpolate(mesh.vertices, mesh.faces)
    # Stripes of five pixels' period, whose contrast a bake between pixels would lower.
    stripes = 0.5 + 0.4 * np.sin(places * 55.0)
    truth = np.concatenate([stripes, 1 - stripes[..., :2]], -1).astype(np.float32)
    blurred = ((0.5 + 0.5 * (truth - 0.5)) * known[..., None]).astype(np.float32)
    seen, unseen = shown(mesh, truth), shown(mesh, truth, UNSEEN)
    confidence = (seen.alpha[..., 0].numpy() > 0.99).astype(np.float32)
    made = retouched(mesh, blurred, known, CAMERAS, channels_of(seen), confidence, 6)
    before, after = error(mesh, blurred, unseen, UNSEEN), error(mesh, made, unseen, UNSEEN)
    assert after < 0.15 * before
    again = retouched(mesh, blurred, known, CAMERAS, channels_of(seen), confidence, 6)
    assert np.array_equal(made, again)
    assert np.array_equal(made[~known], blurred[~known])


def test_what_views_do_not_trust_changes_nothing() -> None:
    mesh = unwrap(as_mesh(trimesh.creation.box()), 128)
    known = texels_of(mesh, 128).face >= 0
    image = np.full((128, 128, 5), 0.5, np.float32)
    wrong = np.ones((len(CAMERAS), 96, 96, 5), np.float32)
    confidence = np.zeros(wrong.shape[:3], np.float32)
    assert np.array_equal(retouched(mesh, image, known, CAMERAS, wrong, confidence, 3), image)
    confidence[:, :, :48] = 1
    assert retouched(mesh, image, known, CAMERAS, wrong, confidence, 3)[known].max() > 0.9
