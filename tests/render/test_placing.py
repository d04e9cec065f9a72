"""A picture that is framed a little wrong is laid where the view has it."""

from __future__ import annotations

import pytest
import torch

from render.placing import Place, elevations, placed

N = 64


def blob(half_width: float) -> torch.Tensor:
    """An L, so that nothing about its place is in doubt."""
    along = (torch.arange(N) * 2 + 1) / N - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    return (((x.abs() < half_width) & (y.abs() < 0.7)) & ~((x > 0) & (y > 0.1))).float()


@pytest.mark.parametrize(("zoom", "right", "up"), [(1.0, 0.0, 0.0), (1.06, 0.05, -0.04), (0.95, -0.06, 0.06)])
def test_zoom_shift_and_elevation_are_found(zoom: float, right: float, up: float) -> None:
    views = torch.stack([blob(0.3 + 0.02 * k) for k in range(len(elevations()))])
    for true in (6, 10):
        # The picture is the view, moved: what the view has at x the picture has at zoom * x + shift.
        back = Place(0, 1 / zoom, -right / zoom, -up / zoom)
        found = placed(back.laid(views[true]), 8 * views - 4)
        assert abs(found.elevation - true) <= 1
        assert found.zoom == pytest.approx(zoom, abs=0.03)
        assert found.right == pytest.approx(right, abs=0.03)
        assert found.up == pytest.approx(up, abs=0.03)
        laid = found.laid(back.laid(views[true])) > 0.5
        both = laid & (views[true] > 0.5)
        assert both.sum() / (laid | (views[true] > 0.5)).sum() > 0.93


def test_what_says_nothing_moves_nothing() -> None:
    found = placed(torch.zeros(N, N), torch.full((len(elevations()), N, N), -4.0))
    assert found.elevation == len(elevations()) // 2
    assert (found.zoom, found.right, found.up) == pytest.approx((1, 0, 0), abs=1e-6)
