"""The volume of a picture as a diffusers model; the network is in `volume_network`."""

from __future__ import annotations

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config

from pipeline.multiview.volume_network import VolumeNetwork


class PictureVolume(VolumeNetwork, ModelMixin, ConfigMixin):
    """`VolumeNetwork` with `from_pretrained` and `save_pretrained`."""

    @register_to_config
    def __init__(
        self,
        inputs: int = 208,
        spread: int = 12,
        middle: int = 40,
        width: int = 128,
        heads: int = 4,
        depth: int = 3,
    ) -> None:
        """See `VolumeNetwork`."""
        super().__init__(inputs, spread, middle, width, heads, depth)
