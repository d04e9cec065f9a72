"""Where to stand to see a scene whole.

In: a `Scene`. Out: the similarity that takes it into the unit ball, and perspective cameras that frame it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from render.cameras import Cameras, orbit_pose
from render.errors import InputError
from render.scene import Scene


@dataclass(frozen=True)
class Placement:
    """The similarity that takes a scene into the unit ball."""

    center: Float[np.ndarray, "3"]
    radius: float

    def cameras(self, cameras: Cameras) -> Cameras:
        c2w = cameras.c2w.clone()
        c2w[:, :3, 3] = (c2w[:, :3, 3] - torch.from_numpy(self.center).to(c2w)) / self.radius
        intrinsics = cameras.intrinsics.clone()
        if cameras.projection == "orthographic":
            intrinsics[:, :2] *= self.radius
        return replace(cameras, c2w=c2w, intrinsics=intrinsics)


def _used_vertices(scene: Scene) -> Float[np.ndarray, "V 3"]:
    """float64 positions that some triangle names."""
    found = []
    for part in scene.parts:
        used = np.zeros(len(part.mesh.vertices), bool)
        used[part.mesh.faces.ravel()] = True
        found.append(part.mesh.vertices[used])
    vertices = np.concatenate(found) if found else np.zeros((0, 3))
    if not len(vertices):
        raise InputError("The scene has no triangles, so there is nothing to draw.")
    return vertices.astype(np.float64)


def placement_of(scene: Scene) -> Placement:
    """The middle of the bounding box goes to the origin. Raises `InputError` on an empty scene."""
    vertices = _used_vertices(scene)
    center = (vertices.min(0) + vertices.max(0)) / 2
    radius = float(np.linalg.norm(vertices - center, axis=1).max())
    if not np.isfinite(radius) or radius <= 0:
        raise InputError("The scene has no extent (all its vertices coincide), so there is nothing to draw.")
    return Placement(center.astype(np.float32), radius)


def frame_cameras(
    scene: Scene,
    size: int | tuple[int, int] = 768,
    *,
    azimuths_deg: tuple[float, ...] = (30.0,),
    elevation_deg: float = 15.0,
    fov_deg: float = 25.0,
    margin: float = 0.10,
) -> Cameras:
    """Perspective cameras around the object that show all of it at every given azimuth.

    `size` is the side of a square or (width, height) in pixels; `fov_deg` the vertical angle; `margin` the
    share of the picture left free at each side. All cameras have one distance: a turntable does not breathe.
    """
    width, height = (size, size) if isinstance(size, int) else size
    place = placement_of(scene)
    points = torch.from_numpy(((_used_vertices(scene) - place.center) / place.radius).astype(np.float32))
    azimuths = torch.tensor(list(azimuths_deg), dtype=torch.float32)
    unit = orbit_pose(azimuths, torch.full_like(azimuths, float(elevation_deg)), 1.0)[:, :3, :3]
    slope_y = float(np.tan(np.deg2rad(fov_deg) / 2)) * (1 - 2 * margin)
    slope_x = slope_y * width / height
    distance = 0.0
    for rotation in unit:
        local = points @ rotation
        # A point at z towards the eye is inside when |x| <= slope (distance - z).
        distance = max(
            distance,
            float((local[:, 2] + local[:, 0].abs() / slope_x).max()),
            float((local[:, 2] + local[:, 1].abs() / slope_y).max()),
        )
    distance = max(distance, 1.2)
    c2w = orbit_pose(azimuths, torch.full_like(azimuths, float(elevation_deg)), distance * place.radius)
    c2w[:, :3, 3] += torch.from_numpy(place.center)
    focal = height / (2 * np.tan(np.deg2rad(fov_deg) / 2))
    intrinsics = torch.tensor([focal, focal, width / 2, height / 2]).repeat(len(azimuths), 1)
    return Cameras(c2w, intrinsics, width, height, "perspective")
