"""Parts that hang in the air reach what stands; what stands by itself, or hangs beside, stays."""

from __future__ import annotations

import numpy as np
import trimesh

from recon.joining import joined
from recon.projection import raycasting_scene
from recon.topology import is_closed_manifold
from render.scene import Mesh
from tests.recon.mesh_field import as_mesh


def fine(shape: trimesh.Trimesh) -> trimesh.Trimesh:
    return shape.subdivide_to_size(0.05)


def upright_cylinder(radius: float, low: float, high: float) -> trimesh.Trimesh:
    shape = trimesh.creation.cylinder(radius, high - low, sections=24)
    shape.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    shape.apply_translation((0, (low + high) / 2, 0))
    return fine(shape)


def together(*shapes: trimesh.Trimesh) -> Mesh:
    return as_mesh(trimesh.util.concatenate(list(shapes)))


def test_a_stem_that_ends_above_its_foot_reaches_into_it() -> None:
    foot, stem = upright_cylinder(0.3, -0.9, -0.85), upright_cylinder(0.04, -0.75, 0.2)
    bowl = fine(trimesh.creation.icosphere(3, 0.3)).apply_translation((0.0, 0.45, 0.0))
    glass = together(foot, stem, bowl)
    made = joined(glass)
    assert np.array_equal(made.faces, glass.faces)
    assert is_closed_manifold(made.faces)
    tip = made.vertices[len(foot.vertices) : len(foot.vertices) + len(stem.vertices)]
    assert -0.88 < tip[:, 1].min() < -0.85
    # As wide at its end as it was, and what is far from the gap stays.
    end = tip[tip[:, 1] < -0.8]
    assert abs(np.linalg.norm(end[:, [0, 2]], axis=1).max() - 0.04) < 0.002
    far = glass.vertices[:, 1] > -0.3
    np.testing.assert_array_equal(made.vertices[far], glass.vertices[far])
    inside = raycasting_scene(made.vertices, made.faces[: len(foot.faces)])
    lowest = tip[[tip[:, 1].argmin()]].astype(np.float32)
    assert inside.compute_signed_distance(lowest).numpy().max() < 0


def test_parts_that_stand_stay_apart() -> None:
    pair = together(
        fine(trimesh.creation.box((0.2, 0.3, 0.4))),
        fine(trimesh.creation.box((0.2, 0.3, 0.4))).apply_translation((0.3, 0, 0)),
    )
    assert joined(pair) is pair


def test_what_hangs_beside_has_no_tip_to_reach_out_with() -> None:
    curtains = together(
        fine(trimesh.creation.box((0.3, 1.2, 0.05))),
        fine(trimesh.creation.box((0.3, 1.0, 0.05))).apply_translation((0.36, 0.1, 0)),
    )
    assert joined(curtains) is curtains


def test_what_is_too_far_stays() -> None:
    high = fine(trimesh.creation.icosphere(2, 0.1)).apply_translation((0, 0.7, 0))
    far = together(upright_cylinder(0.3, -0.9, -0.7), high)
    assert joined(far) is far
