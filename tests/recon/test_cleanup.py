"""Broken meshes in, closed manifold outward meshes out."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.cleanup import clean, drop_floaters
from recon.inspect import inspect
from recon.topology import is_closed_manifold, nonmanifold_vertices, weld
from render.scene import Mesh
from tests.recon.mesh_field import as_mesh


def cleaned(mesh: trimesh.Trimesh, **options: float) -> Mesh:
    whole = as_mesh(mesh)
    return Mesh(*clean(whole.vertices, whole.faces, **options))


def test_a_sound_mesh_is_left_alone() -> None:
    sphere = trimesh.creation.icosphere(2)
    mesh = cleaned(sphere)
    assert np.array_equal(mesh.vertices[mesh.faces], sphere.triangles.astype(np.float32))


def test_inside_out_is_turned() -> None:
    sphere = trimesh.creation.icosphere(2)
    sphere.invert()
    assert inspect(cleaned(sphere)).outward


def test_holes_are_closed() -> None:
    sphere = trimesh.creation.icosphere(2)
    sphere.update_faces(np.arange(len(sphere.faces)) % 40 != 0)
    found = inspect(cleaned(sphere))
    assert found.watertight
    assert found.manifold
    assert found.volume == pytest.approx(trimesh.creation.icosphere(2).volume, rel=0.01)


def test_floaters_go_and_real_parts_stay() -> None:
    parts = [
        trimesh.creation.icosphere(3),
        trimesh.creation.icosphere(2, 0.3).apply_translation((2, 0, 0)),
        trimesh.creation.icosphere(1, 0.01).apply_translation((0, 2, 0)),
    ]
    assert inspect(cleaned(trimesh.util.concatenate(parts), min_component=0.002)).components == 2


def test_a_hollow_inside_is_filled() -> None:
    hollow = trimesh.creation.icosphere(2, 0.5)
    hollow.invert()
    outer = as_mesh(trimesh.util.concatenate([trimesh.creation.icosphere(3), hollow]))
    mesh = Mesh(*drop_floaters(outer.vertices, outer.faces, 0.0))
    assert inspect(mesh).components == 1
    assert inspect(mesh).outward


def test_two_boxes_that_touch_at_a_vertex_are_parted_for_good() -> None:
    box = trimesh.creation.box((1, 1, 1))
    mesh = cleaned(trimesh.util.concatenate([box, box.copy().apply_translation((1, 1, 1))]))
    _, welded = weld(mesh.vertices, mesh.faces)
    assert nonmanifold_vertices(welded) == 0
    assert is_closed_manifold(welded)


def test_a_soup_of_open_sheets_is_rebuilt() -> None:
    # Three walls share an edge: no simple border loops, and an edge of three faces.
    wall = np.array([[0, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [0, 0.5, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    walls = [
        trimesh.Trimesh(wall @ trimesh.transformations.rotation_matrix(a, (0, 1, 0))[:3, :3].T, faces)
        for a in (0.0, 2.0, 4.0)
    ]
    soup = trimesh.util.concatenate([*walls, trimesh.creation.box((0.3, 0.3, 0.3))])
    found = inspect(cleaned(soup))
    assert found.watertight
    assert found.manifold
    assert found.outward
