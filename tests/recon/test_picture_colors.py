"""Pictures are laid over the mesh; what light changes slowly goes, and what is painted stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from recon.picture_colors import without_light
from recon.uv import unwrap
from render.cameras import orbit_cameras
from render.conventions import linear_to_srgb, srgb_to_linear
from render.gbuffer import GBuffer, ViewSet
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of
from tests.recon.mesh_field import as_mesh

SIDE = 128
PAINT = (0.7, 0.4, 0.2)


@pytest.fixture(scope="module")
def egg() -> Mesh:
    """One end thicker than the other, so that its outline says where it is seen from."""
    shape = trimesh.creation.icosphere(4, 0.8)
    x, y, z = shape.vertices.T
    shape.vertices = np.stack([x * (1 + 0.4 * y), 1.1 * y, 0.7 * z], 1)
    return unwrap(as_mesh(shape), 256)


def painted(egg: Mesh) -> Scene:
    none = np.zeros((1, 1), np.float32)
    return Scene((Part(egg, Material(np.full((1, 1, 3), PAINT, np.float32), none, none)),))


def picture_of(egg: Mesh, azimuth: float, elevation: float) -> tuple[GBuffer, torch.Tensor]:
    """What a camera sees, with a small blue patch, also lit from one side."""
    seen = gbuffer_of(painted(egg), orbit_cameras([azimuth], [elevation], SIDE))
    assert seen.base_color_srgb is not None
    assert seen.normal is not None
    color = seen.base_color_srgb.clone()
    color[:, 56:66, 56:66] = torch.tensor([0.1, 0.2, 0.8])
    light = 0.35 + 0.5 * (seen.normal @ torch.tensor([0.6, 0.5, 0.6])).clamp_min(0)[..., None]
    lit = linear_to_srgb(srgb_to_linear(color) * light) * seen.alpha
    alpha = (seen.alpha > 0.5).float()
    return GBuffer(alpha=alpha, rgb_srgb=lit, base_color_srgb=color), alpha


def test_light_from_one_side_goes_and_the_patch_stays(egg: Mesh) -> None:
    picture, alpha = picture_of(egg, 0.0, 10.0)
    views = ViewSet(orbit_cameras([0.0], [10.0], SIDE), picture)
    found = without_light(views, egg, np.full((8, 8, 3), PAINT, np.float32)).gbuffer.base_color_srgb
    assert found is not None
    assert picture.rgb_srgb is not None
    assert picture.base_color_srgb is not None
    inside = torch.nn.functional.avg_pool2d(alpha[..., 0], 9, 1, 4)[0] > 0.99
    before, after = (
        float((one - picture.base_color_srgb).abs().mean(-1)[0][inside].mean())
        for one in (picture.rgb_srgb, found)
    )
    assert before > 0.08
    assert after < 0.03
    patch = found[0, 57:65, 57:65].mean((0, 1))
    assert patch[2] - patch[0] > 0.4


def test_a_picture_is_laid_over_the_mesh(egg: Mesh) -> None:
    """Framed wrong by 8 degrees, a twentieth of its size and place: its camera is found again."""
    picture, _ = picture_of(egg, 30.0, 10.0)
    wrong = orbit_cameras([30.0], [18.0], SIDE)
    scaled = torch.nn.functional.affine_grid(
        torch.tensor([[[1.05, 0.0, 0.05], [0.0, 1.05, 0.05]]]), [1, 4, SIDE, SIDE], align_corners=False
    )
    assert picture.rgb_srgb is not None
    both = torch.cat([picture.rgb_srgb, picture.alpha], -1).permute(0, 3, 1, 2)
    shifted = torch.nn.functional.grid_sample(both, scaled, align_corners=False).permute(0, 2, 3, 1)
    given = ViewSet(wrong, GBuffer(alpha=(shifted[..., 3:] > 0.5).float(), rgb_srgb=shifted[..., :3]))
    found = without_light(given, egg, np.full((8, 8, 3), PAINT, np.float32))
    shown = gbuffer_of(painted(egg), found.cameras)
    a, b = shown.alpha > 0.5, given.gbuffer.alpha > 0.5
    assert (a & b).sum() / (a | b).sum() > 0.96


def test_pictures_that_miss_the_mesh_are_left_as_they_are(egg: Mesh) -> None:
    view = orbit_cameras([0.0], [10.0], SIDE)
    alpha = torch.zeros(1, SIDE, SIDE, 1)
    alpha[:, :4, :4] = 1
    color = alpha * torch.tensor([0.2, 0.5, 0.3])
    given = ViewSet(view, GBuffer(alpha=alpha, rgb_srgb=color))
    found = without_light(given, egg, np.ones((8, 8, 3), np.float32))
    assert found.gbuffer.base_color_srgb is not None
    torch.testing.assert_close(found.gbuffer.base_color_srgb, color)
