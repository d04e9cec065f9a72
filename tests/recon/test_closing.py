"""Holes that views do not show are closed; what they look through stays open."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from recon.closing import without_holes
from recon.consensus import genus
from recon.fusion import Volume, march
from recon.projection import raycasting_scene
from recon.topology import is_closed_manifold
from render.gbuffer import GBuffer, ViewSet
from render.scene import Mesh
from tests.recon.mesh_field import MeshField, views_of

VOXEL = 0.015
PIXEL = 2.0 / 128


def _box(points: np.ndarray, half: tuple[float, float, float]) -> np.ndarray:
    """Signed distance of a box, near enough."""
    return np.asarray((np.abs(points) - np.array(half)).max(-1))


def plate(slot_px: float) -> Mesh:
    """A plate that stands, with an upright slot through it, so many pixels wide."""
    size = (96, 72, 32)
    origin = -VOXEL * (np.array(size) - 1) / 2
    points = origin + VOXEL * np.moveaxis(np.indices(size), 0, -1)
    values = _box(points, (0.6, 0.4, 0.06))
    if slot_px:
        values = np.maximum(values, -_box(points, (slot_px * PIXEL / 2, 0.2, 9.0)))
    return Mesh(*march(Volume(values.astype(np.float32), origin.astype(np.float32), VOXEL)))


def views(mesh: Mesh) -> ViewSet:
    return views_of(MeshField(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)))


def farthest(mesh: Mesh, from_mesh: Mesh) -> float:
    scene = raycasting_scene(from_mesh.vertices, from_mesh.faces)
    return float(scene.compute_distance(np.ascontiguousarray(mesh.vertices)).numpy().max())


def test_a_hole_that_no_view_shows_is_closed_and_nothing_else_changes() -> None:
    whole, pierced = plate(0), plate(4)
    assert genus(pierced) == 1
    made = without_holes(pierced, views(whole))
    assert genus(made) == 0
    assert is_closed_manifold(made.faces)
    assert made.normals is not None
    assert max(farthest(made, whole), farthest(whole, made)) < 1.5 * VOXEL


def test_a_gap_that_views_look_through_stays() -> None:
    slotted = plate(5)
    made = without_holes(slotted, views(slotted))
    assert genus(made) == 1
    # Its ends, which views from a little above do not look through, are rounded.
    assert farthest(slotted, made) < 3 * PIXEL


def test_what_is_wider_than_a_small_hole_stays() -> None:
    assert genus(without_holes(plate(9), views(plate(0)))) == 1


@pytest.mark.parametrize("slot_px", [0, 4])
def test_what_has_no_holes_or_no_depth_comes_back(slot_px: int) -> None:
    mesh = plate(slot_px)
    shown = views(mesh)
    without_depth = ViewSet(
        shown.cameras, GBuffer(alpha=shown.gbuffer.alpha, normal=torch.zeros(10, 128, 128, 3))
    )
    assert without_holes(mesh, without_depth) is mesh
    if not slot_px:
        assert without_holes(mesh, shown) is mesh
