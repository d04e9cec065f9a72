"""The lifter: a user's picture to the latents of the orthographic view that it is nearly a picture of.

A picture is lit, in perspective, and fills its frame; the multi-view model's views are unlit,
orthographic, and show the unit ball. The lifter estimates how the picture is framed and from how high it
was taken (`Framing`), lays it over the frame of the orthographic view from that height, and predicts that
view's latents. The transformer is given them as a clean view beside the noisy ones, which is how it is
told of an object pixel by pixel; `lifter` makes the network a diffusers model. Both parts read the pixels
and, beside them, what `picture_encoder` sees.

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
from pipeline.multiview.picture_encoder import LEVELS, picture_features
from pipeline.multiview.text import WIDTH as SENTENCE_WIDTH
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


Features = tuple[Float[Tensor, "b _ _ _"], ...]
"""What `picture_encoder.picture_features` makes of pictures."""
FEATURES = sum(channels for channels, _ in LEVELS)
_PIXELS_PX = 96
_PATCH_PX = 8
_CELLS = _PIXELS_PX // _PATCH_PX
"""A side of the grid of tokens that framing is read from."""
_NAMING_CELLS = 6
_USUAL = (0.27, 0.03, 0.01, -0.03)
SPREAD = (0.26, 0.23, 0.046, 0.082)
"""Means and standard deviations of `Framing.to_tensor` over training pictures: the estimate starts there."""


def laid_over(
    picture: Float[Tensor, "b c s s"], framing: Framing, side: int | None = None
) -> Float[Tensor, "b c t t"]:
    """The picture moved and scaled to the frame of the orthographic view, of `side` pixels (by default its
    own); 0 where it does not reach."""
    scale = torch.exp2(framing.log2_magnification)
    zero = torch.zeros_like(scale)
    x, y = framing.center.unbind(1)
    affine = torch.stack([torch.stack([scale, zero, x], 1), torch.stack([zero, scale, y], 1)], 1)
    count, channels, own = picture.shape[:3]
    size = side or own
    grid = F.affine_grid(affine, [count, channels, size, size], align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False)


class FramingNet(nn.Module):
    """A picture and its features to `Framing.to_tensor`: attention over 12 x 12 tokens."""

    def __init__(self, width: int, heads: int, depth: int = 3) -> None:
        super().__init__()
        self.from_pixels = nn.Linear(4 * _PATCH_PX**2, width)
        self.from_features = nn.Linear(FEATURES, width)
        self.position = nn.Parameter(torch.zeros(1, _CELLS**2, width))
        nn.init.normal_(self.position, std=0.02)
        self.blocks = nn.ModuleList(ContextBlock(width, heads) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4))

    def forward(self, picture: Float[Tensor, "b 4 s s"], features: Features) -> Float[Tensor, "b 4"]:
        """The estimate, fp32."""
        dtype = self.from_pixels.weight.dtype
        small = F.interpolate(picture, (_PIXELS_PX, _PIXELS_PX), mode="bilinear", align_corners=False)
        pixels = F.pixel_unshuffle(small * 2 - 1, _PATCH_PX).flatten(2).transpose(1, 2)
        seen = torch.cat([_at(level, _CELLS) for level in features], 1).flatten(2).transpose(1, 2)
        x = self.from_pixels(pixels.to(dtype)) + self.from_features(seen.to(dtype)) + self.position
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.out(x.mean(1)).float()
        return found * found.new_tensor(SPREAD) + found.new_tensor(_USUAL)


class NamingNet(nn.Module):
    """What a picture shows, as a unit vector that lies near to those of its names (arXiv:2103.00020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.from_features = nn.Linear(FEATURES, width)
        self.position = nn.Parameter(torch.zeros(1, _NAMING_CELLS**2, width))
        nn.init.normal_(self.position, std=0.02)
        self.block = ContextBlock(width, heads)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(2 * width, SENTENCE_WIDTH)
        self.text = nn.Linear(SENTENCE_WIDTH, SENTENCE_WIDTH, bias=False)
        nn.init.eye_(self.text.weight)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def forward(self, features: Features) -> Float[Tensor, "b 384"]:
        """Of pictures."""
        seen = torch.cat([_at(level, _NAMING_CELLS) for level in features], 1).flatten(2).transpose(1, 2)
        x = self.from_features(seen.to(self.from_features.weight.dtype)) + self.position
        x = self.norm(self.block(x))
        return F.normalize(self.out(torch.cat([x.mean(1), x.amax(1)], -1)).float(), dim=-1)

    def sentences(self, embeddings: Float[Tensor, "n 384"]) -> Float[Tensor, "n 384"]:
        """Of names, by their sentence embeddings."""
        return F.normalize(self.text(embeddings.to(self.text.weight.dtype)).float(), dim=-1)


def _at(level: Float[Tensor, "b c h w"], cells: int) -> Float[Tensor, "b c k k"]:
    """Features on a grid of `cells` a side, of which their own is a multiple or a part."""
    if level.shape[-1] > cells:
        return F.avg_pool2d(level, level.shape[-1] // cells)
    return F.interpolate(level, (cells, cells), mode="bilinear", align_corners=False)


class LifterNetwork(nn.Module):
    """See the module's text. Pictures are square RGBA, premultiplied, in [0, 1], sides multiples of 32."""

    def __init__(self, latent_channels: int = 16, width: int = 192, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.feature_norms = nn.ModuleList(
            nn.BatchNorm2d(channels, affine=False, momentum=0.02) for channels, _ in LEVELS
        )
        self.framing_net = FramingNet(width, heads)
        self.naming_net = NamingNet(width, heads)
        quarter = width // 2
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(64, quarter, 3, padding=1),
            ResidualBlock(quarter),
            nn.Conv2d(quarter, width, 3, stride=2, padding=1),
        )
        self.from_features = nn.Conv2d(FEATURES, width, 1)
        nn.init.zeros_(self.from_features.weight)
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
        return self.position.dtype

    def features(self, picture: Float[Tensor, "b 4 s s"]) -> Features:
        """What the picture encoder sees, of unit variance per channel: an argument of both parts."""
        seen = picture_features(picture, self.dtype)
        return tuple(norm(level) for norm, level in zip(self.feature_norms, seen, strict=True))

    def likeness(self, features: Features, embeddings: Float[Tensor, "n 384"]) -> Float[Tensor, "b n"]:
        """How well names, by their sentence embeddings, say what pictures show: cosines."""
        return self.naming_net(features) @ self.naming_net.sentences(embeddings).T

    def framing(self, picture: Float[Tensor, "b 4 s s"], features: Features) -> Float[Tensor, "b 4"]:
        """Estimate of `Framing.to_tensor`, fp32."""
        found: Tensor = self.framing_net(picture, features)
        return found

    def forward(
        self, picture: Float[Tensor, "b 4 s s"], features: Features, framing: Float[Tensor, "b 4"]
    ) -> Float[Tensor, "b c h w"]:
        """Latents of the orthographic view from the picture's azimuth and the framing's elevation, fp32."""
        return self.latents(self.tokens(picture, features, framing))

    def latents(self, tokens: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
        """Of the view that the tokens are of, fp32."""
        latents: Tensor = self.head(tokens)
        return latents.float()

    def tokens(
        self, picture: Float[Tensor, "b 4 s s"], features: Features, framing: Float[Tensor, "b 4"]
    ) -> Float[Tensor, "b d h w"]:
        """What is read in the picture, one token per latent of the view."""
        taken = Framing.from_tensor(framing)
        laid = laid_over(picture.float(), taken) * 2 - 1
        x = self.stem(laid.to(self.dtype).contiguous(memory_format=torch.channels_last))
        seen = torch.cat([laid_over(level.float(), taken, x.shape[-1]) for level in features], 1)
        x = x + self.from_features(seen.to(x.dtype).contiguous(memory_format=torch.channels_last))
        position: Tensor = self.position
        if x.shape[-2:] != position.shape[-2:]:
            position = F.interpolate(position.float(), x.shape[-2:], mode="bilinear").to(x)
        x = self.near(x + position + self.from_framing(framing.to(x.dtype))[:, :, None, None])
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.far:
            tokens = block(tokens)
        return tokens.transpose(1, 2).reshape(b, c, h, w).contiguous(memory_format=torch.channels_last)
