"""The multi-view diffusion transformer as a diffusers model; the network is in `transformer_network`."""

from __future__ import annotations

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config

from pipeline.multiview.transformer_network import (
    PATCH,
    TransformerNetwork,
    attend,
    noise_level_features,
    ray_features,
)

__all__ = ["PATCH", "MultiViewTransformer", "attend", "noise_level_features", "ray_features"]


class MultiViewTransformer(TransformerNetwork, ModelMixin, ConfigMixin):
    """`TransformerNetwork` with `from_pretrained`, `save_pretrained` and adapters."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        width: int = 256,
        depth: int = 12,
        heads: int = 4,
        mlp_ratio: int = 4,
        text_width: int = 384,
        modulation_rank: int = 200,
    ) -> None:
        """See `TransformerNetwork`."""
        super().__init__(latent_channels, width, depth, heads, mlp_ratio, text_width, modulation_rank)
