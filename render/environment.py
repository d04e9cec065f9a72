"""Procedural HDR environments and what image-based lighting needs of them.

In: a name. Out: an `Environment`: the equirectangular radiance map, irradiance as nine spherical harmonics,
GGX-prefiltered radiance as octahedral maps by roughness, and the table of the split sum. The maps are
made here from gradients and soft boxes, so there is nothing to download and no licence to carry; everything
is deterministic and takes about a fifth of a second.

Sources: split sum, Karis, "Real Shading in Unreal Engine 4" (2013); filtered importance sampling, Krivanek
and Colbert, "Real-time Shading with Filtered Importance Sampling" (2008); irradiance, Ramamoorthi and
Hanrahan, "An Efficient Representation for Irradiance Environment Maps" (2001), Eq. 13.
Directions are in world space (+Y up); azimuth 0 of the map's middle column is -Z: light that a camera on +Z
sees behind the object. A renderer may turn the map about +Y.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args, no_type_check

import numba
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from render.errors import InputError

EnvironmentName = Literal["studio", "sunset", "overcast"]

OCTA_SIZE = 128
"""Side of every prefiltered map: 1.4 degrees a texel, finer than the lobe of the lowest roughness."""
OCTA_LEVELS = 7
"""Roughness 0, 1/6, ... 1."""
LUT_SIZE = 32
_EQUIRECT_HEIGHT = 128
EXPOSURE = 0.82
"""Mean radiance of every environment: a white object keeps its form below the shoulder of the tone map,
and base colours come out about as bright as they are."""
_SAMPLES = 48


@dataclass(frozen=True)
class Environment:
    """Linear radiance; ours have a mean of `EXPOSURE`."""

    name: str
    equirect_linear: Float[np.ndarray, "H W 3"]
    """Row 0 is up; the middle column looks along -Z."""
    irradiance_sh: Float[np.ndarray, "9 3"]
    """Coefficients with the cosine lobe folded in: their sum with the basis is irradiance / pi."""
    prefiltered: Float[np.ndarray, "L S S 3"]
    """Octahedral maps, by roughness l / (L - 1)."""
    background_srgb: Float[np.ndarray, "2 3"]
    """Colours of the matching gradient background: middle and rim."""


def directions_of_equirect(height: int) -> Float[np.ndarray, "H W 3"]:
    """Unit directions of the texel centres of a map of `height` x `2 * height`."""
    polar = (np.arange(height) + 0.5) / height * np.pi
    azimuth = (np.arange(2 * height) + 0.5) / height * np.pi
    sine = np.sin(polar)[:, None]
    x, z = np.sin(azimuth)[None], np.cos(azimuth)[None]
    return np.stack(
        [-sine * x, np.broadcast_to(np.cos(polar)[:, None], (height, 2 * height)), sine * z], -1
    ).astype(np.float32)


def directions_of_octahedron(size: int) -> Float[np.ndarray, "S S 3"]:
    """Unit directions of an octahedral map's texel centres (Meyer et al. 2010); +Y in the middle."""
    grid = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    x, z = np.meshgrid(grid, grid)
    y = 1 - np.abs(x) - np.abs(z)
    folded_x = (1 - np.abs(z)) * np.where(x < 0, -1, 1)
    folded_z = (1 - np.abs(x)) * np.where(z < 0, -1, 1)
    out = np.stack([np.where(y < 0, folded_x, x), y, np.where(y < 0, folded_z, z)], -1)
    return np.asarray(out / np.linalg.norm(out, axis=-1, keepdims=True), np.float32)


def _direction(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """As `render.conventions`: azimuth 0 is +Z, +90 is +X."""
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    return np.array(
        [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)]
    )


def _smoothstep(low: float, high: float, value: NDArray[Any]) -> NDArray[Any]:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _soft_box(
    directions: NDArray[Any], azimuth_deg: float, elevation_deg: float, size: tuple[float, float], soft: float
) -> NDArray[Any]:
    """A rectangle of half-sizes `size` (tangents) around a direction, 1 inside, with soft rims."""
    forward = _direction(azimuth_deg, elevation_deg)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    along = directions @ forward
    depth = np.maximum(along, 1e-3)
    x, y = np.abs(directions @ right) / depth, np.abs(directions @ up) / depth
    inside = _smoothstep(size[0] + soft, size[0] - soft, x) * _smoothstep(size[1] + soft, size[1] - soft, y)
    return np.where(along > 0, inside, 0.0)[..., None]


def _glow(
    directions: NDArray[Any], azimuth_deg: float, elevation_deg: float, sharpness: float
) -> NDArray[Any]:
    """A spherical Gaussian of height 1."""
    aligned: NDArray[Any] = directions @ _direction(azimuth_deg, elevation_deg)
    return np.exp(sharpness * (aligned - 1))[..., None]


