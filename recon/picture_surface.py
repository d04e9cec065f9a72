"""Pictures without depth -> dense, watertight mesh: the visual hull, hollowed out where colours say so.

In: views with alpha and colours. Out: a mesh. Silhouettes of many views bound the object within a fraction of
a pixel, which no fit of colours does, and tell nothing of hollows. So, after Hernández and Schmitt
(2004, doi:10.1016/j.cviu.2004.03.016), who join the two likewise:

1. the hull as a signed volume (`recon.hull`), no coarser than the views;
2. what lies before the depths that several views agree on (`recon.stereo`) is taken out of it: mean of the
   truncated distances along the views that see a point (Curless and Levoy, 1996), smoothed so that errors of
   matching leave neither pits nor steps (`recon.total_variation`);
3. nothing that a silhouette needs: where a view shows the object and its ray would meet nothing any more,
   the part of the ray that was taken out with least certainty is put back (Cremers and Kolev,
   2011, doi:10.1109/TPAMI.2010.174, demand the same of a silhouette's rays), and smoothed with the rest;
4. the mesh is moved until its outlines are the views' (`recon.outlines`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from recon.cleanup import clean
from recon.fusion import Volume, march
from recon.hull import Silhouettes, agreement, carve, silhouettes
from recon.outlines import fit_outlines
from recon.relax import relax
from recon.stereo import HULL, UNKNOWN, Depths, sweep
from recon.surface import SurfaceConfig
from recon.topology import is_closed_manifold, vertex_normals
from recon.total_variation import tv_l1
from render.errors import InputError
from render.gbuffer import ViewSet
from render.progress import Progress, silent
from render.rasterize import rasterize
from render.scene import Mesh

_COARSE = 64
_REACH = 1.05
"""Half of the cube in which the object is looked for: it lies in the unit ball."""
_WRONG = 0.97
"""Least share of each silhouette that the hull must cover; below it one view may be wrong anywhere."""
_CUT_PX, _BEHIND_PX = 1.5, 1.0
"""Distances to a depth are cut off at the first; what lies farther behind it than the second is not seen."""
_EMPTY_VIEWS = 2
_DOUBT = 0.3
"""Least weight of a sample, and how solid one is at least that fewer views see empty; 1 is surely solid."""
_SURE_VIEWS = 4
"""So many views that see a sample give it its full weight."""
_KNOWN = 2.0
"""Weight of a sample that silhouettes need."""


def surface_of_pictures(
    views: ViewSet, small: ViewSet, config: SurfaceConfig, *, progress: Progress = silent
) -> Mesh:
    """The surface, with smooth normals: closed, manifold, outward, in the views' units.

    `small`: the same views, for matching colours; half the size does. `InputError` without an object.
    """
    progress(0.0, "carving")
    seen = silhouettes(views)
    hull = boxed_hull(views, seen, config.max_voxels)
    front = _mesh(hull, config)
    progress(0.2, "matching colours")
    depths = sweep(small, hull, front)
    progress(0.5, "hollowing out")
    found = emptiness(hull, depths)
    volume = hollowed(hull, found)
    kept = _kept(volume, hull, front, views, config)
    back = (kept.values < 0) & (volume.values >= 0)
    if back.any():
        # Ray by ray they are a thicket of spikes and handles: what they know goes into the smooth volume.
        volume = hollowed(hull, found.solid_at(back))
    mesh = _mesh(volume, config)
    progress(0.7, "smoothing")
    if config.relax_rounds:
        moved = relax(mesh.vertices, mesh.faces, normal_rounds=config.relax_rounds, limit=hull.voxel)
        vertices, faces = clean(moved, mesh.faces, min_component=config.min_component)
        if is_closed_manifold(faces):
            mesh = Mesh(vertices, faces, vertex_normals(vertices, faces))
    progress(0.8, "fitting outlines")
    fitted = fit_outlines(mesh, views)
    progress(1.0, "surface")
    return fitted


def boxed_hull(views: ViewSet, seen: Silhouettes, max_voxels: int) -> Volume:
    """The hull on at most some `max_voxels` samples in a box around it, not much finer than a pixel."""
    cells = 2 * _REACH / (_COARSE - 1)
    low = np.full(3, -_REACH, np.float32)
    for tolerated in (0, 1):
        coarse = carve(seen, low, cells, (_COARSE, _COARSE, _COARSE), tolerated)
        found = np.argwhere(coarse.values < coarse.voxel)
        if len(found) and agreement(views, coarse).min() >= _WRONG:
            break
    if len(found) == 0:
        raise InputError("the views show no object: no surface could be extracted")
    first = found.min(0) * cells - _REACH - 1.5 * cells
    last = found.max(0) * cells - _REACH + 1.5 * cells
    pixel = 1.0 / float(seen.intrinsics[:, 0].min())
    if seen.perspective:
        pixel *= float(np.median(views.cameras.c2w[:, :3, 3].norm(dim=-1).cpu().numpy()))
    voxel = max(float(np.cbrt((last - first).prod() / max_voxels)), 0.5 * pixel)
    nx, ny, nz = (int(n) for n in np.ceil((last - first) / voxel) + 1)
    volume = carve(seen, first.astype(np.float32), voxel, (nx, ny, nz), tolerated)
    for values in (volume.values, volume.values.swapaxes(0, 1), volume.values.swapaxes(0, 2)):
        values[[0, -1]] = voxel
    return volume


@dataclass(frozen=True)
class Emptiness:
    """How empty the depths say that samples of the hull are."""

    measured: Float[np.ndarray, "X Y Z"]
    """-1 solid to 1 empty; -1 where no view sees a sample."""
    weight: Float[np.ndarray, "X Y Z"]
    scale: float
    """Distance that 1 stands for, world units."""

    def solid_at(self, samples: Bool[np.ndarray, "X Y Z"]) -> Emptiness:
        """With these samples known to be solid."""
        return replace(
            self,
            measured=np.where(samples, np.float32(-1), self.measured),
            weight=np.where(samples, np.float32(_KNOWN), self.weight),
        )


def emptiness(hull: Volume, depths: Depths) -> Emptiness:
    """What at least two views see empty before the depths, where all that see it agree."""
    cut = _CUT_PX * depths.pixel
    # Beyond half of it a distance is but a side.
    ahead = np.full(hull.values.shape, -0.5 * cut, np.float32)
    seen = np.zeros(hull.values.shape, np.float32)
    cameras = depths.cameras
    _hollow(
        hull.values,
        hull.origin,
        np.float32(hull.voxel),
        depths.depth,
        depths.state,
        cameras.w2c.cpu().numpy().astype(np.float32),
        cameras.intrinsics.cpu().numpy().astype(np.float32),
        cameras.projection == "perspective",
        np.float32(cut),
        np.float32(_BEHIND_PX * depths.pixel),
        ahead,
        seen,
    )
    measured = np.clip(ahead / (0.5 * cut), -1, 1)
    return Emptiness(measured, np.clip(seen / _SURE_VIEWS, _DOUBT, 1), 0.5 * cut)


def hollowed(hull: Volume, found: Emptiness) -> Volume:
    """`hull` without what is empty, smooth there."""
    inside = hull.values < 0
    smooth = tv_l1(found.measured, found.weight, inside)
    return replace(hull, values=np.where(inside, np.maximum(hull.values, found.scale * smooth), hull.values))


def _kept(volume: Volume, hull: Volume, front: Mesh, views: ViewSet, config: SurfaceConfig) -> Volume:
    """`volume` with as much of the hull put back as the silhouettes need."""
    cameras = views.cameras
    needed = views.gbuffer.alpha[..., 0].cpu().numpy() > 0.5
    needed &= rasterize(front.vertices, front.faces, cameras).face >= 0
    pose = cameras.c2w.cpu().numpy().astype(np.float32)
    intrinsics = cameras.intrinsics.cpu().numpy().astype(np.float32)
    away = np.linalg.norm(pose[:, :3, 3], axis=1)
    # Orthographic cameras may stand anywhere: their depths of the unit ball are those of its middle.
    away = np.abs((pose[:, :3, 3] * pose[:, :3, 2]).sum(1)) if cameras.projection != "perspective" else away
    result = replace(volume, values=volume.values.copy())
    mesh = _mesh(result, config)
    shown = rasterize(mesh.vertices, mesh.faces, cameras).face >= 0
    lost: Bool[np.ndarray, "C H W"] = needed & ~shown
    for c in np.flatnonzero(lost.any((1, 2))).tolist():
        pixels = np.argwhere(lost[c])
        _put_back(
            pixels, result.values, hull.values, hull.origin, np.float32(hull.voxel), pose[c],
            intrinsics[c], cameras.projection == "perspective", max(float(away[c]) - 1.1, 1e-2),
            float(away[c]) + 1.1,
        )  # fmt: skip
    return result


def _mesh(volume: Volume, config: SurfaceConfig) -> Mesh:
    vertices, faces = clean(*march(volume), min_component=config.min_component)
    if len(faces) == 0:
        raise InputError("the views show no object: no surface could be extracted")
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _hollow(
    values: Float[np.ndarray, "X Y Z"],
    origin: NDArray[np.float32],
    voxel: float,
    depth: NDArray[np.float32],
    state: NDArray[np.int32],
    w2c: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    cut: float,
    behind: float,
    ahead_of: NDArray[np.float32],
    seen: NDArray[np.float32],
) -> None:
    """Writes the mean distance before the depths and the number of views, where any sees a sample."""
    nx, ny, nz = values.shape
    count, height, width = depth.shape
    for i in numba.prange(nx):
        for j in range(ny):
            for k in range(nz):
                if values[i, j, k] >= 0:
                    continue
                x, y, z = origin[0] + i * voxel, origin[1] + j * voxel, origin[2] + k * voxel
                total, weight, empty = 0.0, 0.0, 0
                for c in range(count):
                    m = w2c[c]
                    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                    cz = -(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
                    w = cz if perspective else np.float32(1.0)
                    if w <= 1e-3:
                        continue
                    px = intrinsics[c, 0] / w * cx + intrinsics[c, 2] - 0.5
                    py = -intrinsics[c, 1] / w * cy + intrinsics[c, 3] - 0.5
                    if px < 0 or py < 0 or px >= width - 1 or py >= height - 1:
                        continue
                    u, v = int(px + 0.5), int(py + 0.5)
                    if depth[c, v, u] <= 0 or state[c, v, u] == UNKNOWN:
                        continue
                    column, row = int(px), int(py)
                    tx, ty = px - column, py - row
                    d00, d01 = depth[c, row, column], depth[c, row, column + 1]
                    d10, d11 = depth[c, row + 1, column], depth[c, row + 1, column + 1]
                    low, high = min(d00, d01, d10, d11), max(d00, d01, d10, d11)
                    if low > 0 and high - low < 3 * cut:
                        d = (d00 * (1 - tx) + d01 * tx) * (1 - ty) + (d10 * (1 - tx) + d11 * tx) * ty
                    else:
                        d = depth[c, v, u]
                    ahead = d - cz
                    if state[c, v, u] == HULL:
                        ahead -= 0.5 * cut  # so that a few errors do not dent it
                    if ahead < -behind:
                        continue
                    if ahead > 0.25 * cut:
                        empty += 1
                    total += min(ahead, cut)
                    weight += 1.0
                if weight > 0:
                    mean = total / weight
                    ahead_of[i, j, k] = mean if empty >= _EMPTY_VIEWS else min(mean, -0.5 * _DOUBT * cut)
                    seen[i, j, k] = weight


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _put_back(pixels, values, hull, origin, voxel, pose, intrinsics, perspective, near, far):
    """Makes the least empty samples along the rays of `pixels` (row, column) solid again."""
    steps = int((far - near) / (0.5 * voxel))
    along = np.empty((steps, 3), np.int64)
    for p in range(len(pixels)):
        number, low = 0, 1e9
        for s in range(steps):
            depth = near + 0.5 * voxel * s
            q = depth if perspective else 1.0
            x = (pixels[p, 1] + 0.5 - intrinsics[2]) / intrinsics[0] * q
            y = -(pixels[p, 0] + 0.5 - intrinsics[3]) / intrinsics[1] * q
            inside = True
            for axis in range(3):
                at = pose[axis, 0] * x + pose[axis, 1] * y - pose[axis, 2] * depth + pose[axis, 3]
                along[number, axis] = int(np.floor((at - origin[axis]) / voxel + 0.5))
                inside = inside and 0 < along[number, axis] < values.shape[axis] - 1
            if not inside or hull[along[number, 0], along[number, 1], along[number, 2]] >= 0:
                continue
            low = min(low, values[along[number, 0], along[number, 1], along[number, 2]])
            number += 1
        for s in range(number):
            i, j, k = along[s]
            if values[i, j, k] <= low + 0.5 * voxel:
                values[i, j, k] = min(values[i, j, k], max(hull[i, j, k], -0.5 * voxel))
