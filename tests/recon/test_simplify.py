"""Decimation keeps the budget, the topology and the shape."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.inspect import inspect
from recon.simplify import simplify
from render.errors import InputError
from tests.recon.mesh_field import as_mesh, balls


@pytest.mark.parametrize(
    ("shape", "genus"),
    [(trimesh.creation.icosphere(5), 0), (trimesh.creation.torus(0.7, 0.2, 96, 64), 1), (balls(), 0)],
    ids=["sphere", "torus", "balls"],
)
@pytest.mark.parametrize("polycount", [100, 1000])
def test_budget_and_topology_are_kept(shape: trimesh.Trimesh, genus: int, polycount: int) -> None:
    found = inspect(simplify(as_mesh(shape), polycount))
    assert 0.98 * polycount <= found.triangles <= polycount
    assert found.watertight
    assert found.manifold
    assert found.outward
    assert found.genus == genus
    assert found.degenerate_faces == 0
    # Thirty flat faces on each of three balls lose a seventh of their volume; a thousand do not.
    assert found.volume == pytest.approx(shape.volume, rel=0.16 if polycount == 100 else 0.015)


def test_a_finely_cut_box_needs_twelve_triangles() -> None:
    box = trimesh.creation.box((1, 2, 3)).subdivide().subdivide().subdivide().subdivide()
    mesh = simplify(as_mesh(box), 12)
    found = inspect(mesh)
    assert found.triangles == 12
    assert found.volume == pytest.approx(6.0, rel=1e-4)
    corners = np.sort(np.abs(mesh.vertices), axis=0)
    assert np.allclose(corners, [[0.5, 1.0, 1.5]] * 8, atol=1e-3)


def test_a_small_mesh_stays_as_it_is() -> None:
    assert inspect(simplify(as_mesh(trimesh.creation.box()), 5000)).triangles == 12


def test_too_small_a_budget_is_an_input_error() -> None:
    with pytest.raises(InputError, match="polycount"):
        simplify(as_mesh(trimesh.creation.box()), 3)
