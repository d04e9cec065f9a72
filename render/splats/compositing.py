"""Numba kernels: alpha compositing of sorted splats in tiles, and its backward.

With T_i the transmittance before splat i, a_i its alpha at the pixel and f_i its
features, out = sum_i T_i a_i f_i and alpha = 1 - T_end. The backward walks front
to back again: with g = d loss / d out and S_i = sum_{j > i} T_j a_j (g . f_j),
known as the total less what has passed,

    d loss / d a_i = T_i (g . f_i) - S_i / (1 - a_i) + g_alpha T_end / (1 - a_i).

One thread owns one tile, so no sum depends on the number of threads.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from numpy.typing import NDArray

from render.splats.constants import CUTOFF, FLOOR, MAX_ALPHA, STOP_TRANSMITTANCE, TILE_PX
from render.splats.projection import (
    CONIC_A,
    CONIC_B,
    CONIC_C,
    OPACITY,
    REACH_Y,
    SLOPE_X,
    SLOPE_Y,
    SLOT_FEATURES,
    U,
    V,
)

F = np.float32
_CUTOFF = F(CUTOFF)
_FLOOR = F(FLOOR)
_GAIN = F(1.0 / (1.0 - FLOOR))
_MAX_ALPHA = F(MAX_ALPHA)
_STOP = F(STOP_TRANSMITTANCE)
_ZERO, _ONE, _TWO, _HALF = F(0.0), F(1.0), F(2.0), F(0.5)
_C1, _C2, _C3, _C4, _C5, _C6 = F(-1 / 32), F(1 / 2), F(1 / 6), F(1 / 24), F(1 / 120), F(1 / 720)
_FASTMATH = {"contract", "nsz", "arcp", "reassoc"}


@numba.njit(cache=True, fastmath=_FASTMATH, error_model="numpy", inline="always")
@no_type_check
def _gaussian(q: np.float32) -> np.float32:
    """exp(-q / 2) for q in [0, CUTOFF], relative error below 2e-6: Taylor at q / 32, squared four times.

    Faster than the library's exp, which must serve all arguments.
    """
    t = q * _C1
    e = _ONE + t * (_ONE + t * (_C2 + t * (_C3 + t * (_C4 + t * (_C5 + t * _C6)))))
    e = e * e
    e = e * e
    e = e * e
    return e * e


@numba.njit(cache=True, error_model="numpy", inline="always")
@no_type_check
def _pixel_range(center: np.float32, reach: np.float32, low: int, high: int) -> tuple[int, int]:
    """Pixels of [low, high) whose centres lie within `reach` of `center`."""
    first = int(max(np.ceil(center - reach - _HALF), F(low)))
    end = int(min(np.floor(center + reach - _HALF), F(high - 1))) + 1
    return first, end


@numba.njit(cache=True, parallel=True, fastmath=_FASTMATH, error_model="numpy")
@no_type_check
def composite_forward(
    splats: NDArray[np.float32],
    features: NDArray[np.float32],
    tile_starts: NDArray[np.int64],
    entry_splat: NDArray[np.int32],
    image: NDArray[np.float32],
    transmittance: NDArray[np.float32],
) -> None:
    """Fill `image [C,H,W,F]` (given as zeros) and `transmittance [C,H,W]` (given as ones)."""
    height, width, n_features = image.shape[1], image.shape[2], image.shape[3]
    tiles_x = (width + TILE_PX - 1) // TILE_PX
    tiles = tile_starts.shape[1] - 1
    for flat in numba.prange(image.shape[0] * tiles):
        c, t = flat // tiles, flat % tiles
        top, left = (t // tiles_x) * TILE_PX, (t % tiles_x) * TILE_PX
        bottom, right = min(top + TILE_PX, height), min(left + TILE_PX, width)
        open_pixels = (bottom - top) * (right - left)
        for entry in range(tile_starts[c, t], tile_starts[c, t + 1]):
            if open_pixels == 0:
                break
            g = entry_splat[entry]
            splat, feature = splats[c, g], features[c, g]
            u, v, opacity = splat[U], splat[V], splat[OPACITY]
            ka, kb, kc = splat[CONIC_A], splat[CONIC_B], splat[CONIC_C]
            slope_x, slope_y = splat[SLOPE_X], splat[SLOPE_Y]
            shift, inverse, spare = kb / ka, _ONE / ka, kc - kb * kb / ka
            y0, y1 = _pixel_range(v, splat[REACH_Y], top, bottom)
            for row in range(y0, y1):
                dy = F(row) + _HALF - v
                # The row's chord of the ellipse q = CUTOFF: cheaper than testing q at every pixel.
                chord = np.sqrt(max((_CUTOFF - spare * dy * dy) * inverse, _ZERO))
                x0, x1 = _pixel_range(u - shift * dy, chord, left, right)
                for column in range(x0, x1):
                    through = transmittance[c, row, column]
                    if through < _STOP:
                        continue
                    dx = F(column) + _HALF - u
                    q = ka * dx * dx + _TWO * kb * dx * dy + kc * dy * dy
                    window = max(_gaussian(q) - _FLOOR, _ZERO) * _GAIN
                    weight = through * min(opacity * window, _MAX_ALPHA)
                    transmittance[c, row, column] = through - weight
                    if through - weight < _STOP:
                        open_pixels -= 1
                    pixel = image[c, row, column]
                    pixel[0] += weight * (slope_x * dx + slope_y * dy)
                    for k in range(n_features):
                        pixel[k] += weight * feature[k]


@numba.njit(cache=True, parallel=True, fastmath=_FASTMATH, error_model="numpy")
@no_type_check
def composite_backward(
    splats: NDArray[np.float32],
    features: NDArray[np.float32],
    tile_starts: NDArray[np.int64],
    entry_splat: NDArray[np.int32],
    entry_slot: NDArray[np.int64],
    image: NDArray[np.float32],
    transmittance: NDArray[np.float32],
    d_image: NDArray[np.float32],
    d_alpha: NDArray[np.float32],
    slot_gradients: NDArray[np.float32],
) -> None:
    """Fill `slot_gradients [slots, SLOT_FEATURES + F]` (given as zeros)."""
    height, width, n_features = image.shape[1], image.shape[2], image.shape[3]
    tiles_x = (width + TILE_PX - 1) // TILE_PX
    tiles = tile_starts.shape[1] - 1
    for flat in numba.prange(image.shape[0] * tiles):
        c, t = flat // tiles, flat % tiles
        top, left = (t // tiles_x) * TILE_PX, (t % tiles_x) * TILE_PX
        bottom, right = min(top + TILE_PX, height), min(left + TILE_PX, width)
        open_pixels = (bottom - top) * (right - left)
        passed = np.ones((TILE_PX, TILE_PX), np.float32)
        behind = np.zeros((TILE_PX, TILE_PX), np.float32)
        for row in range(top, bottom):
            for column in range(left, right):
                total = F(0.0)
                for k in range(n_features):
                    total += image[c, row, column, k] * d_image[c, row, column, k]
                behind[row - top, column - left] = total
        for entry in range(tile_starts[c, t], tile_starts[c, t + 1]):
            if open_pixels == 0:
                break
            g = entry_splat[entry]
            splat, feature = splats[c, g], features[c, g]
            gradient = slot_gradients[entry_slot[entry]]
            d_feature = gradient[SLOT_FEATURES:]
            u, v, opacity = splat[U], splat[V], splat[OPACITY]
            ka, kb, kc = splat[CONIC_A], splat[CONIC_B], splat[CONIC_C]
            slope_x, slope_y = splat[SLOPE_X], splat[SLOPE_Y]
            d_u, d_v, d_ka, d_kb, d_kc = F(0.0), F(0.0), F(0.0), F(0.0), F(0.0)
            d_slope_x, d_slope_y, d_opacity = F(0.0), F(0.0), F(0.0)
            shift, inverse, spare = kb / ka, _ONE / ka, kc - kb * kb / ka
            y0, y1 = _pixel_range(v, splat[REACH_Y], top, bottom)
            for row in range(y0, y1):
                dy = F(row) + _HALF - v
                # The row's chord of the ellipse q = CUTOFF: cheaper than testing q at every pixel.
                chord = np.sqrt(max((_CUTOFF - spare * dy * dy) * inverse, _ZERO))
                x0, x1 = _pixel_range(u - shift * dy, chord, left, right)
                for column in range(x0, x1):
                    through = passed[row - top, column - left]
                    if through < _STOP:
                        continue
                    dx = F(column) + _HALF - u
                    q = ka * dx * dx + _TWO * kb * dx * dy + kc * dy * dy
                    gaussian = _gaussian(q)
                    window = max(gaussian - _FLOOR, _ZERO) * _GAIN
                    alpha = min(opacity * window, _MAX_ALPHA)
                    weight = through * alpha
                    passed[row - top, column - left] = through - weight
                    if through - weight < _STOP:
                        open_pixels -= 1
                    g_pixel = d_image[c, row, column]
                    along = g_pixel[0] * (slope_x * dx + slope_y * dy)
                    for k in range(n_features):
                        along += g_pixel[k] * feature[k]
                        d_feature[k] += weight * g_pixel[k]
                    rest = behind[row - top, column - left] - weight * along
                    behind[row - top, column - left] = rest
                    weighted = weight * g_pixel[0]
                    d_slope_x += weighted * dx
                    d_slope_y += weighted * dy
                    d_u -= weighted * slope_x
                    d_v -= weighted * slope_y
                    if opacity * window < _MAX_ALPHA:
                        end = d_alpha[c, row, column] * transmittance[c, row, column]
                        d_a = through * along + (end - rest) / (_ONE - alpha)
                        d_opacity += d_a * window
                        d_q = -_HALF * _GAIN * d_a * opacity * gaussian
                        d_ka += d_q * dx * dx
                        d_kb += d_q * _TWO * dx * dy
                        d_kc += d_q * dy * dy
                        d_u -= d_q * _TWO * (ka * dx + kb * dy)
                        d_v -= d_q * _TWO * (kb * dx + kc * dy)
            gradient[U], gradient[V] = d_u, d_v
            gradient[CONIC_A], gradient[CONIC_B], gradient[CONIC_C] = d_ka, d_kb, d_kc
            gradient[SLOPE_X], gradient[SLOPE_Y], gradient[OPACITY] = d_slope_x, d_slope_y, d_opacity
