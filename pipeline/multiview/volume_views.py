"""What a volume looks like from any orthographic camera, as network images."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.multiview.codec import CHANNELS
from pipeline.multiview.volume_network import Volume
from render.cameras import Cameras

LEVEL = 0.6
"""Probability from which a cell counts as the object's. From a half on objects are too fat, as what is not
known is round; at this, masks are as large as true ones (0.99 of their area, 1.08 from a half on)."""
_STEPS = 96
"""Samples of a ray through the cube's inscribed ball; the crossing between two is interpolated."""


@numba.njit(cache=True, inline="always")
@no_type_check
def _corners(x, side):
    """The two cells whose centres a coordinate lies between, and how far towards the second."""
    at = (x + np.float32(1)) * np.float32(0.5) * side - np.float32(0.5)
    at = min(max(at, np.float32(0)), np.float32(side - 1))
    low = min(int(at), side - 2)
    return low, at - low


@numba.njit(cache=True)
@no_type_check
def _sample(grid, x, y, z):
    """Trilinear, cells indexed by z, y, x."""
    side = grid.shape[0]
    i, u = _corners(x, side)
    j, v = _corners(y, side)
    k, w = _corners(z, side)
    value = np.float32(0)
    for c in range(2):
        for b in range(2):
            row = grid[k + c, j + b]
            along = row[i] + u * (row[i + 1] - row[i])
            value += along * (v if b else 1 - v) * (w if c else 1 - w)
    return value


@numba.njit(cache=True, inline="always")
@no_type_check
def dot(a, b):
    """Of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(cache=True, parallel=True)
@no_type_check
def _render(
    occupancy: NDArray[np.float32],
    smooth: NDArray[np.float32],
    surface: NDArray[np.float32],
    axes: NDArray[np.float32],
    focal: np.float32,
    level: np.float32,
    image: NDArray[np.float32],
) -> None:
    views, _, rows, columns = image.shape
    step = np.float32(2.0 / _STEPS)
    reach = np.float32(2.0 / smooth.shape[0])
    for job in numba.prange(views * rows):
        view, row = job // rows, job % rows
        axis = axes[view]
        p, gradient = np.empty(3, np.float32), np.empty(3, np.float32)
        y = (rows * np.float32(0.5) - (row + np.float32(0.5))) / focal
        for column in range(columns):
            image[view, 3, row, column] = -1
            x = (column + np.float32(0.5) - columns * np.float32(0.5)) / focal
            if x * x + y * y >= 1:
                continue
            before = np.float32(0)
            for i in range(_STEPS):
                height = np.float32(1) - (i + np.float32(0.5)) * step
                for d in range(3):
                    p[d] = x * axis[0, d] + y * axis[1, d] + height * axis[2, d]
                here = _sample(occupancy, p[0], p[1], p[2])
                if here <= level:
                    before = here
                    continue
                ahead = step * (here - level) / max(here - before, np.float32(1e-4))
                for d in range(3):
                    p[d] += ahead * axis[2, d]
                for d in range(3):
                    p[d] += reach
                    above = _sample(smooth, p[0], p[1], p[2])
                    p[d] -= 2 * reach
                    gradient[d] = _sample(smooth, p[0], p[1], p[2]) - above
                    p[d] += reach
                nx, ny, nz = dot(axis[0], gradient), dot(axis[1], gradient), dot(axis[2], gradient)
                # What is seen faces the camera.
                nz = max(nz, np.float32(0.05) * np.sqrt(dot(gradient, gradient)))
                length = max(np.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-6))
                out = image[view, :, row, column]
                for d in range(3):
                    out[d] = _sample(surface[d], p[0], p[1], p[2])
                out[3], out[4], out[5], out[6] = 1, nx / length, ny / length, nz / length
                out[7] = height + ahead
                out[8] = _sample(surface[3], p[0], p[1], p[2])
                out[9] = _sample(surface[4], p[0], p[1], p[2])
                break


def volume_views(volume: Volume, cameras: Cameras, level: float = LEVEL) -> Float[Tensor, "v 10 H W"]:
    """Network images (`codec`) of one object, on the CPU: it is where rays pass a probability of `level`.
    Coverage is 0 or 1."""
    occupancy = volume.occupancy.float().sigmoid().cpu()
    assert len(occupancy) == 1, occupancy.shape
    smooth = F.avg_pool3d(F.pad(occupancy[None], (1,) * 6, mode="replicate"), 3, stride=1)[0]
    image = np.zeros((len(cameras), CHANNELS, cameras.height, cameras.width), np.float32)
    _render(
        occupancy[0].numpy(),
        smooth[0].numpy(),
        volume.surface[0].float().cpu().clamp(-1, 1).numpy(),
        np.ascontiguousarray(cameras.c2w[:, :3, :3].transpose(1, 2).cpu().numpy(), np.float32),
        np.float32(cameras.intrinsics[0, 0].item()),
        np.float32(level),
        image,
    )
    return torch.from_numpy(image)
