"""Splat rasterisation in plain torch: the twin that the kernels are tested against.

EWA splatting (Zwicker et al. 2001) as 3DGS does it (arXiv:2308.04079, Eqs. 3 to 5),
for orthographic and perspective cameras. Departures: the window is continuous at
its cut-off (see `constants.FLOOR`); depth is the Gaussian's conditional mean at the
pixel, E[z | u, v] = z + Cov(z, uv) Cov(uv)^-1 (uv - mean), which for a flat Gaussian
is the depth of its plane, damped by the low-pass filter where it is seen edge-on.

All functions run in the dtype and on the device of their inputs, and autograd
differentiates them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from render.cameras import Cameras
from render.splats.constants import CUTOFF, FLOOR, MAX_ALPHA, NEAR, STOP_TRANSMITTANCE, TILE_PX


@dataclass(frozen=True)
class Projected:
    """Splats in the image planes of `C` cameras."""

    centers: Float[Tensor, "C N 2"]
    """Pixels, x right and y down."""
    covariances: Float[Tensor, "C N 2 2"]
    """Square pixels, low-pass filter included."""
    conics: Float[Tensor, "C N 2 2"]
    """Inverse covariances."""
    depths: Float[Tensor, "C N"]
    slopes: Float[Tensor, "C N 2"]
    """Change of depth per pixel across the splat."""
    normals: Float[Tensor, "C N 3"]
    """The Gaussians' third axes in world space, turned towards each camera."""
    visible: Bool[Tensor, "C N"]
    """Farther than `constants.NEAR`, with a finite footprint. The others are left out."""


def rotations(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotation matrices of quaternions wxyz of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def project(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    cameras: Cameras,
    low_pass_px2: float,
) -> Projected:
    """EWA projection of Gaussians with standard deviations `scales` along their own axes."""
    w2c = cameras.w2c.to(means)
    flip = means.new_tensor([[1.0], [-1.0], [-1.0]])  # to x right, y down, z along the view
    view = w2c[:, :3, :3] * flip
    local = means @ view.transpose(1, 2) + (w2c[:, :3, 3:] * flip).transpose(1, 2)
    x, y, z = local.unbind(-1)
    fx, fy, cx, cy = cameras.intrinsics.to(means)[:, :, None].unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    far_enough = z > NEAR
    if cameras.projection == "perspective":
        w = torch.where(far_enough, z, one)  # a division by almost 0 would make 0 gradients not a number
        rows = [
            torch.stack([fx / w, zero, -fx * x / w**2], -1),
            torch.stack([zero, fy / w, -fy * y / w**2], -1),
        ]
        centers = torch.stack([fx * x / w + cx, fy * y / w + cy], -1)
        towards = -local @ view
    else:
        rows = [torch.stack([fx * one, zero, zero], -1), torch.stack([zero, fy * one, zero], -1)]
        centers = torch.stack([fx * x + cx, fy * y + cy], -1)
        towards = (-view[:, 2:]).expand(-1, len(means), -1)
    jacobian = torch.stack(rows, -2)
    axes = rotations(quats)
    local_factor = view[:, None] @ (axes * scales[:, None, :])
    factor = jacobian @ local_factor
    covariances = factor @ factor.transpose(-1, -2) + low_pass_px2 * torch.eye(2).to(means)
    a, b, d = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]
    determinants = a * d - b * b
    positive = (determinants > 0) & determinants.isfinite()
    adjugates = torch.stack([torch.stack([d, -b], -1), torch.stack([-b, a], -1)], -2)
    conics = adjugates / torch.where(positive, determinants, one)[..., None, None]
    depth_covariance = factor @ local_factor[..., 2, :, None]
    slopes = (conics @ depth_covariance)[..., 0]
    normals = axes[None, :, :, 2]
    facing = (normals * towards).sum(-1, keepdim=True)
    normals = torch.where(facing < 0, -normals, normals)
    visible = far_enough & positive & centers.isfinite().all(-1)
    return Projected(centers, covariances, conics, z, slopes, normals, visible)


def composite(
    alphas: Float[Tensor, "P n"],
) -> tuple[Float[Tensor, "P n"], Float[Tensor, " P"]]:
    """Weights of splats sorted front to back at `P` pixels, and the transmittance that is left."""
    through = torch.cumprod(torch.cat([alphas.new_ones(len(alphas), 1), 1 - alphas], 1), 1)
    taken = through[:, :-1] >= STOP_TRANSMITTANCE
    weights = alphas * through[:, :-1] * taken
    last = taken.sum(1, keepdim=True)
    return weights, through.gather(1, last)[:, 0]


def rasterize_reference(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    channels: Float[Tensor, "N K"],
    cameras: Cameras,
    low_pass_px2: float,
) -> tuple[
    Float[Tensor, "C H W 1"], Float[Tensor, "C H W K"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 3"]
]:
    """Alphas, and the composited (alpha-weighted) channels, depths and normals."""
    seen = project(means, quats, scales, cameras, low_pass_px2)
    reach = (CUTOFF * torch.diagonal(seen.covariances, dim1=-2, dim2=-1)).sqrt().detach()
    pixels = cameras.pixel_centers().to(means)
    count, height, width = len(cameras), cameras.height, cameras.width
    images = []
    for camera in range(count):
        order = torch.argsort(seen.depths[camera], stable=True)
        order = order[seen.visible[camera, order]]
        rows = []
        for top in range(0, height, TILE_PX):
            columns = []
            for left in range(0, width, TILE_PX):
                block = pixels[top : top + TILE_PX, left : left + TILE_PX]
                columns.append(_tile(seen, camera, order, reach[camera], block, opacities, channels))
            rows.append(torch.cat(columns, 1))
        images.append(torch.cat(rows, 0))
    image = torch.stack(images)
    return image[..., :1], image[..., 5:], image[..., 1:2], image[..., 2:5]


def _tile(
    seen: Projected,
    camera: int,
    order: Tensor,
    reach: Tensor,
    block: Float[Tensor, "h w 2"],
    opacities: Tensor,
    channels: Tensor,
) -> Float[Tensor, "h w F"]:
    """Alpha, depth, normal and channels of one block of pixels."""
    low, high = block[0, 0], block[-1, -1]
    center = seen.centers[camera].detach()
    near = ((center + reach >= low) & (center - reach <= high)).all(-1)
    chosen = order[near[order]]
    pixels = block.reshape(-1, 1, 2)
    offset = pixels - seen.centers[camera, chosen]
    conic = seen.conics[camera, chosen]
    q = (offset[:, :, None, :] @ conic @ offset[..., None])[..., 0, 0]
    window = ((torch.exp(-0.5 * q) - FLOOR) / (1 - FLOOR)).clamp_min(0)
    weights, left_over = composite((opacities[chosen] * window).clamp_max(MAX_ALPHA))
    depth = seen.depths[camera, chosen] + (offset * seen.slopes[camera, chosen]).sum(-1)
    mixed = weights @ torch.cat([seen.normals[camera, chosen], channels[chosen]], -1)
    out = torch.cat([1 - left_over[:, None], (weights * depth).sum(1, keepdim=True), mixed], -1)
    return out.reshape(*block.shape[:2], -1)
