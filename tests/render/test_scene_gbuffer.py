"""Ground-truth G-buffers: places, colours, filtering and coverage of known shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from render.cameras import orbit_cameras
from render.conventions import srgb_to_linear
from render.errors import InputError
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of


def constant(color: tuple[float, float, float], metallic: float = 0.0, roughness: float = 0.5) -> Material:
    return Material(
        np.array(color, np.float32).reshape(1, 1, 3),
        np.full((1, 1), metallic, np.float32),
        np.full((1, 1), roughness, np.float32),
    )


def mesh_of(shape: trimesh.Trimesh, smooth: bool = True) -> Mesh:
    return Mesh(
        shape.vertices.astype(np.float32),
        shape.faces.astype(np.int32),
        normals=shape.vertex_normals.astype(np.float32) if smooth else None,
    )


def quad(size: float = 0.8, z: float = 0.0) -> Mesh:
    """A square that faces +Z, with UVs from its lower left corner."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    vertices = np.concatenate([corners * size, np.full((4, 1), z)], 1).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return Mesh(vertices, faces, uvs=(corners * 0.5 + 0.5).astype(np.float32))


def checker(size: int, bright: float = 1.0) -> np.ndarray:
    board = (np.indices((size, size)).sum(0) % 2).astype(np.float32) * bright
    return np.repeat(board[..., None], 3, -1)


def test_sphere_has_its_area_depth_and_normals():
    sphere = mesh_of(trimesh.creation.icosphere(subdivisions=5, radius=0.8))
    cameras = orbit_cameras([0.0, 90.0, 40.0], [0.0, 30.0, -20.0], 128)
    scene = Scene((Part(sphere, constant((0.5, 0.2, 0.1), 0.3, 0.7)),))
    got = gbuffer_of(scene, cameras, supersample=4)
    area = got.alpha.sum((1, 2, 3)) * (2 / 128) ** 2
    # An inscribed icosphere of 20,480 triangles has 0.1 % less outline.
    torch.testing.assert_close(area, torch.full((3,), np.pi * 0.64), rtol=3e-3, atol=0)
    assert got.normal is not None
    assert got.depth is not None
    inside = got.alpha[..., 0] == 1
    points = cameras.unproject(
        cameras.pixel_centers().reshape(1, -1, 2).expand(3, -1, -1), got.depth.reshape(3, -1)
    ).reshape(3, 128, 128, 3)
    # Away from the rim, where a pixel spans much depth, the surface is where it is and faces out.
    core = inside & (
        torch.nn.functional.cosine_similarity(got.normal, cameras.c2w[:, None, None, :3, 2], dim=-1) > 0.5
    )
    torch.testing.assert_close(
        points[core].norm(dim=-1), torch.full((int(core.sum()),), 0.8), rtol=0, atol=2e-3
    )
    torch.testing.assert_close(got.normal[core], points[core] / 0.8, rtol=0, atol=0.01)
    assert got.base_color_srgb is not None
    expected = torch.tensor([0.5, 0.2, 0.1]).expand(int(core.sum()), 3)
    torch.testing.assert_close(got.base_color_srgb[core], expected, rtol=0, atol=1e-4)
    outside = got.alpha[..., 0] == 0
    for channel in got.channels().values():
        assert channel[outside].abs().max() == 0
    assert torch.allclose(got.normal[~outside].norm(dim=-1), torch.ones(1), atol=1e-4)


