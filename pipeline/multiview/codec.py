"""G-buffers as network images and back, differentiable both ways.

A network image has `CHANNELS` channels in about [-1, 1]:

    0:3  base colour, sRGB * 2 - 1
    3    alpha * 2 - 1
    4:7  unit normal in camera space (x right, y up, z towards the camera)
    7    height: distance in front of the plane through the origin, towards the camera
    8    metallic * 2 - 1
    9    roughness * 2 - 1

Camera space makes the picture of an object the same wherever it is seen from,
so rotating the world costs nothing, and normals that are seen have z >= 0.
Uncovered pixels are 0 in all channels but alpha.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from render.cameras import Cameras
from render.gbuffer import GBuffer

CHANNELS = 10
COLOR, ALPHA, NORMAL, HEIGHT = slice(0, 3), slice(3, 4), slice(4, 7), slice(7, 8)
METALLIC, ROUGHNESS = slice(8, 9), slice(9, 10)


def encode_gbuffer(gbuffer: GBuffer, cameras: Cameras) -> Float[Tensor, "C 10 H W"]:
    """The network image of a G-buffer that has all unlit channels, seen by orthographic cameras."""
    if (
        gbuffer.base_color_srgb is None
        or gbuffer.normal is None
        or gbuffer.depth is None
        or gbuffer.metallic is None
        or gbuffer.roughness is None
    ):
        missing = sorted(
            {"base_color_srgb", "normal", "depth", "metallic", "roughness"} - set(gbuffer.channels())
        )
        raise ValueError(f"G-buffer lacks {', '.join(missing)}")
    rotation = cameras.c2w[:, :3, :3]
    normal = torch.einsum("chwk,ckj->chwj", gbuffer.normal, rotation)
    height = _camera_height(cameras) - gbuffer.depth
    image = torch.cat(
        [
            gbuffer.base_color_srgb * 2 - 1,
            gbuffer.alpha * 2 - 1,
            normal,
            height,
            gbuffer.metallic * 2 - 1,
            gbuffer.roughness * 2 - 1,
        ],
        -1,
    )
    cover = gbuffer.alpha.clamp(0, 1)
    seen = torch.where(cover > 0, image, torch.zeros_like(image))
    seen[..., ALPHA] = image[..., ALPHA]
    return seen.permute(0, 3, 1, 2)


def decode_gbuffer(image: Float[Tensor, "C 10 H W"], cameras: Cameras) -> GBuffer:
    """The inverse of `encode_gbuffer`; values are clamped to their ranges, normals renormalised."""
    image = image.permute(0, 2, 3, 1)
    alpha = (image[..., ALPHA] * 0.5 + 0.5).clamp(0, 1)
    cover = (alpha > 0).to(image.dtype)
    normal = torch.nn.functional.normalize(image[..., NORMAL], dim=-1, eps=1e-4)
    normal = torch.einsum("chwj,ckj->chwk", normal, cameras.c2w[:, :3, :3])
    return GBuffer(
        alpha=alpha,
        base_color_srgb=(image[..., COLOR] * 0.5 + 0.5).clamp(0, 1) * cover,
        normal=normal * cover,
        depth=(_camera_height(cameras) - image[..., HEIGHT]) * cover,
        metallic=(image[..., METALLIC] * 0.5 + 0.5).clamp(0, 1) * cover,
        roughness=(image[..., ROUGHNESS] * 0.5 + 0.5).clamp(0, 1) * cover,
    )


def _camera_height(cameras: Cameras) -> Float[Tensor, "C 1 1 1"]:
    """How far each camera is in front of the plane through the origin that faces it."""
    return (cameras.c2w[:, :3, 3] * cameras.c2w[:, :3, 2]).sum(-1).reshape(-1, 1, 1, 1)