def _radiance(name: str, directions: NDArray[np.float32]) -> NDArray[np.float64]:
    d = directions.astype(np.float64)
    up = d[..., 1:2]
    match name:
        case "studio":
            # A bright cyclorama: a soft white room, a big key box left of the camera, a cooler fill right,
            # a top light and two strips behind for the rim. Values are relative; `environment` scales.
            room = 0.30 + 0.22 * _smoothstep(-0.2, 1.0, up)
            floor = 0.26 * _smoothstep(0.05, -0.6, up)
            out = (room + floor) * np.array([1.0, 0.995, 0.985])
            out += 6.5 * _soft_box(d, -48.0, 40.0, (0.50, 0.50), 0.10) * np.array([1.0, 0.975, 0.94])
            out += 1.5 * _soft_box(d, 62.0, 22.0, (0.36, 0.62), 0.12) * np.array([0.93, 0.97, 1.0])
            out += 2.2 * _soft_box(d, 10.0, 84.0, (0.60, 0.60), 0.20)
            out += 3.4 * _soft_box(d, 158.0, 28.0, (0.16, 0.70), 0.07) * np.array([0.96, 0.98, 1.0])
            out += 2.2 * _soft_box(d, -150.0, 24.0, (0.14, 0.70), 0.07) * np.array([1.0, 0.98, 0.95])
        case "sunset":
            zenith, horizon = np.array([0.20, 0.30, 0.52]), np.array([1.05, 0.62, 0.42])
            ground = np.array([0.30, 0.24, 0.21])
            sky = horizon + (zenith - horizon) * _smoothstep(0.0, 0.75, np.maximum(up, 0)) ** 0.6
            out = sky + (ground - sky) * _smoothstep(0.02, -0.10, up)
            out += 1.4 * _glow(d, -58.0, 14.0, 5.0) * np.array([1.0, 0.55, 0.25])
            out += 42.0 * _glow(d, -58.0, 20.0, 120.0) * np.array([1.0, 0.72, 0.42])
            out += 0.25 * _glow(d, 120.0, 30.0, 2.0) * np.array([0.6, 0.75, 1.0])
        case "overcast":
            # CIE standard overcast sky: (1 + 2 sin elevation) / 3 of the zenith, over a grey ground.
            sky = (1 + 2 * np.maximum(up, 0)) / 3 * np.array([0.95, 0.99, 1.05])
            ground = np.array([0.26, 0.25, 0.235])
            out = sky + (ground - sky) * _smoothstep(0.02, -0.06, up)
            out += 0.55 * _glow(d, -35.0, 55.0, 6.0)
        case _:
            raise InputError(
                f"Unknown environment {name!r}; choose one of {', '.join(get_args(EnvironmentName))}."
            )
    return np.asarray(out)


_BACKGROUNDS = {
    "studio": ((0.965, 0.965, 0.96), (0.80, 0.805, 0.81)),
    "sunset": ((0.86, 0.76, 0.69), (0.47, 0.42, 0.45)),
    "overcast": ((0.90, 0.915, 0.93), (0.68, 0.70, 0.725)),
}


def sh_basis(directions: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 9"]:
    """Real spherical harmonics up to degree 2 (Ramamoorthi and Hanrahan, Eq. 3)."""
    x, y, z = np.moveaxis(directions, -1, 0)
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        -1,
    )


