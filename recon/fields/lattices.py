"""Multi-resolution lattices: values on regular grids over one box, read by trilinear interpolation.

A pyramid is a sum of lattices of falling resolution: a step on a coarse one moves large parts of a
surface together, so that optimisation reaches them before the fine ones add detail (the role of the
coarse-to-fine grids of Neuralangelo, arXiv:2306.03092, and Voxurf, arXiv:2208.12697). Dense grids, because
objects in the unit ball need no more than some million samples, and no hash collides.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate


def to_grid(
    points: Float[Tensor, "n 3"], low: Float[Tensor, "3"], high: Float[Tensor, "3"]
) -> Float[Tensor, "1 1 1 n 3"]:
    """World points as torch samples: -1 to 1 from the first sample to the last, z first."""
    unit = (points - low) / (high - low) * 2 - 1
    return unit.flip(-1)[None, None, None]


def read(lattice: Float[Tensor, "1 k X Y Z"], grid: Float[Tensor, "1 1 1 n 3"]) -> Float[Tensor, "n k"]:
    """Trilinear values; beside the box those of its border."""
    values = grid_sample(lattice, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return values[0, :, 0, 0].T


def read_sum(lattices: list[Tensor], grid: Float[Tensor, "1 1 1 n 3"]) -> Float[Tensor, "n k"]:
    """The sum of a pyramid's lattices."""
    total = read(lattices[0], grid)
    for lattice in lattices[1:]:
        total = total + read(lattice, grid)
    return total


def composed(lattices: list[Tensor]) -> Float[Tensor, "X Y Z"]:
    """A pyramid of one channel as one lattice of its finest resolution, which comes last."""
    finest = lattices[-1]
    total = finest.clone()
    for lattice in lattices[:-1]:
        total += interpolate(lattice, size=finest.shape[2:], mode="trilinear", align_corners=True)
    return total[0, 0]


def coarser(finest: tuple[int, int, int], divisor: float) -> tuple[int, int, int]:
    """Samples a side of a lattice over the same box with `divisor` times the spacing."""
    nx, ny, nz = (max(2, round((n - 1) / divisor) + 1) for n in finest)
    return nx, ny, nz
