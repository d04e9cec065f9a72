"""A picture to the whole object, coarsely, as a volume.

Views that are drawn of a picture begin from it (`volume_views`), so that from the first step on they are
views of one object, with the sides that the picture does not show where such objects have them. The object
is found upright, facing where the picture was taken from, so that what is level is level from whatever
height it was taken: attention over what the lifter read, and over what the picture encoder sees, says of each
column of cells from front to back what it holds. Trained on occupancy (as in arXiv:1812.03828), where what is
not known is a probability; `volume` makes the network a diffusers model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.multiview.autoencoder_network import ResidualBlock
from pipeline.multiview.lifter_network import Features
from pipeline.multiview.picture_encoder import LEVELS
from pipeline.multiview.transformer_network import ContextBlock

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
_DROPOUT = 0.1
"""Share of what was read that training leaves out: the lifter knows the objects that it learned from better
than any other."""
_NEAREST = 6.0
"""How much more a place of a volume looks as the picture shows it that was taken from nearest."""
_SURE = 1.2
"""Of several pictures, the most that one says of a cell, as a logit: each is a little wrong about its
framing."""
_FINER = CELLS // SURFACE_CELLS
_SEEN_CHANNELS, _SEEN_CELLS = LEVELS[-1]


@dataclass(frozen=True)
class Volume:
    """Upright objects in the cube from -1 to 1, azimuth 0 towards +Z; arrays are indexed by z, y, x."""

    occupancy: Float[Tensor, "b n n n"]
    """Logits of the probability that a cell is of the object."""
    surface: Float[Tensor, "b 5 m m m"]
    """Base colour (sRGB), metallic and roughness, from -1 to 1, where the surface may be."""


def cell_centers(cells: int) -> Float[Tensor, "n n n 3"]:
    """x, y, z of the cells of a grid, indexed by z, y, x."""
    along = (torch.arange(cells) * 2 + 1) / cells - 1
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")
    return torch.stack([x, y, z], -1)


def turned(found: Volume, azimuth_deg: float) -> Volume:
    """Volumes that face azimuth 0, facing another azimuth."""
    if azimuth_deg == 0:
        return found
    across, along = math.cos(math.radians(azimuth_deg)), math.sin(math.radians(azimuth_deg))

    def resampled(grid: Float[Tensor, "b c n n n"]) -> Float[Tensor, "b c n n n"]:
        x, y, z = cell_centers(grid.shape[-1]).to(grid).unbind(-1)
        at = torch.stack([x * across - z * along, y, z * across + x * along], -1)
        return F.grid_sample(
            grid, at.expand(len(grid), -1, -1, -1, -1), padding_mode="border", align_corners=False
        )

    return Volume(resampled(found.occupancy[:, None])[:, 0], resampled(found.surface))


def together(found: Sequence[Volume], azimuths_deg: Sequence[float]) -> Volume:
    """One upright volume of those that pictures from azimuths are taken for: the mean of their logits, none
    too sure, and at each place the look of the picture that saw it from nearest."""
    if len(found) == 1:
        return found[0]
    occupancy = torch.stack([one.occupancy.clamp(-_SURE, _SURE) for one in found]).mean(0)
    x, _, z = cell_centers(SURFACE_CELLS).to(occupancy).unbind(-1)
    angles = torch.deg2rad(torch.tensor(azimuths_deg).to(occupancy))[:, None, None, None]
    weight = (_NEAREST * (x * angles.sin() + z * angles.cos())).softmax(0)
    surface = torch.stack([one.surface for one in found])
    return Volume(occupancy, (weight[:, None, None] * surface).sum(0))


class VolumeNetwork(nn.Module):
    """See the module's text. `inputs` are the lifter's width and its latents' channels."""

    def __init__(
        self, inputs: int = 208, width: int = 256, heads: int = 4, depth: int = 4, column_width: int = 96
    ) -> None:
        """`width` is that of `depth` blocks of attention over 16 x 16 columns, `column_width` that of the
        convolutions over 32 x 32 that they are divided into."""
        super().__init__()
        self.from_tokens = nn.Linear(inputs, width)
        self.position = nn.Parameter(torch.zeros(1, _TOKENS**2, width))
        self.from_framing = nn.Linear(4, width)
        self.from_seen = nn.Linear(_SEEN_CHANNELS, width)
        self.seen_position = nn.Parameter(torch.zeros(1, _SEEN_CELLS**2, width))
        for position in (self.position, self.seen_position):
            nn.init.normal_(position, std=0.02)
        self.blocks = nn.ModuleList(ContextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.divide = nn.Linear(width, (SURFACE_CELLS // _TOKENS) ** 2 * column_width)
        self.near = ResidualBlock(column_width)
        self.out = nn.Conv2d(column_width, _FINER**2 * CELLS + SURFACE_CHANNELS * SURFACE_CELLS, 1)

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
        """The objects of pictures, facing where they were taken from, by what the lifter makes of them
        (`LifterNetwork.tokens`, its latents) and what it was given: features and framing."""
        read = torch.cat([_TOKEN_SCALE * tokens.float(), latents.float()], 1)
        if read.shape[-1] != _TOKENS:
            read = F.interpolate(read, (_TOKENS, _TOKENS), mode="bilinear", align_corners=False)
        read = F.dropout(read.to(self.dtype), _DROPOUT, self.training)
        columns = self.from_tokens(read.flatten(2).transpose(1, 2)) + self.position
        columns = columns + self.from_framing(framing.to(self.dtype))[:, None]
        seen = F.dropout(features[-1].to(self.dtype), _DROPOUT, self.training)
        beside = self.from_seen(seen.flatten(2).transpose(1, 2)) + self.seen_position
        x = torch.cat([columns, beside], 1)
        for block in self.blocks:
            x = block(x)
        x = self.divide(self.norm(x[:, : _TOKENS**2])).transpose(1, 2)
        x = F.pixel_shuffle(x.reshape(len(x), -1, _TOKENS, _TOKENS), SURFACE_CELLS // _TOKENS)
        x = self.out(F.silu(self.near(x.contiguous(memory_format=torch.channels_last)))).float()
        occupancy, surface = x.split([_FINER**2 * CELLS, SURFACE_CHANNELS * SURFACE_CELLS], 1)
        surface = surface.reshape(len(x), SURFACE_CHANNELS, SURFACE_CELLS, SURFACE_CELLS, SURFACE_CELLS)
        # Rows go down, y goes up.
        return Volume(F.pixel_shuffle(occupancy, _FINER).flip(2), surface.flip(3))
