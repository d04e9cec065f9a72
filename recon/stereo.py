"""Depth of pictures without depth: how far behind the visual hull's surface each pixel's point lies.

In: views with colours, and their hull (`recon.hull`), which silhouettes make exact where the object touches
it and which closes every hollow. Out: `Depths`. For every pixel the depths behind the hull's front, inside
the hull, are compared with the nearest other views (plane sweep: Collins, 1996; the planes here are shifted
copies of the hull's surface, so patches lean as it does). Half of a cost is the truncated difference of
colours, half correlation (ZNCC), which a change of brightness does not touch; of the other views the better
half counts, because the rest may be hidden. Semi-global matching (Hirschmüller, 2008,
doi:10.1109/TPAMI.2007.1166) then chooses depths that neighbours share, and leaving the hull costs a little,
because most of a surface lies on it. A depth behind the hull counts only where other views found the same
point and not more of them look through it: errors of matching are each view's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from recon.fusion import Volume
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import ViewSet
from render.rasterize import rasterize
from render.scene import Mesh

_LEVELS = 48
"""Depths that are tried, the hull's front included."""
_SPACING = 1.5
"""Between them, in pixels."""
_OTHERS = 6
"""Views that each is compared with."""
_LEAST_ANGLE_DEG = 12.0
"""Between views that are compared: nearer ones tell depths apart badly."""
_RADIUS = 2
"""Of the patches, pixels."""
_COLOR = np.float32(0.05)
"""Difference per channel at which a colour is as wrong as can be."""
_NOISE = np.float32(0.003)
"""Standard deviation of pictures' own noise: structure below it does not correlate."""
_OFF_HULL = np.float32(0.05)
"""Cost of leaving the hull; costs of a match are from 0 to 1."""
_SLOPE, _JUMP = np.float32(0.04), np.float32(0.3)
"""Cost of neighbours one level apart, and of those farther apart."""
_AGREE_PX = 1.5
_AGREE_VIEWS = 2
"""How near, and how many, other views' points must be."""

UNKNOWN, HULL, BEHIND = -1, 0, 1


@dataclass(frozen=True)
class Depths:
    """Of every view, at a smaller size."""

    cameras: Cameras
    depth: Float[np.ndarray, "C H W"]
    """z-depth, 0 outside the silhouettes."""
    state: Int[np.ndarray, "C H W"]
    """`HULL`: on the hull; `BEHIND`: behind it, as others confirm; `UNKNOWN`: nobody confirms it."""
    pixel: float
    """Size of a pixel at the object, world units."""


def sweep(views: ViewSet, hull: Volume, mesh: Mesh) -> Depths:
    """Depths of `views` (of the size that they have) inside `hull`, whose surface `mesh` is."""
    cameras, seen = views.cameras, views.gbuffer
    shown = seen.base_color_srgb if seen.base_color_srgb is not None else seen.rgb_srgb
    if shown is None:
        raise InputError("views without depth need colours for a surface")
    alpha = seen.alpha[..., 0].cpu().numpy().astype(np.float32)
    color = np.ascontiguousarray((shown * seen.alpha).cpu().numpy(), np.float32)
    entry = rasterize(mesh.vertices, mesh.faces, cameras).depth
    entry = np.where(alpha > 0.5, entry, 0).astype(np.float32)
    if not (entry > 0).any():
        raise InputError("the views show no object: no surface could be extracted")
    perspective = cameras.projection == "perspective"
    pixel = float(1 / cameras.intrinsics[:, 0].min())
    pixel *= float(np.median(entry[entry > 0])) if perspective else 1.0
    poses = (
        cameras.w2c.cpu().numpy().astype(np.float32),
        cameras.c2w.cpu().numpy().astype(np.float32),
        cameras.intrinsics.cpu().numpy().astype(np.float32),
        perspective,
    )
    step = np.float32(_SPACING * pixel)
    cost = np.ones((*entry.shape, _LEVELS), np.float32)
    grid = (hull.values, hull.origin, np.float32(hull.voxel))
    _match(color, alpha, *poses, entry, partners(cameras), step, *grid, cost)
    cost[..., 1:] += _OFF_HULL
    total = np.zeros_like(cost)
    _smooth(cost, entry, step, total)
    level = total.argmin(-1)
    offset = np.where(level > 0, level + _between(total, level), 0)
    depth = np.where(entry > 0, entry + offset * step, 0).astype(np.float32)
    agree, against = np.zeros((2, *depth.shape), np.int32)
    _confirm(depth, level, *poses, np.float32(_AGREE_PX * pixel), agree, against)
    confirmed = (agree >= _AGREE_VIEWS) & (against <= agree)
    state = np.where(level == 0, HULL, np.where(confirmed, BEHIND, UNKNOWN)).astype(np.int32)
    return Depths(cameras, depth, state, pixel)


