"""Camera rigs: where the cameras of a posed set stand.

In: a rig's name and numbers. Out: `Cameras` that look at the origin and show the unit ball whole.

* `orbit`: one ring at one elevation.
* `rings`: several rings, more cameras on those nearer the horizon, each ring turned against the next.
* `sphere`: a Fibonacci lattice (Gonzalez, 2010, doi:10.1007/s11004-009-9257-x): even all around.
* `turntable`: the ring of `orbit`. The camera stands still and the object turns, so light and camera keep
  their places to each other; who renders has to see to that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from render.cameras import Cameras, orbit_cameras
from render.errors import InputError

Rig = Literal["orbit", "rings", "sphere", "turntable"]
RIGS: tuple[Rig, ...] = get_args(Rig)

MAX_VIEWS = 1000
MARGIN = 1.06
"""Radius that is shown, relative to the object's ball."""
GOLDEN_TURN_DEG = 180.0 * (3.0 - math.sqrt(5.0))


@dataclass(frozen=True)
class RigConfig:
    """Where cameras stand and what they are."""

    rig: Rig = "sphere"
    count: int = 32
    size_px: int = 256
    fov_deg: float | None = 40.0
    """Full angle of the square picture; None for orthographic cameras."""
    elevation_deg: float = 20.0
    """Of `orbit` and `turntable`."""
    elevations_deg: tuple[float, ...] = (-30.0, 5.0, 35.0, 65.0)
    """Of `rings`."""
    turn_deg: float = 0.0
    """Turns the whole rig about the vertical: the same rig with another turn sees what the first did not."""

    def __post_init__(self) -> None:
        if self.rig not in RIGS:
            raise InputError(f"rig must be one of {', '.join(RIGS)}, not {self.rig!r}.")
        if not 1 <= self.count <= MAX_VIEWS:
            raise InputError(f"count must be from 1 to {MAX_VIEWS}, not {self.count}.")
        if not 16 <= self.size_px <= 4096:
            raise InputError(f"size_px must be from 16 to 4096, not {self.size_px}.")
        if self.fov_deg is not None and not 5 <= self.fov_deg <= 120:
            raise InputError(f"fov_deg must be from 5 to 120, not {self.fov_deg:g}.")
        for elevation in (self.elevation_deg, *self.elevations_deg):
            if not -90 <= elevation <= 90:
                raise InputError(f"elevations must lie between -90 and 90 degrees, not at {elevation:g}.")
        if not self.elevations_deg:
            raise InputError("elevations_deg must name at least one ring.")
        if not math.isfinite(self.turn_deg):
            raise InputError("turn_deg must be a finite number.")


def rig_angles(config: RigConfig) -> tuple[list[float], list[float]]:
    """Azimuths and elevations, degrees, of all cameras."""
    count = config.count
    match config.rig:
        case "orbit" | "turntable":
            azimuths = [360.0 * i / count for i in range(count)]
            elevations = [config.elevation_deg] * count
        case "rings":
            azimuths, elevations = _rings(count, config.elevations_deg)
        case "sphere":
            heights = [1.0 - (2 * i + 1) / count for i in range(count)]
            azimuths = [math.fmod(GOLDEN_TURN_DEG * i, 360.0) for i in range(count)]
            elevations = [math.degrees(math.asin(height)) for height in heights]
    return [math.fmod(azimuth + config.turn_deg, 360.0) for azimuth in azimuths], elevations


def _rings(count: int, rings_deg: tuple[float, ...]) -> tuple[list[float], list[float]]:
    """Cameras shared out by the rings' circumference (largest remainders), at least one each if there are."""
    share = [max(math.cos(math.radians(elevation)), 0.05) for elevation in rings_deg]
    exact = [count * part / sum(share) for part in share]
    counts = [int(part) for part in exact]
    while sum(counts) < count:
        short = max(range(len(counts)), key=lambda i: (exact[i] - counts[i], -i))
        counts[short] += 1
    azimuths: list[float] = []
    elevations: list[float] = []
    for ring, (elevation, number) in enumerate(zip(rings_deg, counts, strict=True)):
        offset = GOLDEN_TURN_DEG * ring
        azimuths += [offset + 360.0 * i / number for i in range(number)]
        elevations += [elevation] * number
    return azimuths, elevations


def rig_cameras(config: RigConfig) -> Cameras:
    """The rig's cameras around the unit ball."""
    azimuths, elevations = rig_angles(config)
    if config.fov_deg is None:
        return orbit_cameras(azimuths, elevations, config.size_px, half_extent=MARGIN)
    # The ball touches the frame where the ray at half the angle is tangent to it.
    radius = MARGIN / math.sin(math.radians(config.fov_deg) / 2)
    return orbit_cameras(azimuths, elevations, config.size_px, radius=radius, fov_deg=config.fov_deg)
