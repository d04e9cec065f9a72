"""Charts become fewer, and what they were cut from stays whole: sides, shapes, no overlap."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from recon.chart_merging import merged
from recon.inspect import inspect, uv_charts
from recon.topology import face_components
from recon.uv import unwrap
from tests.recon.mesh_field import as_mesh


def sheet(n: int, bump: float = 0.0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A square of n x n cells of 10 units in the plane, with noise across it."""
    x, y = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    z = bump * np.random.default_rng(0).normal(size=x.shape)
    vertices = 10 * np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    a = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    faces = np.concatenate([np.stack([a, a + n + 1, a + n + 2], 1), np.stack([a, a + n + 2, a + 1], 1)])
    return vertices, faces.astype(np.int32)


def cut_up(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], label: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Charts as labelled, each laid flat where it is, turned and far from the others."""
    pairs = np.stack([np.repeat(label, 3), faces.ravel()], 1)
    chosen, index = np.unique(pairs, axis=0, return_inverse=True)
    angle = 1.3 * chosen[:, 0]
    x, y = vertices[chosen[:, 1], :2].T
    turned = np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], 1)
    turned[:, 0] += 10_000 * chosen[:, 0]
    return chosen[:, 1], index.reshape(-1, 3).astype(np.int32), turned.astype(np.float32)


def signed(uvs: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    a, b, c = (uvs[faces[:, k]].astype(np.float64) for k in range(3))
    p, q = b - a, c - a
    return np.asarray(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])


def test_a_sheet_of_loose_triangles_is_one_chart_again() -> None:
    vertices, faces = sheet(12)
    label = np.where(np.arange(len(faces)) % 7 == 0, 1 + np.arange(len(faces)), 0)
    source, cut, uvs = cut_up(vertices, faces, label)
    assert face_components(cut)[0] > 40
    joined, laid = merged(vertices, source, cut, uvs)
    assert face_components(joined)[0] == 1
    assert np.array_equal(source[joined], faces)
    assert np.allclose(signed(laid, joined), 100.0, atol=0.05)  # every triangle with its side and its area
    ends = laid[joined[:, [0, 1, 2]]] - laid[joined[:, [1, 2, 0]]]
    apart = vertices[faces[:, [0, 1, 2]]] - vertices[faces[:, [1, 2, 0]]]
    assert np.allclose(np.linalg.norm(ends, axis=2), np.linalg.norm(apart, axis=2), atol=0.01)


def test_what_would_cover_another_part_stays_a_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nine triangles around one vertex, with more than 360 degrees between them.
    monkeypatch.setattr("recon.chart_merging._LARGEST", 1.0)
    turn = 2 * np.pi * np.arange(9) / 9
    rise = np.where(np.arange(9) % 2 == 0, 1.0, -1.0) * 9
    ring = np.stack([10 * np.cos(turn), 10 * np.sin(turn), rise], 1)
    vertices = np.concatenate([[[0, 0, 0]], ring]).astype(np.float32)
    faces = np.array([[0, 1 + k, 1 + (k + 1) % 9] for k in range(9)], np.int32)
    side = np.linalg.norm(vertices[faces[:, 1]] - vertices[faces[:, 2]], axis=1)
    near, far = (np.linalg.norm(vertices[faces[:, k]], axis=1) for k in (1, 2))
    x = (near**2 + far**2 - side**2) / (2 * near)
    flat = np.stack(
        [0 * ring[:, :2], np.stack([near, 0 * near], 1), np.stack([x, np.sqrt(far**2 - x**2)], 1)], 1
    )
    flat[..., 0] += 1000 * np.arange(9)[:, None]
    uvs = flat.reshape(-1, 2).astype(np.float32)
    cut = np.arange(27, dtype=np.int32).reshape(-1, 3)
    joined, laid = merged(vertices, faces.ravel().astype(np.int64), cut, uvs)
    count, label = face_components(joined)
    angles = np.arccos(x / far)
    assert angles.sum() > 2 * np.pi
    assert 2 <= count < 9
    for chart in range(count):
        assert angles[label == chart].sum() <= 2 * np.pi
    assert (signed(laid, joined) > 0).all()


def test_a_rough_ball_has_fewer_charts_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = trimesh.creation.icosphere(4)
    rough = ball.vertices * (1 + 0.05 * np.random.default_rng(1).normal(size=(len(ball.vertices), 1)))
    mesh = as_mesh(trimesh.Trimesh(rough, ball.faces, process=False))
    after = unwrap(mesh, 1024)
    monkeypatch.setattr("recon.uv.merged", lambda vertices, source, faces, uvs: (faces, uvs))
    before = unwrap(mesh, 1024)
    assert uv_charts(after) < 0.6 * uv_charts(before)
    found, was = inspect(after), inspect(before)
    assert found.watertight
    assert found.uv_overlap < 0.001
    assert found.texel_density_min is not None
    assert was.texel_density_min is not None
    assert found.texel_density_median is not None
    assert was.texel_density_median is not None
    assert found.texel_density_min > 0.9 * was.texel_density_min
    assert found.texel_density_median > 0.9 * was.texel_density_median


def test_twice_the_same() -> None:
    vertices, faces = sheet(10, bump=0.5)
    source, cut, uvs = cut_up(vertices, faces, np.arange(len(faces)) // 3)
    first, second = (merged(vertices, source, cut, uvs) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
