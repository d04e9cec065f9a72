"""The G-buffer autoencoder: 10 channels of H x W pixels to 16 channels of H/8 x W/8 latents.

Latents are deterministic and have unit variance per channel by construction (a
batch norm without affine part ends the encoder), and the decoder is trained on
latents with a little noise, which does for the diffusion model what a KL term
does in a VAE, without its blur. The last `MATERIAL_LATENTS` channels come from
metallic and roughness alone, so that a loss can leave them out where the training
data does not know the material; the decoder reads all of them together, so
material edges follow the edges of colour. `autoencoder` makes it a diffusers model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.multiview.codec import ALPHA, CHANNELS, METALLIC, ROUGHNESS

DOWNSAMPLING = 8
MATERIAL_LATENTS = 2


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around one normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.conv_in(F.silu(self.norm(x)))
        return x + self.conv_out(F.silu(hidden))


class AutoencoderNetwork(nn.Module):
    """Convolutional autoencoder of network images (see `codec`)."""

    def __init__(
        self,
        latent_channels: int = 16,
        widths: Sequence[int] = (48, 96, 160),
        encoder_blocks: Sequence[int] = (4, 3),
        decoder_blocks: Sequence[int] = (3, 4, 4),
        detail_width: int = 24,
        detail_blocks: int = 2,
    ) -> None:
        """`widths` are the channels at 1/2, 1/4 and 1/8 of the resolution, `*_blocks` the residual blocks
        there (the encoder starts at 1/4). `detail_width` and `detail_blocks` are those of the decoder's last
        stage, which sees single pixels."""
        super().__init__()
        half, quarter, eighth = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16 * (CHANNELS - 2), quarter, 3, padding=1),
            *(ResidualBlock(quarter) for _ in range(encoder_blocks[0])),
            nn.Conv2d(quarter, eighth, 3, stride=2, padding=1),
            *(ResidualBlock(eighth) for _ in range(encoder_blocks[1])),
            nn.SiLU(),
            nn.Conv2d(eighth, latent_channels - MATERIAL_LATENTS, 1),
        )
        self.material_encoder = nn.Sequential(
            nn.PixelUnshuffle(8),
            nn.Conv2d(64 * 3, 64, 1),
            ResidualBlock(64),
            nn.SiLU(),
            nn.Conv2d(64, MATERIAL_LATENTS, 1),
        )
        self.latent_norm = nn.BatchNorm2d(latent_channels, affine=False, momentum=0.02)
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, eighth, 3, padding=1),
            *(ResidualBlock(eighth) for _ in range(decoder_blocks[2])),
            nn.Conv2d(eighth, 4 * quarter, 1),
            nn.PixelShuffle(2),
            *(ResidualBlock(quarter) for _ in range(decoder_blocks[1])),
            nn.Conv2d(quarter, 4 * half, 1),
            nn.PixelShuffle(2),
            *(ResidualBlock(half) for _ in range(decoder_blocks[0])),
            nn.SiLU(),
        )
        self.to_image = nn.Sequential(nn.Conv2d(half, 4 * CHANNELS, 3, padding=1), nn.PixelShuffle(2))
        last = nn.Conv2d(detail_width, CHANNELS, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.get_parameter("bias"))
        self.to_detail = nn.Sequential(
            nn.Conv2d(half, 4 * detail_width, 1),
            nn.PixelShuffle(2),
            *(ResidualBlock(detail_width) for _ in range(detail_blocks)),
            nn.SiLU(),
            last,
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device

    def encode(self, image: Float[Tensor, "n 10 H W"]) -> Float[Tensor, "n c h w"]:
        """Normalised latents; H and W are multiples of 8."""
        main = self.encoder(image[:, : METALLIC.start])
        material = self.material_encoder(
            torch.cat([image[:, METALLIC], image[:, ROUGHNESS], image[:, ALPHA]], 1)
        )
        latents: Tensor = self.latent_norm(torch.cat([main, material], 1))
        return latents

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 10 H W"]:
        """The network image of latents."""
        hidden = self.decoder(latents)
        image: Tensor = self.to_image(hidden) + self.to_detail(hidden)
        return image
