"""Objects as volumes: what `multiview.volume_network` learns.

The meshes of the packs are open, doubled and inside out, so inside is what no view sees into: an object is
carved out of its cube by the depths of views from all around, and where it is thinner than a cell, those
that the surface lies in stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import no_type_check

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.multiview.volume_network import CELLS, SURFACE_CELLS, cell_centers
from pipeline.multiview.volume_views import dot
from pipeline.training.props import Prop
from pipeline.training.views import Pose, cameras_of, network_images

_SIZE_PX = 128
_POSES = [
    *(Pose(azimuth, 15.0) for azimuth in range(0, 360, 45)),
    *(Pose(azimuth, -30.0) for azimuth in range(20, 360, 90)),
    *(Pose(azimuth, 50.0) for azimuth in range(70, 430, 90)),
    Pose(0.0, 89.0),
    Pose(0.0, -89.0),
]
_COVERED = 0.3
"""Share of the pixels around a cell's centre from which a view does not see past the object there."""
_SURFACE, _WEIGHT, _KNOWN = slice(1, 6), 6, 7
_CHANNELS = 8


@dataclass(frozen=True)
class VolumeTargets:
    """What pictures show, whole and upright, facing where they were taken from; indexed by z, y, x."""

    occupied: Float[Tensor, "b n n n"]
    surface: Float[Tensor, "b 5 m m m"]
    weight: Float[Tensor, "b 5 m m m"]
    """0 where there is no surface, and for metallic and roughness where the material is not known."""

    def to(self, device: torch.device) -> VolumeTargets:
        """On the device."""
        return VolumeTargets(self.occupied.to(device), self.surface.to(device), self.weight.to(device))


@numba.njit(cache=True)
@no_type_check
def _may_be(image, row, column, height):
    """Whether a view allows an object at the height behind a place between pixels."""
    cover, top = np.float32(0), np.float32(-9)
    for r in range(int(np.floor(row)), int(np.floor(row)) + 2):
        for c in range(int(np.floor(column)), int(np.floor(column)) + 2):
            if 0 <= r < image.shape[1] and 0 <= c < image.shape[2]:
                alpha = image[3, r, c] * np.float32(0.5) + np.float32(0.5)
                cover += alpha * np.float32(0.25)
                if alpha > 0:
                    top = max(top, image[7, r, c])
    return cover >= np.float32(_COVERED) and height <= top


@numba.njit(cache=True)
@no_type_check
def _cell(right, up, height, axis, side, cell):
    """The cell of a view's point into `cell`; whether it is in the cube."""
    for d in range(3):
        at = right * axis[0, d] + up * axis[1, d] + height * axis[2, d]
        cell[d] = int(np.floor((at + 1) * side * np.float32(0.5)))
    return cell.min() >= 0 and cell.max() < side


@numba.njit(cache=True)
@no_type_check
def _keep_thin(images, axes, focal, volume) -> None:
    """Where a cell's depth under a surface that is seen there is no object, it is thin: the cell with the
    surface is kept."""
    views, _, rows, columns = images.shape
    side = volume.shape[-1]
    cell = np.empty(3, np.int64)
    kept = volume[0].copy()
    for k in range(views):
        for row in range(rows):
            up = (rows * np.float32(0.5) - (row + np.float32(0.5))) / focal
            for column in range(columns):
                if images[k, 3, row, column] <= 0:
                    continue
                right = (column + np.float32(0.5) - columns * np.float32(0.5)) / focal
                height = images[k, 7, row, column]
                deep = _cell(right, up, height - np.float32(2.0 / side), axes[k], side, cell)
                if deep and volume[0, cell[2], cell[1], cell[0]] > 0:
                    continue
                if _cell(right, up, height - np.float32(0.25 / side), axes[k], side, cell):
                    kept[cell[2], cell[1], cell[0]] = 1
    volume[0] = kept


@numba.njit(cache=True)
@no_type_check
def _carve(
    images: NDArray[np.float32], axes: NDArray[np.float32], focal: np.float32, volume: NDArray[np.float32]
) -> None:
    views, _, rows, columns = images.shape
    side = volume.shape[-1]
    point = np.empty(3, np.float32)
    for k in range(side):
        point[2] = np.float32(2 * k + 1) / side - 1
        for j in range(side):
            point[1] = np.float32(2 * j + 1) / side - 1
            for i in range(side):
                point[0] = np.float32(2 * i + 1) / side - 1
                if dot(point, point) > 1:
                    continue
                inside = True
                for view in range(views):
                    row = rows * np.float32(0.5) - focal * dot(axes[view, 1], point) - np.float32(0.5)
                    column = columns * np.float32(0.5) + focal * dot(axes[view, 0], point) - np.float32(0.5)
                    if not _may_be(images[view], row, column, dot(axes[view, 2], point)):
                        inside = False
                        break
                if inside:
                    volume[0, k, j, i] = 1


