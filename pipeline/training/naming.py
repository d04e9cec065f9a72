"""Teaches the lifter's `NamingNet` what pictures show: the own name among all that training objects have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pipeline.multiview.lifter_network import NamingNet
from pipeline.multiview.text import WIDTH, TextEncoder
from pipeline.training.props import Prop, captions

ALIKE = 0.9
"""Cosine from which two captions mean nearly the same: neither is a wrong name for the other's object."""
_PLAIN_SHARE = 0.5
"""Of the pictures, those whose name has no colour or material in it where there is such a one."""


class Names:
    """Captions of training objects and their sentence embeddings."""

    def __init__(self, props: Sequence[Prop], encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._embeddings: dict[str, Tensor] = {}
        self.bank = self.embeddings(sorted({captions(p)[0] for p in props}))

    def embeddings(self, texts: Sequence[str]) -> Float[Tensor, "n 384"]:
        """Of captions; each is computed once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._embeddings]
        if new:
            self._embeddings |= dict(zip(new, self._encoder.sentences(new), strict=True))
        return torch.stack([self._embeddings[text] for text in texts]) if texts else torch.empty(0, WIDTH)

    def of(self, props: Sequence[Prop], rng: np.random.Generator) -> Float[Tensor, "n 384"]:
        """A caption of each object: the plainest, or any."""
        chosen = []
        for prop in props:
            said = captions(prop)
            chosen.append(said[0] if rng.uniform() < _PLAIN_SHARE else said[rng.integers(len(said))])
        return self.embeddings(chosen)


def naming_loss(
    net: NamingNet, seen: Float[Tensor, "b 384"], own: Float[Tensor, "b 384"], bank: Float[Tensor, "n 384"]
) -> Tensor:
    """Cross-entropy of the own name among the bank's and the other pictures', and of the own picture among
    the others (arXiv:2103.00020); names that mean nearly the same count for neither. Pictures are of
    different objects; 0 without any."""
    if len(own) == 0:
        return seen.sum()
    count = len(own)
    names = torch.cat([own, bank])
    logits = seen @ net.sentences(names).T * net.log_scale.float().clamp(max=4.2).exp()
    alike = own @ names.T > ALIKE
    diagonal = torch.arange(count, device=own.device)
    alike[diagonal, diagonal] = False
    forward = functional.cross_entropy(logits.masked_fill(alike, -1e4), diagonal)
    others = logits[:, :count].masked_fill(alike[:, :count], -1e4)
    return 0.7 * forward + 0.3 * functional.cross_entropy(others.T, diagonal)
