"""What finished views of an object say of a view from another camera.

A finished view is a height field. Carried into another camera it shows there what it saw, in its place, and
bounds the rest: the object lies within the outlines of the finished views and nowhere in front of what they
see. The transformer gets both beside the tokens of the noisy view (`known`): the carried picture as latents
of the autoencoder, which are what it has to draw there, and maps of where the object can be. Views that
were given only as further tokens were read for shape and colour, and hardly copied.

Network images (`codec`) of orthographic cameras that look at the origin, in and out. The
heights are marched through from every pixel, so that nothing has holes, however steep.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from pipeline.multiview.autoencoder_network import DOWNSAMPLING, AutoencoderNetwork
from pipeline.multiview.codec import CHANNELS
from pipeline.multiview.transformer_network import MAP_CELL, MAPS, PATCH
from render.cameras import Cameras

STEPS = 48
"""Samples of a ray through the unit ball; crossings are then bisected."""
_BISECTIONS = 5
SEEN_WITHIN = 0.05
"""A ray that enters this near to a view's surface, there or one pixel beside, meets what the view saw;
elsewhere it enters from the side."""


@numba.njit(cache=True)
@no_type_check
def _within(point, axes, images, focal):
    """Whether the object can be at the point; the view whose surface is nearest, how near, and its pixel."""
    nearest, view, at_row, at_column = np.float32(1e9), -1, 0, 0
    _, rows, columns, _ = images.shape
    for k in range(len(axes)):
        x = axes[k, 0, 0] * point[0] + axes[k, 0, 1] * point[1] + axes[k, 0, 2] * point[2]
        y = axes[k, 1, 0] * point[0] + axes[k, 1, 1] * point[1] + axes[k, 1, 2] * point[2]
        h = axes[k, 2, 0] * point[0] + axes[k, 2, 1] * point[1] + axes[k, 2, 2] * point[2]
        column = int(np.floor(columns * np.float32(0.5) + focal * x))
        row = int(np.floor(rows * np.float32(0.5) - focal * y))
        if row < 0 or column < 0 or row >= rows or column >= columns or images[k, row, column, 3] < 0:
            return False, -1, nearest, 0, 0
        behind = images[k, row, column, 7] - h
        if behind < 0:
            return False, -1, nearest, 0, 0
        if behind < nearest:
            nearest, view, at_row, at_column = behind, k, row, column
    return True, view, nearest, at_row, at_column


@numba.njit(cache=True)
@no_type_check
def _march(origin, back, begin, step, count, axes, images, focal, point):
    """First height along the ray at which the object can be, and what `_within` says there."""
    found = (False, -1, np.float32(0.0), 0, 0)
    height = begin
    for i in range(count):
        height = begin + i * step
        for d in range(3):
            point[d] = origin[d] + height * back[d]
        found = _within(point, axes, images, focal)
        if found[0]:
            if i:
                low, high = height - step, height
                for _ in range(_BISECTIONS):
                    middle = np.float32(0.5) * (low + high)
                    for d in range(3):
                        point[d] = origin[d] + middle * back[d]
                    better = _within(point, axes, images, focal)
                    if better[0]:
                        high, found = middle, better
                    else:
                        low = middle
                height = high
            break
    return height, found


@numba.njit(cache=True)
@no_type_check
def _seen(image, near, row, column):
    """Whether what lies so near behind the surface at a pixel was seen there or, where steep, beside it."""
    if near < SEEN_WITHIN:
        return True
    height = image[row, column, 7] - near
    for r in range(max(row - 1, 0), min(row + 2, image.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, image.shape[1])):
            if image[r, c, 3] >= 0 and abs(image[r, c, 7] - height) < SEEN_WITHIN:
                return True
    return False


@numba.njit(cache=True, parallel=True)
@no_type_check
def _carry(
    images: NDArray[np.float32],
    axes: NDArray[np.float32],
    targets: NDArray[np.float32],
    focal: np.float32,
    carried: NDArray[np.float32],
    maps: NDArray[np.float32],
) -> None:
    n_targets, rows, columns, _ = carried.shape
    for job in numba.prange(n_targets * rows):
        t, row = job // rows, job % rows
        point = np.empty(3, np.float32)
        origin = np.empty(3, np.float32)
        y = (rows * np.float32(0.5) - (row + np.float32(0.5))) / focal
        for column in range(columns):
            carried[t, row, column, 3] = -1.0
            x = (column + np.float32(0.5) - columns * np.float32(0.5)) / focal
            square = 1 - x * x - y * y
            if square <= 0:
                continue
            for d in range(3):
                origin[d] = x * targets[t, 0, d] + y * targets[t, 1, d]
            back = targets[t, 2]
            half = np.sqrt(square)
            step = 2 * half / STEPS
            begin = half - np.float32(0.5) * step
            entry, found = _march(origin, back, begin, -step, STEPS, axes, images, focal, point)
            if not found[0]:
                continue
            _, view, near, r, c = found
            maps[t, row, column, 0] = 1.0
            maps[t, row, column, 1] = entry
            if _seen(images[view], near, r, c):
                maps[t, row, column, 3] = 1.0
                for k in range(CHANNELS):
                    carried[t, row, column, k] = images[view, r, c, k]
                # The normal, from the axes of that view to those of the target.
                length = np.float32(0.0)
                for d in range(3):
                    world = np.float32(0.0)
                    for a in range(3):
                        world += images[view, r, c, 4 + a] * axes[view, a, d]
                    point[d] = world
                for a in range(3):
                    value = (
                        targets[t, a, 0] * point[0]
                        + targets[t, a, 1] * point[1]
                        + targets[t, a, 2] * point[2]
                    )
                    if a == 2:
                        value = max(value, np.float32(0.0))
                    carried[t, row, column, 4 + a] = value
                    length += value * value
                for a in range(3):
                    carried[t, row, column, 4 + a] /= max(np.sqrt(length), np.float32(1e-6))
                carried[t, row, column, 7] = entry
            exit_, found = _march(origin, back, -begin, step, STEPS, axes, images, focal, point)
            _, view, near, r, c = found
            maps[t, row, column, 2] = exit_
            if _seen(images[view], near, r, c):
                maps[t, row, column, 4] = 1.0
                for k in range(3):
                    maps[t, row, column, 5 + k] = images[view, r, c, k]


def carried_views(
    images: Float[Tensor, "k 10 H W"], cameras: Cameras, targets: Cameras
) -> tuple[Float[Tensor, "v 10 H W"], Float[Tensor, "v 8 H W"]]:
    """What the finished views `images` show from the cameras `targets`, on the CPU.

    The first is a network image of what they saw, background elsewhere. The second: whether the object can
    be there; the heights between which; whether the upper one was seen; whether the lower one was, and its
    colour, as from inside.
    """
    rows, columns = images.shape[-2:]
    known = images.permute(0, 2, 3, 1).float().cpu().contiguous().numpy()
    carried = np.zeros((len(targets), rows, columns, CHANNELS), np.float32)
    maps = np.zeros((len(targets), rows, columns, MAPS), np.float32)
    focal = np.float32(float(targets.intrinsics[0, 0]) * columns / targets.width)
    _carry(known, _axes(cameras), _axes(targets), focal, carried, maps)
    return (torch.from_numpy(carried).permute(0, 3, 1, 2), torch.from_numpy(maps).permute(0, 3, 1, 2))


def _axes(cameras: Cameras) -> Float32[np.ndarray, "C 3 3"]:
    """Right, up and back, one a row."""
    return np.ascontiguousarray(cameras.c2w[:, :3, :3].transpose(1, 2).cpu().numpy(), np.float32)


def known_features(
    autoencoder: AutoencoderNetwork, carried: Float[Tensor, "v 10 H W"], maps: Float[Tensor, "v 8 H W"]
) -> Float[Tensor, "v n f"]:
    """What `carried_views` found, by patches of the transformer: its argument `known`; fp32."""
    image = carried.to(autoencoder.device, autoencoder.dtype).contiguous(memory_format=torch.channels_last)
    latents = autoencoder.encode(image).float()
    coarse = F.avg_pool2d(maps.to(latents.device), MAP_CELL)
    cells = DOWNSAMPLING * PATCH // MAP_CELL
    return torch.cat([_patches(latents, PATCH), _patches(coarse, cells)], -1)


def _patches(x: Float[Tensor, "v c h w"], side: int) -> Float[Tensor, "v n f"]:
    return F.unfold(x, side, stride=side).transpose(1, 2)
