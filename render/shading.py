"""Physically based shading under image-based light, and the tone map: device functions of the preview.

Split-sum GGX (Karis 2013) with energy-conserving multiple scattering (Fdez-Aguera, "A Multiple-Scattering
Microfacet Model for Real-Time Image-based Lighting", JCGT 2019): a white surface in a white room is white
whatever its roughness and metalness. Tone map: Khronos PBR Neutral, which keeps base colours below 0.8 as
they are. All colours here are linear.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from render.environment import octa_sample
from render.packed_scene import COLOR, EMITTED, METAL, OCCLUDED, ROUGH, SHADING_NORMAL

_F0 = np.float32(0.04)
"""Reflectance of dielectrics at normal incidence (index of refraction 1.5; glTF 2.0, appendix B)."""


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"}, forceinline=True)
@no_type_check
def shade(
    surface: NDArray[np.float32],
    view_x: float,
    view_y: float,
    view_z: float,
    share: NDArray[np.float32],
    sh: NDArray[np.float32],
    prefiltered: NDArray[np.float32],
    lut: NDArray[np.float32],
    yaw_cosine: float,
    yaw_sine: float,
    scratch: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Outgoing radiance towards the unit vector `view` into `out[0:3]`.

    `surface` is what `surface_at` wrote; `share` the lit share of the irradiance per colour; the yaw turns
    world directions into the environment's.
    """
    nx, ny, nz = surface[SHADING_NORMAL], surface[SHADING_NORMAL + 1], surface[SHADING_NORMAL + 2]
    n_dot_v = nx * view_x + ny * view_y + nz * view_z
    reflected = n_dot_v + n_dot_v
    rx, ry, rz = reflected * nx - view_x, reflected * ny - view_y, reflected * nz - view_z
    if n_dot_v < 0.0:
        # Interpolated or mapped normals may turn away at a silhouette: reflect as at grazing incidence.
        rx, ry, rz = -view_x, -view_y, -view_z
    n_dot_v = min(max(n_dot_v, np.float32(0.02)), np.float32(1.0))
    rx, rz = rx * yaw_cosine - rz * yaw_sine, rx * yaw_sine + rz * yaw_cosine
    ex, ez = nx * yaw_cosine - nz * yaw_sine, nx * yaw_sine + nz * yaw_cosine
    rough, metal = surface[ROUGH], surface[METAL]

    level = rough * np.float32(prefiltered.shape[0] - 1)
    low = min(int(level), prefiltered.shape[0] - 2)
    blend = np.float32(level - low)
    scratch[0], scratch[1], scratch[2] = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    octa_sample(prefiltered, low, rx, ry, rz, np.float32(1.0) - blend, scratch)
    octa_sample(prefiltered, low + 1, rx, ry, rz, blend, scratch)

    size = lut.shape[0]
    x = min(max(n_dot_v * np.float32(size) - np.float32(0.5), np.float32(0.0)), np.float32(size - 1.001))
    y = min(max(rough * np.float32(size) - np.float32(0.5), np.float32(0.0)), np.float32(size - 1.001))
    column, row = int(x), int(y)
    fx, fy = np.float32(x - column), np.float32(y - row)
    w11 = fx * fy
    w01, w10 = fx - w11, fy - w11
    w00 = np.float32(1.0) - w11 - w01 - w10
    scale = w00 * lut[row, column, 0] + w01 * lut[row, column + 1, 0]
    scale += w10 * lut[row + 1, column, 0] + w11 * lut[row + 1, column + 1, 0]
    bias = w00 * lut[row, column, 1] + w01 * lut[row, column + 1, 1]
    bias += w10 * lut[row + 1, column, 1] + w11 * lut[row + 1, column + 1, 1]
    single = scale + bias
    lost = np.float32(1.0) - single

    # Specular occlusion from ambient occlusion (Lagarde and de Rousiers 2014, listing 26).
    cavity = surface[OCCLUDED]
    lit = min(
        share[0] * np.float32(0.2126) + share[1] * np.float32(0.7152) + share[2] * np.float32(0.0722), cavity
    )
    open_lobe = np.float32(1.0)
    if lit < np.float32(0.99):
        power = np.exp2(np.float32(-16.0) * rough - np.float32(1.0))
        open_lobe = (n_dot_v + lit) ** power - np.float32(1.0) + lit
        open_lobe = min(max(open_lobe, np.float32(0.0)), np.float32(1.0))

    single_dielectric = _F0 * scale + bias
    average = _F0 + (np.float32(1.0) - _F0) * np.float32(1.0 / 21.0)
    multiple_dielectric = single_dielectric * average / (np.float32(1.0) - average * lost) * lost
    below = np.float32(1.0) - single_dielectric - multiple_dielectric
    c0, c1, c2 = np.float32(0.282095), np.float32(0.488603), np.float32(1.092548)
    for c in range(3):
        irradiance = c0 * sh[0, c] + c1 * (sh[1, c] * ny + sh[2, c] * ez + sh[3, c] * ex)
        irradiance += c2 * (sh[4, c] * ex * ny + sh[5, c] * ny * ez + sh[7, c] * ex * ez)
        irradiance += np.float32(0.315392) * sh[6, c] * (np.float32(3.0) * ez * ez - np.float32(1.0))
        irradiance += np.float32(0.546274) * sh[8, c] * (ex * ex - ny * ny)
        irradiance = max(irradiance, np.float32(0.0))
        color = surface[COLOR + c]
        # A mixture of a dielectric and a metal (glTF 2.0, appendix B.3.5), each of which keeps its energy.
        single_scatter = (_F0 + (color - _F0) * metal) * scale + bias
        average = color + (np.float32(1.0) - color) * np.float32(1.0 / 21.0)
        multiple_metal = (color * scale + bias) * average / (np.float32(1.0) - average * lost) * lost
        multiple = multiple_dielectric + (multiple_metal - multiple_dielectric) * metal
        diffuse = color * (np.float32(1.0) - metal) * below
        # Light that bounces between bright walls brightens their creases (Jimenez et al. 2016, Eq. 10).
        a = min(share[c], cavity)
        bounce = (
            (
                (np.float32(2.0404) * color - np.float32(0.3324)) * a
                + (np.float32(0.6417) - np.float32(4.7951) * color)
            )
            * a
            + (np.float32(2.7552) * color + np.float32(0.6903))
        ) * a
        a = max(a, bounce)
        out[c] = (
            single_scatter * scratch[c] * open_lobe
            + (multiple + diffuse) * irradiance * a
            + surface[EMITTED + c]
        )