def _irradiance_sh(equirect: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "9 3"]:
    directions = directions_of_equirect(equirect.shape[0]).astype(np.float64)
    polar = (np.arange(equirect.shape[0]) + 0.5) / equirect.shape[0] * np.pi
    weight = np.sin(polar)[:, None] * (np.pi / equirect.shape[0]) ** 2
    weight = weight * (4 * np.pi / (weight.sum() * equirect.shape[1]))
    coefficients = np.einsum(
        "hwk,hwc,hw->kc", sh_basis(directions), equirect, np.broadcast_to(weight, equirect.shape[:2])
    )
    # A_l / pi of Eq. 8: pi, 2 pi / 3, pi / 4.
    lobe = np.array([1] + [2 / 3] * 3 + [1 / 4] * 5)[:, None]
    return np.asarray(coefficients * lobe, np.float32)


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def octa_sample(
    maps: NDArray[np.float32],
    level: int,
    x: float,
    y: float,
    z: float,
    weight: float,
    out: NDArray[np.float32],
) -> None:
    """Add `weight` times the bilinear sample of `maps[level]` in a unit direction to `out[0:3]`."""
    size = maps.shape[1]
    side, half, one = np.float32(size), np.float32(0.5), np.float32(1.0)
    scale = one / (abs(x) + abs(y) + abs(z))
    u, v = x * scale, z * scale
    if y < 0.0:
        folded = (np.float32(1.0) - abs(v)) * (np.float32(1.0) if u >= 0.0 else np.float32(-1.0))
        v = (np.float32(1.0) - abs(u)) * (np.float32(1.0) if v >= 0.0 else np.float32(-1.0))
        u = folded
    # Clamped at the border, where the map continues mirrored: an error of half a texel around -Y.
    last = np.float32(size - 1.001)
    px = min(max((u * half + half) * side - half, np.float32(0.0)), last)
    py = min(max((v * half + half) * side - half, np.float32(0.0)), last)
    column, row = int(px), int(py)
    fx, fy = np.float32(px - column), np.float32(py - row)
    w11 = fx * fy * weight
    w01, w10 = fx * weight - w11, fy * weight - w11
    w00 = weight - w11 - w01 - w10
    for c in range(3):
        out[c] += (
            w00 * maps[level, row, column, c]
            + w01 * maps[level, row, column + 1, c]
            + w10 * maps[level, row + 1, column, c]
            + w11 * maps[level, row + 1, column + 1, c]
        )


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _hammersley(index: int, count: int) -> tuple[float, float]:
    bits, inverse, digit = index, 0.0, 0.5
    while bits > 0:
        inverse += digit * (bits & 1)
        bits >>= 1
        digit *= 0.5
    return (index + 0.5) / count, inverse


@numba.njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def _prefilter(
    pyramid: NDArray[np.float32],
    directions: NDArray[np.float32],
    roughness: float,
    samples: int,
    out: NDArray[np.float32],
) -> None:
    """GGX-weighted radiance with N = V = R (Karis, Eq. 4); `pyramid` holds ever blurrier maps of one size."""
    size = directions.shape[0]
    alpha2 = roughness**4
    texel_angle = 4.0 * np.pi / (pyramid.shape[1] * pyramid.shape[1])
    for row in numba.prange(size):
        total = np.empty(3, np.float32)
        for column in range(size):
            nx, ny, nz = directions[row, column]
            # Frisvad's basis, turned so that its pole is -Y.
            a = 1.0 / max(1.0 + abs(ny), 1e-6)
            side = 1.0 if ny >= 0.0 else -1.0
            tx, ty, tz = 1.0 - nx * nx * a, -nx * side, -nx * nz * a
            bx, by, bz = -nx * nz * a, -nz * side, 1.0 - nz * nz * a
            total[:] = np.float32(0.0)
            weights = 0.0
            for index in range(samples):
                xi, angle = _hammersley(index, samples)
                cosine = np.sqrt((1.0 - xi) / (1.0 + (alpha2 - 1.0) * xi))
                sine = np.sqrt(max(0.0, 1.0 - cosine * cosine))
                hx, hz = sine * np.cos(2 * np.pi * angle), sine * np.sin(2 * np.pi * angle)
                # l = 2 (n.h) h - n in the basis of n.
                lx, ly, lz = 2 * cosine * hx, 2 * cosine * cosine - 1, 2 * cosine * hz
                if ly <= 0.0:
                    continue
                d = cosine * cosine * (alpha2 - 1) + 1
                density = alpha2 / (np.pi * d * d) / 4
                level = 0.5 * np.log2(max(1.0 / (samples * density * texel_angle), 1.0)) + 0.5
                level = min(level, pyramid.shape[0] - 1.0)
                low = min(int(level), pyramid.shape[0] - 2)
                x = lx * tx + ly * nx + lz * bx
                y = lx * ty + ly * ny + lz * by
                z = lx * tz + ly * nz + lz * bz
                octa_sample(pyramid, low, x, y, z, ly * (1 - (level - low)), total)
                octa_sample(pyramid, low + 1, x, y, z, ly * (level - low), total)
                weights += ly
            for c in range(3):
                out[row, column, c] = total[c] / weights