def partners(cameras: Cameras) -> Int[np.ndarray, "C k"]:
    """The views that each is compared with: the nearest by direction that are not all but the same."""
    back = torch.nn.functional.normalize(cameras.c2w[:, :3, 2].double().cpu(), dim=-1).numpy()
    angle = np.rad2deg(np.arccos(np.clip(back @ back.T, -1, 1)))
    np.fill_diagonal(angle, np.inf)
    rank = np.where(angle < _LEAST_ANGLE_DEG, 360 - angle, angle)
    return np.argsort(rank, 1, kind="stable")[:, : min(_OTHERS, len(cameras) - 1)].astype(np.int64)


def _between(total: Float[np.ndarray, "C H W L"], level: Int[np.ndarray, "C H W"]) -> NDArray[np.float32]:
    """Lowest point of the parabola through a level's cost and those beside it, -0.5 to 0.5."""
    middle = np.clip(level, 1, total.shape[-1] - 2)[..., None]
    before, at, after = (np.take_along_axis(total, middle + i, -1)[..., 0] for i in (-1, 0, 1))
    bend = before - 2 * at + after
    found = 0.5 * (before - after) / np.maximum(bend, 1e-6)
    return np.asarray(np.where((bend > 1e-6) & (level == middle[..., 0]), np.clip(found, -0.5, 0.5), 0))


@numba.njit(cache=True, inline="always", error_model="numpy")
@no_type_check
def _point(pose, k, perspective, u, v, depth):
    """World position of a pixel's centre at a depth."""
    s = depth if perspective else np.float32(1.0)
    x, y, z = (u + np.float32(0.5) - k[2]) / k[0] * s, -(v + np.float32(0.5) - k[3]) / k[1] * s, -depth
    return (
        pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3],
        pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3],
        pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3],
    )


