"""What the views show gets into the texture, and the grain that they cannot show stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from recon.recolor import RecolorConfig, overlaps, recolor
from recon.uv import unwrap
from render.cameras import orbit_cameras
from render.errors import InputError
from render.gbuffer import ViewSet
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of
from tests.recon.mesh_field import as_mesh

SIZE = 256
CAMERAS = orbit_cameras([0.0, 90.0, 180.0, 270.0, 0.0, 0.0], [15.0] * 4 + [89.0, -89.0], 48)


@pytest.fixture(scope="module")
def ball() -> Mesh:
    return unwrap(as_mesh(trimesh.creation.icosphere(3, 0.8)), SIZE)


def speckled(color: tuple[float, float, float]) -> Material:
    """A colour with grain far finer than a view's pixel."""
    grain = np.where(np.random.default_rng(0).random((SIZE, SIZE, 1)) < 0.5, 0.8, 1.0)
    base = (np.array(color, np.float32) * grain).astype(np.float32)
    one = np.ones((1, 1), np.float32)
    flat = np.full((4, 4, 3), (0.5, 0.5, 1.0), np.float32)
    return Material(base, one * 0.0, one * 0.7, normal=flat, emissive_srgb=np.ones((1, 1, 3), np.float32))


def seen_of(mesh: Mesh, material: Material) -> ViewSet:
    return ViewSet(CAMERAS, gbuffer_of(Scene((Part(mesh, material),)), CAMERAS))


def painted(views: ViewSet, color: tuple[float, float, float]) -> ViewSet:
    keep = (views.gbuffer.alpha > 0).float()
    changed = replace(
        views.gbuffer, base_color_srgb=keep * torch.tensor(color), metallic=keep, roughness=0.25 * keep
    )
    return ViewSet(views.cameras, changed)


def test_views_that_come_back_as_they_were_give_the_texture_back(ball: Mesh):
    old = speckled((0.6, 0.4, 0.2))
    views = seen_of(ball, old)
    new = recolor(ball, old, views, views, RecolorConfig(SIZE))
    inside = _inside(ball)
    error = np.abs(new.base_color_srgb - old.base_color_srgb)[inside]
    assert np.median(error) < 0.005
    assert np.percentile(error, 95) < 0.03


def test_colour_is_new_and_grain_is_old(ball: Mesh):
    old = speckled((0.6, 0.6, 0.6))
    views = seen_of(ball, old)
    target = painted(views, (0.7, 0.1, 0.1))
    inside = _inside(ball)
    with_grain, without = (
        recolor(ball, old, views, target, RecolorConfig(SIZE, grain)) for grain in (1.0, 0.0)
    )
    assert without.base_color_srgb[inside].std(0).max() < 0.01
    red = with_grain.base_color_srgb[inside][:, 0]
    dark = old.base_color_srgb[inside][:, 0] < 0.54
    assert red[~dark].mean() - red[dark].mean() > 0.08  # 0.2 of 0.7, in sRGB
    np.testing.assert_allclose(with_grain.base_color_srgb[inside].mean(0), (0.7, 0.1, 0.1), atol=0.03)
    np.testing.assert_allclose(with_grain.metallic[inside].mean(), 1.0, atol=0.01)
    np.testing.assert_allclose(with_grain.roughness[inside].mean(), 0.25, atol=0.01)


def test_relief_stays_and_light_goes(ball: Mesh):
    old = speckled((0.6, 0.6, 0.6))
    views = seen_of(ball, old)
    new = recolor(ball, old, views, painted(views, (0.7, 0.1, 0.1)), RecolorConfig(64))
    assert new.normal is old.normal
    assert new.emissive_srgb is None
    assert new.base_color_srgb.shape == (64, 64, 3)


def test_texels_that_two_places_share_are_noticed(ball: Mesh):
    assert not overlaps(ball)
    assert ball.uvs is not None
    folded = ball.uvs.copy()
    folded[:, 0] = np.abs(folded[:, 0] - 0.5)
    assert overlaps(replace(ball, uvs=folded))
    assert overlaps(replace(ball, uvs=ball.uvs * 3))


@pytest.mark.parametrize(("field", "value"), [("texture_size", 8), ("grain", 1.5)])
def test_settings_out_of_range(field: str, value: float):
    with pytest.raises(InputError, match=field):
        RecolorConfig(**{field: value})


def _inside(mesh: Mesh) -> np.ndarray:
    from recon.texels import texels_of

    return texels_of(mesh, SIZE, margin_px=0.0).inside
