"""Cameras: poses, projection and the rigs that the project uses.

Intrinsics are `fx, fy, cx, cy` in pixels. For an orthographic camera `fx` and
`fy` are pixels per world unit, so one formula serves both:
`x_px = fx * X / w + cx` with `w = depth` (perspective) or `1` (orthographic).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from render.conventions import CAMERA_RADIUS, ORTHOGRAPHIC_HALF_EXTENT

Projection = Literal["orthographic", "perspective"]


@dataclass(frozen=True)
class Cameras:
    """`C` cameras with one projection and one image size."""

    c2w: Float[Tensor, "C 4 4"]
    """OpenGL camera-to-world matrices."""
    intrinsics: Float[Tensor, "C 4"]
    """fx, fy, cx, cy in pixels (orthographic: fx, fy in pixels per world unit)."""
    width: int
    height: int
    projection: Projection = "orthographic"

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | list[int] | Int[Tensor, " n"]) -> Cameras:
        """The chosen cameras, always as a batch."""
        chosen = [index] if isinstance(index, int) else index
        return replace(self, c2w=self.c2w[chosen], intrinsics=self.intrinsics[chosen])

    def to(self, device: torch.device | str) -> Cameras:
        return replace(self, c2w=self.c2w.to(device), intrinsics=self.intrinsics.to(device))

    def resized(self, width: int, height: int) -> Cameras:
        """The same views with another number of pixels."""
        scale = self.intrinsics.new_tensor([width / self.width, height / self.height] * 2)
        return replace(self, intrinsics=self.intrinsics * scale, width=width, height=height)

    @property
    def w2c(self) -> Float[Tensor, "C 4 4"]:
        rotation_t = self.c2w[:, :3, :3].transpose(1, 2)
        out = torch.zeros_like(self.c2w)
        out[:, :3, :3] = rotation_t
        out[:, :3, 3:] = -rotation_t @ self.c2w[:, :3, 3:]
        out[:, 3, 3] = 1
        return out

    def project(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "C n 2"], Float[Tensor, "C n"]]:
        """Pixel positions (x right, y down) and depths of world points in every camera."""
        w2c = self.w2c
        local = points @ w2c[:, :3, :3].transpose(1, 2) + w2c[:, None, :3, 3]
        depth = -local[..., 2]
        w = depth if self.projection == "perspective" else torch.ones_like(depth)
        fx, fy, cx, cy = self.intrinsics[:, :, None].unbind(1)
        x = fx * local[..., 0] / w + cx
        y = -fy * local[..., 1] / w + cy
        return torch.stack([x, y], -1), depth

    def unproject(
        self, pixels: Float[Tensor, "C n 2"], depth: Float[Tensor, "C n"]
    ) -> Float[Tensor, "C n 3"]:
        """World points of pixel positions at the given depths; the inverse of `project`."""
        fx, fy, cx, cy = self.intrinsics[:, :, None].unbind(1)
        w = depth if self.projection == "perspective" else torch.ones_like(depth)
        x = (pixels[..., 0] - cx) / fx * w
        y = -(pixels[..., 1] - cy) / fy * w
        local = torch.stack([x, y, -depth], -1)
        return local @ self.c2w[:, :3, :3].transpose(1, 2) + self.c2w[:, None, :3, 3]

    def pixel_centers(self) -> Float[Tensor, "H W 2"]:
        """(x, y) of every pixel centre."""
        x = torch.arange(self.width, dtype=torch.float32, device=self.c2w.device) + 0.5
        y = torch.arange(self.height, dtype=torch.float32, device=self.c2w.device) + 0.5
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)

    def rays(self) -> tuple[Float[Tensor, "C H W 3"], Float[Tensor, "C H W 3"]]:
        """Origins and unit directions of every pixel's ray."""
        pixels = self.pixel_centers().reshape(1, -1, 2).expand(len(self), -1, -1)
        shape = (len(self), self.height, self.width, 3)
        ones = torch.ones_like(pixels[..., 0])
        far = self.unproject(pixels, ones)
        if self.projection == "perspective":
            origins = self.c2w[:, None, :3, 3].expand_as(far)
            directions = torch.nn.functional.normalize(far - origins, dim=-1)
        else:
            directions = -self.c2w[:, None, :3, 2].expand_as(far)
            origins = far - directions
        return origins.reshape(shape), directions.reshape(shape).clone()


def look_at(
    eye: Float[Tensor, "C 3"], target: Float[Tensor, "C 3"], up: Float[Tensor, "C 3"]
) -> Float[Tensor, "C 4 4"]:
    """OpenGL camera-to-world matrices of cameras at `eye` that look at `target`."""
    back = torch.nn.functional.normalize(eye - target, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, back), dim=-1)
    c2w = torch.eye(4).repeat(len(eye), 1, 1).to(eye)
    c2w[:, :3, 0] = right
    c2w[:, :3, 1] = torch.linalg.cross(back, right)
    c2w[:, :3, 2] = back
    c2w[:, :3, 3] = eye
    return c2w


def orbit_pose(
    azimuths_deg: Float[Tensor, " C"], elevations_deg: Float[Tensor, " C"], radius: float = CAMERA_RADIUS
) -> Float[Tensor, "C 4 4"]:
    """Poses on a sphere around the origin. Poles are valid: there, up is away from the azimuth."""
    azimuth, elevation = torch.deg2rad(azimuths_deg), torch.deg2rad(elevations_deg)
    back = torch.stack(
        [elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], -1
    )
    up = torch.stack(
        [-elevation.sin() * azimuth.sin(), elevation.cos(), -elevation.sin() * azimuth.cos()], -1
    )
    return look_at(back * radius, torch.zeros_like(back), up)


def orbit_cameras(
    azimuths_deg: list[float],
    elevations_deg: list[float],
    size: int,
    *,
    radius: float = CAMERA_RADIUS,
    half_extent: float = ORTHOGRAPHIC_HALF_EXTENT,
    fov_deg: float | None = None,
) -> Cameras:
    """Square cameras that look at the origin.

    Orthographic, showing [-half_extent, half_extent], unless `fov_deg` (the full
    vertical angle) asks for perspective.
    """
    count = len(azimuths_deg)
    if len(elevations_deg) != count:
        raise ValueError(f"{count} azimuths but {len(elevations_deg)} elevations")
    c2w = orbit_pose(torch.tensor(azimuths_deg), torch.tensor(elevations_deg), radius)
    if fov_deg is None:
        focal = size / (2 * half_extent)
    else:
        focal = size / (2 * torch.tan(torch.deg2rad(torch.tensor(fov_deg)) / 2).item())
    intrinsics = torch.tensor([focal, focal, size / 2, size / 2]).repeat(count, 1)
    projection: Projection = "orthographic" if fov_deg is None else "perspective"
    return Cameras(c2w, intrinsics, size, size, projection)
