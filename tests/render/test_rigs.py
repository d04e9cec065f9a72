"""Rigs: every camera sees the whole unit ball, from where it says."""

from __future__ import annotations

import pytest
import torch

from render.errors import InputError
from render.rigs import RIGS, RigConfig, rig_angles, rig_cameras


@pytest.mark.parametrize("rig", RIGS)
@pytest.mark.parametrize("fov_deg", [None, 35.0, 90.0])
def test_every_camera_shows_the_unit_ball(rig: str, fov_deg: float | None) -> None:
    config = RigConfig(rig=rig, count=13, size_px=64, fov_deg=fov_deg)  # type: ignore[arg-type]
    cameras = rig_cameras(config)
    assert len(cameras) == 13
    points = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)))
    pixels, depth = cameras.project(points)
    assert float(depth.min()) > 0
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 64
    # And does not waste the picture: the ball comes within a tenth of its frame.
    assert float(pixels.max()) > 64 * 0.93


def test_sphere_is_even() -> None:
    eyes = rig_cameras(RigConfig(rig="sphere", count=64)).c2w[:, :3, 2]
    assert float(eyes.mean(0).norm()) < 0.02
    nearest = (eyes @ eyes.T - 2 * torch.eye(64)).amax(1).clamp(-1, 1).acos()
    assert float(nearest.min()) > 0.6 * float(nearest.max())


def test_rings_share_out_the_cameras() -> None:
    azimuths, elevations = rig_angles(RigConfig(rig="rings", count=11, elevations_deg=(0.0, 60.0)))
    assert len(azimuths) == 11
    assert elevations.count(0.0) == 7
    assert elevations.count(60.0) == 4


def test_turn_moves_all_cameras_alike() -> None:
    plain, turned = (rig_angles(RigConfig(rig="orbit", count=4, turn_deg=turn))[0] for turn in (0.0, 30.0))
    assert [b - a for a, b in zip(plain, turned, strict=True)] == [30.0] * 4


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"count": 0}, "count"), ({"fov_deg": 170.0}, "fov_deg"), ({"size_px": 4}, "size_px"),
     ({"elevation_deg": 95.0}, "elevations")],
)  # fmt: skip
def test_config_names_what_is_wrong(wrong: dict[str, object], name: str) -> None:
    with pytest.raises(InputError, match=name):
        RigConfig(**wrong)  # type: ignore[arg-type]
