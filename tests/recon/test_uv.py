"""Charts fill one square without overlap, and normals are those of the surface."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.inspect import inspect
from recon.topology import weld
from recon.uv import unwrap
from render.errors import InputError
from tests.recon.mesh_field import as_mesh


@pytest.mark.parametrize(
    "shape", [trimesh.creation.box(), trimesh.creation.icosphere(4), trimesh.creation.torus(1, 0.3)]
)
def test_charts_do_not_overlap_and_use_the_square(shape: trimesh.Trimesh) -> None:
    mesh = unwrap(as_mesh(shape), 512)
    assert mesh.uvs is not None
    assert mesh.uvs.min() >= 0
    assert mesh.uvs.max() <= 1
    found = inspect(mesh)
    assert found.watertight
    assert found.triangles == len(shape.faces)
    assert found.uv_overlap < 0.002
    assert found.uv_coverage > 0.45
    assert found.normals_unit


def test_faces_keep_their_order_and_place() -> None:
    shape = as_mesh(trimesh.creation.icosphere(3))
    mesh = unwrap(shape, 256)
    assert np.array_equal(mesh.vertices[mesh.faces], weld(shape.vertices, shape.faces)[0][shape.faces])


def test_a_box_is_shaded_flat_and_a_ball_round() -> None:
    box = unwrap(as_mesh(trimesh.creation.box()), 256)
    assert np.allclose(np.sort(np.abs(box.normals), axis=1), [[0, 0, 1]], atol=1e-6)
    ball = unwrap(as_mesh(trimesh.creation.icosphere(4)), 256)
    assert (np.einsum("vi,vi->v", ball.normals, ball.vertices) > 0.999).all()


def test_both_sides_of_a_seam_have_one_normal() -> None:
    ball = unwrap(as_mesh(trimesh.creation.icosphere(3)), 256)
    _, index = np.unique(ball.vertices, axis=0, return_inverse=True)
    for axis in range(3):
        low = np.full(index.max() + 1, np.inf)
        high = np.full(index.max() + 1, -np.inf)
        np.minimum.at(low, index.ravel(), ball.normals[:, axis])
        np.maximum.at(high, index.ravel(), ball.normals[:, axis])
        assert np.array_equal(low, high)


def test_twice_the_same() -> None:
    shape = as_mesh(trimesh.creation.torus(1, 0.3))
    assert np.array_equal(unwrap(shape, 512).uvs, unwrap(shape, 512).uvs)


def test_a_senseless_texture_size_is_an_input_error() -> None:
    with pytest.raises(InputError, match="texture_size"):
        unwrap(as_mesh(trimesh.creation.box()), 3)


def test_thousands_of_charts_still_fit_a_small_texture() -> None:
    """Loose triangles: as many charts as faces, whose padding alone is more than 64 x 64 texels."""
    rng = np.random.default_rng(0)
    pieces = [
        trimesh.creation.icosahedron().apply_scale(0.02).apply_translation(rng.uniform(-1, 1, 3))
        for _ in range(150)
    ]
    mesh = unwrap(as_mesh(trimesh.util.concatenate(pieces)), 64)
    assert mesh.uvs is not None
    assert len(mesh.faces) == 3000
    assert mesh.uvs.min() >= 0
    assert mesh.uvs.max() <= 1


def test_a_needle_has_its_own_texels() -> None:
    # Two faces of a ball, cut at a point a hair from an edge: one of the four is a needle.
    shape = trimesh.creation.icosphere(3)
    a, b, c = shape.faces[0]
    near = 0.5 * (shape.vertices[a] + shape.vertices[b]) * (1 + 1e-7) + 1e-7 * shape.vertices[c]
    faces = np.concatenate([shape.faces[1:], [[a, b, 0], [b, c, 0], [c, a, 0]]])
    faces[-3:, 2] = len(shape.vertices)
    mesh = as_mesh(trimesh.Trimesh(np.concatenate([shape.vertices, [near]]), faces, process=False))
    found = inspect(unwrap(mesh, 256))
    assert found.watertight
    assert found.texel_density_min is not None
    assert found.texel_density_median is not None
    assert found.texel_density_min > 0.2 * found.texel_density_median
    assert found.uv_overlap < 0.002
