"""Moves of a mesh's vertices (float64) that leave its triangles as they are connected.

Numba kernels and the algebra around them: smoothing that does not shrink, a Poisson equation that turns
faces, offsets that keep planes, and folds smoothed away.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array


@numba.njit(cache=True)
@no_type_check
def evened(vertices, faces, rounds):
    """Taubin's smoothing (1995), tangential moves in full: triangles of one size, nothing shrinks."""
    x = vertices.copy()
    count = len(x)
    for step in range(2 * rounds):
        mean = np.zeros((count, 3))
        normal = np.zeros((count, 3))
        degree = np.zeros(count)
        for f in range(len(faces)):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            u0, u1, u2 = x[b, 0] - x[a, 0], x[b, 1] - x[a, 1], x[b, 2] - x[a, 2]
            w0, w1, w2 = x[c, 0] - x[a, 0], x[c, 1] - x[a, 1], x[c, 2] - x[a, 2]
            n0, n1, n2 = u1 * w2 - u2 * w1, u2 * w0 - u0 * w2, u0 * w1 - u1 * w0
            for k in range(3):
                v, following = faces[f, k], faces[f, (k + 1) % 3]
                degree[v] += 1.0
                normal[v, 0] += n0
                normal[v, 1] += n1
                normal[v, 2] += n2
                for axis in range(3):
                    mean[v, axis] += x[following, axis]
        along = 0.5 if step % 2 == 0 else -0.53
        for v in range(count):
            if degree[v] == 0.0:
                continue
            length = np.sqrt(normal[v, 0] ** 2 + normal[v, 1] ** 2 + normal[v, 2] ** 2)
            d0 = mean[v, 0] / degree[v] - x[v, 0]
            d1 = mean[v, 1] / degree[v] - x[v, 1]
            d2 = mean[v, 2] / degree[v] - x[v, 2]
            dot = 0.0
            if length > 1e-30:
                dot = (d0 * normal[v, 0] + d1 * normal[v, 1] + d2 * normal[v, 2]) / length
                normal[v] /= length
            tangential = 0.3
            x[v, 0] += tangential * (d0 - dot * normal[v, 0]) + along * dot * normal[v, 0]
            x[v, 1] += tangential * (d1 - dot * normal[v, 1]) + along * dot * normal[v, 1]
            x[v, 2] += tangential * (d2 - dot * normal[v, 2]) + along * dot * normal[v, 2]
    return x


@numba.njit(cache=True)
@no_type_check
def smoothed(values, faces, weights, rounds):
    x = values.copy()
    for _ in range(rounds):
        total = weights * x
        degree = weights.copy()
        for f in range(len(faces)):
            for k in range(3):
                v, following = faces[f, k], faces[f, (k + 1) % 3]
                total[v] += weights[following] * x[following]
                degree[v] += weights[following]
        for v in range(len(x)):
            if degree[v] > 0.0:
                x[v] = total[v] / degree[v]
    return x


def smoothed_vectors(
    vectors: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], rounds: int
) -> Float[np.ndarray, "V 3"]:
    ones = np.ones(len(vectors))
    return np.stack([smoothed(np.ascontiguousarray(axis), faces, ones, rounds) for axis in vectors.T], 1)


def cotangents(p: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "F 3"]:
    """Half the cotangent of every corner: weights of the opposite edges in a Laplacian, kept positive."""
    out = np.empty((len(faces), 3))
    for corner in range(3):
        o = p[faces[:, corner]]
        a, b = p[faces[:, (corner + 1) % 3]] - o, p[faces[:, (corner + 2) % 3]] - o
        out[:, corner] = (a * b).sum(1) / np.maximum(np.linalg.norm(np.cross(a, b), axis=1), 1e-30)
    return np.clip(out, 0.05, 5.0) / 2


