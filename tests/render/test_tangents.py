"""MikkTSpace tangents against those that Blender computes, and against what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from render.scene import Mesh
from render.tangents import corner_tangents, with_tangents

BLENDER = Path(__file__).parent / "data" / "tangents_blender.npz"
"""From Blender 5.0.1: `mesh.calc_tangents()` of smooth meshes. `torus`: bumpy, unwrapped into charts;
`mirrored`: a bent sheet whose halves use the same half of the texture; `flat`: the same with five faces
without area there. `check_with_blender` below makes the numbers again."""
SHAPES = ("torus", "mirrored", "flat")


def read(name: str) -> tuple[Mesh, np.ndarray]:
    with np.load(BLENDER) as data:
        vertices, faces, uvs, normals, tangents = (
            data[f"{name}.{key}"]
            for key in ("vertices", "faces", "corner_uvs", "corner_normals", "corner_tangents")
        )
    corners = np.arange(faces.size, dtype=np.int32).reshape(-1, 3)
    mesh = Mesh(vertices[faces].reshape(-1, 3), corners, normals.reshape(-1, 3), uvs.reshape(-1, 2))
    return mesh, tangents


def texture_area(mesh: Mesh) -> np.ndarray:
    assert mesh.uvs is not None
    uvs = mesh.uvs[mesh.faces].astype(np.float64)
    a, b = uvs[:, 1] - uvs[:, 0], uvs[:, 2] - uvs[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


@pytest.mark.parametrize("name", SHAPES)
def test_tangents_are_blenders(name: str) -> None:
    mesh, expected = read(name)
    found, _ = corner_tangents(mesh)
    mapped = texture_area(mesh) != 0
    # Single precision there, double here.
    np.testing.assert_allclose(found[mapped], expected[mapped], atol=5e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_every_tangent_is_a_unit_vector_in_the_surface(name: str) -> None:
    mesh, _ = read(name)
    assert mesh.normals is not None
    found, _ = corner_tangents(mesh)
    np.testing.assert_allclose(np.linalg.norm(found[..., :3], axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose((found[..., :3] * mesh.normals[mesh.faces]).sum(-1), 0, atol=1e-5)
    assert set(np.unique(found[..., 3])) <= {-1.0, 1.0}


def test_vertices_split_only_where_the_texture_is_mirrored() -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5))
    grid = np.arange(25).reshape(5, 5)
    faces = np.concatenate(
        [
            np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:]], -1).reshape(-1, 3),
            np.stack([grid[:-1, :-1], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 3),
        ]
    ).astype(np.int32)
    vertices = np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32)
    uvs = np.stack([np.abs(x), y], -1).reshape(-1, 2).astype(np.float32)
    normals = np.tile(np.array([[0, 0, 1]], np.float32), (25, 1))
    made = with_tangents(Mesh(vertices, faces, normals, uvs))
    assert made.tangents is not None
    # The five vertices of the middle column belong to both orientations.
    assert len(made.vertices) == 30
    np.testing.assert_array_equal(made.vertices[made.faces], vertices[faces])
    side = np.sign(vertices[faces].mean(1)[:, 0])
    np.testing.assert_allclose(made.tangents[made.faces][..., 0], np.repeat(side[:, None], 3, 1), atol=1e-6)
    np.testing.assert_array_equal(made.tangents[made.faces][..., 3], np.repeat(side[:, None], 3, 1))


def test_the_bitangent_points_up_in_the_texture() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    mesh = Mesh(
        vertices,
        np.array([[0, 1, 2]], np.int32),
        np.tile(np.array([[0, 0, 1]], np.float32), (3, 1)),
        vertices[:, :2],
    )
    tangents = with_tangents(mesh).tangents
    assert tangents is not None
    bitangent = np.cross([0, 0, 1], tangents[0, :3]) * tangents[0, 3]
    np.testing.assert_allclose(tangents[0], [1, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(bitangent, [0, 1, 0], atol=1e-6)


def test_degenerate_faces_take_what_their_vertex_has() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    mesh = Mesh(
        vertices,
        np.array([[0, 1, 2], [0, 1, 1]], np.int32),
        np.tile(np.array([[0, 0, 1]], np.float32), (3, 1)),
        vertices[:, :2],
    )
    found, _ = corner_tangents(mesh)
    np.testing.assert_array_equal(found[1], found[0][[0, 1, 1]])


def check_with_blender(target: Path) -> None:
    """Writes the file anew: run in an environment that has bpy and numpy."""
    import bpy  # type: ignore[import-not-found]

    with np.load(BLENDER) as data:
        out = dict(data)
    for name in SHAPES:
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata(out[f"{name}.vertices"].tolist(), [], out[f"{name}.faces"].tolist())
        mesh.uv_layers.new(name="UV").data.foreach_set("uv", out[f"{name}.corner_uvs"].reshape(-1))
        mesh.shade_smooth()
        mesh.update()
        mesh.calc_tangents(uvmap="UV")
        count = len(mesh.loops)
        normal, tangent, sign = (np.zeros(count * n, np.float32) for n in (3, 3, 1))
        mesh.loops.foreach_get("normal", normal)
        mesh.loops.foreach_get("tangent", tangent)
        mesh.loops.foreach_get("bitangent_sign", sign)
        out[f"{name}.corner_normals"] = normal.reshape(-1, 3, 3)
        both = np.concatenate([tangent.reshape(-1, 3), sign[:, None]], 1)
        out[f"{name}.corner_tangents"] = both.reshape(-1, 3, 4)
    np.savez_compressed(target, **out)
