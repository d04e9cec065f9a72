"""A volume is as its picture shows it, and what is right is not cut off where the framing is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.multiview.volume_network import CELLS, Volume, cell_centers
from pipeline.multiview.volume_outline import as_shown
from pipeline.multiview.volume_views import volume_views
from pipeline.training.views import Pose, cameras_of
from pipeline.training.volumes import carved, volume_targets
from tests.pipeline.multiview.test_lifter import mushroom_prop
from tests.pipeline.multiview.test_volume import whole


def outline(occupied: torch.Tensor, elevation_rad: float) -> torch.Tensor:
    """Which columns of a view from azimuth 0 show an object; rows go down."""
    x, y, z = cell_centers(CELLS)[occupied > 0].unbind(-1)
    up = y * np.cos(elevation_rad) - z * np.sin(elevation_rad)
    shown = torch.zeros(1, CELLS, CELLS)
    row, column = (1 - up) * CELLS / 2, (x + 1) * CELLS / 2
    shown[0, row.long().clamp(0, CELLS - 1), column.long()] = 1
    return shown


def test_what_is_shown_is_there() -> None:
    """Thin things may be likely nowhere; the view that shows them knows better, and what lies beside."""
    targets = volume_targets(carved(mushroom_prop(1)), [0.0])
    there, elevation = targets.occupied > 0, torch.tensor([0.3])
    shown = outline(targets.occupied[0], 0.3)
    doubtful = Volume(torch.where(there, -2.2, -3.0), targets.surface)  # a tenth, and half of it elsewhere
    camera = cameras_of([Pose(0.0, float(np.rad2deg(0.3)))], CELLS)
    assert not (volume_views(doubtful, camera)[:, 3] > 0).any()
    found = as_shown(doubtful, shown, elevation)
    drawn = volume_views(found, camera)[:, 3] > 0
    assert (drawn & (shown > 0)).sum() / (drawn | (shown > 0)).sum() > 0.85
    # The likeliest cells remain so, but for the outline's.
    likely = found.occupancy[there] > 0
    assert likely.float().mean() > 0.9
    # Half of what is shown is half of what is there: rows of a view go down.
    half = shown.clone()
    half[:, : CELLS // 2] = 0
    _, y, z = cell_centers(CELLS).unbind(-1)
    up = (y * np.cos(0.3) - z * np.sin(0.3))[None]
    left = as_shown(whole(targets), half, elevation).occupancy > 0
    # All else is gone, but for what it may be framed wrong.
    assert (left & (up > 0.05)).sum() < 0.2 * (there & (up > 0.05)).sum()
    low = there & (up < -0.05)
    assert (left & low).sum() / low.sum() > 0.95
    # What is certain is left as it is.
    same = as_shown(whole(targets), shown, elevation).occupancy[there] > 0
    assert same.float().mean() > 0.98


@pytest.mark.parametrize(
    ("elevation", "zoom", "right"), [(0.15, 1.0, 0.0), (-0.15, 1.0, 0.0), (0.0, 1.06, 0.0), (0.0, 1.0, 0.06)]
)
def test_an_outline_that_is_framed_a_little_wrong_cuts_nothing_off(
    elevation: float, zoom: float, right: float
) -> None:
    targets = volume_targets(carved(mushroom_prop(1)), [0.0])
    there = targets.occupied > 0
    shown = outline(targets.occupied[0], 0.3)
    affine = torch.tensor([[[zoom, 0.0, right], [0.0, zoom, 0.0]]])
    grid = F.affine_grid(affine, [1, 1, CELLS, CELLS], align_corners=False)
    wrong = F.grid_sample(shown[:, None], grid, align_corners=False)[:, 0]
    kept = as_shown(whole(targets), wrong, torch.tensor([0.3 + elevation])).occupancy[there] > 0
    assert kept.float().mean() > 0.98


def test_volumes_are_framed_each_by_itself() -> None:
    targets = volume_targets(carved(mushroom_prop(1)), [0.0])
    one = whole(targets)
    two = Volume(one.occupancy.expand(2, -1, -1, -1), one.surface.expand(2, -1, -1, -1, -1))
    shown = torch.cat([outline(targets.occupied[0], e) for e in (0.1, 0.6)])
    together = as_shown(two, shown, torch.tensor([0.1, 0.6])).occupancy
    for i, elevation in enumerate((0.1, 0.6)):
        alone = as_shown(one, shown[i : i + 1], torch.tensor([elevation])).occupancy
        torch.testing.assert_close(together[i : i + 1], alone)
