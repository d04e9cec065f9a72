"""The G-buffer autoencoder as a diffusers model; the network is in `autoencoder_network`."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config

from pipeline.multiview.autoencoder_network import DOWNSAMPLING, MATERIAL_LATENTS, AutoencoderNetwork

__all__ = ["DOWNSAMPLING", "MATERIAL_LATENTS", "GBufferAutoencoder"]


class GBufferAutoencoder(AutoencoderNetwork, ModelMixin, ConfigMixin):
    """`AutoencoderNetwork` with `from_pretrained` and `save_pretrained`."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        widths: Sequence[int] = (48, 96, 160),
        encoder_blocks: Sequence[int] = (4, 3),
        decoder_blocks: Sequence[int] = (3, 4, 4),
        detail_width: int = 24,
        detail_blocks: int = 2,
    ) -> None:
        """See `AutoencoderNetwork`."""
        super().__init__(latent_channels, widths, encoder_blocks, decoder_blocks, detail_width, detail_blocks)
