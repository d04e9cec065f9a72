"""What went missing between the views and the mesh is found, and thin parts are told from bulk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from recon.lost import lost
from render.cameras import orbit_cameras
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Mesh
from tests.recon.mesh_field import as_mesh

CAMERAS = orbit_cameras([0.0, 90.0, 200.0], [10.0, 20.0, -10.0], 128)


def table(legs: int = 4) -> Mesh:
    top = trimesh.creation.box((1.2, 0.3, 1.2))
    corners = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)][:legs]
    parts = [top]
    for x, z in corners:
        leg = trimesh.creation.box((0.06, 0.7, 0.06))
        leg.apply_translation((x, -0.5, z))
        parts.append(leg)
    return as_mesh(trimesh.util.concatenate(parts))


def silhouettes(mesh: Mesh) -> ViewSet:
    seen = rasterize(mesh.vertices, mesh.faces, CAMERAS).face >= 0
    return ViewSet(CAMERAS, GBuffer(alpha=torch.from_numpy(seen.astype(np.float32))[..., None]))


def test_nothing_is_lost_of_itself() -> None:
    found = lost(silhouettes(table()), table(), table())
    assert (found.seen, found.worst, found.thin) == (0, 0, 0)
    assert found.by_decimation.largest < 1e-5
    assert found.warning() is None


def test_legs_that_are_gone_are_thin_parts() -> None:
    found = lost(silhouettes(table(4)), table(4), table(2))
    legs = silhouettes(table(4)).gbuffer.alpha.sum() - silhouettes(table(2)).gbuffer.alpha.sum()
    share = float(legs / silhouettes(table(4)).gbuffer.alpha.sum())
    # Less than that: pixels within two of the rest count as kept.
    assert 0.3 * share < found.seen <= share
    assert found.thin > 0.9
    assert found.by_decimation.lost_parts == 2
    message = found.warning()
    assert message is not None
    assert "thin parts" in message
    assert "2 separate parts" in message


def test_a_missing_bulk_is_not_thin() -> None:
    found = lost(silhouettes(table(4)), table(4), as_mesh(trimesh.creation.box((0.6, 1.0, 0.6))))
    assert found.seen > 0.2
    assert found.thin < 0.5


def test_an_outline_that_moved_by_a_pixel_is_not_lost() -> None:
    whole = table(0)
    smaller = Mesh((whole.vertices * 0.98).astype(np.float32), whole.faces, whole.normals)
    assert lost(silhouettes(whole), whole, smaller).seen == pytest.approx(0, abs=2e-3)