@numba.njit(cache=True, error_model="numpy", forceinline=True)
@no_type_check
def tone_map(color: NDArray[np.float32]) -> None:
    """Khronos PBR Neutral, in place on `color[0:3]`: radiance to display-linear in [0, 1]."""
    darkest = max(min(color[0], min(color[1], color[2])), np.float32(0.0))
    offset = darkest - np.float32(6.25) * darkest * darkest if darkest < 0.08 else np.float32(0.04)
    for c in range(3):
        color[c] = color[c] - offset
    peak = max(color[0], max(color[1], color[2]))
    start = np.float32(0.8 - 0.04)
    if peak < start:
        return
    reach = np.float32(1.0) - start
    new_peak = np.float32(1.0) - reach * reach / (peak + reach - start)
    whiten = np.float32(1.0) - np.float32(1.0) / (np.float32(0.15) * (peak - new_peak) + np.float32(1.0))
    for c in range(3):
        color[c] = color[c] * new_peak / peak * (np.float32(1.0) - whiten) + new_peak * whiten


def tone_mapped(linear: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """`tone_map` of many colours."""
    out = linear.astype(np.float32).copy()
    for color in out:
        tone_map(color)
    return out


def untone_mapped(display: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """The radiance that `tone_map` shows so: its inverse, up to what it shows all but white (0.97)."""
    out = np.asarray(display, np.float64)
    start = 0.8 - 0.04
    reach = 1 - start
    shown = np.minimum(out.max(1, keepdims=True), 0.97)
    peak = np.where(shown > start, reach * reach / np.maximum(1 - shown, 1e-6) - reach + start, shown)
    whiten = 1 - 1 / (0.15 * (peak - shown) + 1)
    plain = (np.minimum(out, 0.97) - shown * whiten) / (1 - whiten) * peak / np.maximum(shown, 1e-9)
    out = np.where(shown > start, np.maximum(plain, 0), out)
    darkest = np.maximum(out.min(1, keepdims=True), 0)
    offset = np.where(darkest < 0.04, np.sqrt(darkest / 6.25) - darkest, 0.04)
    return np.asarray(out + offset, np.float32)


def without_reflectance(linear: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Radiance under white light less what a dielectric mirrors, as `tone_map` takes it off: base colour."""
    darkest = np.maximum(linear.min(1, keepdims=True), 0)
    return np.asarray(linear - np.where(darkest < 0.08, darkest - 6.25 * darkest**2, 0.04), np.float32)
