"""The lifter: a user's picture to the latents of the orthographic view that it is nearly a picture of.

A picture is lit, in perspective, and fills its frame; the multi-view model's views are unlit,
orthographic, and show the unit ball. The lifter estimates how the picture is framed and from how high it
was taken (`Framing`), lays it over the frame of the orthographic view from that height, and predicts that
view's latents. The transformer is given them as a clean view beside the noisy ones, which is how it is
told of an object pixel by pixel; `lifter` makes the network a diffusers model.

The latents are a mean over what the picture leaves open (how deep, which material), so they are smooth there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.multiview.autoencoder_network import ResidualBlock
from pipeline.multiview.transformer_network import ContextBlock
from render.cameras import Cameras
from render.conventions import ORTHOGRAPHIC_HALF_EXTENT


@dataclass(frozen=True)
class Framing:
    """How pictures of objects in the unit ball are taken."""

    elevation_rad: Float[Tensor, " b"]
    log2_magnification: Float[Tensor, " b"]
    """Size of the unit ball's middle in the picture, over its size in an orthographic view."""
    center: Float[Tensor, "b 2"]
    """Where the origin lies in the picture: x right, y down, from -1 to 1."""

    @staticmethod
    def of(cameras: Cameras) -> Framing:
        """Of perspective cameras that look at the origin."""
        back, position = cameras.c2w[:, :3, 2], cameras.c2w[:, :3, 3]
        fx, _, cx, cy = cameras.intrinsics.unbind(1)
        half = cameras.width / 2
        scale = fx / position.norm(dim=1) * ORTHOGRAPHIC_HALF_EXTENT / half
        center = torch.stack([cx, cy], 1) / half - 1
        return Framing(torch.asin(back[:, 1].clamp(-1, 1)), torch.log2(scale), center)

    def to_tensor(self) -> Float[Tensor, "b 4"]:
        """The numbers in a row, each of a size of about one."""
        return torch.cat([self.elevation_rad[:, None], self.log2_magnification[:, None], self.center], 1)

    @staticmethod
    def from_tensor(values: Float[Tensor, "b 4"]) -> Framing:
        """The inverse of `to_tensor`, kept within what pictures are like."""
        return Framing(
            values[:, 0].clamp(-math.pi / 2, math.pi / 2),
            values[:, 1].clamp(-2, 2),
            values[:, 2:].clamp(-1, 1),
        )


def laid_over(picture: Float[Tensor, "b c s s"], framing: Framing) -> Float[Tensor, "b c s s"]:
    """The picture moved and scaled to the frame of the orthographic view; 0 where it does not reach."""
    scale = torch.exp2(framing.log2_magnification)
    zero = torch.zeros_like(scale)
    x, y = framing.center.unbind(1)
    affine = torch.stack([torch.stack([scale, zero, x], 1), torch.stack([zero, scale, y], 1)], 1)
    grid = F.affine_grid(affine, list(picture.shape), align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False)


class FramingNet(nn.Module):
    """A picture to `Framing.to_tensor`: convolutions, then attention over an eighth of the sides."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(64, width // 2, 3, padding=1),
            ResidualBlock(width // 2),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            ResidualBlock(width),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(torch.zeros(1, width, 8, 8))
        nn.init.normal_(self.position, std=0.02)
        self.blocks = nn.ModuleList(ContextBlock(width, heads) for _ in range(2))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4))

    def forward(self, picture: Float[Tensor, "b 4 s s"]) -> Float[Tensor, "b 4"]:
        """The estimate, in the precision of the weights."""
        x = self.stem(picture)
        position: Tensor = self.position
        if x.shape[-2:] != position.shape[-2:]:
            position = F.interpolate(position.float(), x.shape[-2:], mode="bilinear").to(x)
        x = (x + position).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.out(x.mean(1))
        return found


class LifterNetwork(nn.Module):
    """See the module's text. Pictures are square RGBA, premultiplied, in [0, 1], sides multiples of 32."""

    def __init__(self, latent_channels: int = 16, width: int = 192, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.framing_net = FramingNet(width, heads)
        quarter = width // 2
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(64, quarter, 3, padding=1),
            ResidualBlock(quarter),
            nn.Conv2d(quarter, width, 3, stride=2, padding=1),
        )
        self.from_framing = nn.Linear(4, width)
        self.position = nn.Parameter(torch.zeros(1, width, 16, 16))
        nn.init.normal_(self.position, std=0.02)
        self.near = ResidualBlock(width)
        self.far = nn.ModuleList(ContextBlock(width, heads) for _ in range(depth))
        self.head = nn.Sequential(
            ResidualBlock(width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, latent_channels, 3, padding=1),
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def framing(self, picture: Float[Tensor, "b 4 s s"]) -> Float[Tensor, "b 4"]:
        """Estimate of `Framing.to_tensor`, fp32."""
        found: Tensor = self.framing_net((picture * 2 - 1).to(self.dtype))
        return found.float()

    def forward(
        self, picture: Float[Tensor, "b 4 s s"], framing: Float[Tensor, "b 4"]
    ) -> Float[Tensor, "b c h w"]:
        """Latents of the orthographic view from the picture's azimuth and the framing's elevation, fp32."""
        laid = laid_over(picture.float(), Framing.from_tensor(framing)) * 2 - 1
        x = self.stem(laid.to(self.dtype).contiguous(memory_format=torch.channels_last))
        position: Tensor = self.position
        if x.shape[-2:] != position.shape[-2:]:
            position = F.interpolate(position.float(), x.shape[-2:], mode="bilinear").to(x)
        x = self.near(x + position + self.from_framing(framing.to(x.dtype))[:, :, None, None])
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.far:
            tokens = block(tokens)
        x = tokens.transpose(1, 2).reshape(b, c, h, w).contiguous(memory_format=torch.channels_last)
        latents: Tensor = self.head(x)
        return latents.float()
