"""Ambient occlusion of surface points: the share of the sky that the object itself leaves open.

In: points with normals, and the triangles that may hide the sky from them. Out: per point the
cosine-weighted share of unblocked directions, 0 to 1. Light comes from many directions, each with
a depth map of the object; a point is blocked where the map is nearer than it is. One map at a time,
so memory does not grow with their number. Cheaper than rays by far where points number millions.
The method is that of `render.occlusion`, which see for sources, without a floor and with finer maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from render.errors import InputError
from render.occlusion import fibonacci_sphere, looking_along
from render.progress import Progress, silent
from render.rasterize import rasterize

_FAR = np.float32(1e6)


@dataclass(frozen=True)
class AmbientConfig:
    """How finely the sky is sampled."""

    directions: int = 160
    """Over the whole sphere; a point sees half of them."""
    map_size: int = 512
    """Pixels of a depth map; two points nearer than 1/128 of the radius may share one at 256."""
    bias_px: float = 1.5
    """Pixels by which a point is lifted off its surface, so that it does not hide itself."""

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "directions": (8, 4096),
            "map_size": (32, 4096),
            "bias_px": (0.0, 16.0),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"ambient.{name} is {getattr(self, name)}; it must be from {low:g} to {high:g}"
                )


def ambient_occlusion(
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    config: AmbientConfig | None = None,
    *,
    progress: Progress = silent,
) -> Float[np.ndarray, " n"]:
    """Open share of the hemisphere above every point; 1 on a convex object."""
    config = config or AmbientConfig()
    sky = VisibleLight(vertices, faces, config.directions, config.map_size, config.bias_px)
    lit, total = np.zeros(len(positions), np.float32), np.full(len(positions), 1e-6, np.float32)
    sky.add(positions, normals, lit, total, progress)
    return np.asarray(np.clip(lit / total, 0, 1), np.float32)


class VisibleLight:
    """Directions of a sky, and which of them the triangles hide from points."""

    def __init__(
        self,
        vertices: Float[np.ndarray, "V 3"],
        faces: Int[np.ndarray, "F 3"],
        directions: int,
        map_size: int = 512,
        bias_px: float = 1.5,
    ) -> None:
        used = vertices[np.unique(faces)].astype(np.float64)
        self.center = (used.min(0) + used.max(0)) / 2
        self.radius = max(float(np.linalg.norm(used - self.center, axis=1).max()), 1e-12)
        self.local = ((vertices - self.center) / self.radius).astype(np.float32)
        self.faces = faces
        self.directions = fibonacci_sphere(directions)
        self.map_size, self.bias_px = map_size, bias_px

    def add(
        self,
        positions: Float[np.ndarray, "n 3"],
        normals: Float[np.ndarray, "n 3"],
        lit: Float[np.ndarray, " n"],
        total: Float[np.ndarray, " n"],
        progress: Progress = silent,
    ) -> None:
        """Adds every direction's cosine to `total`, and to `lit` as far as it reaches the point."""
        for _ in self._each(positions, normals, lit, total, progress):
            pass

    def reaching(
        self, positions: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]
    ) -> Iterator[Float[np.ndarray, " n"]]:
        """Of one direction after the other: the part of a white sky's irradiance that comes from it and
        reaches each point. They sum to 1 on a convex object (within the sampling of the sphere)."""
        lit, total = np.zeros(len(positions), np.float32), np.zeros(len(positions), np.float32)
        before = lit.copy()
        for _ in self._each(positions, normals, lit, total, silent):
            yield (lit - before) * np.float32(4 / len(self.directions))
            before[:] = lit

    def _each(
        self,
        positions: Float[np.ndarray, "n 3"],
        normals: Float[np.ndarray, "n 3"],
        lit: Float[np.ndarray, " n"],
        total: Float[np.ndarray, " n"],
        progress: Progress,
    ) -> Iterator[None]:
        points = np.ascontiguousarray((positions - self.center) / self.radius, np.float32)
        along = np.ascontiguousarray(normals, np.float32)
        pixel = 2.0 / self.map_size
        for first in range(0, len(self.directions), 8):
            progress(first / len(self.directions), "ambient occlusion")
            chosen = self.directions[first : first + 8]
            cameras = looking_along(chosen, self.map_size)
            fragments = rasterize(self.local, self.faces, cameras)
            depths = np.where(fragments.face < 0, _FAR, fragments.depth).astype(np.float32)
            for k in range(len(chosen)):
                _accumulate(
                    points,
                    along,
                    chosen[k],
                    cameras.c2w[k, :3, 0].numpy(),
                    cameras.c2w[k, :3, 1].numpy(),
                    depths[k],
                    np.float32(self.bias_px * pixel),
                    np.float32(2 * pixel),
                    lit,
                    total,
                )
                yield


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
@no_type_check
def _accumulate(
    points: NDArray[np.float32],
    normals: NDArray[np.float32],
    direction: NDArray[np.float32],
    right: NDArray[np.float32],
    up: NDArray[np.float32],
    depth: NDArray[np.float32],
    lift: float,
    ramp: float,
    lit: NDArray[np.float32],
    total: NDArray[np.float32],
) -> None:
    """Add one direction's light to all points that face it."""
    size = depth.shape[0]
    half, one, none = np.float32(0.5 * size), np.float32(1.0), np.float32(0.0)
    for i in numba.prange(len(points)):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        cosine = nx * direction[0] + ny * direction[1] + nz * direction[2]
        if cosine <= none:
            continue
        total[i] += cosine
        # A steep surface spans more depth within one pixel: lift its points farther.
        raised = lift * (one + np.sqrt(max(none, one - cosine * cosine)))
        px, py, pz = points[i, 0] + nx * raised, points[i, 1] + ny * raised, points[i, 2] + nz * raised
        x = (px * right[0] + py * right[1] + pz * right[2]) * half + half - np.float32(0.5)
        y = half - (px * up[0] + py * up[1] + pz * up[2]) * half - np.float32(0.5)
        z = np.float32(2.0) - (px * direction[0] + py * direction[1] + pz * direction[2])
        column, row = int(x), int(y)
        share = one
        if x >= none and y >= none and column < size - 1 and row < size - 1:
            fx, fy = np.float32(x - column), np.float32(y - row)
            behind = one - z / ramp
            s00 = min(max(depth[row, column] / ramp + behind, none), one)
            s01 = min(max(depth[row, column + 1] / ramp + behind, none), one)
            s10 = min(max(depth[row + 1, column] / ramp + behind, none), one)
            s11 = min(max(depth[row + 1, column + 1] / ramp + behind, none), one)
            top = s00 + (s01 - s00) * fx
            share = top + (s10 + (s11 - s10) * fx - top) * fy
        lit[i] += cosine * share
