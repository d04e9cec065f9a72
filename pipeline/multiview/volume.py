"""The volume of a picture as a diffusers model; the network is in `volume_network`."""

from __future__ import annotations

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config

from pipeline.multiview.volume_network import VolumeNetwork


class PictureVolume(VolumeNetwork, ModelMixin, ConfigMixin):
    """`VolumeNetwork` with `from_pretrained` and `save_pretrained`."""

    @register_to_config
    def __init__(
        self, inputs: int = 208, width: int = 256, heads: int = 4, depth: int = 4, column_width: int = 96
    ) -> None:
        """See `VolumeNetwork`."""
        super().__init__(inputs, width, heads, depth, column_width)