def sewn(
    vertices: Float[np.ndarray, "V 3"],
    start: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    normals: Float[np.ndarray, "F 3"],
    weights: Float[np.ndarray, "F 3"],
    pull: Float[np.ndarray, " V"],
    tolerance: float,
    most: int,
) -> Float[np.ndarray, "V 3"]:
    """Solve (L + diag(pull)) x = b by at most `most` conjugate gradients with the diagonal for a
    preconditioner; L has `weights` on the edges opposite to each corner, b the edges laid into the faces'
    planes and `pull` times `start`."""
    count = len(vertices)
    i, j, w = faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel(), weights.ravel()
    edge = vertices[i] - vertices[j]
    normal = normals.repeat(3, 0)
    laid = w[:, None] * (edge - (edge * normal).sum(1, keepdims=True) * normal)
    b = pull[:, None] * start
    for axis in range(3):
        b[:, axis] += np.bincount(i, laid[:, axis], count) - np.bincount(j, laid[:, axis], count)
    diagonal = pull + np.bincount(i, w, count) + np.bincount(j, w, count)
    here = np.arange(count)
    place = np.concatenate([here, i, j]), np.concatenate([here, j, i])
    matrix = coo_array((np.concatenate([diagonal, -w, -w]), place), (count, count)).tocsr()
    inverse = 1.0 / diagonal[:, None]
    x = vertices.copy()
    r = b - matrix @ x
    z = inverse * r
    p = z.copy()
    rz = np.vdot(r, z)
    goal = tolerance**2 * (b * b * inverse).sum()
    for _ in range(most):
        if rz <= goal:
            break
        q = matrix @ p
        step = rz / np.vdot(p, q)
        x += step * p
        r -= step * q
        z = inverse * r
        following = np.vdot(r, z)
        p = z + (following / rz) * p
        rz = following
    return np.asarray(x)


def mitres(
    faces: Int[np.ndarray, "F 3"],
    normals: Float[np.ndarray, "F 3"],
    areas: Float[np.ndarray, " F"],
    count: int,
) -> Float[np.ndarray, "V 3"]:
    """How every vertex moves when its faces move outwards by 1: farther at edges and corners."""
    moments, sums = np.zeros((count, 3, 3)), np.zeros((count, 3))
    weighted = normals * areas[:, None]
    for corner in range(3):
        for i in range(3):
            sums[:, i] += np.bincount(faces[:, corner], weighted[:, i], len(sums))
            for j in range(3):
                product = weighted[:, i] * normals[:, j]
                moments[:, i, j] += np.bincount(faces[:, corner], product, len(sums))
    trace = np.maximum(np.trace(moments, axis1=1, axis2=2), 1e-30)
    moments += 0.05 * trace[:, None, None] * np.eye(3)
    found = np.linalg.solve(moments, 1.05 * sums[..., None])[..., 0]
    length = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return np.asarray(found * np.minimum(1.0, 1.6 / length))


@numba.njit(cache=True)
@no_type_check
def unfolded(vertices, faces, normals, rounds):
    """Faces that lie on their back are smoothed away: their vertices go to the middle of their neighbours."""
    x = vertices.copy()
    count = len(x)
    left = 0
    for _ in range(rounds):
        bad = np.zeros(count, np.bool_)
        left = 0
        for f in range(len(faces)):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            u0, u1, u2 = x[b, 0] - x[a, 0], x[b, 1] - x[a, 1], x[b, 2] - x[a, 2]
            w0, w1, w2 = x[c, 0] - x[a, 0], x[c, 1] - x[a, 1], x[c, 2] - x[a, 2]
            n0, n1, n2 = u1 * w2 - u2 * w1, u2 * w0 - u0 * w2, u0 * w1 - u1 * w0
            length = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
            if n0 * normals[f, 0] + n1 * normals[f, 1] + n2 * normals[f, 2] < 0.3 * length:
                left += 1
                for k in range(3):
                    bad[faces[f, k]] = True
        if left == 0:
            break
        mean = np.zeros((count, 3))
        degree = np.zeros(count)
        for f in range(len(faces)):
            for k in range(3):
                v, following = faces[f, k], faces[f, (k + 1) % 3]
                if bad[v]:
                    degree[v] += 1.0
                    for axis in range(3):
                        mean[v, axis] += x[following, axis]
        for v in range(count):
            if bad[v] and degree[v] > 0:
                for axis in range(3):
                    x[v, axis] = 0.3 * x[v, axis] + 0.7 * mean[v, axis] / degree[v]
    return x
