"""Tangents as importers make them: MikkTSpace.

In: a mesh with UVs and normals. Out: one tangent per corner, and meshes whose vertices are split where
corners disagree. Blender, Unity, Unreal, Godot and the glTF specification (section 3.7.2.1) use the tangent
space of Mikkelsen, "Simulation of Wrinkled Surfaces Revisited" (2008), so a normal map that is baked and
drawn in it looks the same everywhere. There is no maintained package of it for Python besides Blender's
own, so it is written here after that thesis and the behaviour of his reference library; the tests compare
it with tangents that Blender computed.

UVs have their origin bottom-left, as everywhere in the project: then the bitangent `w * cross(n, t)` points
up in the texture, which is what +Y in glTF's normal maps means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from render.scene import Mesh

_TINY = 1.1754944e-38
"""FLT_MIN: what the reference library takes for zero."""


def corner_tangents(mesh: Mesh) -> tuple[Float[np.ndarray, "F 3 4"], Int[np.ndarray, "F 3"]]:
    """Tangent (unit, and handedness) of every triangle corner, and the group of corners that share it.

    Corners belong together when they meet in one vertex (same position, normal and UV), hang together through
    shared edges, and are mapped with the same orientation; their tangents are averaged by angle. Where
    the UVs have no area there is no group (-1) and the tangent is +X made perpendicular to the normal.
    """
    assert mesh.uvs is not None, "tangents need UVs"
    assert mesh.normals is not None, "tangents need normals"
    faces = _welded(mesh)
    positions = mesh.vertices.astype(np.float64)
    corners = positions[faces]
    degenerate = (corners == corners[:, [1, 2, 0]]).all(2).any(1)
    neighbours = _neighbours(faces, degenerate)
    uvs = mesh.uvs.astype(np.float64)
    normals = mesh.normals.astype(np.float64)
    count = len(faces)
    group = np.full((count, 3), -1, np.int32)
    tangents = np.zeros((count, 3, 4))
    _mikktspace(positions, uvs, normals, faces, degenerate, neighbours, group, tangents)
    _inherit(faces, group, tangents)
    bare = np.flatnonzero(group.ravel() < 0)
    if len(bare):
        tangents.reshape(-1, 4)[bare] = _any_tangents(normals[faces.ravel()[bare]])
    return tangents.astype(np.float32), group


def with_tangents(mesh: Mesh) -> Mesh:
    """The mesh with tangents; vertices are split where two orientations of the texture meet.

    The faces keep their order; without UVs or normals the mesh comes back as it is.
    """
    if mesh.uvs is None or mesh.normals is None or len(mesh.faces) == 0:
        return mesh
    tangents, group = corner_tangents(mesh)
    pairs = np.stack([mesh.faces.ravel(), group.ravel()], 1).astype(np.int64)
    # Groups number fewer than corners, and -1 is one of them.
    keys = pairs[:, 0] * (3 * len(mesh.faces) + 1) + pairs[:, 1] + 1
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    source = pairs[first, 0]
    return replace(
        mesh,
        vertices=mesh.vertices[source],
        faces=inverse.reshape(-1, 3).astype(np.int32),
        normals=mesh.normals[source],
        uvs=mesh.uvs[source],
        tangents=tangents.reshape(-1, 4)[first],
        colors_srgb=None if mesh.colors_srgb is None else mesh.colors_srgb[source],
    )


def _welded(mesh: Mesh) -> Int[np.ndarray, "F 3"]:
    """Faces over vertices of equal position, normal and UV; each named by the first vertex of its kind."""
    assert mesh.uvs is not None
    assert mesh.normals is not None
    table = np.concatenate([mesh.vertices, mesh.normals, mesh.uvs], 1).astype(np.float32) + np.float32(0)
    keys = np.ascontiguousarray(table).view(np.dtype((np.void, 32))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.ascontiguousarray(first[inverse][mesh.faces], np.int32)


def _neighbours(faces: Int[np.ndarray, "F 3"], degenerate: Bool[np.ndarray, " F"]) -> Int[np.ndarray, "F 3"]:
    """The face across the edge from corner i to corner i + 1, or -1; edges of many faces are paired in order.

    Degenerate faces (two corners in one place) have no neighbours.
    """
    count = len(faces)
    start = faces.T.ravel().astype(np.int64)
    end = faces[:, [1, 2, 0]].T.ravel().astype(np.int64)
    face = np.tile(np.arange(count, dtype=np.int64), 3)
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.lexsort((face, high, low))
    order = order[~degenerate[face[order]]]
    key = low * (int(faces.max(initial=0)) + 1) + high
    out = np.full((count, 3), -1, np.int32)
    _pair_edges(key[order], start[order], face[order], (order // count).astype(np.int64), out)
    return out


@numba.njit(cache=True)
@no_type_check
def _pair_edges(
    key: NDArray[np.int64],
    start: NDArray[np.int64],
    face: NDArray[np.int64],
    side: NDArray[np.int64],
    out: NDArray[np.int32],
) -> None:
    for e in range(len(key)):
        if out[face[e], side[e]] >= 0:
            continue
        other = e + 1
        while other < len(key) and key[other] == key[e]:
            if out[face[other], side[other]] < 0 and start[other] != start[e]:
                out[face[e], side[e]] = face[other]
                out[face[other], side[other]] = face[e]
                break
            other += 1


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _projected(v: NDArray[np.float64], n: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """`v` in the plane of `n`, of length 1 (0 where nothing is left of it)."""
    along = v[0] * n[0] + v[1] * n[1] + v[2] * n[2]
    x, y, z = v[0] - along * n[0], v[1] - along * n[1], v[2] - along * n[2]
    length = np.sqrt(x * x + y * y + z * z)
    if length > _TINY:
        x, y, z = x / length, y / length, z / length
    out[0], out[1], out[2] = x, y, z


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _mikktspace(
    positions: NDArray[np.float64],
    uvs: NDArray[np.float64],
    normals: NDArray[np.float64],
    faces: NDArray[np.int32],
    degenerate: NDArray[np.bool_],
    neighbours: NDArray[np.int32],
    group: NDArray[np.int32],
    tangents: NDArray[np.float64],
) -> None:
    count = len(faces)
    along_s = np.zeros((count, 3))
    preserving = np.zeros(count, np.bool_)
    flat = np.ones(count, np.bool_)  # no area in the texture: joins any group
    for f in range(count):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        p, q, r = positions[a], positions[b], positions[c]
        s21, t21 = uvs[b, 0] - uvs[a, 0], uvs[b, 1] - uvs[a, 1]
        s31, t31 = uvs[c, 0] - uvs[a, 0], uvs[c, 1] - uvs[a, 1]
        area = s21 * t31 - t21 * s31
        preserving[f] = area > 0
        length_s, length_t = 0.0, 0.0
        for k in range(3):
            along_s[f, k] = t31 * (q[k] - p[k]) - t21 * (r[k] - p[k])
            across = -s31 * (q[k] - p[k]) + s21 * (r[k] - p[k])
            length_s += along_s[f, k] ** 2
            length_t += across * across
        length_s = np.sqrt(length_s)
        if abs(area) > _TINY:
            sign = 1.0 if area > 0 else -1.0
            if length_s > _TINY:
                for k in range(3):
                    along_s[f, k] *= sign / length_s
            flat[f] = not (length_s > _TINY and np.sqrt(length_t) > _TINY)

    stack = np.empty(6 * count + 3, np.int32)
    members = np.empty(3 * count + 3, np.int64)
    projected = np.empty(3)
    before, after = np.empty(3), np.empty(3)
    total = np.empty(3)
    groups = 0
    for seed in range(count):
        if flat[seed] or degenerate[seed]:
            continue
        for corner in range(3):
            if group[seed, corner] >= 0:
                continue
            vertex = faces[seed, corner]
            orientation = preserving[seed]
            size, waiting = 0, 1
            stack[0] = seed
            while waiting > 0:
                waiting -= 1
                f = stack[waiting]
                if degenerate[f]:
                    continue
                i = 0 if faces[f, 0] == vertex else 1 if faces[f, 1] == vertex else 2
                if group[f, i] >= 0:
                    continue
                if flat[f] and group[f, 0] < 0 and group[f, 1] < 0 and group[f, 2] < 0:
                    preserving[f] = orientation
                if preserving[f] != orientation:
                    continue
                group[f, i] = groups
                members[size] = 3 * f + i
                size += 1
                # The neighbour across the edge that enters the vertex is met first, as in the reference.
                previous = neighbours[f, (i + 2) % 3]
                if previous >= 0:
                    stack[waiting] = previous
                    waiting += 1
                following = neighbours[f, i]
                if following >= 0:
                    stack[waiting] = following
                    waiting += 1
            n = normals[vertex]
            total[:] = 0.0
            for m in range(size):
                f, i = members[m] // 3, members[m] % 3
                if flat[f]:
                    continue
                _projected(along_s[f], n, projected)
                here = positions[faces[f, i]]
                _projected(positions[faces[f, (i + 2) % 3]] - here, n, before)
                _projected(positions[faces[f, (i + 1) % 3]] - here, n, after)
                cosine = before[0] * after[0] + before[1] * after[1] + before[2] * after[2]
                angle = np.arccos(min(max(cosine, -1.0), 1.0))
                for k in range(3):
                    total[k] += angle * projected[k]
            length = np.sqrt(total[0] ** 2 + total[1] ** 2 + total[2] ** 2)
            if length > _TINY:
                total /= length
            for m in range(size):
                f, i = members[m] // 3, members[m] % 3
                tangents[f, i, 0], tangents[f, i, 1], tangents[f, i, 2] = total[0], total[1], total[2]
                tangents[f, i, 3] = 1.0 if orientation else -1.0
            if length > _TINY:
                groups += 1
            else:
                for m in range(size):
                    group[members[m] // 3, members[m] % 3] = -2


def _inherit(
    faces: Int[np.ndarray, "F 3"], group: Int[np.ndarray, "F 3"], tangents: Float[np.ndarray, "F 3 4"]
) -> None:
    """Corners without a group take the first one that another face has in the same vertex; in place."""
    bare = np.flatnonzero(group.ravel() < 0)
    if len(bare) == 0:
        return
    known = np.flatnonzero(group.ravel() >= 0)
    group.ravel()[bare] = -1
    if len(known) == 0:
        return
    vertices, first = np.unique(faces.ravel()[known], return_index=True)
    at = np.searchsorted(vertices, faces.ravel()[bare])
    found = (at < len(vertices)) & (vertices[np.minimum(at, len(vertices) - 1)] == faces.ravel()[bare])
    donor = known[first[at[found]]]
    group.ravel()[bare[found]] = group.ravel()[donor]
    tangents.reshape(-1, 4)[bare[found]] = tangents.reshape(-1, 4)[donor]


def _any_tangents(normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    """A unit vector perpendicular to each normal, near +X (near +Y where the normal is +X)."""
    axis = np.where(np.abs(normals[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    tangent = axis - normals * (axis * normals).sum(1, keepdims=True)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    return np.concatenate([tangent, np.ones((len(normals), 1))], 1)