@numba.njit(cache=True)
@no_type_check
def _paint(
    images: NDArray[np.float32],
    known: NDArray[np.float32],
    axes: NDArray[np.float32],
    focal: np.float32,
    volume: NDArray[np.float32],
) -> None:
    """What views see of the surface within a cell of its cells, more of what they see face-on."""
    views, _, rows, columns = images.shape
    side = volume.shape[-1]
    point = np.empty(3, np.float32)
    for k in range(side):
        point[2] = np.float32(2 * k + 1) / side - 1
        for j in range(side):
            point[1] = np.float32(2 * j + 1) / side - 1
            for i in range(side):
                point[0] = np.float32(2 * i + 1) / side - 1
                if volume[0, k, j, i] == 0:
                    continue
                for view in range(views):
                    row = int(np.floor(rows * np.float32(0.5) - focal * dot(axes[view, 1], point)))
                    column = int(np.floor(columns * np.float32(0.5) + focal * dot(axes[view, 0], point)))
                    if not (0 <= row < rows and 0 <= column < columns) or images[view, 3, row, column] <= 0:
                        continue
                    away = images[view, 7, row, column] - dot(axes[view, 2], point)
                    if abs(away) * side > 2:
                        continue
                    weight = max(images[view, 6, row, column], np.float32(0.05))
                    for d in range(3):
                        volume[1 + d, k, j, i] += weight * images[view, d, row, column]
                    volume[4, k, j, i] += weight * images[view, 8, row, column]
                    volume[5, k, j, i] += weight * images[view, 9, row, column]
                    volume[6, k, j, i] += weight
                    volume[7, k, j, i] += weight * known[view, row, column]


def carved(prop: Prop) -> Float[Tensor, "8 n n n"]:
    """An object's cells, indexed by z, y, x: whether they are of it; base colour, metallic and roughness (-1
    to 1) times a weight that is 0 where no view sees a surface; the weight; the weight where the material is
    known."""
    cameras = cameras_of(_POSES, _SIZE_PX)
    images, known = network_images(prop, cameras)
    axes = np.ascontiguousarray(cameras.c2w[:, :3, :3].transpose(1, 2).numpy(), np.float32)
    focal = np.float32(cameras.intrinsics[0, 0].item())
    volume = np.zeros((_CHANNELS, CELLS, CELLS, CELLS), np.float32)
    _carve(images, axes, focal, volume)
    _keep_thin(images, axes, focal, volume)
    _paint(images, known, axes, focal, volume)
    return torch.from_numpy(volume)


@numba.njit(cache=True)
@no_type_check
def _facing(grid, cosine, sine, out) -> None:
    """Of a grid (c, z, y, x) the cells nearest to those of one that faces an azimuth, by its cosine and
    sine."""
    channels, side = grid.shape[0], grid.shape[-1]
    half = np.float32(side) * np.float32(0.5)
    for k in range(side):
        away = (k + np.float32(0.5)) / half - 1
        for i in range(side):
            right = (i + np.float32(0.5)) / half - 1
            x, z = right * cosine + away * sine, away * cosine - right * sine
            a, c = int((x + 1) * half), int((z + 1) * half)
            if min(x, z) >= -1 and max(a, c) < side:
                for j in range(side):
                    for d in range(channels):
                        out[d, k, j, i] = grid[d, c, j, a]


@lru_cache(1)
def in_ball() -> Bool[Tensor, "n n n"]:
    """Cells where objects can be."""
    return cell_centers(CELLS).square().sum(-1) < 1.05


def volume_targets(volume: Float[Tensor, "8 n n n"], azimuths_deg: Sequence[float]) -> VolumeTargets:
    """What is to be found of a `carved` object in pictures from azimuths, to the nearest cell."""
    small = F.avg_pool3d(volume[None, 1:], CELLS // SURFACE_CELLS)[0]
    weight, known = small[_WEIGHT - 1], small[_KNOWN - 1]
    total = weight.clamp_min(1e-4)
    seen = (weight > 0.02).float()
    material = seen * (known / total > 0.5).float()
    surface = torch.cat([small[:5] / total, torch.stack([seen, seen, seen, material, material])])

    def turned(grid: Tensor) -> Tensor:
        out = np.zeros((len(azimuths_deg), *grid.shape), np.float32)
        for place, angle in zip(out, np.deg2rad(azimuths_deg), strict=True):
            _facing(grid.numpy(), np.float32(np.cos(angle)), np.float32(np.sin(angle)), place)
        return torch.from_numpy(out)

    surface = turned(surface)
    return VolumeTargets(turned(volume[:1])[:, 0], surface[:, :5], surface[:, 5:])
