"""A mesh moved until its outlines are those of the views.

In: a mesh that is nearly right and views with alpha. Out: the same faces, with vertices moved along their
normals. Extraction from a grid cuts every sharp edge and shrinks every thin part by a part of a cell, which
silhouettes show in all views at once. Where the mesh's outline, drawn at twice the view's size, lies beside
the view's own (to a fraction of a pixel, by the alpha of the pixels on it), the vertices there are moved by
what all views on the whole ask for (least squares, over the vertices around each, so that a smooth surface
stays one). None moves farther than two pixels.

Views that were drawn ask each for a little else, which would dent a smooth side, and in creases what moves
outwards meets. There only what is slender follows the outlines (`slender_places`).
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float

from recon.hull import silhouettes
from recon.sewing import smoothed, smoothed_vectors
from recon.thickness import slenderness
from recon.topology import vertex_normals
from render.cameras import Cameras
from render.gbuffer import ViewSet
from render.rasterize import rasterize
from render.scene import Mesh

_FINE = 2
_REACH_PX = 3.0
"""Outlines farther apart are of different parts, or of what the mesh lacks."""
_LIMIT_PX = 2.0
_STEP, _ROUNDS = 0.8, 5
_STIFF = 0.05
"""Samples' worth of weight of staying where it is."""
_SPREAD = 8
"""Rounds of means over neighbours, of what is asked for. With each vertex moved by its own samples the
barrel's faces were 19 degrees from their neighbours in place of 6, and its outlines no better."""
_DRAWN_SPREAD = 40
"""Of drawn views. A stool's mask overlaps with its views' by 0.863 with 12, 0.858 with 40 and 0.846 with 120
(0.727 unfitted; five steps of 0.8), and with 12 flat sides get dents."""
_DRAWN_STEP, _DRAWN_ROUNDS = 0.5, 4
"""Not all of the way, as views that disagree ask for too much: a chair that its views bend by 1.5 pixels has
1.05 of its volume (0.91 unfitted, 1.11 after five steps of 0.8)."""
_EVEN = 4
"""The same of the directions in which vertices move."""
_SLENDER_PX = 12.0
"""What is narrower follows the outlines near it, wholly from two thirds of it down."""
_BLEND = 4
"""Rounds of means over neighbours between what does and what does not."""


def fit_outlines(mesh: Mesh, views: ViewSet, local: Float[np.ndarray, " V"] | None = None) -> Mesh:
    """`mesh` after a few corrections by the outlines of `views`; its connectivity stays.

    local: of drawn views, how much each vertex follows them, 0 to 1 (`slender_places`). Without it all do.
    """
    if len(mesh.faces) == 0:
        return mesh
    seen, cameras = silhouettes(views), views.cameras
    fine = cameras.resized(_FINE * cameras.width, _FINE * cameras.height)
    faces = np.ascontiguousarray(mesh.faces, np.int32)
    start = mesh.vertices.astype(np.float64)
    vertices, even, pixel = start.copy(), np.ones(len(start)), pixel_size(cameras)
    rounds, step, spread = _ROUNDS, _STEP, _SPREAD
    if local is not None:
        rounds, step, spread = _DRAWN_ROUNDS, _DRAWN_STEP, _DRAWN_SPREAD
    for _ in range(rounds):
        normals = smoothed_vectors(vertex_normals(vertices, faces).astype(np.float64), faces, _EVEN)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        pull, weight = np.zeros(len(vertices)), np.zeros(len(vertices))
        for c in range(len(cameras)):
            shown = rasterize(vertices.astype(np.float32), faces, fine[c])
            _ask(
                shown.face[0], shown.barycentric[0], shown.depth[0], faces, normals, seen.outside_px[c],
                seen.intrinsics[c], seen.w2c[c], seen.perspective, pull, weight,
            )  # fmt: skip
        near_pull, near_weight = (smoothed(sums, faces, even, spread) for sums in (pull, weight))
        wanted = near_pull / (near_weight + _STIFF)
        if local is not None:
            wanted = smoothed(local * wanted, faces, even, _BLEND)
        moved = vertices + step * wanted[:, None] * normals - start
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        vertices = start + moved * np.minimum(1, _LIMIT_PX * pixel / np.maximum(length, 1e-12))
    found = vertices.astype(np.float32)
    return Mesh(found, faces, vertex_normals(found, faces))


def slender_places(mesh: Mesh, cameras: Cameras) -> Float[np.ndarray, " V"]:
    """How slender a dense closed mesh is around each vertex, as legs and stems are, from 0 to 1: what is 12
    pixels of the views wide, and more, is 0, what is 8 and less is 1, and plates are 0."""
    vertices, faces = mesh.vertices.astype(np.float64), np.ascontiguousarray(mesh.faces, np.int32)
    outward = vertex_normals(vertices, faces).astype(np.float64)
    width_px = slenderness(vertices, faces, outward, pixel_size(cameras))
    return np.asarray(np.clip(3.0 * (1.0 - width_px / _SLENDER_PX), 0.0, 1.0))


def pixel_size(cameras: Cameras) -> float:
    """Size of a pixel at the object, in world units."""
    pixel = 1.0 / float(cameras.intrinsics[:, 0].mean())
    if cameras.projection == "perspective":
        pixel *= float(cameras.c2w[:, :3, 3].norm(dim=-1).mean())
    return pixel


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _ask(face, barycentric, depth, faces, normals, outside_px, intrinsics, w2c, perspective, pull, weight):
    """Adds, for each vertex on the outline in one view, the move along its normal that mends the outline."""
    height, width = face.shape
    for v in range(height):
        for u in range(width):
            f = face[v, u]
            if f < 0:
                continue
            edge = (v > 0 and face[v - 1, u] < 0) or (v + 1 < height and face[v + 1, u] < 0)
            edge = edge or (u > 0 and face[v, u - 1] < 0) or (u + 1 < width and face[v, u + 1] < 0)
            if not edge:
                continue
            px = min(max((u + 0.5) / _FINE - 0.5, 0.0), outside_px.shape[1] - 1.001)
            py = min(max((v + 0.5) / _FINE - 0.5, 0.0), outside_px.shape[0] - 1.001)
            c, r = int(px), int(py)
            tx, ty = px - c, py - r
            above = outside_px[r, c] * (1 - tx) + outside_px[r, c + 1] * tx
            below = outside_px[r + 1, c] * (1 - tx) + outside_px[r + 1, c + 1] * tx
            # The outline runs half a fine pixel beyond the centre of the last one.
            off = above * (1 - ty) + below * ty + 0.5 / _FINE
            if abs(off) > _REACH_PX:
                continue
            move = -off * (depth[v, u] if perspective else 1.0) / intrinsics[0]
            for k in range(3):
                i = faces[f, k]
                n = normals[i]
                x = w2c[0, 0] * n[0] + w2c[0, 1] * n[1] + w2c[0, 2] * n[2]
                y = w2c[1, 0] * n[0] + w2c[1, 1] * n[1] + w2c[1, 2] * n[2]
                across2 = x * x + y * y
                # Least squares of: normal's share across the view times its move = the outline's move.
                pull[i] += barycentric[v, u, k] * np.sqrt(across2) * move
                weight[i] += barycentric[v, u, k] * across2