def test_texture_rows_start_on_top_and_bilinear_blends():
    texture = np.zeros((2, 2, 3), np.float32)
    texture[0, 0], texture[0, 1], texture[1, 0] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    material = Material(texture, np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    got = gbuffer_of(Scene((Part(quad(), material),)), orbit_cameras([0.0], [0.0], 160), supersample=1)
    assert got.base_color_srgb is not None
    colors = got.base_color_srgb[0]
    # Texel centres lie at a quarter and three quarters of the square of 128 pixels from pixel 16.
    for row, column, color in ((48, 48, (1, 0, 0)), (48, 112, (0, 1, 0)), (112, 48, (0, 0, 1))):
        np.testing.assert_allclose(colors[row, column].numpy(), color, atol=0.15)
    middle = srgb_to_linear(colors[79:81, 79:81].reshape(-1, 3)).mean(0)
    np.testing.assert_allclose(middle.numpy(), [0.25, 0.25, 0.25], atol=0.01)


def test_far_textures_average_in_linear_light():
    material = Material(checker(256), np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    got = gbuffer_of(Scene((Part(quad(), material),)), orbit_cameras([0.0], [0.0], 40))
    assert got.base_color_srgb is not None
    linear = srgb_to_linear(got.base_color_srgb[0, 8:32, 8:32])
    torch.testing.assert_close(linear, torch.full_like(linear, 0.5), rtol=0, atol=0.01)


def test_partly_covered_pixels_keep_the_surface_colour():
    got = gbuffer_of(
        Scene((Part(quad(0.5), constant((0.9, 0.3, 0.2))),)), orbit_cameras([17.0], [23.0], 31), supersample=4
    )
    rim = (got.alpha[..., 0] > 0) & (got.alpha[..., 0] < 1)
    assert rim.sum() > 20
    assert got.base_color_srgb is not None
    torch.testing.assert_close(
        got.base_color_srgb[rim], torch.tensor([0.9, 0.3, 0.2]).expand(int(rim.sum()), 3), rtol=0, atol=1e-4
    )


def test_normal_map_tilts_along_the_uv_axes_also_where_they_are_mirrored():
    tilted = np.array([0.6, 0.0, 0.8], np.float32)
    up = np.array([0.0, 0.6, 0.8], np.float32)
    base = quad()
    assert base.uvs is not None
    mirrored = Mesh(base.vertices, base.faces, uvs=np.stack([1 - base.uvs[:, 0], base.uvs[:, 1]], 1))
    for mesh, texel, expected in (
        (base, tilted, (0.6, 0, 0.8)),
        (base, up, (0, 0.6, 0.8)),
        (mirrored, tilted, (-0.6, 0, 0.8)),
        (mirrored, up, (0, 0.6, 0.8)),
    ):
        material = Material(
            np.ones((1, 1, 3), np.float32),
            np.zeros((1, 1), np.float32),
            np.ones((1, 1), np.float32),
            normal=(texel * 0.5 + 0.5).reshape(1, 1, 3),
        )
        got = gbuffer_of(Scene((Part(mesh, material),)), orbit_cameras([0.0], [0.0], 16))
        assert got.normal is not None
        np.testing.assert_allclose(got.normal[0, 8, 8].numpy(), expected, atol=1e-3)
        # Seen from behind, the same relief faces the other way in z only.
        behind = gbuffer_of(Scene((Part(mesh, material),)), orbit_cameras([180.0], [0.0], 16))
        assert behind.normal is not None
        np.testing.assert_allclose(behind.normal[0, 8, 8].numpy(), np.array(expected) * (1, 1, -1), atol=1e-3)


def test_cut_out_texels_show_what_lies_behind():
    opacity = np.array([[1.0, 0.0]], np.float32)
    leaf = Material(
        np.array([[[0, 1, 0]]], np.float32),
        np.zeros((1, 1), np.float32),
        np.ones((1, 1), np.float32),
        opacity=np.repeat(np.repeat(opacity, 64, 1), 128, 0),
    )
    scene = Scene((Part(quad(0.8, 0.2), leaf), Part(quad(0.8, 0.0), constant((1, 0, 0)))))
    got = gbuffer_of(scene, orbit_cameras([0.0], [0.0], 64))
    assert got.base_color_srgb is not None
    assert got.depth is not None
    np.testing.assert_allclose(got.base_color_srgb[0, 32, 16].numpy(), [0, 1, 0], atol=1e-4)
    np.testing.assert_allclose(got.base_color_srgb[0, 32, 48].numpy(), [1, 0, 0], atol=1e-4)
    assert got.depth[0, 32, 16, 0] == pytest.approx(1.8, abs=1e-4)
    assert got.depth[0, 32, 48, 0] == pytest.approx(2.0, abs=1e-4)
    assert (got.alpha[0, 10:54, 10:54] == 1).all()


@pytest.mark.parametrize("turned_first", [False, True])
def test_a_sheet_with_two_sides_shows_the_one_that_faces_the_camera(turned_first: bool):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.8)
    outside = Part(mesh_of(ball, smooth=False), constant((1.0, 0.0, 0.0)))
    # The same places, from other corners on: their depths are rounded otherwise.
    ball.faces = ball.faces[:, [1, 0, 2]]
    inside = Part(mesh_of(ball, smooth=False), constant((0.0, 0.0, 1.0)))
    parts = (inside, outside) if turned_first else (outside, inside)
    for fov_deg in (None, 40.0):
        cameras = orbit_cameras([10.0, 130.0, 250.0], [20.0, -35.0, 70.0], 96, fov_deg=fov_deg)
        got = gbuffer_of(Scene(parts), cameras)
        assert got.base_color_srgb is not None
        assert got.base_color_srgb[got.alpha[..., 0] > 0][:, 2].max() == 0


def test_vertex_colours_multiply_and_parts_share_a_material():
    material = constant((1, 1, 1))
    left, right = quad(0.3), quad(0.3)
    tint = np.tile(np.array([[0.5, 0.25, 1.0]], np.float32), (4, 1))
    move = np.array([0.5, 0, 0], np.float32)
    scene = Scene(
        (
            Part(Mesh(left.vertices - move, left.faces, colors_srgb=tint), material),
            Part(Mesh(right.vertices + move, right.faces), material),
        )
    )
    got = gbuffer_of(scene, orbit_cameras([0.0], [0.0], 64))
    assert got.base_color_srgb is not None
    np.testing.assert_allclose(got.base_color_srgb[0, 32, 16].numpy(), [0.5, 0.25, 1.0], atol=1e-4)
    np.testing.assert_allclose(got.base_color_srgb[0, 32, 48].numpy(), [1, 1, 1], atol=1e-4)


def test_perspective_depth_and_order_of_parts():
    cameras = orbit_cameras([0.0], [0.0], 64, fov_deg=60.0)
    near, far = Part(quad(0.2, 0.5), constant((0, 0, 1))), Part(quad(0.8), constant((1, 0, 0)))
    for parts in ((near, far), (far, near)):
        got = gbuffer_of(Scene(parts), cameras)
        assert got.depth is not None
        assert got.depth[0, 32, 32, 0] == pytest.approx(1.5, abs=1e-4)
        assert got.depth[0, 32, 20, 0] == pytest.approx(2.0, abs=1e-4)


def test_empty_scenes_and_odd_settings_are_refused():
    with pytest.raises(InputError, match="no triangles"):
        gbuffer_of(Scene(()), orbit_cameras([0.0], [0.0], 8))
    with pytest.raises(InputError, match="supersample"):
        gbuffer_of(Scene((Part(quad(), constant((1, 1, 1))),)), orbit_cameras([0.0], [0.0], 8), supersample=0)
