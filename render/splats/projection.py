"""Numba kernels: projection of Gaussians, its backward, and sorting splats into tiles.

The formulas are those of `reference.project`. A projected splat is a row of
`COLUMNS` numbers; its composited values are a row of `features`: depth, normal
(3), the caller's channels.

Every pair of camera and Gaussian owns consecutive slots, one per tile it touches.
The backward of compositing writes a slot's gradient there, and `project_backward`
adds them up in slot order, so sums do not depend on the number of threads.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from numpy.typing import NDArray

from render.splats.constants import CUTOFF, NEAR, TILE_PX

F = np.float32
_NEAR = F(NEAR)
_CUTOFF = F(CUTOFF)
_ONE, _TWO, _HALF = F(1.0), F(2.0), F(0.5)

# Columns of a projected splat.
U, V, CONIC_A, CONIC_B, CONIC_C, SLOPE_X, SLOPE_Y, OPACITY, REACH_X, REACH_Y = range(10)
COLUMNS = 10
# Columns of a slot's gradient: the first eight of a projected splat, then its features.
SLOT_FEATURES = 8


@numba.njit(cache=True, error_model="numpy", inline="always")
@no_type_check
def _axes_of(quats: NDArray[np.float32], g: int, axes: NDArray[np.float32]) -> np.float32:
    """Write the rotation matrix of quaternion `g` into `axes`; returns 1 / its length."""
    w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
    inverse = _ONE / np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    axes[0, 0] = _ONE - _TWO * (y * y + z * z)
    axes[0, 1] = _TWO * (x * y - w * z)
    axes[0, 2] = _TWO * (x * z + w * y)
    axes[1, 0] = _TWO * (x * y + w * z)
    axes[1, 1] = _ONE - _TWO * (x * x + z * z)
    axes[1, 2] = _TWO * (y * z - w * x)
    axes[2, 0] = _TWO * (x * z - w * y)
    axes[2, 1] = _TWO * (y * z + w * x)
    axes[2, 2] = _ONE - _TWO * (x * x + y * y)
    return inverse


@numba.njit(cache=True, error_model="numpy", inline="always")
@no_type_check
def _local_factor(
    view: NDArray[np.float32],
    axes: NDArray[np.float32],
    scales: NDArray[np.float32],
    g: int,
    out: NDArray[np.float32],
) -> None:
    """`view @ axes @ diag(scales)`: a square root of the covariance in camera space."""
    for i in range(3):
        for j in range(3):
            total = view[i, 0] * axes[0, j] + view[i, 1] * axes[1, j] + view[i, 2] * axes[2, j]
            out[i, j] = total * scales[g, j]


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def project_forward(
    means: NDArray[np.float32],
    quats: NDArray[np.float32],
    scales: NDArray[np.float32],
    opacities: NDArray[np.float32],
    channels: NDArray[np.float32],
    views: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    low_pass: np.float32,
    splats: NDArray[np.float32],
    features: NDArray[np.float32],
) -> None:
    """Fill `splats [C,N,COLUMNS]` and `features [C,N,F]`.

    `views [C,3,4]` maps world points to x right, y down, z along the view. A splat
    that is left out (too near, or not finite) gets a reach of -1.
    """
    n_cameras, n_splats, n_channels = views.shape[0], means.shape[0], channels.shape[1]
    for g in numba.prange(n_splats):
        axes = np.empty((3, 3), np.float32)
        local = np.empty((3, 3), np.float32)
        factor = np.empty((2, 3), np.float32)
        _axes_of(quats, g, axes)
        for c in range(n_cameras):
            view = views[c]
            fx, fy, cx, cy = intrinsics[c, 0], intrinsics[c, 1], intrinsics[c, 2], intrinsics[c, 3]
            px, py, pz = means[g, 0], means[g, 1], means[g, 2]
            x = view[0, 0] * px + view[0, 1] * py + view[0, 2] * pz + view[0, 3]
            y = view[1, 0] * px + view[1, 1] * py + view[1, 2] * pz + view[1, 3]
            z = view[2, 0] * px + view[2, 1] * py + view[2, 2] * pz + view[2, 3]
            splats[c, g, REACH_X] = F(-1.0)
            if not z > _NEAR:
                continue
            _local_factor(view, axes, scales, g, local)
            nx, ny, nz = axes[0, 2], axes[1, 2], axes[2, 2]
            if perspective:
                inverse_z = _ONE / z
                jx, jy = fx * inverse_z, fy * inverse_z
                jxz, jyz = -jx * x * inverse_z, -jy * y * inverse_z
                for j in range(3):
                    factor[0, j] = jx * local[0, j] + jxz * local[2, j]
                    factor[1, j] = jy * local[1, j] + jyz * local[2, j]
                u, v = jx * x + cx, jy * y + cy
                facing = F(0.0)
                for j in range(3):
                    towards = -(x * view[0, j] + y * view[1, j] + z * view[2, j])
                    facing += axes[j, 2] * towards
            else:
                for j in range(3):
                    factor[0, j] = fx * local[0, j]
                    factor[1, j] = fy * local[1, j]
                u, v = fx * x + cx, fy * y + cy
                facing = -(nx * view[2, 0] + ny * view[2, 1] + nz * view[2, 2])
            a, b, d, depth_x, depth_y = low_pass, F(0.0), low_pass, F(0.0), F(0.0)
            for j in range(3):
                a += factor[0, j] * factor[0, j]
                b += factor[0, j] * factor[1, j]
                d += factor[1, j] * factor[1, j]
                depth_x += factor[0, j] * local[2, j]
                depth_y += factor[1, j] * local[2, j]
            inverse = _ONE / (a * d - b * b)
            if not (inverse > F(0.0) and np.isfinite(inverse) and np.isfinite(u) and np.isfinite(v)):
                continue
            conic_a, conic_b, conic_c = d * inverse, -b * inverse, a * inverse
            splats[c, g, U] = u
            splats[c, g, V] = v
            splats[c, g, CONIC_A] = conic_a
            splats[c, g, CONIC_B] = conic_b
            splats[c, g, CONIC_C] = conic_c
            splats[c, g, SLOPE_X] = conic_a * depth_x + conic_b * depth_y
            splats[c, g, SLOPE_Y] = conic_b * depth_x + conic_c * depth_y
            splats[c, g, OPACITY] = opacities[g]
            splats[c, g, REACH_X] = np.sqrt(_CUTOFF * a)
            splats[c, g, REACH_Y] = np.sqrt(_CUTOFF * d)
            sign = F(-1.0) if facing < F(0.0) else _ONE
            features[c, g, 0] = z
            features[c, g, 1] = sign * nx
            features[c, g, 2] = sign * ny
            features[c, g, 3] = sign * nz
            for k in range(n_channels):
                features[c, g, 4 + k] = channels[g, k]


@numba.njit(cache=True, error_model="numpy", inline="always")
@no_type_check
def _tile_range(center: np.float32, reach: np.float32, size: int) -> tuple[int, int]:
    """First tile and one past the last that pixels within `reach` of `center` lie in."""
    if not (center + reach > _HALF and center - reach < F(size) - _HALF):
        return 0, 0
    low = np.ceil(max(center - reach - _HALF, F(0.0)))
    high = np.floor(min(center + reach - _HALF, F(size - 1)))
    if high < low:
        return 0, 0
    return int(low) // TILE_PX, int(high) // TILE_PX + 1


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def count_tiles(splats: NDArray[np.float32], width: int, height: int, counts: NDArray[np.int64]) -> None:
    """Number of tiles that each splat touches, `counts [C,N]`."""
    n_cameras, n_splats = splats.shape[0], splats.shape[1]
    for flat in numba.prange(n_cameras * n_splats):
        c, g = flat // n_splats, flat % n_splats
        counts[c, g] = 0
        if splats[c, g, REACH_X] > F(0.0):
            left, right = _tile_range(splats[c, g, U], splats[c, g, REACH_X], width)
            top, bottom = _tile_range(splats[c, g, V], splats[c, g, REACH_Y], height)
            counts[c, g] = (right - left) * (bottom - top)


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _order_by_depth(depths: NDArray[np.float32]) -> NDArray[np.int32]:
    """Stable order, nearest first, of positive depths: radix sort on their bits."""
    n = depths.shape[0]
    keys = depths.view(np.int32)
    order = np.arange(n).astype(np.int32)
    other = np.empty(n, np.int32)
    for shift in (0, 11, 22):
        starts = np.zeros(2049, np.int64)
        for i in range(n):
            starts[((keys[i] >> shift) & 2047) + 1] += 1
        for i in range(2048):
            starts[i + 1] += starts[i]
        for i in range(n):
            digit = (keys[order[i]] >> shift) & 2047
            other[starts[digit]] = order[i]
            starts[digit] += 1
        order, other = other, order
    return order


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def fill_tiles(
    splats: NDArray[np.float32],
    features: NDArray[np.float32],
    slots: NDArray[np.int64],
    width: int,
    height: int,
    tile_starts: NDArray[np.int64],
    entry_splat: NDArray[np.int32],
    entry_slot: NDArray[np.int64],
) -> None:
    """Per tile, the splats that touch it, nearest first, and the slot of each.

    `slots [C*N+1]` holds the first slot of every pair; entries of tile `t` of camera
    `c` are `tile_starts[c,t]` to `tile_starts[c,t+1]`.
    """
    n_cameras, n_splats = splats.shape[0], splats.shape[1]
    tiles_x = (width + TILE_PX - 1) // TILE_PX
    tiles = tile_starts.shape[1] - 1
    for c in numba.prange(n_cameras):
        visible = np.empty(n_splats, np.int32)
        n_visible = 0
        for g in range(n_splats):
            if slots[c * n_splats + g + 1] > slots[c * n_splats + g]:
                visible[n_visible] = g
                n_visible += 1
        depths = np.empty(n_visible, np.float32)
        bounds = np.empty((n_visible, 4), np.int32)
        counts = np.zeros(tiles + 1, np.int64)
        for i in range(n_visible):
            g = visible[i]
            depths[i] = features[c, g, 0]
            left, right = _tile_range(splats[c, g, U], splats[c, g, REACH_X], width)
            top, bottom = _tile_range(splats[c, g, V], splats[c, g, REACH_Y], height)
            bounds[i, 0], bounds[i, 1], bounds[i, 2], bounds[i, 3] = left, right, top, bottom
            for row in range(top, bottom):
                for column in range(left, right):
                    counts[row * tiles_x + column + 1] += 1
        tile_starts[c, 0] = slots[c * n_splats]
        for t in range(tiles):
            tile_starts[c, t + 1] = tile_starts[c, t] + counts[t + 1]
        following = tile_starts[c, :tiles].copy()
        order = _order_by_depth(depths)
        for i in range(n_visible):
            at = order[i]
            g = visible[at]
            slot = slots[c * n_splats + g]
            for row in range(bounds[at, 2], bounds[at, 3]):
                for column in range(bounds[at, 0], bounds[at, 1]):
                    t = row * tiles_x + column
                    entry_splat[following[t]] = g
                    entry_slot[following[t]] = slot
                    following[t] += 1
                    slot += 1


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def project_backward(
    means: NDArray[np.float32],
    quats: NDArray[np.float32],
    scales: NDArray[np.float32],
    views: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    splats: NDArray[np.float32],
    features: NDArray[np.float32],
    slots: NDArray[np.int64],
    slot_gradients: NDArray[np.float32],
    d_means: NDArray[np.float32],
    d_quats: NDArray[np.float32],
    d_scales: NDArray[np.float32],
    d_opacities: NDArray[np.float32],
    d_channels: NDArray[np.float32],
) -> None:
    """Gradients of the Gaussians from those of their slots. Outputs are overwritten.

    With S the projected covariance and K its inverse: dS = -K dK K, U = J view axes
    diag(scales), S = U U^T + low pass, so dU = 2 dS U, and on through J and the axes.
    """
    n_cameras, n_splats, n_channels = views.shape[0], means.shape[0], d_channels.shape[1]
    for g in numba.prange(n_splats):
        axes = np.empty((3, 3), np.float32)
        local = np.empty((3, 3), np.float32)
        factor = np.empty((2, 3), np.float32)
        d_factor = np.empty((2, 3), np.float32)
        d_local = np.empty((3, 3), np.float32)
        d_axes = np.zeros((3, 3), np.float32)
        d_scaled = np.zeros((3, 3), np.float32)
        total = np.empty(SLOT_FEATURES + 4 + n_channels, np.float32)
        inverse_length = _axes_of(quats, g, axes)
        d_mean_x, d_mean_y, d_mean_z, d_opacity = F(0.0), F(0.0), F(0.0), F(0.0)
        for k in range(n_channels):
            d_channels[g, k] = F(0.0)
        for c in range(n_cameras):
            first, end = slots[c * n_splats + g], slots[c * n_splats + g + 1]
            if first == end:
                continue
            total[:] = F(0.0)
            for slot in range(first, end):
                for k in range(total.shape[0]):
                    total[k] += slot_gradients[slot, k]
            d_opacity += total[OPACITY]
            for k in range(n_channels):
                d_channels[g, k] += total[SLOT_FEATURES + 4 + k]
            view = views[c]
            fx, fy = intrinsics[c, 0], intrinsics[c, 1]
            px, py, pz = means[g, 0], means[g, 1], means[g, 2]
            x = view[0, 0] * px + view[0, 1] * py + view[0, 2] * pz + view[0, 3]
            y = view[1, 0] * px + view[1, 1] * py + view[1, 2] * pz + view[1, 3]
            z = features[c, g, 0]
            _local_factor(view, axes, scales, g, local)
            jx, jy, jxz, jyz, inverse_z = fx, fy, F(0.0), F(0.0), _ONE
            if perspective:
                inverse_z = _ONE / z
                jx, jy = fx * inverse_z, fy * inverse_z
                jxz, jyz = -jx * x * inverse_z, -jy * y * inverse_z
            depth_x, depth_y = F(0.0), F(0.0)
            for j in range(3):
                factor[0, j] = jx * local[0, j] + jxz * local[2, j]
                factor[1, j] = jy * local[1, j] + jyz * local[2, j]
                depth_x += factor[0, j] * local[2, j]
                depth_y += factor[1, j] * local[2, j]
            ka, kb, kc = splats[c, g, CONIC_A], splats[c, g, CONIC_B], splats[c, g, CONIC_C]
            # slope = K (Cov(u, z), Cov(v, z))
            d_slope_x, d_slope_y = total[SLOPE_X], total[SLOPE_Y]
            d_ka = total[CONIC_A] + d_slope_x * depth_x
            d_kb = _HALF * (total[CONIC_B] + d_slope_x * depth_y + d_slope_y * depth_x)
            d_kc = total[CONIC_C] + d_slope_y * depth_y
            d_depth_x = ka * d_slope_x + kb * d_slope_y
            d_depth_y = kb * d_slope_x + kc * d_slope_y
            # dS = -K dK K
            left_a, left_b = ka * d_ka + kb * d_kb, ka * d_kb + kb * d_kc
            left_c, left_d = kb * d_ka + kc * d_kb, kb * d_kb + kc * d_kc
            d_sa = -(left_a * ka + left_b * kb)
            d_sb = -(left_a * kb + left_b * kc)
            d_sc = -(left_c * kb + left_d * kc)
            d_jx, d_jy, d_jxz, d_jyz = F(0.0), F(0.0), F(0.0), F(0.0)
            for j in range(3):
                d_factor[0, j] = _TWO * (d_sa * factor[0, j] + d_sb * factor[1, j]) + d_depth_x * local[2, j]
                d_factor[1, j] = _TWO * (d_sb * factor[0, j] + d_sc * factor[1, j]) + d_depth_y * local[2, j]
                d_local[0, j] = jx * d_factor[0, j]
                d_local[1, j] = jy * d_factor[1, j]
                d_local[2, j] = (
                    jxz * d_factor[0, j]
                    + jyz * d_factor[1, j]
                    + d_depth_x * factor[0, j]
                    + d_depth_y * factor[1, j]
                )
                d_jx += d_factor[0, j] * local[0, j]
                d_jy += d_factor[1, j] * local[1, j]
                d_jxz += d_factor[0, j] * local[2, j]
                d_jyz += d_factor[1, j] * local[2, j]
            d_x, d_y, d_z = jx * total[U], jy * total[V], total[SLOT_FEATURES]
            if perspective:
                d_x -= d_jxz * jx * inverse_z
                d_y -= d_jyz * jy * inverse_z
                d_z += jxz * total[U] + jyz * total[V]
                d_z -= inverse_z * (d_jx * jx + d_jy * jy + _TWO * (d_jxz * jxz + d_jyz * jyz))
            d_mean_x += view[0, 0] * d_x + view[1, 0] * d_y + view[2, 0] * d_z
            d_mean_y += view[0, 1] * d_x + view[1, 1] * d_y + view[2, 1] * d_z
            d_mean_z += view[0, 2] * d_x + view[1, 2] * d_y + view[2, 2] * d_z
            facing = (
                features[c, g, 1] * axes[0, 2]
                + features[c, g, 2] * axes[1, 2]
                + features[c, g, 3] * axes[2, 2]
            )
            sign = F(-1.0) if facing < F(0.0) else _ONE
            for i in range(3):
                d_axes[i, 2] += sign * total[SLOT_FEATURES + 1 + i]
                for j in range(3):
                    d_scaled[i, j] += (
                        view[0, i] * d_local[0, j] + view[1, i] * d_local[1, j] + view[2, i] * d_local[2, j]
                    )
        d_means[g, 0], d_means[g, 1], d_means[g, 2] = d_mean_x, d_mean_y, d_mean_z
        d_opacities[g] = d_opacity
        for j in range(3):
            d_scale = F(0.0)
            for i in range(3):
                d_scale += d_scaled[i, j] * axes[i, j]
                d_axes[i, j] += d_scaled[i, j] * scales[g, j]
            d_scales[g, j] = d_scale
        w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
        w, x, y, z = w * inverse_length, x * inverse_length, y * inverse_length, z * inverse_length
        m = d_axes
        d_w = _TWO * (x * (m[2, 1] - m[1, 2]) + y * (m[0, 2] - m[2, 0]) + z * (m[1, 0] - m[0, 1]))
        d_x = _TWO * (
            y * (m[0, 1] + m[1, 0])
            + z * (m[0, 2] + m[2, 0])
            + w * (m[2, 1] - m[1, 2])
            - _TWO * x * (m[1, 1] + m[2, 2])
        )
        d_y = _TWO * (
            x * (m[0, 1] + m[1, 0])
            + z * (m[1, 2] + m[2, 1])
            + w * (m[0, 2] - m[2, 0])
            - _TWO * y * (m[0, 0] + m[2, 2])
        )
        d_z = _TWO * (
            x * (m[0, 2] + m[2, 0])
            + y * (m[1, 2] + m[2, 1])
            + w * (m[1, 0] - m[0, 1])
            - _TWO * z * (m[0, 0] + m[1, 1])
        )
        along = d_w * w + d_x * x + d_y * y + d_z * z
        d_quats[g, 0] = (d_w - along * w) * inverse_length
        d_quats[g, 1] = (d_x - along * x) * inverse_length
        d_quats[g, 2] = (d_y - along * y) * inverse_length
        d_quats[g, 3] = (d_z - along * z) * inverse_length