@numba.njit(cache=True, inline="always", error_model="numpy")
@no_type_check
def _pixel_of(m, k, perspective, x, y, z):
    """Column and row (centres at whole numbers) and depth of a point; depth 0 behind the camera."""
    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    cz = -(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
    w = cz if perspective else np.float32(1.0)
    if w <= 1e-3:
        return np.float32(-1.0), np.float32(-1.0), np.float32(0.0)
    half = np.float32(0.5)
    return k[0] / w * cx + k[2] - half, -k[1] / w * cy + k[3] - half, cz


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _solid(values, origin, voxel, x, y, z):
    """Whether the nearest sample of a volume is inside."""
    i, j, k = (
        int(np.floor((x - origin[0]) / voxel + 0.5)),
        int(np.floor((y - origin[1]) / voxel + 0.5)),
        int(np.floor((z - origin[2]) / voxel + 0.5)),
    )
    if i < 0 or j < 0 or k < 0 or i >= values.shape[0] or j >= values.shape[1] or k >= values.shape[2]:
        return False
    return values[i, j, k] < 0


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _match(color, alpha, w2c, c2w, intrinsics, perspective, entry, others, step, values, origin, voxel, cost):
    """Cost of every view's pixels and levels, from 0 to 1; 2 outside the hull. Colours times alpha."""
    count, height, width = alpha.shape
    n, levels = others.shape[1], cost.shape[3]
    for i in numba.prange(count):
        each = np.full((n, levels, height, width), np.float32(-1.0))
        # Number, a, b, a^2, b^2, ab (a and b: sums of channels), difference.
        patch = np.empty((height, width, 7), np.float32)
        rows = np.empty((height, width, 7), np.float32)
        for q in range(n):
            j = others[i, q]
            for level in range(levels):
                patch[:] = 0
                hit = False
                for v in range(height):
                    for u in range(width):
                        if entry[i, v, u] <= 0:
                            continue
                        depth = entry[i, v, u] + level * step
                        x, y, z = _point(c2w[i], intrinsics[i], perspective, u, v, depth)
                        if level > 0 and not _solid(values, origin, voxel, x, y, z):
                            cost[i, v, u, level] = 2
                            continue
                        px, py, there = _pixel_of(w2c[j], intrinsics[j], perspective, x, y, z)
                        if there <= 0 or px < 0 or py < 0 or px >= width - 1 or py >= height - 1:
                            continue
                        c, r = int(px), int(py)
                        tx, ty = px - c, py - r
                        w00, w01, w10, w11 = (1 - tx) * (1 - ty), tx * (1 - ty), (1 - tx) * ty, tx * ty
                        covered = w00 * alpha[j, r, c] + w01 * alpha[j, r, c + 1]
                        covered += w10 * alpha[j, r + 1, c] + w11 * alpha[j, r + 1, c + 1]
                        if covered < 0.5:
                            continue
                        a = b = off = np.float32(0.0)
                        for k in range(3):
                            ours = color[i, v, u, k] / alpha[i, v, u]
                            theirs = w00 * color[j, r, c, k] + w01 * color[j, r, c + 1, k]
                            theirs += w10 * color[j, r + 1, c, k] + w11 * color[j, r + 1, c + 1, k]
                            theirs /= covered
                            off += abs(ours - theirs)
                            a += ours
                            b += theirs
                        hit = True
                        p = patch[v, u]
                        p[0], p[1], p[2], p[3], p[4], p[5] = 1, a, b, a * a, b * b, a * b
                        p[6] = min(off / (3 * _COLOR), np.float32(1.0))
                if hit:
                    _patches(patch, rows, each[q, level])
        found = np.empty(n, np.float32)
        for v in range(height):
            for u in range(width):
                for level in range(levels):
                    if entry[i, v, u] <= 0 or cost[i, v, u, level] > 1:
                        continue
                    number = 0
                    for q in range(n):
                        if each[q, level, v, u] >= 0:
                            found[number] = each[q, level, v, u]
                            number += 1
                    if number >= 2:
                        cost[i, v, u, level] = np.sort(found[:number])[: max(2, (number + 1) // 2)].mean()


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _patches(patch, rows, out):
    """Costs of the patches around the pixels of `patch` that have a partner."""
    height, width = out.shape
    sums = np.empty(7, np.float32)
    for v in range(height):
        for k in range(7):
            running = np.float32(0.0)
            for u in range(min(_RADIUS, width)):
                running += patch[v, u, k]
            for u in range(width):
                if u + _RADIUS < width:
                    running += patch[v, u + _RADIUS, k]
                if u > _RADIUS:
                    running -= patch[v, u - _RADIUS - 1, k]
                rows[v, u, k] = running
    noise = 9 * _NOISE * _NOISE
    for v in range(height):
        for u in range(width):
            if patch[v, u, 0] == 0:
                continue
            sums[:] = 0
            for row in range(max(0, v - _RADIUS), min(height, v + _RADIUS + 1)):
                for k in range(7):
                    sums[k] += rows[row, u, k]
            m = sums / sums[0]
            first, second = max(m[3] - m[1] * m[1], 0) + noise, max(m[4] - m[2] * m[2], 0) + noise
            correlation = (m[5] - m[1] * m[2] + noise) / np.sqrt(first * second)
            out[v, u] = max(0.0, 0.5 * m[6] + 0.5 * min(1.0, 1.0 - correlation))


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _smooth(cost, entry, step, total):
    """Sum over eight directions of the least costs of paths that end in a pixel's level."""
    count, height, width, levels = cost.shape
    for i in numba.prange(count):
        for direction in range(8):
            dv = (0, 0, 1, -1, 1, 1, -1, -1)[direction]
            du = (1, -1, 0, 0, 1, -1, 1, -1)[direction]
            path = np.zeros((height, width, levels), np.float32)
            for row in range(height):
                v = row if dv >= 0 else height - 1 - row
                for column in range(width):
                    u = column if du >= 0 else width - 1 - column
                    if entry[i, v, u] <= 0:
                        continue
                    pv, pu = v - dv, u - du
                    joined = 0 <= pv < height and 0 <= pu < width
                    # Levels count from the hull: where that has a step they mean other things.
                    joined = joined and entry[i, pv, pu] > 0
                    joined = joined and abs(entry[i, v, u] - entry[i, pv, pu]) < 4 * step
                    low = path[pv, pu].min() if joined else np.float32(0.0)
                    for level in range(levels):
                        value = cost[i, v, u, level]
                        if joined:
                            best = min(path[pv, pu, level], low + _JUMP)
                            if level > 0:
                                best = min(best, path[pv, pu, level - 1] + _SLOPE)
                            if level + 1 < levels:
                                best = min(best, path[pv, pu, level + 1] + _SLOPE)
                            value += best - low
                        path[v, u, level] = value
                        total[i, v, u, level] += value


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _confirm(depth, level, w2c, c2w, intrinsics, perspective, tolerance, agree, against):
    """How many other views' points are a pixel's point, and how many views look through it."""
    count, height, width = depth.shape
    for i in numba.prange(count):
        for v in range(height):
            for u in range(width):
                if level[i, v, u] <= 0 or depth[i, v, u] <= 0:
                    continue
                x, y, z = _point(c2w[i], intrinsics[i], perspective, u, v, depth[i, v, u])
                for j in range(count):
                    px, py, there = _pixel_of(w2c[j], intrinsics[j], perspective, x, y, z)
                    c, r = int(np.floor(px + 0.5)), int(np.floor(py + 0.5))
                    if j == i or there <= 0 or c < 0 or r < 0 or c >= width or r >= height:
                        continue
                    if depth[j, r, c] <= 0:
                        continue
                    if abs(depth[j, r, c] - there) < tolerance:
                        agree[i, v, u] += 1
                    elif depth[j, r, c] > there:
                        against[i, v, u] += 1
