"""The network of all-MiniLM-L6-v2, a BERT (arXiv:1810.04805) of six layers, forward only.

Written out, because importing it from transformers takes longer than drawing the views: three
seconds of one core, for the sixty lines that one model needs. A test holds it to transformers' `BertModel`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

HEADS = 12
LAYER_NORM_EPS = 1e-12
"""Both from the model's `config.json`, which the hash of the weights vouches for."""


class MiniLM:
    """The encoder's weights, by the names of the published file, and what they compute."""

    def __init__(self, weights: dict[str, Tensor], device: torch.device) -> None:
        self._weights = {name: value.float().to(device) for name, value in weights.items()}
        self._layers = len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})

    @torch.no_grad()
    def __call__(self, ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t 384"]:
        """Contextual embeddings of token ids; `mask` is true where a token is."""
        w = self._weights
        hidden = F.embedding(ids, w["embeddings.word_embeddings.weight"])
        hidden = hidden + w["embeddings.token_type_embeddings.weight"][0]
        hidden = hidden + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        hidden = self._normalised(hidden, "embeddings.LayerNorm")
        seen = mask[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        for i in range(self._layers):
            layer = f"encoder.layer.{i}"
            q, k, v = (
                self._linear(hidden, f"{layer}.attention.self.{part}")
                .unflatten(-1, (HEADS, -1))
                .transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
            mixed = self._linear(mixed, f"{layer}.attention.output.dense")
            hidden = self._normalised(mixed + hidden, f"{layer}.attention.output.LayerNorm")
            wide = F.gelu(self._linear(hidden, f"{layer}.intermediate.dense"))
            wide = self._linear(wide, f"{layer}.output.dense")
            hidden = self._normalised(wide + hidden, f"{layer}.output.LayerNorm")
        return hidden

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _normalised(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, LAYER_NORM_EPS)
