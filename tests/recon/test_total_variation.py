"""Noise goes, planes and edges stay where they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.total_variation import tv_l1

N = 24
X, Y, Z = np.meshgrid(*[np.arange(N) - (N - 1) / 2] * 3, indexing="ij")


def solid(distance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Signed distance, positive in the empty part, as far as it is believed."""
    return np.clip(distance, -1, 1).astype(np.float32)


def changed(measured: NDArray[np.float32], weight: float = 1.0) -> NDArray[np.float32]:
    everywhere = np.ones(measured.shape, bool)
    return tv_l1(measured, np.full_like(measured, weight), everywhere)


def test_a_plane_and_the_inner_edge_of_two_stay_where_they_are() -> None:
    tilted = solid(0.8 * X + 0.6 * Y + 0.3)
    assert np.abs(changed(tilted) - tilted).max() < 0.05
    edge = solid(np.maximum(X, Y))
    off = (changed(edge) > 0) != (edge > 0)
    assert off.sum() <= 2 * N  # two samples of the edge's own line


def test_small_pits_and_specks_go_and_large_ones_stay() -> None:
    radius = np.sqrt(X**2 + Y**2 + Z**2)
    small = changed(solid(1.6 - radius))
    assert (small < 0).all()
    large = changed(solid(7.5 - radius))
    assert abs(int((large > 0).sum()) / int((radius < 7.5).sum()) - 1) < 0.02
    rng = np.random.default_rng(0)
    plane = solid(X)
    noisy = np.where(rng.random(X.shape) < 0.1, -plane, plane)
    assert ((changed(noisy) > 0) == (plane > 0)).mean() > 0.999


def test_what_is_outside_has_no_say_and_is_left() -> None:
    inside = X < 6
    measured = np.where(X > 2, np.float32(1), np.float32(-1))
    out = tv_l1(measured, np.ones_like(measured), inside)
    assert np.array_equal(out[~inside], measured[~inside])
    # A gap of three samples before the border: two borders would have closed it.
    assert (out[inside & (X > 2)] > 0).all()
    assert np.array_equal(out, tv_l1(measured, np.ones_like(measured), inside))
