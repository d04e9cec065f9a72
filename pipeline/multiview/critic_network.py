"""The critic: how well views of one object fit a text, by which the better of several drawn sets is kept.

A small contrastive image-text network (arXiv:2103.00020): views as network images (`codec`) of 64 pixels and
MiniLM's sentence embeddings become unit vectors, whose cosine says how well they fit. It is trained on
renders of the objects that the model is trained on (`pipeline.training.train_critic`); `critic` makes it a
diffusers model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pipeline.multiview.codec import ALPHA, CHANNELS

SIZE = 64


def shrink(image: Float[Tensor, "n 10 H W"], size: int = SIZE) -> Float[Tensor, "n 10 s s"]:
    """Network images at fewer pixels; like a render of that size, the mean over what is covered."""
    factor = image.shape[-1] // size
    if factor == 1:
        return image
    cover = image[:, ALPHA].clamp(-1, 1) * 0.5 + 0.5
    share = functional.avg_pool2d(cover, factor)
    out = functional.avg_pool2d(image * cover, factor) / share.clamp_min(1e-6)
    out = out * (share > 1e-3)
    out[:, ALPHA] = share * 2 - 1
    return out


class Block(nn.Module):
    """Two 3x3 convolutions around one normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(functional.silu(self.norm(x)))
        return x + self.second(functional.silu(hidden))


class CriticNetwork(nn.Module):
    """Views and sentences to unit vectors of MiniLM's width."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16 * CHANNELS, width, 3, padding=1),
            Block(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            Block(2 * width),
            Block(2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            Block(4 * width),
            Block(4 * width),
            nn.GroupNorm(8, 4 * width),
            nn.SiLU(),
        )
        self.out = nn.Linear(8 * width, 384)
        self.text = nn.Linear(384, 384)
        nn.init.eye_(self.text.weight)
        nn.init.zeros_(self.text.bias)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def views(self, image: Float[Tensor, "n 10 64 64"]) -> Float[Tensor, "n 384"]:
        """Unit vectors of single views."""
        features = self.tower(image)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], -1)
        return functional.normalize(self.out(pooled).float(), dim=-1)

    def sentences(self, embeddings: Float[Tensor, "n 384"]) -> Float[Tensor, "n 384"]:
        """Unit vectors of MiniLM sentence embeddings."""
        return functional.normalize(self.text(embeddings.to(self.text.weight.dtype)).float(), dim=-1)

    @torch.no_grad()
    def object(self, image: Float[Tensor, "v 10 H W"]) -> Float[Tensor, " 384"]:
        """The unit vector of an object: the mean over its views."""
        views = shrink(image.float()).to(self.out.weight.dtype)
        return functional.normalize(self.views(views).mean(0), dim=-1)
