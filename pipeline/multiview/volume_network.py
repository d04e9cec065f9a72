"""A picture to the whole object, coarsely, as a volume.

Views that are drawn of a picture begin from it (`volume_views`), so that from the first step on they are
views of one object, with the sides that the picture does not show where such objects have them. What the
lifter read in the picture is spread along the rays into space and from there brought to an upright grid;
attention over its cells, and over what the picture encoder sees, does the rest: what is symmetric, what
stands on four legs. Trained on occupancy (as in arXiv:1812.03828), where what is not known is a
probability; `volume` makes the network a diffusers model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.multiview.lifter_network import Features, Framing
from pipeline.multiview.picture_encoder import LEVELS
from pipeline.multiview.transformer_network import ContextBlock
from render.conventions import ORTHOGRAPHIC_HALF_EXTENT

CELLS = 64
"""A side of the grid of occupancy, over the cube around the unit ball."""
SURFACE_CELLS = 32
"""A side of the grid of base colour and material."""
SURFACE_CHANNELS = 5
"""Red, green, blue, metallic, roughness."""
_TOKENS = 16
"""Cells a side of the lifter's tokens."""
_TOKEN_SCALE = 0.3
"""Brings the lifter's tokens to about the size of its latents."""
_NARROW = 16
_COARSE = 8
_SEEN_CHANNELS, _SEEN_CELLS = LEVELS[-1]


@dataclass(frozen=True)
class Volume:
    """Objects in the cube from -1 to 1, upright, azimuth 0 towards +Z; arrays are indexed by z, y, x."""

    occupancy: Float[Tensor, "b n n n"]
    """Logits of the probability that a cell is of the object."""
    surface: Float[Tensor, "b 5 m m m"]
    """Base colour (sRGB), metallic and roughness, from -1 to 1, where the surface may be."""


def cell_centers(cells: int) -> Float[Tensor, "n n n 3"]:
    """x, y, z of the cells of a grid, indexed by z, y, x."""
    along = (torch.arange(cells) * 2 + 1) / cells - 1
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")
    return torch.stack([x, y, z], -1)


