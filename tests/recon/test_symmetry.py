"""Mirror symmetry: nearly symmetric objects become more so, and others stay and are told of."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.symmetry import asymmetry, symmetrised
from recon.topology import is_closed_manifold
from render.scene import Mesh
from tests.recon.mesh_field import as_mesh


def ring() -> Mesh:
    return as_mesh(trimesh.creation.torus(0.6, 0.25))


def one_sided(axis: int) -> Mesh:
    """A ring whose one side along `axis` is taller."""
    whole = ring()
    taller = np.where(whole.vertices[:, [axis]] > 0, [1, 2, 1], [1, 1, 1])
    return Mesh((whole.vertices * taller).astype(np.float32), whole.faces)


def test_a_nearly_symmetric_object_becomes_more_so() -> None:
    noise = np.random.default_rng(0).normal(size=ring().vertices.shape) * 0.01
    rough = Mesh((ring().vertices + noise).astype(np.float32), ring().faces)
    better, found = symmetrised(rough)
    assert found.done
    assert found.warning() is None
    assert found.asymmetry == asymmetry(rough, found.axis)
    assert asymmetry(better, found.axis) < found.asymmetry / 4
    assert np.array_equal(better.faces, rough.faces)
    assert is_closed_manifold(better.faces)
    assert np.linalg.norm(better.vertices - rough.vertices, axis=1).mean() < 0.02  # as far as the noise went


@pytest.mark.parametrize("axis", [0, 2])
def test_the_mirror_is_the_one_that_the_object_has(axis: int) -> None:
    bent = one_sided(axis)
    assert asymmetry(bent, axis) > 0.02
    same, found = symmetrised(bent)
    assert found.axis == 2 - axis
    assert found.done
    np.testing.assert_allclose(same.vertices, bent.vertices, atol=1e-5)


def test_what_is_on_one_side_alone_stays_where_nobody_asked() -> None:
    whole = ring()
    x, y, z = whole.vertices.T
    vertices = whole.vertices + 0.25 * ((x > 0.7) & (z > 0.05) & (abs(y) < 0.2))[:, None] * np.float32(
        [0, 0, 1]
    )
    thorny = Mesh(vertices, whole.faces)
    assert asymmetry(thorny, 0) < 0.01
    assert symmetrised(thorny)[1].done
    same, found = symmetrised(thorny, asked=False)
    assert same is thorny
    assert not found.done


def test_an_object_without_symmetry_stays_and_is_told_of() -> None:
    bar = trimesh.creation.box((1.6, 0.4, 0.5)).subdivide().subdivide()
    bar.apply_transform(trimesh.transformations.rotation_matrix(0.5, (0, 1, 0)))
    skew = as_mesh(bar)
    same, found = symmetrised(skew)
    assert not found.done
    assert same is skew
    warning = found.warning()
    assert warning is not None
    assert f"differ by {found.asymmetry:.1%}" in warning
    assert "left as it is" in warning
