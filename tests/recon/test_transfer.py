"""What is baked from one surface onto another looks like the first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from recon.projection import project
from recon.simplify import simplify
from recon.transfer import TransferConfig, detail_maps, transfer
from recon.uv import unwrap
from render.cameras import Cameras, orbit_cameras
from render.errors import InputError
from render.scene import Material, Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of

SIZE = 256
CAMERAS = orbit_cameras([20.0, 140.0, 260.0], [20.0, -30.0, 50.0], 128)


def plain(color: tuple[float, float, float] = (0.5, 0.5, 0.5), rough: float = 0.5) -> Material:
    return Material(
        np.array(color, np.float32).reshape(1, 1, 3),
        np.zeros((1, 1), np.float32),
        np.full((1, 1), rough, np.float32),
    )


def bumpy_ball() -> Mesh:
    """A ball with dimples too small for a thousand triangles."""
    ball = trimesh.creation.icosphere(5, 1.0)
    v = ball.vertices
    radius = 0.8 + 0.012 * np.sin(14 * v[:, 0]) * np.sin(14 * v[:, 1]) * np.sin(14 * v[:, 2] + 1)
    shaped = trimesh.Trimesh(v * radius[:, None], ball.faces, process=False)
    return Mesh(
        shaped.vertices.astype(np.float32),
        shaped.faces.astype(np.int32),
        shaped.vertex_normals.astype(np.float32),
    )


def painted(mesh: Mesh) -> Mesh:
    """Vertex colours that change slowly."""
    return replace(mesh, colors_srgb=np.clip(mesh.vertices * 0.4 + 0.5, 0, 1).astype(np.float32))


def normals_error_deg(a: Scene, b: Scene, cameras: Cameras = CAMERAS) -> float:
    """Mean angle between the normals that both show."""
    first, second = gbuffer_of(a, cameras), gbuffer_of(b, cameras)
    assert first.normal is not None
    assert second.normal is not None
    both = (first.alpha[..., 0] > 0.99) & (second.alpha[..., 0] > 0.99)
    cosine = (first.normal[both] * second.normal[both]).sum(-1).clamp(-1, 1)
    return float(np.rad2deg(float(cosine.arccos().mean())))


def test_a_decimated_mesh_with_its_normal_map_looks_like_the_dense_one() -> None:
    dense = bumpy_ball()
    low = unwrap(simplify(dense, 1000), SIZE)
    mesh, material = detail_maps(low, plain(), dense, TransferConfig(texture_size=SIZE))
    truth = Scene((Part(dense, plain()),))
    without = normals_error_deg(truth, Scene((Part(low, plain()),)))
    with_map = normals_error_deg(truth, Scene((Part(mesh, material),)))
    assert without > 4, without
    assert with_map < 1.2, with_map


def test_colours_roughness_and_emission_of_two_materials_come_over() -> None:
    left = trimesh.creation.box((0.6, 0.6, 0.6))
    left.apply_translation((-0.4, 0, 0))
    right = trimesh.creation.icosphere(3, 0.3)
    right.apply_translation((0.5, 0, 0))
    meshes = [Mesh(m.vertices.astype(np.float32), m.faces.astype(np.int32)) for m in (left, right)]
    glowing = replace(
        plain((0.1, 0.2, 0.9), 0.2),
        emissive_srgb=np.full((1, 1, 3), 0.6, np.float32),
        metallic=np.ones((1, 1)),
    )
    source = Scene((Part(meshes[0], plain((0.9, 0.2, 0.1), 0.7)), Part(meshes[1], glowing)))
    faces = np.concatenate([meshes[0].faces, meshes[1].faces + len(meshes[0].vertices)])
    both = Mesh(np.concatenate([m.vertices for m in meshes]), faces)
    mesh, material = transfer(unwrap(both, SIZE), source, TransferConfig(texture_size=SIZE))
    assert material.emissive_srgb is not None
    before, after = gbuffer_of(source, CAMERAS), gbuffer_of(Scene((Part(mesh, material),)), CAMERAS)
    for name in ("base_color_srgb", "metallic", "roughness"):
        a, b = getattr(before, name), getattr(after, name)
        assert float((a - b).abs().mean()) < 0.004, name
    assert material.emissive_srgb.max() == pytest.approx(0.6, abs=0.01)
    assert material.emissive_srgb.min() == 0


def test_vertex_colours_become_a_texture() -> None:
    source = Scene((Part(painted(bumpy_ball()), plain((1.0, 1.0, 1.0))),))
    low = unwrap(simplify(bumpy_ball(), 2000), SIZE)
    mesh, material = transfer(low, source, TransferConfig(texture_size=SIZE))
    a = gbuffer_of(source, CAMERAS).base_color_srgb
    b = gbuffer_of(Scene((Part(mesh, material),)), CAMERAS).base_color_srgb
    assert a is not None
    assert b is not None
    assert float(((a - b) ** 2).mean()) < 10**-3.5


def test_only_the_maps_that_are_asked_for_are_made() -> None:
    ball = bumpy_ball()
    config = TransferConfig(texture_size=64, maps=("roughness",))
    _, material = transfer(unwrap(simplify(ball, 500), 64), Scene((Part(ball, plain()),)), config)
    assert material.base_color_srgb.shape == (1, 1, 3)
    assert (material.normal, material.occlusion, material.emissive_srgb) == (None, None, None)


def test_a_surface_over_itself_is_found_exactly() -> None:
    ball = bumpy_ball()
    assert ball.normals is not None
    middle = ball.vertices[ball.faces].mean(1)
    normal = ball.normals[ball.faces].mean(1)
    found = project(middle, normal / np.linalg.norm(normal, axis=1)[:, None], ball.vertices, ball.faces)
    assert float(found.distance.max()) < 1e-5
    np.testing.assert_allclose(found.interpolate(ball.vertices, ball.faces), middle, atol=1e-5)


def test_a_thin_wall_keeps_its_two_sides_apart() -> None:
    """Both sides of a plate lie nearer to each other than to what decimation may move."""
    plate = trimesh.creation.box((1.2, 1.2, 0.004))
    vertices, faces = plate.vertices.astype(np.float32), plate.faces.astype(np.int32)
    points = np.array([[0.1, 0.2, 0.006], [0.1, 0.2, -0.006]], np.float32)
    normals = np.array([[0, 0, 1], [0, 0, -1]], np.float32)
    found = project(points, normals, vertices, faces, reach=0.1)
    np.testing.assert_allclose(plate.face_normals[found.face], normals, atol=1e-6)


def test_what_cannot_be_baked_is_said() -> None:
    ball = bumpy_ball()
    with pytest.raises(InputError, match="unwrap it first"):
        transfer(ball, Scene((Part(ball, plain()),)))
    with pytest.raises(InputError, match="texture_size"):
        TransferConfig(texture_size=3)
