"""Texels of a UV-mapped mesh: where on the surface each one lies, and what fills those that lie nowhere.

A texel whose centre is inside a UV triangle takes its position and normal from
it. Texels within a margin of a chart take those of the nearest point of the
chart's edge, so that bilinear filtering at a seam meets the right colours on
both sides; the rest is filled so that mip-mapping keeps every chart's colours (`pull_push`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from render.scene import Mesh


@dataclass(frozen=True)
class Texels:
    """Row 0 on top, as in textures."""

    face: Int[np.ndarray, "S S"]
    """Triangle that the texel shows, -1 where there is none."""
    inside: Bool[np.ndarray, "S S"]
    """The texel's centre lies inside the triangle (else in the margin around its chart)."""
    barycentric: Float[np.ndarray, "S S 3"]
    """Weights of the triangle's vertices; in the margin those of the nearest point of the triangle."""

    def interpolate(
        self, values: Float[np.ndarray, "V k"], faces: Int[np.ndarray, "F 3"]
    ) -> NDArray[np.float32]:
        """Vertex values `[n, k]` at the texels that have a face, in row-major order."""
        chosen = self.face >= 0
        corners = faces[self.face[chosen]]
        weights = self.barycentric[chosen]
        out = weights[:, 0, None] * values[corners[:, 0]]
        out += weights[:, 1, None] * values[corners[:, 1]]
        out += weights[:, 2, None] * values[corners[:, 2]]
        return np.asarray(out.astype(np.float32))


@numba.njit(cache=True)
@no_type_check
def _texels(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    faces: NDArray[np.int32],
    size: int,
    margin: float,
    face_out: NDArray[np.int32],
    inside_out: NDArray[np.bool_],
    barycentric_out: NDArray[np.float32],
    distance_out: NDArray[np.float32],
) -> None:
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, x1, y1, x2, y2 = x[a], y[a], x[b], y[b], x[c], y[c]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        left = max(0, int(np.ceil(min(x0, x1, x2) - margin - 0.5)))
        right = min(size - 1, int(np.floor(max(x0, x1, x2) + margin - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - margin - 0.5)))
        bottom = min(size - 1, int(np.floor(max(y0, y1, y2) + margin - 0.5)))
        for row in range(top, bottom + 1):
            py = np.float32(row + 0.5)
            for column in range(left, right + 1):
                if inside_out[row, column]:
                    continue
                px = np.float32(column + 0.5)
                if area != 0.0:
                    w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                    w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                    w2 = 1.0 - w0 - w1
                    if w0 >= 0.0 and w1 >= 0.0 and w2 >= 0.0:
                        face_out[row, column] = f
                        inside_out[row, column] = True
                        distance_out[row, column] = 0.0
                        barycentric_out[row, column, 0] = w0
                        barycentric_out[row, column, 1] = w1
                        barycentric_out[row, column, 2] = w2
                        continue
                # Nearest point of the three edges.
                for side in range(3):
                    if side == 0:
                        ax, ay, bx, by = x0, y0, x1, y1
                    elif side == 1:
                        ax, ay, bx, by = x1, y1, x2, y2
                    else:
                        ax, ay, bx, by = x2, y2, x0, y0
                    ex, ey = bx - ax, by - ay
                    t = ((px - ax) * ex + (py - ay) * ey) / max(ex * ex + ey * ey, 1e-12)
                    t = min(max(t, 0.0), 1.0)
                    dx, dy = ax + t * ex - px, ay + t * ey - py
                    distance = np.sqrt(dx * dx + dy * dy)
                    if distance <= margin and distance < distance_out[row, column]:
                        distance_out[row, column] = distance
                        face_out[row, column] = f
                        barycentric_out[row, column, side] = 1.0 - t
                        barycentric_out[row, column, (side + 1) % 3] = t
                        barycentric_out[row, column, (side + 2) % 3] = 0.0


def texels_of(mesh: Mesh, size: int, margin_px: float = 2.0) -> Texels:
    """Texels of a square texture; the margin reaches `margin_px` beyond every chart."""
    assert mesh.uvs is not None, "the mesh has no UVs; call recon.uv.unwrap"
    face = np.full((size, size), -1, np.int32)
    inside = np.zeros((size, size), np.bool_)
    barycentric = np.zeros((size, size, 3), np.float32)
    distance = np.full((size, size), np.inf, np.float32)
    x = (mesh.uvs[:, 0] * size).astype(np.float32)
    y = ((1.0 - mesh.uvs[:, 1]) * size).astype(np.float32)
    faces = np.ascontiguousarray(mesh.faces, np.int32)
    _texels(x, y, faces, size, margin_px, face, inside, barycentric, distance)
    return Texels(face, inside, barycentric)


def pull_push(
    image: Float[np.ndarray, "S S k"], known: Bool[np.ndarray, "S S"]
) -> Float[np.ndarray, "S S k"]:
    """Fill unknown texels so that mip-mapping brings nothing foreign into a chart.

    Pull: every level holds the means of the known texels of the finer one. Push: what is unknown takes its
    parent's value. So at every mip level a texel that any known one falls into is a mean of such known
    texels: no colour from elsewhere bleeds into a chart (the pyramid of Gortler et al., "The Lumigraph",
    1996, with box filters). Known texels stay as they are.
    """
    if known.all() or not known.any():
        return image
    values, weights = np.asarray(image, np.float32), known.astype(np.float32)
    levels = [(values * weights[..., None], weights)]
    while max(levels[-1][1].shape) > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1][..., None])[..., 0]))
    coarse = levels[-1][0] / levels[-1][1][..., None]
    for total, weight in reversed(levels[:-1]):
        height, width = weight.shape
        parents = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
        mean = total / np.maximum(weight, 1e-20)[..., None]
        coarse = np.where(weight[..., None] > 0, mean, parents)
    return np.where(known[..., None], image, coarse).astype(np.float32)


def _halved(values: Float[np.ndarray, "H W k"]) -> NDArray[np.float32]:
    """Sums of blocks of 2 x 2; an odd side counts its last row alone."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    rows = padded[0::2] + padded[1::2]
    return np.asarray(rows[:, 0::2] + rows[:, 1::2])
