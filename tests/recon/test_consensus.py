"""Views that agree are left alone; views that do not are given one simple shape near the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from recon.consensus import ConsensusConfig, consensus, disagreement_px, genus, harmonise
from recon.fusion import depth_maps
from recon.topology import is_closed_manifold
from render.errors import InputError
from render.gbuffer import ViewSet
from tests.recon.mesh_field import MeshField, views_of


def bitten(views: ViewSet) -> ViewSet:
    """Every side view loses another bite, grows another bump and is off in depth by its own amount."""
    seen = views.gbuffer
    assert seen.depth is not None
    channels = {name: value.clone().contiguous() for name, value in seen.channels().items()}
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    for c in range(8):  # top and bottom are each seen frontally by one view alone: nobody could outvote it
        angle = torch.tensor(2.4 * c)
        near = (rows - 64 - 44 * angle.sin()) ** 2 + (columns - 64 - 44 * angle.cos()) ** 2 < 14**2
        for name in channels:
            channels[name][c][near] = 0
        far = (rows - 64 + 44 * angle.sin()) ** 2 + (columns - 64 + 44 * angle.cos()) ** 2 < 10**2
        far &= channels["alpha"][c, ..., 0] == 0
        for name in channels:
            channels[name][c][far] = channels[name][c, 64, 64].clone()
        channels["depth"][c] += 0.06 * np.sin(1.7 * c) * channels["alpha"][c]
    return replace(views, gbuffer=replace(seen, **channels))


def ball() -> ViewSet:
    return views_of(MeshField(trimesh.creation.icosphere(4, 0.7)))


@pytest.mark.parametrize(
    "shape", [trimesh.creation.icosphere(4, 0.7), trimesh.creation.box((1, 0.8, 0.1))], ids=["ball", "plate"]
)
def test_views_that_agree_come_back_as_they_are(shape: trimesh.Trimesh) -> None:
    views = views_of(MeshField(shape))
    assert disagreement_px(depth_maps(views.cameras, views.gbuffer)) < 0.4
    assert harmonise(views, ConsensusConfig()) is views


def test_bites_bumps_and_shifts_leave_a_simple_shape_that_all_views_share() -> None:
    views = bitten(ball())
    maps = depth_maps(views.cameras, views.gbuffer)
    before = disagreement_px(maps)
    assert before > 2.0
    shape = consensus(maps, before * maps.pixel, ConsensusConfig())
    assert shape is not None
    assert is_closed_manifold(shape.faces)
    assert genus(shape) <= ConsensusConfig().max_genus
    radius = np.linalg.norm(shape.vertices, axis=1)
    # The bites take more area than the bumps give, and the shape keeps the area of the views.
    assert abs(radius.mean() - 0.7) < 0.05
    # Measured: the eight bites, 0.22 deep, are filled in part only; the shape stays simple and near.
    assert np.quantile(radius, 0.2) > 0.6
    assert radius.min() > 0.45
    assert radius.max() < 0.85
    after = harmonise(views, ConsensusConfig(tolerance_px=2.0))
    assert disagreement_px(depth_maps(after.cameras, after.gbuffer)) < 0.2


def test_a_floor_that_one_view_sees_stays_flat() -> None:
    """The walls' views cannot see below the object; their silhouettes there are no vote for it."""
    views = views_of(MeshField(trimesh.creation.box((1.0, 1.0, 1.0))))
    maps = depth_maps(views.cameras, views.gbuffer)
    shape = consensus(maps, 3 * maps.pixel, ConsensusConfig())
    assert shape is not None
    np.testing.assert_allclose(np.abs(shape.vertices).max(0), 0.5, atol=2 * maps.pixel)


def test_a_thin_back_whose_sides_cross_has_no_hole() -> None:
    """Each side's depth lies behind the other side: by depth alone the plate is air."""
    views = views_of(MeshField(trimesh.creation.box((1.2, 0.9, 0.06))))
    depth = views.gbuffer.depth
    assert depth is not None
    moved = replace(views, gbuffer=replace(views.gbuffer, depth=depth + 0.1 * (depth > 0)))
    maps = depth_maps(moved.cameras, moved.gbuffer)
    shape = consensus(maps, 3 * maps.pixel, ConsensusConfig())
    assert shape is not None
    assert genus(shape) == 0
    np.testing.assert_allclose(np.abs(shape.vertices).max(0)[:2], [0.6, 0.45], atol=3 * maps.pixel)
    # Without slack only splinters are left of it.
    without = consensus(maps, 3 * maps.pixel, ConsensusConfig(slack=0.0))
    assert without is not None
    assert np.abs(without.vertices).max(0)[0] < 0.55


def test_harmonised_views_keep_the_contract_of_a_gbuffer() -> None:
    views = harmonise(bitten(ball()), ConsensusConfig(tolerance_px=2.0))
    seen = views.gbuffer
    covered = seen.alpha[..., 0] > 0
    for value in seen.channels().values():
        assert bool(torch.isfinite(value).all())
        assert not bool(value[~covered].any())
    assert seen.normal is not None
    assert seen.base_color_srgb is not None
    assert torch.allclose(seen.normal.norm(dim=-1)[covered], torch.tensor(1.0), atol=1e-4)
    assert float(seen.base_color_srgb.sum(-1)[covered].min()) > 0.1  # spread to what was not covered


def test_twice_the_same() -> None:
    first, second = (
        harmonise(bitten(ball()), ConsensusConfig(tolerance_px=2.0)).gbuffer.channels() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_torus_keeps_its_hole() -> None:
    views = views_of(MeshField(trimesh.creation.torus(0.65, 0.22)))
    maps = depth_maps(views.cameras, views.gbuffer)
    shape = consensus(maps, 2 * maps.pixel, ConsensusConfig())
    assert shape is not None
    assert genus(shape) == 1


def test_empty_views_and_views_without_depth_come_back() -> None:
    views = ball()
    empty = replace(views, gbuffer=replace(views.gbuffer, alpha=torch.zeros_like(views.gbuffer.alpha)))
    assert harmonise(empty, ConsensusConfig()) is empty
    flat = replace(views, gbuffer=replace(views.gbuffer, depth=None))
    assert harmonise(flat, ConsensusConfig()) is flat


def test_senseless_settings_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"consensus\.voxels"):
        ConsensusConfig(voxels=3)
