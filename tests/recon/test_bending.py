"""A mesh that lost its corners and tips gets them back from views, and one that is right stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from recon.bending import bent
from recon.topology import vertex_normals
from render.gbuffer import ViewSet
from render.scene import Mesh
from tests.recon.mesh_field import MeshField, ten_cameras, views_of

PIXEL = 1 / 64


@pytest.fixture(scope="module")
def arrow() -> trimesh.Trimesh:
    """A cone on a box, in fine triangles, in the unit ball as the model's objects are."""
    box = trimesh.creation.box((0.8, 0.5, 0.6)).apply_translation((0, -0.35, 0))
    cone = trimesh.creation.cone(0.3, 0.9, sections=48)
    cone.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0)))
    cone.apply_translation((0, -0.1, 0))
    vertices, faces = _both(box, cone)
    vertices = vertices - (vertices.min(0) + vertices.max(0)) / 2
    vertices = vertices / np.linalg.norm(vertices, axis=1).max()
    return trimesh.Trimesh(*trimesh.remesh.subdivide_to_size(vertices, faces, 1.5 * PIXEL, 20), process=False)


def _both(*shapes: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    whole = trimesh.util.concatenate(shapes)
    return whole.vertices, whole.faces


@pytest.fixture(scope="module")
def views(arrow: trimesh.Trimesh) -> ViewSet:
    return views_of(MeshField(arrow), 128)


def mesh_of(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    at, corners = vertices.astype(np.float32), faces.astype(np.int32)
    return Mesh(at, corners, vertex_normals(at, corners))


def squeezed(arrow: trimesh.Trimesh) -> np.ndarray:
    """As a fit leaves it: smaller, and its tip most of all."""
    x, y, z = arrow.vertices.T
    return np.stack([0.94 * x, np.where(y > 0, 0.85 * y, 0.96 * y), 0.94 * z], 1)


def test_what_a_fit_took_comes_back(arrow: trimesh.Trimesh, views: ViewSet) -> None:
    made = mesh_of(squeezed(arrow), arrow.faces)
    mended = bent(made, views)
    assert np.array_equal(mended.faces, made.faces)
    before, after = (np.linalg.norm(m.vertices - arrow.vertices, axis=1) for m in (made, mended))
    assert before.mean() > 1.5 * PIXEL
    assert cKDTree(arrow.vertices).query(mended.vertices)[0].mean() < 0.6 * PIXEL
    assert after.max() < before.max()
    assert mended.vertices[:, 1].max() > arrow.vertices[:, 1].max() - 2 * PIXEL


def test_what_is_right_stays(arrow: trimesh.Trimesh, views: ViewSet) -> None:
    made = mesh_of(arrow.vertices, arrow.faces)
    moved = np.linalg.norm(bent(made, views).vertices - made.vertices, axis=1)
    assert moved.mean() < 0.2 * PIXEL
    assert moved.max() < PIXEL


def test_a_part_that_no_view_shows_moves_little_else(arrow: trimesh.Trimesh, views: ViewSet) -> None:
    """It stays, though it may be drawn into the unit ball."""
    ball = trimesh.creation.icosphere(4, 0.12).apply_translation((0.75, 0.6, 0))
    made = mesh_of(*_both(arrow, ball))
    mended = bent(made, views).vertices
    moved = np.linalg.norm(mended - made.vertices, axis=1)[: len(arrow.vertices)]
    assert moved.max() < 6 * PIXEL
    assert moved.mean() < 2 * PIXEL


def test_what_views_lack_on_one_side_is_made_up_for(arrow: trimesh.Trimesh) -> None:
    """Views of an arrow that lost a third of its tip: the mesh of them fills the unit ball again."""
    x, y, z = arrow.vertices.T
    short = np.stack([x, np.where(y > 0, 0.8 * y, y), z], 1)
    drawn = views_of(MeshField(trimesh.Trimesh(short, arrow.faces, process=False)), 128)
    made = mesh_of(short, arrow.faces)
    mended = bent(made, drawn).vertices
    middles = [np.abs(v.min(0) + v.max(0)).max() / 2 for v in (made.vertices, mended)]
    assert middles[1] < 0.5 * middles[0]
    assert np.linalg.norm(mended, axis=1).max() == pytest.approx(1, abs=PIXEL)
    # Bent, not torn: no edge is more than half as long again.
    edges = arrow.edges_unique
    lengths = [np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1) for v in (short, mended)]
    assert np.quantile(lengths[1] / np.maximum(lengths[0], 1e-3), 0.99) < 1.5


def test_outlines_alone_suffice(arrow: trimesh.Trimesh, views: ViewSet) -> None:
    made = mesh_of(squeezed(arrow), arrow.faces)
    flat = ViewSet(views.cameras, replace(views.gbuffer, depth=None))
    assert bent(made, flat).vertices[:, 1].max() > arrow.vertices[:, 1].max() - 2 * PIXEL


def test_nothing_stays_nothing(views: ViewSet) -> None:
    nothing = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert bent(nothing, views) is nothing
    empty = ViewSet(ten_cameras(), views_of(MeshField(trimesh.creation.icosphere(1, 1e-3)), 128).gbuffer)
    made = mesh_of(trimesh.creation.icosphere(2, 0.5).vertices, trimesh.creation.icosphere(2, 0.5).faces)
    assert len(bent(made, empty).vertices) == len(made.vertices)
