"""Soft shadows and ambient occlusion of image-based light, by many small shadow maps.

In: triangles in the unit ball. Out: depth maps from directions spread evenly over the upper sphere, and a
device function that weighs every direction's light by whether it reaches a point. The lit share of the
irradiance (per colour) darkens the smooth irradiance, so that an unshadowed surface has no noise at all, and
contact shadows, self-shadows and ambient occlusion come from one place. The maps depend on the object only:
a turntable makes them once. Directions: spherical Fibonacci (Swinbank and Purser 2006). Filtering:
percentage-closer (Reeves et al. 1987), with a linear ramp in depth instead of a comparison.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from render.cameras import Cameras, look_at
from render.environment import Environment, octa_sample
from render.rasterize import Cutouts, rasterize

DIRECTIONS = 96
"""Over the whole sphere; the 52 of them that do not point into the floor get a map. With fewer, the sun's
shadow falls apart into steps."""
MAP_SIZE = 256
_FAR = np.float32(1e6)
_LOWEST = -0.08
"""Sine of the lowest elevation from which light can come past the floor."""
_RAMP = np.float32(0.02)
"""Depth, in radii of the object, over which a blocker becomes opaque: softens the steps between maps."""
_NORMAL_OFFSET = np.float32(0.016)
"""Points are lifted by about two map texels, so that a surface does not shadow itself."""
_BLUR = 5
"""Texels of the floor's shadow that its blur reaches to each side."""
_FLOOR_REACH = np.float32(0.35)
"""Height, in radii, at which light reflected by the floor has lost the object's own shadow."""


class Occluders(NamedTuple):
    """float32 throughout; `D` directions on the sphere, the first `U` of them have a map."""

    directions: Float[np.ndarray, "D 3"]
    rights: Float[np.ndarray, "U 3"]
    ups: Float[np.ndarray, "U 3"]
    depths: Float[np.ndarray, "U S S"]
    """Distance from the plane at 2 radii towards the light; very far where nothing is."""
    floor_y: float


def fibonacci_sphere(count: int) -> Float[np.ndarray, "n 3"]:
    """Evenly spread unit directions, by falling height."""
    index = np.arange(count) + 0.5
    y = 1 - 2 * index / count
    angle = index * np.pi * (3 - 5**0.5)
    radius = np.sqrt(1 - y * y)
    return np.stack([radius * np.cos(angle), y, radius * np.sin(angle)], -1).astype(np.float32)


def looking_along(directions: Float[np.ndarray, "D 3"], size: int) -> Cameras:
    """Orthographic cameras that see the unit ball from every direction, from the plane at 2 radii."""
    at = torch.from_numpy(np.ascontiguousarray(directions))
    pole = torch.tensor([0.0, 0.0, 1.0]).expand(len(at), 3)
    above = torch.tensor([0.0, 1.0, 0.0]).expand(len(at), 3)
    c2w = look_at(at * 2, torch.zeros_like(at), torch.where(at[:, 1:2].abs() > 0.99, pole, above))
    focal = size / 2.0
    return Cameras(c2w, torch.tensor([focal] * 4).repeat(len(at), 1), size, size)


def occluders_of(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], cutouts: Cutouts | None = None
) -> Occluders:
    """Shadow maps of an object in the unit ball."""
    directions = fibonacci_sphere(DIRECTIONS)
    maps_of = looking_along(directions[directions[:, 1] > _LOWEST], MAP_SIZE)
    c2w = maps_of.c2w
    depths = np.empty((len(maps_of), MAP_SIZE, MAP_SIZE), np.float32)
    for first in range(0, len(maps_of), 8):
        chosen = slice(first, first + 8)
        fragments = rasterize(vertices, faces, maps_of[chosen], cutouts)
        depths[chosen] = np.where(fragments.face < 0, _FAR, fragments.depth)
    return Occluders(
        directions,
        np.ascontiguousarray(c2w[:, :3, 0].numpy()),
        np.ascontiguousarray(c2w[:, :3, 1].numpy()),
        depths,
        float(vertices[:, 1].min()),
    )


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _sample_lights(
    maps: NDArray[np.float32],
    directions: NDArray[np.float32],
    cosine: float,
    sine: float,
    out: NDArray[np.float32],
) -> None:
    for index in range(directions.shape[0]):
        x, y, z = directions[index]
        out[index] = np.float32(0.0)
        octa_sample(maps, 3, x * cosine - z * sine, y, x * sine + z * cosine, 1.0, out[index])


