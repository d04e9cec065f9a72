"""Ambient occlusion where it is known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.ambient import AmbientConfig, ambient_occlusion
from render.errors import InputError


def test_nothing_hides_the_sky_from_a_ball() -> None:
    ball = trimesh.creation.icosphere(4, 0.7)
    points = ball.vertices.astype(np.float32) + np.float32(3.0)  # away from the origin
    open_share = ambient_occlusion(points, ball.vertex_normals.astype(np.float32), points, ball.faces)
    assert open_share.min() > 0.97


def test_the_bottom_of_a_hemispherical_bowl_sees_half_of_the_light() -> None:
    ball = trimesh.creation.icosphere(5, 1.0)
    low = ball.triangles_center[:, 1] < 0
    faces = ball.faces[low][:, ::-1]
    # The rim appears 45 degrees above: the cosine-weighted share within that cone is sin^2 45.
    found = ambient_occlusion(
        np.array([[0, -0.999, 0]], np.float32),
        np.array([[0, 1, 0]], np.float32),
        ball.vertices.astype(np.float32),
        faces,
        AmbientConfig(directions=512),
    )
    assert found[0] == pytest.approx(0.5, abs=0.03)


def test_a_floor_beside_a_wall_loses_half_and_recovers_with_distance() -> None:
    floor = np.array([[-1, 0, -9], [9, 0, -9], [9, 0, 9], [-1, 0, 9]], np.float32)
    wall = np.array([[0, 0, -9], [0, 0, 9], [0, 6, 9], [0, 6, -9]], np.float32)
    vertices = np.concatenate([floor, wall])
    faces = np.array([[0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7]])
    points = np.array([[0.15, 0, 0], [2, 0, 0], [8, 0, 0]], np.float32)
    up = np.tile(np.array([[0, 1, 0]], np.float32), (3, 1))
    found = ambient_occlusion(points, up, vertices, faces, AmbientConfig(directions=512))
    # A wall of height h at distance d hides (1 - d / sqrt(d^2 + h^2)) / 2 when it is long.
    expected = 1 - (1 - points[:, 0] / np.hypot(points[:, 0], 6)) / 2
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match=r"ambient\.map_size"):
        AmbientConfig(map_size=1)