def _blur_pyramid(sharp: Float[np.ndarray, "S S 3"], levels: int) -> Float[np.ndarray, "L S S 3"]:
    """Box mips of an octahedral map, each brought back to full size (so that one sampler reads all)."""
    size = sharp.shape[0]
    out = np.empty((levels, size, size, 3), np.float32)
    out[0] = small = sharp
    for level in range(1, levels):
        small = small.reshape(small.shape[0] // 2, 2, small.shape[1] // 2, 2, 3).mean((1, 3))
        out[level] = _enlarged(small, 2**level)
    return out


def _enlarged(small: Float[np.ndarray, "s s 3"], factor: int) -> Float[np.ndarray, "S S 3"]:
    """Bilinear, texel centres aligned."""
    last = small.shape[0] - 1
    position = np.clip((np.arange(small.shape[0] * factor) + 0.5) / factor - 0.5, 0, last)
    low = np.minimum(position.astype(np.int64), max(last - 1, 0))
    high = np.minimum(low + 1, last)
    t = (position - low).astype(np.float32)
    rows = small[low] * (1 - t)[:, None, None] + small[high] * t[:, None, None]
    return np.asarray(rows[:, low] * (1 - t)[None, :, None] + rows[:, high] * t[None, :, None], np.float32)


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _integrate_brdf(size: int, samples: int, out: NDArray[np.float32]) -> None:
    for row in range(size):
        roughness = max((row + 0.5) / size, 0.02)
        alpha2 = roughness**4
        for column in range(size):
            cosine_v = (column + 0.5) / size
            sine_v = np.sqrt(1 - cosine_v * cosine_v)
            scale, bias = 0.0, 0.0
            for index in range(samples):
                xi, angle = _hammersley(index, samples)
                cosine_h = np.sqrt((1 - xi) / (1 + (alpha2 - 1) * xi))
                sine_h = np.sqrt(max(0.0, 1 - cosine_h * cosine_h))
                v_dot_h = sine_v * sine_h * np.cos(2 * np.pi * angle) + cosine_v * cosine_h
                cosine_l = 2 * v_dot_h * cosine_h - cosine_v
                if cosine_l <= 0 or v_dot_h <= 0:
                    continue
                # Height-correlated Smith visibility (Heitz 2014), as V = G / (4 NoL NoV).
                smith = 0.5 / (
                    cosine_l * np.sqrt(cosine_v * cosine_v * (1 - alpha2) + alpha2)
                    + cosine_v * np.sqrt(cosine_l * cosine_l * (1 - alpha2) + alpha2)
                )
                weight = 4 * smith * cosine_l * v_dot_h / cosine_h
                fresnel = (1 - v_dot_h) ** 5
                scale += (1 - fresnel) * weight
                bias += fresnel * weight
            out[row, column, 0] = scale / samples
            out[row, column, 1] = bias / samples


@lru_cache(maxsize=1)
def brdf_lut() -> Float[np.ndarray, "32 32 2"]:
    """Scale and bias of F0 (Karis, Eq. 8) by [roughness, cosine to the eye], cell centres."""
    out = np.empty((LUT_SIZE, LUT_SIZE, 2), np.float32)
    _integrate_brdf(LUT_SIZE, 128, out)
    out.setflags(write=False)
    return out


def prefilter(
    name: str,
    equirect_linear: Float[np.ndarray, "H W 3"],
    octahedral_linear: Float[np.ndarray, "S S 3"],
    background_srgb: Float[np.ndarray, "2 3"],
) -> Environment:
    """An environment from the same radiance in both parametrisations."""
    directions = directions_of_octahedron(OCTA_SIZE)
    pyramid = _blur_pyramid(octahedral_linear.astype(np.float32), 6)
    filtered = np.empty((OCTA_LEVELS, OCTA_SIZE, OCTA_SIZE, 3), np.float32)
    filtered[0] = pyramid[0]
    half = OCTA_SIZE // 2
    coarse = np.empty((half, half, 3), np.float32)
    for level in range(1, OCTA_LEVELS):
        roughness = level / (OCTA_LEVELS - 1)
        if level == 1:
            _prefilter(pyramid, directions, roughness, _SAMPLES, filtered[level])
        else:
            # Smooth at this roughness: a quarter of the texels says all, and takes a quarter of the time.
            _prefilter(pyramid, directions_of_octahedron(half), roughness, _SAMPLES, coarse)
            filtered[level] = _enlarged(coarse, 2)
    return Environment(
        name, equirect_linear.astype(np.float32), _irradiance_sh(equirect_linear), filtered, background_srgb
    )


@lru_cache(maxsize=2)
def environment(name: str = "studio") -> Environment:
    """One of ours, scaled to a mean radiance of `EXPOSURE`. Raises `InputError` on another name.

    Kept: a worker draws several small pictures of every job, and making the light takes as long as each.
    """
    directions = directions_of_equirect(_EQUIRECT_HEIGHT)
    equirect = _radiance(name, directions)
    sine = np.sqrt(1 - directions[..., 1:2].astype(np.float64) ** 2)
    luminance = equirect @ np.array([0.2126, 0.7152, 0.0722])
    scale = EXPOSURE / (
        (luminance * sine[..., 0]).sum() / np.broadcast_to(sine[..., 0], luminance.shape).sum()
    )
    octahedral = _radiance(name, directions_of_octahedron(OCTA_SIZE))
    return prefilter(name, equirect * scale, octahedral * scale, np.array(_BACKGROUNDS[name], np.float32))