def light_of(occluders: Occluders, environment: Environment, yaw_rad: float) -> Float[np.ndarray, "D 3"]:
    """Radiance from every direction, with the environment turned by `yaw_rad` about +Y."""
    out = np.zeros((len(occluders.directions), 3), np.float32)
    _sample_lights(
        environment.prefiltered,
        occluders.directions,
        np.float32(np.cos(yaw_rad)),
        np.float32(np.sin(yaw_rad)),
        out,
    )
    return out


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"}, forceinline=True)
@no_type_check
def lit_share(
    occluders: Occluders,
    lights: NDArray[np.float32],
    px: float,
    py: float,
    pz: float,
    gx: float,
    gy: float,
    gz: float,
    nx: float,
    ny: float,
    nz: float,
    out: NDArray[np.float32],
) -> None:
    """Share of the irradiance that reaches a point, per colour, into `out[0:3]`; the floor darkens too.

    `g` is the face normal, along which the point is lifted off its own surface; `n` the shading normal.
    """
    directions, depths = occluders.directions, occluders.depths
    size = depths.shape[1]
    upper = depths.shape[0]
    px, py, pz = px + gx * _NORMAL_OFFSET, py + gy * _NORMAL_OFFSET, pz + gz * _NORMAL_OFFSET
    height = max(py - occluders.floor_y, np.float32(0.0))
    open_floor = min(np.float32(0.25) + np.float32(0.75) * height / _FLOOR_REACH, np.float32(1.0))
    all_r, all_g, all_b = np.float32(1e-6), np.float32(1e-6), np.float32(1e-6)
    lit_r, lit_g, lit_b = np.float32(1e-6), np.float32(1e-6), np.float32(1e-6)
    half = np.float32(0.5 * size)
    for index in range(directions.shape[0]):
        dx, dy, dz = directions[index, 0], directions[index, 1], directions[index, 2]
        cosine = dx * nx + dy * ny + dz * nz
        if cosine <= 0.0:
            continue
        r, g, b = lights[index, 0] * cosine, lights[index, 1] * cosine, lights[index, 2] * cosine
        all_r, all_g, all_b = all_r + r, all_g + g, all_b + b
        share = open_floor
        if index < upper:
            rights, ups = occluders.rights, occluders.ups
            x = (
                (px * rights[index, 0] + py * rights[index, 1] + pz * rights[index, 2]) * half
                + half
                - np.float32(0.5)
            )
            y = half - (px * ups[index, 0] + py * ups[index, 1] + pz * ups[index, 2]) * half - np.float32(0.5)
            depth = np.float32(2.0) - (px * dx + py * dy + pz * dz)
            column, row = int(x), int(y)
            share = np.float32(1.0)
            if x >= 0.0 and y >= 0.0 and column < size - 1 and row < size - 1:
                fx, fy = np.float32(x - column), np.float32(y - row)
                one, none = np.float32(1.0), np.float32(0.0)
                behind = one - depth / _RAMP
                line, below = depths[index, row], depths[index, row + 1]
                s00 = min(max(line[column] / _RAMP + behind, none), one)
                s01 = min(max(line[column + 1] / _RAMP + behind, none), one)
                s10 = min(max(below[column] / _RAMP + behind, none), one)
                s11 = min(max(below[column + 1] / _RAMP + behind, none), one)
                top = s00 + (s01 - s00) * fx
                share = top + (s10 + (s11 - s10) * fx - top) * fy
        lit_r, lit_g, lit_b = lit_r + r * share, lit_g + g * share, lit_b + b * share
    out[0], out[1], out[2] = lit_r / all_r, lit_g / all_g, lit_b / all_b


@numba.njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def _floor_shadow(
    occluders: Occluders, lights: NDArray[np.float32], reach: float, out: NDArray[np.float32]
) -> None:
    size = out.shape[0]
    for row in numba.prange(size):
        share = np.empty(3, np.float32)
        z = ((row + np.float32(0.5)) / size * 2 - 1) * reach
        for column in range(size):
            x = ((column + np.float32(0.5)) / size * 2 - 1) * reach
            lit_share(occluders, lights, x, occluders.floor_y, z, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, share)
            out[row, column] = share[0] * 0.2126 + share[1] * 0.7152 + share[2] * 0.0722


def floor_shadow(
    occluders: Occluders, lights: Float[np.ndarray, "D 3"], size: int, reach: float
) -> Float[np.ndarray, "S S"]:
    """Lit share of the floor over the square [-reach, reach]; rows along +Z, columns along +X."""
    sharp = np.empty((size, size), np.float32)
    _floor_shadow(occluders, lights, np.float32(reach), sharp)
    # The sum of sharp shadows shows its terms as faint steps; contact, which is dark, keeps its edge.
    soft = _blurred(_blurred(sharp.T).T)
    contact = np.clip((0.55 - sharp) / 0.35, 0, 1)
    return np.asarray(soft + (np.minimum(sharp, soft) - soft) * contact, np.float32)


def _blurred(rows: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "S S"]:
    """Gaussian blur along rows; lit beyond the border."""
    taps = np.exp(-0.5 * (np.arange(-_BLUR, _BLUR + 1) / (_BLUR / 2)) ** 2)
    padded = np.pad(rows, ((0, 0), (_BLUR, _BLUR)), constant_values=1.0)
    size = rows.shape[1]
    out = sum(tap * padded[:, at : at + size] for at, tap in enumerate((taps / taps.sum()).tolist()))
    return np.asarray(out, np.float32)
