"""Whatever mesh -> watertight, manifold, outward mesh without floaters.

Extraction by `recon.surface` is closed by construction, so there most steps find
nothing to do; a mesh from elsewhere, or one that a step broke, is repaired, and
as a last resort rebuilt from depth maps of itself.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from recon.topology import (
    corner_fans,
    directed_edges,
    face_components,
    face_vectors,
    is_closed_manifold,
    nonmanifold_vertices,
    signed_volumes,
    used_only,
    weld,
)

Vertices = Float[np.ndarray, "V 3"]
Faces = Int[np.ndarray, "F 3"]
NewVertices = Float[np.ndarray, "W 3"]
NewFaces = Int[np.ndarray, "G 3"]


def clean(vertices: Vertices, faces: Faces, *, min_component: float = 0.002) -> tuple[NewVertices, NewFaces]:
    """Welded, closed, manifold and outward; `rebuild` where plain repair does not get there.

    min_component: closed parts of less area than this fraction of the largest are dropped, as are
    closed hollows inside a part (nobody can see them).
    """
    vertices, faces = weld(vertices, faces)
    faces = drop_degenerate(vertices, faces)
    if len(faces) == 0:
        return vertices[:0], faces
    if not is_closed_manifold(faces):
        faces = close_holes(faces)
    if not is_closed_manifold(faces):
        vertices, faces = rebuild(vertices, faces)
    vertices, faces = drop_floaters(vertices, faces, min_component)
    if nonmanifold_vertices(faces):
        vertices, faces = split_fans(vertices, faces)
    return vertices, faces


def drop_degenerate(vertices: Vertices, faces: Faces) -> NewFaces:
    """Faces without those that use a vertex twice and without exact duplicates."""
    start, end = directed_edges(faces)
    repeated = (start == end).reshape(3, -1).any(0)
    faces = faces[~repeated]
    # A face and its reverse cancel; of equal faces one stays.
    low = faces.argmin(1)
    rolled = np.stack([faces[np.arange(len(faces)), (low + i) % 3] for i in range(3)], 1)
    order = np.lexsort(rolled.T)
    again = (rolled[order[1:]] == rolled[order[:-1]]).all(1)
    keep = np.ones(len(faces), bool)
    keep[order[1:][again]] = False
    return faces[keep]


def drop_floaters(vertices: Vertices, faces: Faces, min_component: float) -> tuple[NewVertices, NewFaces]:
    """A closed mesh turned outward, without small parts and without hollows inside parts.

    A component of negative volume is a hollow when a larger component's box holds it; when none
    does, it is a part that is inside out, and is turned.
    """
    count, label = face_components(faces)
    area = np.bincount(label, np.linalg.norm(face_vectors(vertices, faces), axis=1) / 2, count)
    volume = signed_volumes(vertices, faces, label)
    low = np.full((count, 3), np.inf)
    high = np.full((count, 3), -np.inf)
    points = vertices[faces]
    np.minimum.at(low, label, points.min(1))
    np.maximum.at(high, label, points.max(1))
    keep = area >= min_component * area.max()
    flip = np.zeros(count, bool)
    for part in np.flatnonzero(volume < 0):
        holders = (low <= low[part]).all(1) & (high >= high[part]).all(1)
        holders[part] = False
        if holders.any():
            keep[part] = False
        else:
            flip[part] = True
    faces = np.where(flip[label][:, None], faces[:, ::-1], faces)
    return used_only(vertices, faces, keep[label])


def close_holes(faces: Faces) -> NewFaces:
    """Faces with every simple border loop closed by a fan around its first vertex."""
    start, end = directed_edges(faces)
    count = int(faces.max()) + 1
    border = ~np.isin(start * count + end, end * count + start)
    following = dict(zip(end[border].tolist(), start[border].tolist(), strict=True))
    if len(following) != int(border.sum()):
        return faces  # loops that touch each other: `rebuild` decides
    new: list[tuple[int, int, int]] = []
    while following:
        first = min(following)
        loop = [first]
        while (at := following.pop(loop[-1], None)) is not None and at != first:
            loop.append(at)
        if at is None:
            return faces
        new += [(first, loop[i], loop[i + 1]) for i in range(1, len(loop) - 1)]
    return np.concatenate([faces, np.array(new, np.int32).reshape(-1, 3)])


def split_fans(vertices: Vertices, faces: Faces) -> tuple[NewVertices, NewFaces]:
    """Give every fan of faces a vertex of its own, drawn a little towards its faces.

    Without the draw the copies would fall together again when a reader welds.
    """
    count, fans = corner_fans(faces)
    vertex_of_fan = np.zeros(count, np.int64)
    vertex_of_fan[fans.ravel()] = faces.ravel()
    centers = vertices[faces].mean(1).astype(np.float64)
    pull = np.zeros((count, 3))
    for axis in range(3):
        weight = np.repeat(centers[:, axis], 3)
        pull[:, axis] = np.bincount(fans.ravel(), weight, count) / np.bincount(fans.ravel(), minlength=count)
    shared: Bool[np.ndarray, " n"] = np.bincount(vertex_of_fan, minlength=len(vertices))[vertex_of_fan] > 1
    positions = vertices[vertex_of_fan].astype(np.float64)
    positions[shared] += 0.05 * (pull[shared] - positions[shared])
    return positions.astype(np.float32), fans.astype(np.int32)


def rebuild(vertices: Vertices, faces: Faces, max_voxels: int = 600_000) -> tuple[NewVertices, NewFaces]:
    """A closed mesh of what is seen of this one from all around.

    Depth maps of the mesh are fused like those of a field; what no camera sees becomes solid.
    """
    from recon.fusion import DepthMaps, fuse, march, silhouette_distance, survey_cameras
    from render.rasterize import rasterize

    low, high = vertices.min(0), vertices.max(0)
    center = (low + high) / 2
    radius = max(float(np.linalg.norm(vertices - center, axis=1).max()), 1e-9)
    unit = ((vertices - center) / radius).astype(np.float32)
    cameras = survey_cameras(256)
    fragments = rasterize(unit, faces, cameras)
    normals = face_vectors(unit, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    w2c = cameras.w2c.numpy()
    seen = normals[fragments.face].astype(np.float32)
    facing = np.einsum("chwi,ci->chw", seen, w2c[:, 2, :3])
    seen = np.where(facing[..., None] < 0, -seen, seen)
    inside = fragments.face >= 0
    maps = DepthMaps(
        w2c, cameras.intrinsics.numpy(), False, fragments.depth, seen, silhouette_distance(inside)
    )
    new_vertices, new_faces = march(fuse(maps, max_voxels, kernel_px=1.2, margin_px=0.75))
    return (new_vertices * radius + center).astype(np.float32), new_faces
