"""Depth maps of many cameras -> a signed volume -> a closed surface.

The volume joins two kinds of evidence:

* Space carving (Curless and Levoy, 1996, section 5): a voxel that enough cameras
  see empty, in front of a depth map or beside a silhouette, is outside. What
  nobody sees is inside. This sets the topology, holes and thin parts included.
* Near the surface, the distance to the planes of the pixels that the voxel
  projects to, blended by closeness: implicit moving least squares (Kolluri, 2008)
  with projective association. Unlike a truncated distance averaged along the
  viewing rays, it does not thicken a blade whose two sides are seen by different
  cameras, because the nearer side decides.
* The other side of a thin part is blended by itself. Where the two leave less than
  a sample's spacing between them, as a sheet without thickness does, they are moved
  apart by a little more than that, so that leaves and capes are neither lost nor frayed.

The volume's border is outside by construction, so its zero set is closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, distance_transform_edt

from recon.topology import overused_vertices
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import GBuffer

LEAST_VOXELS = 1.3
"""Thickness of sheets. Thinner ones get pinholes, thicker ones lose overlap with the silhouettes."""


@dataclass(frozen=True)
class DepthMaps:
    """What fusion and baking read of the views, as arrays."""

    w2c: Float[np.ndarray, "C 4 4"]
    intrinsics: Float[np.ndarray, "C 4"]
    perspective: bool
    depth: Float[np.ndarray, "C H W"]
    """0 where the pixel shows no surface."""
    normal: Float[np.ndarray, "C H W 3"]
    outside_px: Float[np.ndarray, "C H W"]
    """Signed distance to the silhouette in pixels, positive outside."""

    @property
    def pixel(self) -> float:
        """Size of a pixel in world units (at depth 1 for perspective cameras)."""
        return float(1.0 / self.intrinsics[:, 0].min())

    @property
    def footprint(self) -> float:
        """Size of a pixel in world units at the object."""
        return self.pixel * (float(np.median(self.depth[self.depth > 0])) if self.perspective else 1.0)


def depth_maps(cameras: Cameras, gbuffer: GBuffer) -> DepthMaps:
    """Arrays for `fuse`. Missing normals are derived from the depth."""
    assert gbuffer.depth is not None
    alpha = gbuffer.alpha.detach().cpu().numpy()[..., 0].astype(np.float32)
    depth = gbuffer.depth.detach().cpu().numpy()[..., 0].astype(np.float32)
    inside = (alpha > 0.5) & (depth > 0)
    depth = np.where(inside, depth, np.float32(0))
    outside_px = silhouette_distance(inside, alpha)
    perspective = cameras.projection == "perspective"
    w2c = cameras.w2c.detach().cpu().numpy().astype(np.float32)
    intrinsics = cameras.intrinsics.detach().cpu().numpy().astype(np.float32)
    if gbuffer.normal is not None:
        normal = gbuffer.normal.detach().cpu().numpy().astype(np.float32)
    else:
        normal = _normals_of_depth(depth, w2c, intrinsics, perspective)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.maximum(length, 1e-6)
    return DepthMaps(w2c, intrinsics, perspective, depth, normal, outside_px)


def silhouette_distance(
    inside: Bool[np.ndarray, "C H W"], alpha: Float[np.ndarray, "C H W"] | None = None
) -> Float[np.ndarray, "C H W"]:
    """Distance in pixels to the silhouette's edge, positive outside; `alpha` gives fractions of a pixel."""
    out = np.full(inside.shape, 1e3, np.float32)
    for c, mask in enumerate(inside):
        if mask.any():
            distance = distance_transform_edt(~mask) - distance_transform_edt(mask)
            out[c] = distance - 0.5 * np.sign(distance)
    if alpha is not None:
        # A partly covered pixel on the edge tells where in the pixel the edge runs.
        edge = (np.abs(out) < 0.75) & (alpha > 0.02) & (alpha < 0.98)
        out = np.where(edge, np.float32(0.5) - alpha, out)
    return out


def _normals_of_depth(
    depth: NDArray[np.float32], w2c: NDArray[np.float32], intrinsics: NDArray[np.float32], perspective: bool
) -> NDArray[np.float32]:
    """World normals by central differences of depth."""
    fx, fy = intrinsics[:, 0, None, None], intrinsics[:, 1, None, None]
    w = np.where(depth > 0, depth, 1.0) if perspective else 1.0
    filled = np.stack([_filled(d) for d in depth])
    dx = np.gradient(filled, axis=2) * fx / w
    dy = -np.gradient(filled, axis=1) * fy / w
    local = np.stack([dx, dy, np.ones_like(dx)], -1)
    return np.asarray(np.einsum("chwi,cij->chwj", local, w2c[:, :3, :3]).astype(np.float32))


