"""The visual hull of a sphere: its size, its place, and views that do not belong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from recon.cleanup import clean
from recon.fusion import march
from recon.hull import agreement, hull_volume, locate, placed
from render.cameras import orbit_cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.rigs import RigConfig, rig_cameras

RADIUS = 0.7


def ball_views(count: int = 16, fov_deg: float | None = 40.0, size: int = 96) -> ViewSet:
    """Silhouettes of a ball, with soft edges."""
    cameras = rig_cameras(RigConfig(count=count, size_px=4 * size, fov_deg=fov_deg))
    origins, directions = cameras.rays()
    along = -(origins * directions).sum(-1, keepdim=True)
    hit = ((origins**2).sum(-1, keepdim=True) - along**2 < RADIUS**2).float()
    alpha = torch.nn.functional.avg_pool2d(hit.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
    return ViewSet(
        cameras.resized(size, size), GBuffer(alpha=alpha, rgb_srgb=0.5 * alpha.expand(-1, -1, -1, 3))
    )


@pytest.mark.parametrize("fov_deg", [40.0, None])
def test_hull_of_a_ball_is_the_ball(fov_deg: float | None) -> None:
    vertices, faces = clean(*march(hull_volume(ball_views(48, fov_deg), 64)))
    radii = np.linalg.norm(vertices, axis=1)
    assert len(faces) > 0
    assert radii.min() > RADIUS - 0.015  # a hull is never inside, but for the grid
    assert np.median(radii) < RADIUS + 0.02
    corners = vertices[faces].astype(np.float64)
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.06)


@pytest.mark.parametrize("fov_deg", [40.0, None])
def test_the_ball_is_found_wherever_it_is(fov_deg: float | None) -> None:
    views = ball_views(fov_deg=fov_deg)
    c2w = views.cameras.c2w.clone()
    c2w[:, :3, 3] = c2w[:, :3, 3] * 7 + torch.tensor([3.0, -4.0, 20.0])
    intrinsics = views.cameras.intrinsics.clone()
    if fov_deg is None:
        intrinsics[:, :2] /= 7
    moved = ViewSet(dataclasses.replace(views.cameras, c2w=c2w, intrinsics=intrinsics), views.gbuffer)
    found = locate(moved)
    assert np.abs(found.center - [3, -4, 20]).max() < 0.3
    assert found.radius == pytest.approx(7 * RADIUS / 0.94, rel=0.12)
    again = placed(moved, found)
    volume = hull_volume(again, 48)
    assert agreement(again, volume).min() > 0.97


def test_a_view_that_does_not_belong_is_found() -> None:
    views = ball_views()
    alpha = views.gbuffer.alpha.clone()
    alpha[3] = alpha[3].roll((30, 20), (0, 1))
    spoilt = ViewSet(views.cameras, GBuffer(alpha=alpha))
    shares = agreement(spoilt, hull_volume(spoilt, 48))
    assert shares.argmin() == 3
    assert shares[3] < 0.75


def test_cameras_along_one_line_say_nothing_of_a_shape() -> None:
    cameras = orbit_cameras([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 32)
    alpha = torch.zeros(3, 32, 32, 1)
    alpha[:, 8:24, 8:24] = 1
    with pytest.raises(InputError, match="along one line"):
        locate(ViewSet(cameras, GBuffer(alpha=alpha)))
