"""Facts about meshes whose facts are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh

from recon.asset import Asset
from recon.inspect import inspect
from recon.uv import unwrap
from render.errors import InputError
from render.scene import Material, Mesh
from tests.recon.mesh_field import as_mesh, balls


def plain(size: int = 64) -> Material:
    grey = np.full((size, size), 0.5, np.float32)
    return Material(np.stack([grey] * 3, -1), np.zeros((1, 1), np.float32), grey, name="stone")


def test_a_box() -> None:
    found = inspect(as_mesh(trimesh.creation.box((1, 2, 3))))
    assert (found.triangles, found.welded_vertices, found.components, found.genus) == (12, 8, 1, 0)
    assert found.watertight
    assert found.manifold
    assert found.outward
    assert found.size == (1.0, 2.0, 3.0)
    assert found.volume == pytest.approx(6)
    assert found.surface_area == pytest.approx(22)


def test_a_torus_has_a_handle_and_three_balls_have_none() -> None:
    assert inspect(as_mesh(trimesh.creation.torus(1, 0.3))).genus == 1
    assert inspect(as_mesh(balls())).genus == 0
    assert inspect(as_mesh(balls())).components == 3


def test_an_open_box_is_manifold_but_not_watertight() -> None:
    box = as_mesh(trimesh.creation.box())
    found = inspect(Mesh(box.vertices, box.faces[2:]))
    assert not found.watertight
    assert found.manifold
    assert found.border_edges == 4
    assert found.volume is None


def test_shared_edges_and_vertices_are_told() -> None:
    box = trimesh.creation.box()
    edge = inspect(as_mesh(trimesh.util.concatenate([box, box.copy().apply_translation((1, 1, 0))])))
    assert edge.nonmanifold_edges == 1
    assert not edge.manifold
    vertex = inspect(as_mesh(trimesh.util.concatenate([box, box.copy().apply_translation((1, 1, 1))])))
    assert vertex.nonmanifold_vertices == 1
    assert vertex.nonmanifold_edges == 0
    assert not vertex.manifold


def test_degenerate_faces_are_counted() -> None:
    box = as_mesh(trimesh.creation.box())
    faces = np.concatenate([box.faces, [[0, 0, 1]]]).astype(np.int32)
    assert inspect(Mesh(box.vertices, faces)).degenerate_faces == 1


def test_uvs_of_one_triangle() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    mesh = Mesh(vertices, np.array([[0, 1, 2]], np.int32), uvs=vertices[:, :2] * 0.5)
    found = inspect(Asset(mesh, plain(64), "t", 1.0))
    assert found.uv_charts == 1
    assert found.uv_coverage == pytest.approx(0.125, abs=0.002)
    assert found.texel_density_median == pytest.approx(32)
    double = Mesh(vertices, np.array([[0, 1, 2], [0, 1, 2]], np.int32), uvs=mesh.uvs)
    assert inspect(double).uv_overlap == pytest.approx(1)


def test_an_asset_is_inspected_in_metres() -> None:
    found = inspect(Asset(unwrap(as_mesh(trimesh.creation.box((1, 2, 1))), 64), plain(), "crate", 0.5))
    assert found.size == (0.25, 0.5, 0.25)
    assert found.textures == ("base_color 64x64", "roughness 64x64")
    assert found.materials == ("stone: metallic-roughness, not metal, mean roughness 0.50",)
    assert found.uv_charts >= 6
    assert json.loads(json.dumps(found.to_dict()))["watertight"] is True


def test_an_asset_needs_triangles_and_a_height() -> None:
    box = as_mesh(trimesh.creation.box())
    with pytest.raises(InputError, match="height_m"):
        Asset(box, plain(), "box", 0.0)
    with pytest.raises(InputError, match="triangles"):
        Asset(Mesh(box.vertices, box.faces[:0]), plain(), "box", 1.0)
