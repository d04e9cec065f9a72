"""The critic as a diffusers model; the network is in `critic_network`."""

from __future__ import annotations

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config

from pipeline.multiview.critic_network import CriticNetwork


class ViewCritic(CriticNetwork, ModelMixin, ConfigMixin):
    """`CriticNetwork` with `from_pretrained` and `save_pretrained`."""

    @register_to_config
    def __init__(self, width: int = 64) -> None:
        """See `CriticNetwork`."""
        super().__init__(width)
