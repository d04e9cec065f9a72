"""A signed volume of contradicting measurements -> the surface of least area that still follows them.

Minimises the total variation of the volume plus the weighted absolute difference from what was measured
(TV-L1, for range images by Zach, Pock and Bischof, 2007, doi:10.1109/ICCV.2007.4408983), by the primal-dual
steps of Chambolle and Pock (2011, doi:10.1007/s10851-010-0251-1). Of a median it has the two virtues that a
blur lacks: smooth surfaces and edges stay where they are, and specks and pits up to some size go altogether.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_dilation

_BAND = 4
"""Samples around what is not solid for sure that may change."""
_ROUNDS = 60
"""A change reaches one sample farther with each."""


def tv_l1(
    measured: Float[np.ndarray, "X Y Z"],
    weight: Float[np.ndarray, "X Y Z"],
    inside: Bool[np.ndarray, "X Y Z"],
    rounds: int = _ROUNDS,
) -> Float[np.ndarray, "X Y Z"]:
    """`measured` (-1 solid to 1 empty), with less area between the two (float32).

    weight: of a sample, where 1 lets pits go of some three samples' radius. inside: where there is a volume;
    the surface meets its border freely. Elsewhere, and far from what is not -1, nothing changes.
    """
    band = inside & binary_dilation(inside & (measured > -1), iterations=_BAND)
    at = np.flatnonzero(band)
    ahead, behind = _neighbours(band, at)
    out = measured.astype(np.float32).copy()
    values, weights = out.ravel()[at], weight.ravel()[at].astype(np.float32)
    out.ravel()[at] = _primal_dual(values, weights, ahead, behind, rounds)
    return out


def _neighbours(
    band: Bool[np.ndarray, "X Y Z"], at: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, "n 3"], Int[np.ndarray, "n 3"]]:
    """Places in `at` of the next and the last sample along each axis; -1 where it is not in the band."""
    place = np.full(np.array(band.shape) + 2, -1, np.int32)
    inner = place[1:-1, 1:-1, 1:-1]
    inner[band] = np.arange(len(at), dtype=np.int32)
    steps = ((slice(2, None), slice(1, -1), slice(1, -1)), (slice(1, -1), slice(2, None), slice(1, -1)))
    last = (slice(1, -1), slice(1, -1), slice(2, None))
    ahead = np.stack([place[window].ravel()[at] for window in (*steps, last)], 1)
    lower = ((slice(0, -2), slice(1, -1), slice(1, -1)), (slice(1, -1), slice(0, -2), slice(1, -1)))
    first = (slice(1, -1), slice(1, -1), slice(0, -2))
    behind = np.stack([place[window].ravel()[at] for window in (*lower, first)], 1)
    return ahead, behind


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _primal_dual(measured, weight, ahead, behind, rounds):
    """`measured` with u - step * div p and p projected to the unit ball, in turn; steps of 1 / sqrt(12)."""
    n = len(measured)
    step, one = np.float32(1 / np.sqrt(12)), np.float32(1.0)
    u, bar = measured.copy(), measured.copy()
    p = np.zeros((n, 3), np.float32)
    for _ in range(rounds):
        for i in range(n):
            for k in range(3):
                if ahead[i, k] >= 0:
                    p[i, k] += step * (bar[ahead[i, k]] - bar[i])
            scale = max(one, np.sqrt(p[i, 0] * p[i, 0] + p[i, 1] * p[i, 1] + p[i, 2] * p[i, 2]))
            for k in range(3):
                p[i, k] /= scale
        for i in range(n):
            divergence = np.float32(0.0)
            for k in range(3):
                divergence += p[i, k]
                if behind[i, k] >= 0:
                    divergence -= p[behind[i, k], k]
            x = u[i] + step * divergence
            pull = step * weight[i]
            x = min(max(measured[i], x - pull), x + pull)
            bar[i] = 2 * x - u[i]
            u[i] = x
    return u
