"""Points of one surface -> the points of another that they stand for.

In: points with normals (texels of a mesh that is to be textured) and a source surface. Out: a
triangle of the source and a place on it for each. A ray along the normal, outwards and inwards,
meets what a viewer would see there; where neither meets a surface that faces the same way, the
nearest point serves. Rays and nearest points come from Open3D (Embree).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from jaxtyping import Float, Int

from recon.topology import face_vectors

_FACING = 0.2
"""Least cosine between the two normals for a ray's hit to count."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class SurfacePoints:
    """One place on the source for every point that was asked."""

    face: Int[np.ndarray, " n"]
    barycentric: Float[np.ndarray, "n 3"]
    distance: Float[np.ndarray, " n"]
    """From the point to its place."""

    def interpolate(
        self, values: Float[np.ndarray, "V k"], faces: Int[np.ndarray, "F 3"]
    ) -> Float[np.ndarray, "n k"]:
        """Vertex values at the places."""
        corners = faces[self.face]
        out = self.barycentric[:, :1] * values[corners[:, 0]]
        out += self.barycentric[:, 1:2] * values[corners[:, 1]]
        out += self.barycentric[:, 2:] * values[corners[:, 2]]
        return np.asarray(out, np.float32)


def project(
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    *,
    reach: float | None = None,
    two_sided: bool = False,
) -> SurfacePoints:
    """For every point the place on the surface `vertices`, `faces` that it stands for.

    `reach` is how far rays look, in world units; by default three times what all but a hundredth of the
    points are away from the source. `two_sided`: the source's winding says nothing (leaves, cloth).
    """
    origin = vertices.mean(0, dtype=np.float64)
    scale = max(float(np.ptp(vertices, axis=0).max()), 1e-12)
    local = ((vertices - origin) / scale).astype(np.float32)
    points = ((positions - origin) / scale).astype(np.float32)
    scene = raycasting_scene(local, faces)
    cross = face_vectors(local, faces)
    unit = (cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    if reach is None:
        some = np.ascontiguousarray(points[:: max(1, len(points) // 20_000)])
        away = scene.compute_distance(some).numpy() if len(some) else np.zeros(1, np.float32)
        limit = 3.0 * float(np.quantile(away, 0.99)) + 1e-4
    else:
        limit = reach / scale
    count = len(points)
    face = np.zeros(count, np.int32)
    places = np.zeros((count, 2), np.float32)
    distance = np.full(count, np.inf, np.float32)
    for first in range(0, count, _CHUNK):
        chosen = slice(first, min(first + _CHUNK, count))
        here, along = points[chosen], normals[chosen].astype(np.float32)
        for sign in (np.float32(1), np.float32(-1)):
            hit = scene.cast_rays(np.concatenate([here, sign * along], 1))
            t, index = hit["t_hit"].numpy(), hit["primitive_ids"].numpy().astype(np.int64)
            met = t < np.minimum(limit, distance[chosen])
            facing = np.einsum("ni,ni->n", unit[np.where(met, index, 0)], along)
            met &= (np.abs(facing) if two_sided else facing) > _FACING
            rows = np.flatnonzero(met) + first
            face[rows], places[rows] = index[met], hit["primitive_uvs"].numpy()[met]
            distance[rows] = t[met]
        missed = np.flatnonzero(~np.isfinite(distance[chosen]))
        if len(missed):
            near = scene.compute_closest_points(np.ascontiguousarray(here[missed]))
            rows = missed + first
            face[rows] = near["primitive_ids"].numpy()
            places[rows] = near["primitive_uvs"].numpy()
            distance[rows] = np.linalg.norm(near["points"].numpy() - here[missed], axis=1)
    barycentric = np.stack([1 - places.sum(1), places[:, 0], places[:, 1]], 1)
    return SurfacePoints(face, barycentric.astype(np.float32), distance * np.float32(scale))


def raycasting_scene(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Any:
    """Open3D's `RaycastingScene` of one mesh; its methods take and give arrays that know numpy."""
    # Numba picks its threads when first asked. Done after Open3D has loaded a TBB of its own, it warns.
    numba.get_num_threads()
    import open3d as o3d

    scene: Any = o3d.t.geometry.RaycastingScene()  # its stubs know no numpy arrays
    scene.add_triangles(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32))
    return scene
