"""Objects that stand askew are turned square with the axes, and round ones stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from recon.fields.gaussians import GaussianField
from recon.heading import degrees_to_square, turned, turned_splats
from render.scene import Mesh
from tests.recon.mesh_field import as_mesh


def crate() -> Mesh:
    return as_mesh(trimesh.creation.box((1.0, 0.6, 0.7)))


@pytest.mark.parametrize("askew", [-44.0, -10.0, 0.0, 30.0, 44.0])
def test_a_crate_is_turned_back_whichever_way_it_stands(askew: float) -> None:
    seen = turned(crate(), askew)
    assert degrees_to_square(seen) == pytest.approx(-askew, abs=1e-4)
    back = turned(seen, degrees_to_square(seen))
    np.testing.assert_allclose(back.vertices, crate().vertices, atol=1e-5)


def test_beyond_half_a_right_angle_another_side_is_nearer() -> None:
    assert degrees_to_square(turned(crate(), 60.0)) == pytest.approx(30.0, abs=1e-4)


def test_what_has_no_walls_stays() -> None:
    assert degrees_to_square(as_mesh(trimesh.creation.icosphere(subdivisions=3))) == 0.0
    assert degrees_to_square(as_mesh(trimesh.creation.cone(0.5, 1.0, sections=64))) == 0.0


def test_normals_and_tangents_turn_with_the_mesh_and_gaussians_as_it_does() -> None:
    whole = crate()
    generator = np.random.default_rng(0)
    normals = generator.normal(size=whole.vertices.shape).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    tangents = np.concatenate([normals[:, [1, 2, 0]], np.ones((len(normals), 1), np.float32)], 1)
    askew = turned(Mesh(whole.vertices, whole.faces, normals, tangents=tangents), 37.0)
    assert askew.normals is not None
    assert askew.tangents is not None
    np.testing.assert_allclose(
        (askew.normals * askew.tangents[:, :3]).sum(1), (normals * tangents[:, :3]).sum(1), atol=1e-6
    )
    count = len(whole.vertices)
    quats = torch.nn.functional.normalize(torch.from_numpy(generator.normal(size=(count, 4))).float())
    field = GaussianField(
        torch.from_numpy(whole.vertices), quats, torch.zeros(count, 2), torch.zeros(count),
        torch.zeros(count, 3), torch.zeros(count, 1), torch.zeros(count, 1),
    )  # fmt: skip
    again = turned_splats(field, 37.0)
    np.testing.assert_allclose(again.means.numpy(), askew.vertices, atol=1e-6)
    facing = Mesh(field.normals.numpy(), whole.faces)
    np.testing.assert_allclose(again.normals.numpy(), turned(facing, 37.0).vertices, atol=1e-5)
