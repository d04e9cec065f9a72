"""What a triangle mesh is made of: welding, edges, components, and whether it is a closed manifold.

In and out: vertex and face arrays. A mesh with UVs holds a vertex twice where a
seam runs, so everything that asks about topology welds by position first.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def weld(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "F 3"]]:
    """Merge vertices of equal float32 position and drop those that no face uses. Faces keep their order."""
    used, inverse = np.unique(faces, return_inverse=True)
    positions = np.ascontiguousarray(vertices[used], np.float32) + np.float32(0.0)  # -0 becomes 0
    keys = positions.view(np.dtype((np.void, 12))).ravel()
    _, first, again = np.unique(keys, return_index=True, return_inverse=True)
    # Order of first appearance, so that welding a welded mesh changes nothing.
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return positions[first[order]], rank[again][inverse].reshape(faces.shape).astype(np.int32)


def directed_edges(faces: Int[np.ndarray, "F 3"]) -> tuple[Int[np.ndarray, " E"], Int[np.ndarray, " E"]]:
    """Start and end vertex (int64) of the 3 F half-edges: all first edges, all second, all third."""
    wide = faces.astype(np.int64)
    return wide.T.reshape(-1), wide[:, [1, 2, 0]].T.reshape(-1)


def is_closed_manifold(faces: Int[np.ndarray, "F 3"]) -> bool:
    """Every edge is shared by exactly two faces that run along it in opposite directions."""
    if len(faces) == 0:
        return False
    start, end = directed_edges(faces)
    count = int(faces.max()) + 1
    forward, backward = np.sort(start * count + end), np.sort(end * count + start)
    return bool((start != end).all() and (np.diff(forward) > 0).all() and np.array_equal(forward, backward))


def edge_use(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, " E"]:
    """How many faces use each undirected edge: 1 is a border, more than 2 is not manifold."""
    start, end = directed_edges(faces)
    low, high = np.minimum(start, end), np.maximum(start, end)
    return np.unique(low * (int(faces.max(initial=0)) + 1) + high, return_counts=True)[1]


def overused_vertices(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, " n"]:
    """Vertices of edges that more than two faces use."""
    start, end = directed_edges(faces)
    low, high = np.minimum(start, end), np.maximum(start, end)
    count = int(faces.max(initial=0)) + 1
    key, uses = np.unique(low * count + high, return_counts=True)
    over = key[uses > 2]
    return np.unique(np.concatenate([over // count, over % count]))


def corner_fans(
    faces: Int[np.ndarray, "F 3"],
    unit_normals: Float[np.ndarray, "F 3"] | None = None,
    crease_deg: float = 180.0,
) -> tuple[int, Int[np.ndarray, "F 3"]]:
    """Number of fans and the fan of every corner.

    A fan is a set of corners of one vertex that hang together through shared
    edges. A manifold vertex has exactly one fan. With face normals, an edge that
    is sharper than `crease_deg` does not hold corners together.
    """
    n = len(faces)
    start, end = directed_edges(faces)
    low, high = np.minimum(start, end), np.maximum(start, end)
    key = low * (int(faces.max(initial=0)) + 1) + high
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    a, b = order[:-1][same], order[1:][same]
    if unit_normals is not None:
        cosine = np.einsum("ei,ei->e", unit_normals[a % n], unit_normals[b % n])
        smooth = cosine > np.cos(np.deg2rad(crease_deg))
        a, b = a[smooth], b[smooth]

    def corners(edge: Int[np.ndarray, " e"]) -> tuple[Int[np.ndarray, " e"], Int[np.ndarray, " e"]]:
        """Corner ids at the lower and the higher vertex of a half-edge."""
        side, face = edge // n, edge % n
        at_start, at_end = face * 3 + side, face * 3 + (side + 1) % 3
        ordered = start[edge] < end[edge]
        return np.where(ordered, at_start, at_end), np.where(ordered, at_end, at_start)

    a_low, a_high = corners(a)
    b_low, b_high = corners(b)
    rows, columns = np.concatenate([a_low, a_high]), np.concatenate([b_low, b_high])
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(3 * n, 3 * n))
    count, labels = connected_components(graph, directed=False)
    return int(count), labels.reshape(n, 3).astype(np.int32)


def nonmanifold_vertices(faces: Int[np.ndarray, "F 3"]) -> int:
    """How many vertices have more than one fan of faces."""
    if len(faces) == 0:
        return 0
    count, fans = corner_fans(faces)
    vertex_of = np.empty(count, faces.dtype)
    vertex_of[fans.ravel()] = faces.ravel()
    return int((np.bincount(vertex_of) > 1).sum())


def face_components(faces: Int[np.ndarray, "F 3"]) -> tuple[int, Int[np.ndarray, " F"]]:
    """Number of connected components (faces that share a vertex hang together) and that of every face."""
    if len(faces) == 0:
        return 0, np.zeros(0, np.int32)
    n = int(faces.max()) + 1
    rows, columns = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    unique, of_face = np.unique(labels[faces[:, 0]], return_inverse=True)
    return len(unique), of_face.astype(np.int32)


def face_vectors(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "F 3"]:
    """Normals (float64) whose length is twice the area."""
    p = vertices.astype(np.float64)[faces]
    return np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])


def signed_volumes(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], component: Int[np.ndarray, " F"]
) -> Float[np.ndarray, " K"]:
    """Volume of every component: positive when its faces look outward."""
    p = vertices.astype(np.float64)[faces]
    p -= p.reshape(-1, 3).mean(0) if len(p) else 0.0
    six = np.einsum("fi,fi->f", p[:, 0], np.cross(p[:, 1], p[:, 2]))
    return np.bincount(component, six) / 6.0


def vertex_normals(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 3"]:
    """Smooth unit normals (float32), weighted by corner angle (Thürmer and Wüthrich, 1998)."""
    p = vertices.astype(np.float64)[faces]
    unit = _unit(face_vectors(vertices, faces))
    out = np.zeros((len(vertices), 3))
    for corner in range(3):
        a = _unit(p[:, (corner + 1) % 3] - p[:, corner])
        b = _unit(p[:, (corner + 2) % 3] - p[:, corner])
        angle = np.arccos(np.clip(np.einsum("fi,fi->f", a, b), -1, 1))
        for axis in range(3):
            out[:, axis] += np.bincount(faces[:, corner], angle * unit[:, axis], len(vertices))
    out = _unit(out)
    out[~out.any(1)] = (0.0, 1.0, 0.0)
    return out.astype(np.float32)


def used_only(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], keep: Bool[np.ndarray, " F"]
) -> tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "G 3"]]:
    """The chosen faces and the vertices that they use."""
    used, inverse = np.unique(faces[keep], return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3).astype(np.int32)


def _unit(v: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    return v / np.where(length > 1e-30, length, np.inf)
