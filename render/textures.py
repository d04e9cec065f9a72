"""Textures as the kernels read them: one flat array of 16-bit texels with mip chains, sampled trilinearly.

In: float32 maps in [0, 1], row 0 on top. Out: linear texels (sRGB maps are decoded before they are
averaged, so that mips keep their energy) and a table that says where each map lies. 16 bits hold the
darkest 8-bit sRGB step (1/3295) twenty times over and halve the memory traffic of float32.
UVs have their origin bottom-left and repeat, as glTF's default sampler.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int, UInt16
from numpy.typing import NDArray

from render.conventions import srgb_to_linear_np

OFFSET, WIDTH, HEIGHT, LEVELS = range(4)
"""Columns of the table of maps; OFFSET is -1 where a material has no such map."""

_DECODE_STEPS = 4096
"""sRGB decoding by table with linear interpolation errs by less than 1e-6."""


@numba.njit(cache=True, parallel=True)
@no_type_check
def _quantize(source: NDArray[np.float32], decode: NDArray[np.float32], out: NDArray[np.uint16]) -> None:
    steps = decode.shape[0] - 1
    for row in numba.prange(source.shape[0]):
        for column in range(source.shape[1]):
            for channel in range(source.shape[2]):
                value = min(max(source[row, column, channel], np.float32(0.0)), np.float32(1.0))
                if steps > 0:
                    position = value * steps
                    index = min(int(position), steps - 1)
                    fraction = position - index
                    value = decode[index] * (1 - fraction) + decode[index + 1] * fraction
                out[row, column, channel] = np.uint16(value * 65535 + 0.5)


@numba.njit(cache=True)
@no_type_check
def _halve(source: NDArray[np.uint16], out: NDArray[np.uint16]) -> None:
    """Box filter; of an odd side the last row or column is counted once more."""
    last_row, last_column = source.shape[0] - 1, source.shape[1] - 1
    for row in range(out.shape[0]):
        top, bottom = min(2 * row, last_row), min(2 * row + 1, last_row)
        for column in range(out.shape[1]):
            left, right = min(2 * column, last_column), min(2 * column + 1, last_column)
            for channel in range(source.shape[2]):
                total = (
                    np.uint32(source[top, left, channel])
                    + source[top, right, channel]
                    + source[bottom, left, channel]
                    + source[bottom, right, channel]
                )
                out[row, column, channel] = np.uint16((total + 2) // 4)


def mip_chain(texture: Float[np.ndarray, "H W c"], srgb: bool) -> list[UInt16[np.ndarray, "h w c"]]:
    """The map in linear 16-bit texels and its halvings down to one texel."""
    decode = np.zeros(1, np.float32)
    if srgb:
        decode = srgb_to_linear_np(np.linspace(0, 1, _DECODE_STEPS + 1, dtype=np.float32))
    level: NDArray[np.uint16] = np.empty(texture.shape, np.uint16)
    _quantize(np.ascontiguousarray(texture, np.float32), decode, level)
    chain = [level]
    while max(level.shape[:2]) > 1:
        smaller = np.empty(
            (max(1, level.shape[0] // 2), max(1, level.shape[1] // 2), level.shape[2]), np.uint16
        )
        _halve(level, smaller)
        level = smaller
        chain.append(level)
    return chain


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _bilinear(
    texels: NDArray[np.uint16],
    offset: int,
    width: int,
    height: int,
    channels: int,
    u: float,
    v: float,
    weight: float,
    out: NDArray[np.float32],
    at: int,
) -> None:
    x = np.float32((u - np.floor(u)) * np.float32(width) - np.float32(0.5))
    y = np.float32((np.float32(1.0) - (v - np.floor(v))) * np.float32(height) - np.float32(0.5))
    left, top = int(np.floor(x)), int(np.floor(y))
    fx, fy = np.float32(x - left), np.float32(y - top)
    x0 = left + width if left < 0 else (left - width if left >= width else left)
    y0 = top + height if top < 0 else (top - height if top >= height else top)
    x1 = 0 if x0 + 1 >= width else x0 + 1
    y1 = 0 if y0 + 1 >= height else y0 + 1
    scale = weight * np.float32(1.0 / 65535.0)
    w11 = fx * fy * scale
    w01 = fx * scale - w11
    w10 = fy * scale - w11
    w00 = scale - w11 - w01 - w10
    i00 = offset + (y0 * width + x0) * channels
    i01 = offset + (y0 * width + x1) * channels
    i10 = offset + (y1 * width + x0) * channels
    i11 = offset + (y1 * width + x1) * channels
    for c in range(channels):
        out[at + c] += (
            w00 * texels[i00 + c] + w01 * texels[i01 + c] + w10 * texels[i10 + c] + w11 * texels[i11 + c]
        )


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def sample_map(
    texels: NDArray[np.uint16],
    entry: Int[np.ndarray, "4"],
    channels: int,
    u: float,
    v: float,
    log2_uv_per_pixel: float,
    out: NDArray[np.float32],
    at: int,
) -> None:
    """Trilinear sample into `out[at : at + channels]`; the footprint is one pixel's size in UV, as log2."""
    offset, width, height, levels = entry[0], entry[1], entry[2], entry[3]
    for c in range(channels):
        out[at + c] = np.float32(0.0)
    if levels == 1:
        if width * height == 1:
            for c in range(channels):
                out[at + c] = texels[offset + c] * np.float32(1.0 / 65535.0)
        else:
            _bilinear(texels, offset, width, height, channels, u, v, np.float32(1.0), out, at)
        return
    lod = log2_uv_per_pixel + np.float32(0.5) * np.log2(np.float32(width * height))
    lod = min(max(lod, np.float32(0.0)), np.float32(levels - 1))
    level = int(lod)
    fraction = np.float32(lod - level)
    for _ in range(level):
        offset += width * height * channels
        width, height = max(1, width // 2), max(1, height // 2)
    _bilinear(texels, offset, width, height, channels, u, v, np.float32(1.0) - fraction, out, at)
    if fraction > 0.0:
        offset += width * height * channels
        width, height = max(1, width // 2), max(1, height // 2)
        _bilinear(texels, offset, width, height, channels, u, v, fraction, out, at)
