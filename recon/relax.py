"""Smoothing that takes the noise and the grid's steps off a dense mesh and keeps its edges.

Two steps repeated: face normals are averaged with those of neighbouring faces
that look alike (bilateral), then vertices move until the faces have these normals
(Zheng, Fu, Au and Tai, "Bilateral Normal Filtering for Mesh Denoising", 2011, the
local scheme; vertex update after Sun et al., 2007). Connectivity does not change.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from recon.topology import directed_edges


@numba.njit(cache=True, fastmath=False)
@no_type_check
def _filter_normals(
    normals: NDArray[np.float64],
    areas: NDArray[np.float64],
    neighbours: NDArray[np.int32],
    inverse_two_sigma2: float,
    rounds: int,
) -> NDArray[np.float64]:
    current, following = normals.copy(), normals.copy()
    for _ in range(rounds):
        for f in range(len(current)):
            n0, n1, n2 = current[f, 0], current[f, 1], current[f, 2]
            s0, s1, s2 = areas[f] * n0, areas[f] * n1, areas[f] * n2
            for side in range(3):
                g = neighbours[f, side]
                if g < 0:
                    continue
                d0, d1, d2 = current[g, 0] - n0, current[g, 1] - n1, current[g, 2] - n2
                w = areas[g] * np.exp(-(d0 * d0 + d1 * d1 + d2 * d2) * inverse_two_sigma2)
                s0 += w * current[g, 0]
                s1 += w * current[g, 1]
                s2 += w * current[g, 2]
            length = np.sqrt(s0 * s0 + s1 * s1 + s2 * s2)
            if length > 1e-30:
                following[f, 0], following[f, 1], following[f, 2] = s0 / length, s1 / length, s2 / length
        current, following = following, current
    return current


@numba.njit(cache=True)
@no_type_check
def _move_vertices(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    normals: NDArray[np.float64],
    limit: float,
    rounds: int,
) -> NDArray[np.float64]:
    start = vertices
    vertices = vertices.copy()
    valence = np.zeros(len(vertices))
    for f in range(len(faces)):
        for corner in range(3):
            valence[faces[f, corner]] += 1.0
    for _ in range(rounds):
        move = np.zeros_like(vertices)
        for f in range(len(faces)):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            n0, n1, n2 = normals[f, 0], normals[f, 1], normals[f, 2]
            m0 = (vertices[a, 0] + vertices[b, 0] + vertices[c, 0]) / 3.0
            m1 = (vertices[a, 1] + vertices[b, 1] + vertices[c, 1]) / 3.0
            m2 = (vertices[a, 2] + vertices[b, 2] + vertices[c, 2]) / 3.0
            for corner in range(3):
                v = faces[f, corner]
                along = n0 * (m0 - vertices[v, 0]) + n1 * (m1 - vertices[v, 1]) + n2 * (m2 - vertices[v, 2])
                move[v, 0] += n0 * along
                move[v, 1] += n1 * along
                move[v, 2] += n2 * along
        for v in range(len(vertices)):
            distance2 = 0.0
            for axis in range(3):
                if valence[v] > 0:
                    vertices[v, axis] += move[v, axis] / valence[v]
                distance2 += (vertices[v, axis] - start[v, axis]) ** 2
            if distance2 > limit * limit:
                shrink = limit / np.sqrt(distance2)
                for axis in range(3):
                    vertices[v, axis] = start[v, axis] + (vertices[v, axis] - start[v, axis]) * shrink
    return vertices


def neighbour_faces(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, "F 3"]:
    """The face across each of the three edges; -1 where there is none. Manifold meshes."""
    start, end = directed_edges(faces)
    count = int(faces.max(initial=0)) + 1
    forward, backward = start * count + end, end * count + start
    order = np.argsort(forward, kind="stable")
    at = np.minimum(np.searchsorted(forward[order], backward), len(order) - 1)
    other = order[at]
    found = forward[other] == backward
    return np.where(found, other % len(faces), -1).reshape(3, -1).T.astype(np.int32)


def relax(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    *,
    edge_angle_deg: float = 30.0,
    normal_rounds: int = 8,
    vertex_rounds: int = 10,
    limit: float = np.inf,
) -> Float[np.ndarray, "V 3"]:
    """New vertex positions (float32) of a manifold mesh.

    edge_angle_deg: normals that differ by this much hardly mix (sigma of the range kernel).
    limit: no vertex moves farther, in world units.
    """
    p = vertices.astype(np.float64)
    corners = p[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(cross, axis=1)
    normals = cross / np.maximum(length, 1e-30)[:, None]
    sigma = 2.0 * np.sin(np.deg2rad(edge_angle_deg) / 2.0)
    smooth = _filter_normals(normals, length / 2, neighbour_faces(faces), 0.5 / sigma**2, normal_rounds)
    moved = _move_vertices(p, faces.astype(np.int32), smooth, limit, vertex_rounds)
    return np.asarray(moved.astype(np.float32))
