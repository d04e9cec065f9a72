"""The lifter as a diffusers model; the network is in `lifter_network`."""

from __future__ import annotations

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config

from pipeline.multiview.lifter_network import LifterNetwork


class PictureLifter(LifterNetwork, ModelMixin, ConfigMixin):
    """`LifterNetwork` with `from_pretrained` and `save_pretrained`."""

    @register_to_config
    def __init__(self, latent_channels: int = 16, width: int = 192, heads: int = 4, depth: int = 3) -> None:
        """See `LifterNetwork`."""
        super().__init__(latent_channels, width, heads, depth)
