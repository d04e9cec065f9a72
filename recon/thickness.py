"""How thick an object is: what a printer, a decimator or a physics engine may lose, and views show least of.

From points of the surface a ray goes inwards to where it leaves again (the shape diameter of Shapira et al.,
2008, with one ray). A surface without an inside has no thickness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from recon.projection import raycasting_scene
from recon.sewing import smoothed, smoothed_vectors
from recon.topology import face_vectors
from render.scene import Mesh

_THIN = 0.01
"""Share of the box's diagonal below which a place counts as thin."""
_SAMPLES = 5000
_MOST_PX = 12.0
_AROUND = 200
"""Rounds of means over neighbours: some 10 pixels of a dense mesh."""


@dataclass(frozen=True)
class Thickness:
    """In the mesh's unit; None where no ray met anything."""

    thinnest: float | None
    """One place in a hundred is thinner."""
    median: float | None
    thin_share: float
    """Share of the area that is thinner than 1 % of the diagonal."""


def thickness(mesh: Mesh, seed: int = 0) -> Thickness:
    """Thickness of a closed mesh; of an open one as far as rays meet its back."""
    cross = face_vectors(mesh.vertices, mesh.faces)
    area = np.linalg.norm(cross, axis=1)
    if not area.sum() > 0:
        return Thickness(None, None, 0.0)
    rng = np.random.default_rng(seed)
    face = rng.choice(len(area), _SAMPLES, p=area / area.sum())
    u, v = rng.random((2, _SAMPLES))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u)[:, None], np.where(flip, 1 - v, v)[:, None]
    corners = mesh.vertices.astype(np.float64)[mesh.faces[face]]
    points = corners[:, 0] + u * (corners[:, 1] - corners[:, 0]) + v * (corners[:, 2] - corners[:, 0])
    inwards = -cross[face] / area[face, None]
    size = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    start = points + inwards * (1e-5 * size)
    scene = raycasting_scene(mesh.vertices, mesh.faces)
    found = scene.cast_rays(np.concatenate([start, inwards], 1).astype(np.float32))["t_hit"].numpy()
    met = np.isfinite(found)
    if not met.any():
        return Thickness(None, None, 0.0)
    return Thickness(
        round(float(np.quantile(found[met], 0.01)), 6),
        round(float(np.median(found[met])), 6),
        round(float((found < _THIN * size).mean()), 4),
    )


@dataclass(frozen=True)
class Through:
    """What a ray from each vertex inwards meets."""

    thick_px: Float[np.ndarray, " V"]
    """How far it goes in pixels, mean around the vertex; at most 12 of each count."""
    behind: Int[np.ndarray, " V"]
    """The face where it leaves."""
    place: Float[np.ndarray, "V 3"]
    """Barycentric place on that face."""


def through(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    outward: Float[np.ndarray, "V 3"],
    pixel: float,
) -> Through:
    """Thickness of a dense closed mesh around each vertex. outward: unit normals; pixel: of the views, in the
    mesh's unit. From below the lumps of a noisy surface, which rays would leave at once."""
    inward = -smoothed_vectors(outward, faces, 10)
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-30)
    scene = raycasting_scene(vertices, faces)
    hit = scene.cast_rays(np.concatenate([vertices + pixel * inward, inward], 1).astype(np.float32))
    depth = hit["t_hit"].numpy().astype(np.float64) + pixel
    u, v = hit["primitive_uvs"].numpy().astype(np.float64).T
    return Through(
        _around(depth / pixel, faces),
        np.where(np.isfinite(depth), hit["primitive_ids"].numpy().astype(np.int64), 0),
        np.stack([1 - u - v, u, v], 1),
    )


def slenderness(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    outward: Float[np.ndarray, "V 3"],
    pixel: float,
) -> Float[np.ndarray, " V"]:
    """How wide a dense closed mesh is around each vertex, in pixels, at most 12: through it, or at the middle
    of that across it, whichever is more. A leg has both small, a plate only one."""
    thick_px = through(vertices, faces, outward, pixel).thick_px
    middle = vertices - (0.5 * pixel * thick_px)[:, None] * outward
    least = np.eye(3)[np.abs(outward).argmin(1)]
    right = np.cross(outward, least)
    right /= np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-30)
    up = np.cross(outward, right)
    scene = raycasting_scene(vertices, faces)
    across = np.full(len(vertices), np.inf)
    for angle in np.arange(4) * np.pi / 4:
        along = np.cos(angle) * right + np.sin(angle) * up
        width = np.zeros(len(vertices))
        for way in (along, -along):
            rays = np.concatenate([middle, way], 1).astype(np.float32)
            width += scene.cast_rays(rays)["t_hit"].numpy().astype(np.float64)
        across = np.minimum(across, width)
    return np.asarray(np.maximum(thick_px, _around(across / pixel, faces)))


def _around(px: Float[np.ndarray, " V"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, " V"]:
    """The mean over what is near, no more than 12 pixels of each."""
    return np.asarray(smoothed(np.minimum(px, _MOST_PX), faces, np.ones(len(px)), _AROUND))
