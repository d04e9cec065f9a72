"""Decimation of meshes with borders, sharp edges kept, and what was lost; remeshing."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.fidelity import fidelity
from recon.remesh import remesh
from recon.simplify import simplify
from recon.topology import edge_use, is_closed_manifold
from render.errors import InputError
from render.scene import Mesh
from tests.recon.mesh_field import as_mesh


def sheet(n: int = 30) -> Mesh:
    """A bent square sheet with a round hole."""
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    grid = np.arange(n * n).reshape(n, n)
    faces = np.concatenate(
        [
            np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:]], -1).reshape(-1, 3),
            np.stack([grid[:-1, :-1], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 3),
        ]
    )
    vertices = np.stack([x, y, 0.3 * np.sin(2 * x)], -1).reshape(-1, 3).astype(np.float32)
    middle = vertices[faces].mean(1)
    return Mesh(vertices, faces[np.hypot(middle[:, 0], middle[:, 1]) > 0.35].astype(np.int32))


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_an_open_sheet_keeps_its_border_and_its_hole(share: float) -> None:
    before = sheet()
    budget = int(len(before.faces) * share)
    after = simplify(before, budget, close=False)
    assert 0.98 * budget <= len(after.faces) <= budget
    assert not is_closed_manifold(after.faces)
    assert edge_use(after.faces).max() == 2
    euler = len(after.vertices) - len(edge_use(after.faces)) + len(after.faces)
    assert euler == 0  # a disc with one hole
    moved = fidelity(before, after)
    assert moved.mean < 0.003
    assert moved.lost_area < 0.01
    np.testing.assert_allclose(after.vertices.min(0)[:2], [-1, -1], atol=0.01)


@pytest.mark.parametrize("budget", [12, 200])
def test_sharp_edges_stay_sharp(budget: int) -> None:
    box = trimesh.creation.box((1, 1, 1)).subdivide_loop(0)
    for _ in range(4):
        box = box.subdivide()
    after = simplify(as_mesh(box), budget)
    assert len(after.faces) <= budget
    assert fidelity(as_mesh(box), after).largest < 1e-4
    solid = trimesh.Trimesh(after.vertices, after.faces)
    assert solid.volume == pytest.approx(1, abs=1e-4)


def test_edges_of_three_faces_stay_where_they_are() -> None:
    """Three wings that meet in one edge."""
    rows = []
    for angle in (0.0, 2.1, 4.2):
        x, y = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))
        points = np.stack([x * np.cos(angle), y, x * np.sin(angle)], -1).reshape(-1, 3)
        points[np.abs(points) < 1e-12] = 0
        rows.append(points)
    grid = np.arange(81).reshape(9, 9)
    one = np.concatenate(
        [
            np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:]], -1).reshape(-1, 3),
            np.stack([grid[:-1, :-1], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 3),
        ]
    )
    wings = Mesh(
        np.concatenate(rows).astype(np.float32),
        np.concatenate([one + 81 * k for k in range(3)]).astype(np.int32),
    )
    after = simplify(wings, 150, close=False)
    assert len(after.faces) <= 150
    axis = after.vertices[np.abs(after.vertices[:, [0, 2]]).max(1) < 1e-5]
    assert len(axis) == 9
    assert fidelity(wings, after).largest < 1e-4


def test_a_lost_part_is_counted() -> None:
    big, small = trimesh.creation.icosphere(3, 1.0), trimesh.creation.icosphere(1, 0.05)
    small.apply_translation((1.5, 0, 0))
    both = as_mesh(trimesh.util.concatenate([big, small]))
    found = fidelity(both, as_mesh(big))
    assert found.lost_parts == 1
    assert "1 separate part lost" in found.sentence()
    same = fidelity(both, both)
    assert (same.lost_parts, same.lost_area) == (0, 0)
    assert same.largest < 1e-6


@pytest.mark.parametrize("kind", ["triangles", "quads"])
def test_remeshing_keeps_the_shape_and_the_budget(kind: str) -> None:
    pytest.importorskip("pyinstantmeshes")
    ring = as_mesh(trimesh.creation.torus(0.6, 0.25))
    after = remesh(ring, 1200, "quads" if kind == "quads" else "triangles")
    assert 0.85 * 1200 <= len(after.faces) <= 1200
    assert is_closed_manifold(after.faces)
    assert fidelity(ring, after).mean < 0.004
    corners = after.vertices[after.faces].astype(np.float64)
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    lengths = sides.min(1) / sides.max(1)
    assert np.median(lengths) > (0.8 if kind == "triangles" else 0.6)
    again = remesh(ring, 1200, "quads" if kind == "quads" else "triangles")
    assert np.array_equal(after.vertices, again.vertices)


def test_too_few_triangles_are_refused() -> None:
    with pytest.raises(InputError, match="polycount"):
        remesh(as_mesh(trimesh.creation.box()), 4)