class VolumeBlock(nn.Module):
    """Two 3x3x3 convolutions around one normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.conv_in = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.get_parameter("bias"))

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        hidden: Tensor = self.conv_in(F.silu(self.norm(x)))
        return x + self.conv_out(F.silu(hidden))


class VolumeNetwork(nn.Module):
    """See the module's text. `inputs` are the lifter's width and its latents' channels."""

    def __init__(
        self,
        inputs: int = 208,
        spread: int = 12,
        middle: int = 40,
        width: int = 128,
        heads: int = 4,
        depth: int = 3,
    ) -> None:
        """`spread` channels are laid along each ray; `middle` and `width` are the channels of grids of 16 and
        of 8 cells a side, where `depth` blocks of attention work."""
        super().__init__()
        self.along_rays = nn.Sequential(
            nn.Conv2d(inputs, 192, 1), nn.SiLU(), nn.Conv2d(192, spread * SURFACE_CELLS, 1)
        )
        self.stem = nn.Conv3d(spread + 3, _NARROW, 3, padding=1)
        self.down_middle = nn.Conv3d(_NARROW, middle, 2, stride=2)
        self.middle_in = VolumeBlock(middle)
        self.down_coarse = nn.Conv3d(middle, width, 2, stride=2)
        self.position = nn.Parameter(torch.zeros(1, _COARSE**3, width))
        self.from_tokens = nn.Linear(inputs, width)
        self.tokens_position = nn.Parameter(torch.zeros(1, (_TOKENS // 2) ** 2, width))
        self.from_framing = nn.Linear(4, width)
        self.from_seen = nn.Linear(_SEEN_CHANNELS, width)
        self.seen_position = nn.Parameter(torch.zeros(1, _SEEN_CELLS**2, width))
        for position in (self.position, self.tokens_position, self.seen_position):
            nn.init.normal_(position, std=0.02)
        self.blocks = nn.ModuleList(ContextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.up_middle = nn.ConvTranspose3d(width, middle, 2, stride=2)
        self.middle_out = VolumeBlock(middle)
        self.up_narrow = nn.ConvTranspose3d(middle, _NARROW, 2, stride=2)
        self.narrow_out = VolumeBlock(_NARROW)
        fine = (CELLS // SURFACE_CELLS) ** 3
        self.out = nn.Conv3d(_NARROW, fine + SURFACE_CHANNELS, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.position.dtype

    def forward(
        self,
        tokens: Float[Tensor, "b w k k"],
        latents: Float[Tensor, "b c k k"],
        features: Features,
        framing: Float[Tensor, "b 4"],
    ) -> Volume:
        """The objects of pictures, by what the lifter makes of them (`LifterNetwork.tokens`, its latents)
        and what it was given: features and framing."""
        read = torch.cat([_TOKEN_SCALE * tokens.float(), latents.float()], 1)
        if read.shape[-1] != _TOKENS:
            read = F.interpolate(read, (_TOKENS, _TOKENS), mode="bilinear", align_corners=False)
        read = read.to(self.dtype)
        narrow = self.stem(self._upright(self.along_rays(read), framing))
        middle = self.middle_in(self.down_middle(F.silu(narrow)))
        cells = self.down_coarse(F.silu(middle)).flatten(2).transpose(1, 2) + self.position
        told = self.from_tokens(F.avg_pool2d(read, 2).flatten(2).transpose(1, 2)) + self.tokens_position
        told = told + self.from_framing(framing.to(self.dtype))[:, None]
        seen = self.from_seen(features[-1].to(self.dtype).flatten(2).transpose(1, 2)) + self.seen_position
        x = torch.cat([cells, told, seen], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, : cells.shape[1]]).transpose(1, 2)
        x = x.reshape(len(x), -1, _COARSE, _COARSE, _COARSE).contiguous()
        x = self.middle_out(self.up_middle(x) + middle)
        x = self.narrow_out(self.up_narrow(F.silu(x)) + narrow)
        found: Tensor = self.out(F.silu(x)).float()
        return Volume(_finer(found[:, :-SURFACE_CHANNELS]), found[:, -SURFACE_CHANNELS:])

    def _upright(
        self, rays: Float[Tensor, "b f k k"], framing: Float[Tensor, "b 4"]
    ) -> Float[Tensor, "b c m m m"]:
        """What is laid along the rays of the lifted view, by height, at the cells of the upright grid, with
        their places."""
        count = len(rays)
        heights = rays.view(count, -1, SURFACE_CELLS, _TOKENS, _TOKENS)
        places = cell_centers(SURFACE_CELLS).to(framing)
        x, y, z = places.expand(count, -1, -1, -1, -1).unbind(-1)
        elevation = Framing.from_tensor(framing.float()).elevation_rad[:, None, None, None]
        up = y * elevation.cos() - z * elevation.sin()
        height = y * elevation.sin() + z * elevation.cos()
        at = torch.stack([x / ORTHOGRAPHIC_HALF_EXTENT, -up / ORTHOGRAPHIC_HALF_EXTENT, height], -1)
        found = F.grid_sample(heights.float(), at, padding_mode="border", align_corners=False)
        own = places.permute(3, 0, 1, 2).expand(count, -1, -1, -1, -1)
        return torch.cat([found, own], 1).to(self.dtype)


def _finer(x: Float[Tensor, "b c m m m"]) -> Float[Tensor, "b n n n"]:
    """Each cell's channels as the cells of a finer grid that it holds."""
    batch, channels, side = x.shape[:3]
    factor = round(channels ** (1 / 3))
    cells = x.view(batch, factor, factor, factor, side, side, side).permute(0, 4, 1, 5, 2, 6, 3)
    return cells.reshape(batch, factor * side, factor * side, factor * side)
