"""Z-buffer rasterisation of triangles into visibility buffers, in numba.

In: triangles and cameras. Out: per pixel the nearest triangle, its barycentric
coordinates (perspective-correct) and its depth. Two-sided: no face is culled, but
of two at the same depth, one towards the camera hides one that faces away: game
meshes often give a shell an inside as a copy of its faces turned round, in another
colour.
Where a material has an opacity map, texels below 0.5 let what lies behind through.
For the low-polygon meshes of this project it takes a third of the time of casting
a ray per pixel with Open3D (40 training meshes, 256 pixels, one core: 1.9 against
5.5 ms a view), and is as exact, because every pixel centre is tested against the
triangle's edge functions (Pineda, 1988).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int, UInt16
from numpy.typing import NDArray

from render.cameras import Cameras
from render.textures import sample_map

_NEAR = 1e-3

_TIE = 2e-5
"""Share of the depth within which two surfaces lie at the same depth."""

_BANDS = 4
"""Rows of one image are shared between threads in this many bands; every pixel belongs to one band, so
the result does not depend on the number of threads."""

_CUT = 0.5
"""Opacity below which a texel is cut out (render.scene.Material.opacity)."""


@dataclass(frozen=True)
class Fragments:
    """The nearest surface at every pixel centre."""

    face: Int[np.ndarray, "C H W"]
    """int32 triangle index, -1 where there is none."""
    barycentric: Float[np.ndarray, "C H W 3"]
    """Weights of the triangle's three vertices; 0 where there is none."""
    depth: Float[np.ndarray, "C H W"]
    """z-depth; 0 where there is none."""


class Cutouts(NamedTuple):
    """What the opacity test needs."""

    uvs: Float[np.ndarray, "V 2"]
    face_map: Int[np.ndarray, " F"]
    """int32 row of `maps`, -1 where a face is opaque."""
    texels: UInt16[np.ndarray, " T"]
    maps: Int[np.ndarray, "P 4"]
    """Places of the opacity maps (render.textures)."""


_OPAQUE = Cutouts(
    np.zeros((0, 2), np.float32), np.zeros(0, np.int32), np.zeros(0, np.uint16), np.zeros((0, 4), np.int64)
)


@numba.njit(cache=True, fastmath=False, parallel=True)
@no_type_check
def _rasterize(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    w2c: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    width: int,
    height: int,
    perspective: bool,
    cutouts: Cutouts,
    bands: int,
    face_out: NDArray[np.int32],
    barycentric_out: NDArray[np.float32],
    depth_out: NDArray[np.float32],
) -> None:
    n_cameras = w2c.shape[0]
    n_vertices = vertices.shape[0]
    for job in numba.prange(n_cameras * bands):
        c, band = job // bands, job % bands
        first_row, end_row = height * band // bands, height * (band + 1) // bands
        opacity = np.ones(1, np.float32)
        m = w2c[c]
        fx, fy, cx, cy = intrinsics[c, 0], intrinsics[c, 1], intrinsics[c, 2], intrinsics[c, 3]
        xs = np.empty(n_vertices, np.float32)
        ys = np.empty(n_vertices, np.float32)
        zs = np.empty(n_vertices, np.float32)
        # Whether the nearest surface so far is turned towards the camera.
        towards_out = np.zeros((end_row - first_row, width), np.bool_)
        for v in range(n_vertices):
            px, py, pz = vertices[v, 0], vertices[v, 1], vertices[v, 2]
            x = m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]
            y = m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]
            z = -(m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3])
            w = np.float32(1.0)
            if perspective and z > _NEAR:
                w = np.float32(1.0) / z
            xs[v] = fx * x * w + cx
            ys[v] = -fy * y * w + cy
            zs[v] = z
        for f in range(faces.shape[0]):
            i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
            z0, z1, z2 = zs[i0], zs[i1], zs[i2]
            if z0 <= _NEAR or z1 <= _NEAR or z2 <= _NEAR:
                continue
            x0, y0, x1, y1, x2, y2 = xs[i0], ys[i0], xs[i1], ys[i1], xs[i2], ys[i2]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            if area == 0.0:
                continue
            inverse_area = np.float32(1.0) / area
            towards = area < 0.0  # counterclockwise, as rows run downwards
            left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
            right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
            top = max(first_row, int(np.ceil(min(y0, y1, y2) - 0.5)))
            bottom = min(end_row - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
            cut = cutouts.face_map[f] if cutouts.face_map.shape[0] > 0 else -1
            iz0, iz1, iz2 = np.float32(1.0) / z0, np.float32(1.0) / z1, np.float32(1.0) / z2
            for row in range(top, bottom + 1):
                y = np.float32(row + 0.5)
                for column in range(left, right + 1):
                    x = np.float32(column + 0.5)
                    b0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) * inverse_area
                    b1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) * inverse_area
                    b2 = np.float32(1.0) - b0 - b1
                    if b0 < 0.0 or b1 < 0.0 or b2 < 0.0:
                        continue
                    if perspective:
                        b0, b1, b2 = b0 * iz0, b1 * iz1, b2 * iz2
                        z = np.float32(1.0) / (b0 + b1 + b2)
                        b0, b1, b2 = b0 * z, b1 * z, b2 * z
                    else:
                        z = b0 * z0 + b1 * z1 + b2 * z2
                    nearest = depth_out[c, row, column]
                    if towards and not towards_out[row - first_row, column]:
                        nearest *= np.float32(1.0 + _TIE)
                    elif towards_out[row - first_row, column] and not towards:
                        nearest *= np.float32(1.0 - _TIE)
                    if face_out[c, row, column] < 0 or z < nearest:
                        if cut >= 0:
                            uvs = cutouts.uvs
                            u = b0 * uvs[i0, 0] + b1 * uvs[i1, 0] + b2 * uvs[i2, 0]
                            v = b0 * uvs[i0, 1] + b1 * uvs[i1, 1] + b2 * uvs[i2, 1]
                            # The finest level: averages of small mips would eat thin leaves away.
                            sample_map(cutouts.texels, cutouts.maps[cut], 1, u, v, -99.0, opacity, 0)
                            if opacity[0] < _CUT:
                                continue
                        face_out[c, row, column] = f
                        towards_out[row - first_row, column] = towards
                        depth_out[c, row, column] = z
                        barycentric_out[c, row, column, 0] = b0
                        barycentric_out[c, row, column, 1] = b1
                        barycentric_out[c, row, column, 2] = b2


def rasterize(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    cameras: Cameras,
    cutouts: Cutouts | None = None,
) -> Fragments:
    """Visibility buffers of one mesh in every camera.

    Triangles that reach behind the near plane (1 mm of a world unit) are left
    out whole: cameras look at objects from outside.
    """
    count, height, width = len(cameras), cameras.height, cameras.width
    face = np.full((count, height, width), -1, np.int32)
    barycentric = np.zeros((count, height, width, 3), np.float32)
    depth = np.zeros((count, height, width), np.float32)
    _rasterize(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        cameras.w2c.cpu().numpy().astype(np.float32),
        cameras.intrinsics.cpu().numpy().astype(np.float32),
        width,
        height,
        cameras.projection == "perspective",
        _OPAQUE if cutouts is None else cutouts,
        1 if count >= _BANDS else _BANDS,
        face,
        barycentric,
        depth,
    )
    return Fragments(face, barycentric, depth)
