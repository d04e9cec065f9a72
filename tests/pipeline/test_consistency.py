from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from pipeline.consistency import view_consistency
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize

CAMERAS = orbit_cameras([0.0, 60.0, 120.0, 180.0, 240.0, 300.0, 0.0], [15.0] * 6 + [89.0], 96)


def views_of(mesh: trimesh.Trimesh, cameras: Cameras = CAMERAS) -> ViewSet:
    """Exact views; the colour of a point is its position."""
    found = rasterize(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), cameras)
    alpha = torch.from_numpy((found.face >= 0).astype(np.float32))[..., None]
    corners = mesh.vertices[mesh.faces[found.face]]
    points = (corners * found.barycentric[..., None]).sum(-2)
    color = torch.from_numpy((points * 0.5 + 0.5).astype(np.float32)) * alpha
    return ViewSet(
        cameras, GBuffer(alpha, base_color_srgb=color, depth=torch.from_numpy(found.depth)[..., None])
    )


def shape() -> trimesh.Trimesh:
    mesh = trimesh.creation.torus(0.5, 0.2)
    mesh.apply_translation([0.1, 0.0, 0.05])
    return mesh


@pytest.mark.parametrize(
    "cameras", [CAMERAS, orbit_cameras([0.0, 60.0, 120.0, 180.0, 240.0, 300.0], [15.0] * 6, 96, fov_deg=55.0)]
)
def test_exact_views_agree(cameras: Cameras):
    found = view_consistency(views_of(shape(), cameras))
    assert found.geometry > 0.995
    assert found.color > 0.97
    assert found.framing == 1.0


def test_score_falls_with_the_error_of_one_view():
    views = views_of(shape())
    scores = []
    for pixels in (0, 4, 8, 16):
        channels = {
            name: torch.cat([value[:1].roll(pixels, 2), value[1:]])
            for name, value in views.gbuffer.channels().items()
        }
        scores.append(view_consistency(ViewSet(CAMERAS, GBuffer(**channels))).score)
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[-1] > 0.02


def test_wrong_depth_is_seen_where_silhouettes_agree():
    views = views_of(trimesh.creation.icosphere(4, 0.7))
    assert views.gbuffer.depth is not None
    flat = torch.where(views.gbuffer.alpha > 0.5, torch.tensor(2.0), torch.tensor(0.0))
    assert view_consistency(ViewSet(CAMERAS, replace(views.gbuffer, depth=flat))).geometry < 0.9
    assert view_consistency(views).geometry > 0.995


def test_colours_that_change_between_views_are_seen():
    views = views_of(shape())
    assert views.gbuffer.base_color_srgb is not None
    other = views.gbuffer.base_color_srgb.clone()
    other[::2] = 1 - other[::2]
    changed = view_consistency(ViewSet(CAMERAS, replace(views.gbuffer, base_color_srgb=other)))
    assert changed.geometry == view_consistency(views).geometry
    assert changed.color < 0.9


def test_an_object_cut_by_the_frame_is_seen():
    assert view_consistency(views_of(trimesh.creation.icosphere(3, 1.3))).framing < 0.6


def test_nothing_drawn_scores_nothing():
    views = views_of(shape())
    empty = GBuffer(**{name: torch.zeros_like(value) for name, value in views.gbuffer.channels().items()})
    assert view_consistency(ViewSet(CAMERAS, empty)).score == 0.0


def wobbled(mesh: trimesh.Trimesh, pixels: int) -> ViewSet:
    """Every second view shifted sideways."""
    views = views_of(mesh)
    channels = {}
    for name, value in views.gbuffer.channels().items():
        moved = value.clone()
        moved[::2] = moved[::2].roll(pixels, 2)
        channels[name] = moved
    return ViewSet(CAMERAS, GBuffer(**channels))


def test_the_same_error_weighs_more_on_a_thin_object():
    thick, thin = trimesh.creation.icosphere(3, 0.7), trimesh.creation.cylinder(0.06, 1.4)
    thin.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    exact = [view_consistency(views_of(mesh)).shape for mesh in (thick, thin)]
    moved = [view_consistency(wobbled(mesh, 3)).shape for mesh in (thick, thin)]
    assert min(exact) > 0.8
    assert moved[1] < moved[0] - 0.2
    assert moved[0] < exact[0]


def test_stray_pieces_cost():
    whole = trimesh.creation.icosphere(3, 0.5)
    stray = trimesh.creation.icosphere(3, 0.25)
    stray.apply_translation([0, 0.8, 0])
    both = view_consistency(views_of(trimesh.util.concatenate([whole, stray])))
    assert view_consistency(views_of(whole)).connected == 1.0
    assert 0.75 < both.connected < 0.9  # a quarter of the area, hidden from above


def test_no_object_has_no_score():
    views = views_of(shape())
    empty = GBuffer(**{name: torch.zeros_like(value) for name, value in views.gbuffer.channels().items()})
    assert view_consistency(ViewSet(CAMERAS, empty)).score == 0.0