def _filled(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth with the background replaced by the nearest surface pixel, so that differences stay finite."""
    if not (depth > 0).any():
        return depth
    index = distance_transform_edt(depth <= 0, return_distances=False, return_indices=True)
    return np.asarray(depth[tuple(index)])


@dataclass(frozen=True)
class Volume:
    """Samples of a signed function, positive outside, on a regular grid."""

    values: Float[np.ndarray, "X Y Z"]
    origin: Float[np.ndarray, "3"]
    """World position of sample [0, 0, 0]."""
    voxel: float
    """Spacing in world units."""


@numba.njit(cache=True, parallel=True)
@no_type_check
def _bounds(
    low: NDArray[np.float32],
    step: float,
    n: int,
    w2c: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    outside_px: NDArray[np.float32],
    hit: NDArray[np.uint8],
) -> None:
    """Mark the cells of a coarse grid that no silhouette excludes by more than the cell's radius."""
    height, width = outside_px.shape[1:]
    for i in numba.prange(n):
        for j in range(n):
            for k in range(n):
                x, y, z = low[0] + (i + 0.5) * step, low[1] + (j + 0.5) * step, low[2] + (k + 0.5) * step
                misses = 0
                for c in range(w2c.shape[0]):
                    m = w2c[c]
                    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                    cz = -(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
                    w = cz if perspective else 1.0
                    if w <= 1e-3:
                        continue
                    f = intrinsics[c, 0] / w
                    u = int(np.floor(f * cx + intrinsics[c, 2]))
                    v = int(np.floor(-f * cy + intrinsics[c, 3]))
                    u, v = min(max(u, 0), width - 1), min(max(v, 0), height - 1)
                    if outside_px[c, v, u] > 0.9 * step * f + 1.0:
                        misses += 1
                        if misses >= 2:
                            break
                if misses < 2:
                    hit[i, j, k] = 1


@numba.njit(cache=True, inline="always")
@no_type_check
def _between(picture: NDArray[np.float32], x: float, y: float) -> float:
    """Bilinear value of a picture at (x, y), in pixels from the centre of the first."""
    height, width = picture.shape
    x, y = min(max(x, 0.0), width - 1.001), min(max(y, 0.0), height - 1.001)
    u, v = int(x), int(y)
    tx, ty = x - u, y - v
    above = (1 - tx) * picture[v, u] + tx * picture[v, u + 1]
    below = (1 - tx) * picture[v + 1, u] + tx * picture[v + 1, u + 1]
    return (1 - ty) * above + ty * below


@numba.njit(cache=True, inline="always")
@no_type_check
def _nearest_around(depth: NDArray[np.float32], x: float, y: float) -> float:
    """Least depth of the four pixels around (x, y), without the background's."""
    height, width = depth.shape
    u, v = min(max(int(np.floor(x)), 0), width - 2), min(max(int(np.floor(y)), 0), height - 2)
    nearest = np.inf
    for j in range(2):
        for i in range(2):
            if 0.0 < depth[v + j, u + i] < nearest:
                nearest = depth[v + j, u + i]
    return nearest


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _fuse(
    origin: NDArray[np.float32],
    voxel: float,
    kernel: float,
    margin: float,
    least: float,
    votes_needed: int,
    w2c: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    depth: NDArray[np.float32],
    normal: NDArray[np.float32],
    outside_px: NDArray[np.float32],
    values: NDArray[np.float32],
) -> None:
    nx, ny, nz = values.shape
    count, height, width = depth.shape
    inverse_kernel = 1.0 / kernel
    # Constant pull towards the carved label: decides only where no pixel's plane is near.
    prior = 0.02
    # Two sides are one part, if only a sheet, unless there is more than this between them.
    gap = 0.6 * voxel
    for i in numba.prange(nx):
        weights = np.empty(count, np.float32)
        planes = np.empty(count, np.float32)
        normals = np.empty((count, 3), np.float32)
        for j in range(ny):
            for k in range(nz):
                if i == 0 or j == 0 or k == 0 or i == nx - 1 or j == ny - 1 or k == nz - 1:
                    values[i, j, k] = kernel
                    continue
                x, y, z = origin[0] + i * voxel, origin[1] + j * voxel, origin[2] + k * voxel
                votes = 0
                far_votes = 0
                near_pixels = 0
                nearest = 0
                # How far the sample lies outside of the two silhouettes that it is farthest from.
                outside_first = outside_second = -kernel
                for c in range(count):
                    m = w2c[c]
                    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                    cz = -(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
                    w = cz if perspective else 1.0
                    if w <= 1e-3:
                        continue
                    fx, fy = intrinsics[c, 0] / w, intrinsics[c, 1] / w
                    px, py = fx * cx + intrinsics[c, 2], -fy * cy + intrinsics[c, 3]
                    u, v = int(np.floor(px)), int(np.floor(py))
                    if u < 0 or v < 0 or u >= width or v >= height:
                        continue  # a picture says nothing of what is beside it
                    beside = outside_px[c, v, u] / fx
                    if beside > -2.0 * margin:
                        outside = _between(outside_px[c], px - 0.5, py - 0.5) / fx
                        outside_second = max(outside_second, min(outside_first, outside))
                        outside_first = max(outside_first, outside)
                    if beside > margin:
                        votes += 1
                        if beside > 2.5 * margin:
                            far_votes += 1
                            if far_votes >= votes_needed:
                                break
                        continue
                    d = depth[c, v, u]
                    if d <= 0.0:
                        continue
                    ahead = d - cz
                    if ahead < -3.0 * kernel:
                        continue  # hidden behind the surface
                    # Offset from the pixel's surface point, in camera axes.
                    ox = cx - (u + 0.5 - intrinsics[c, 2]) / fx * (d / w if perspective else 1.0)
                    oy = cy + (v + 0.5 - intrinsics[c, 3]) / fy * (d / w if perspective else 1.0)
                    n = normal[c, v, u]
                    n0 = m[0, 0] * n[0] + m[0, 1] * n[1] + m[0, 2] * n[2]
                    n1 = m[1, 0] * n[0] + m[1, 1] * n[1] + m[1, 2] * n[2]
                    n2 = m[2, 0] * n[0] + m[2, 1] * n[1] + m[2, 2] * n[2]
                    plane = n0 * ox + n1 * oy + n2 * ahead
                    if ahead > margin and plane > 0.5 * margin:
                        votes += 1
                        far = ahead > 3.0 * margin and plane > 1.5 * margin
                        # A pixel may look past the edge of a sheet that the sample lies on.
                        if far and _nearest_around(depth[c], px - 0.5, py - 0.5) - cz > 3.0 * margin:
                            far_votes += 1
                            if far_votes >= votes_needed:
                                break
                    if n2 < 0.15:
                        continue  # grazing: the pixel's depth is too uncertain
                    near = (plane * plane + 0.15 * (ox * ox + oy * oy + ahead * ahead)) * (
                        inverse_kernel * inverse_kernel
                    )
                    if near < 9.0:
                        weights[near_pixels] = n2 * np.exp(-near)
                        planes[near_pixels] = plane
                        normals[near_pixels] = n
                        if weights[near_pixels] > weights[nearest]:
                            nearest = near_pixels
                        near_pixels += 1
                if far_votes >= votes_needed:
                    values[i, j, k] = kernel
                    continue
                this_weight, this = prior, prior * (kernel if votes >= votes_needed else -kernel)
                other_weight, other, opposed = 0.0, 0.0, 0.0
                n = normals[nearest]
                for p in range(near_pixels):
                    alike = n[0] * normals[p, 0] + n[1] * normals[p, 1] + n[2] * normals[p, 2]
                    if alike > -0.5:
                        this_weight += weights[p]
                        this += weights[p] * planes[p]
                    else:
                        other_weight += weights[p]
                        other += weights[p] * planes[p]
                        opposed += weights[p] * alike
                value = this / this_weight
                if other_weight > 0.02:
                    other /= other_weight
                    thickness = -(value + other)
                    if thickness < -gap:
                        value = min(value, other)
                    else:
                        # Not where a wedge tapers off, which is as sharp as the silhouettes say.
                        thin = 0.5 * least if opposed < -0.9 * other_weight else 0.0
                        value = max(value, other) - max(0.0, thin - 0.5 * thickness)
                        value = max(value, outside_second - thin)
                values[i, j, k] = min(max(value, -kernel), kernel)


def fuse(
    maps: DepthMaps, max_voxels: int, *, kernel_px: float = 1.5, margin_px: float = 1.0, votes: int = 2
) -> Volume:
    """Signed volume around the object, at most `max_voxels` samples and not much finer than a pixel.

    kernel_px: width of the blend across the surface, in pixels or voxels, whichever is larger.
    margin_px: clearance at which a view calls a voxel empty. votes: views that must agree on it.
    """
    low, high = object_bounds(maps)
    size = np.maximum(high - low, 1e-3)
    pixel = maps.footprint
    voxel = max(float(np.cbrt(size.prod() / max_voxels)), 0.4 * pixel)
    origin = (low - 2.5 * voxel).astype(np.float32)
    shape = np.ceil((high + 2.5 * voxel - origin) / voxel).astype(int) + 1
    values = np.empty(tuple(shape), np.float32)
    unit = max(pixel, voxel)
    _fuse(
        origin,
        voxel,
        kernel_px * unit,
        margin_px * unit,
        LEAST_VOXELS * voxel,
        votes,
        maps.w2c,
        maps.intrinsics,
        maps.perspective,
        maps.depth,
        np.ascontiguousarray(maps.normal),
        maps.outside_px,
        values,
    )
    # Pinholes in sheets: gaps of one sample between solid ones.
    solid = values < 0
    values[binary_closing(solid) & ~solid] = -0.3 * voxel
    return Volume(values, origin, voxel)


def march(volume: Volume) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Zero set of a volume, outward (marching cubes after Lewiner et al., 2003, from scikit-image).

    Samples are kept off zero, so that no two vertices fall together. Where two sheets meet, the
    extraction can leave an edge with four faces; the samples around it are then made solid.
    """
    from skimage.measure import marching_cubes

    values = volume.values
    if not (values < 0).any():
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    least = np.float32(0.02 * volume.voxel)
    values = np.where(np.abs(values) < least, np.where(values < 0, -least, least), values)
    for reach in range(1, 8):
        found, triangles, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
        faces = triangles.astype(np.int32)
        bad = found[overused_vertices(faces)]
        if len(bad) == 0:
            break
        for x, y, z in np.unique(np.floor(bad).astype(int), axis=0):
            low = np.maximum([x - reach + 1, y - reach + 1, z - reach + 1], 1)
            high = np.minimum([x + reach + 1, y + reach + 1, z + reach + 1], np.array(values.shape) - 1)
            block = values[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
            np.minimum(block, np.float32(-0.5 * volume.voxel), out=block)
    return (found * volume.voxel + volume.origin).astype(np.float32), faces


def object_bounds(
    maps: DepthMaps, half_extent: float = 1.25, cells: int = 48
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Corners of a box around the silhouettes' visual hull, looked for within +-half_extent."""
    hit = np.zeros((cells,) * 3, np.uint8)
    step = 2 * half_extent / cells
    low = np.full(3, -half_extent, np.float32)
    _bounds(low, step, cells, maps.w2c, maps.intrinsics, maps.perspective, maps.outside_px, hit)
    found = np.argwhere(hit)
    if len(found) == 0:
        return low, -low
    return low + found.min(0) * step, low + (found.max(0) + 1) * step


def drop_mixed_pixels(maps: DepthMaps, jump: float) -> DepthMaps:
    """`maps` without pixels that stand alone between two depths.

    Renderers that blend leave, where one part occludes another, pixels whose
    depth belongs to neither. They are the ones farther than `jump` from all but
    a few of their neighbours.
    """
    depth = maps.depth.copy()
    for c in range(len(depth)):
        d = np.where(depth[c] > 0, depth[c], np.inf)
        support = np.zeros(d.shape, np.int32)
        padded = np.pad(d, 1, constant_values=np.inf)
        height, width = d.shape
        with np.errstate(invalid="ignore"):
            for dy in range(3):
                for dx in range(3):
                    support += np.abs(padded[dy : dy + height, dx : dx + width] - d) < jump
        depth[c][support < 4] = 0
    return DepthMaps(maps.w2c, maps.intrinsics, maps.perspective, depth, maps.normal, maps.outside_px)


def survey_cameras(size: int) -> Cameras:
    """Thirty orthographic cameras around the unit ball: two poles and four rings."""
    azimuths: list[float] = [0.0, 0.0]
    elevations: list[float] = [90.0, -90.0]
    for elevation, count, offset in ((0.0, 10, 0.0), (35.0, 8, 18.0), (-35.0, 6, 9.0), (62.0, 4, 45.0)):
        azimuths += [offset + 360.0 * i / count for i in range(count)]
        elevations += [elevation] * count
    return orbit_cameras(azimuths, elevations, size, half_extent=1.05)
