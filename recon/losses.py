"""Losses between what a field shows and what views show, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer

_MIN_CONFIDENCE = 0.1
_KNEE = 0.01
"""Charbonnier losses are quadratic below this residual and linear above it."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of each channel's mean loss over all pixels."""

    color: float = 1.0
    alpha: float = 2.0
    normal: float = 0.2
    depth: float = 1.0
    material: float = 0.3
    """Metallic and roughness."""

    def __post_init__(self) -> None:
        for f in fields(self):
            if not 0 <= getattr(self, f.name) <= 1000:
                raise InputError(f"weights.{f.name} must be from 0 to 1000, not {getattr(self, f.name)}")


def charbonnier(residual: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """sqrt(r^2 + knee^2) - knee: an L1 that outliers do not dominate, smooth at 0."""
    return (residual * residual + _KNEE**2).sqrt() - _KNEE


def view_confidence(target: GBuffer, cameras: Cameras) -> Float[Tensor, "C H W 1"]:
    """How far a pixel is to be believed: the cosine at which it sees the surface, at least 0.1."""
    if target.normal is None:
        return torch.ones_like(target.alpha)
    towards = -cameras.rays()[1]
    return (target.normal * towards).sum(-1, keepdim=True).clamp(_MIN_CONFIDENCE, 1)


def gbuffer_loss(
    rendered: GBuffer,
    target: GBuffer,
    weights: LossWeights,
    confidence: Float[Tensor, "C H W 1"] | None = None,
) -> Float[Tensor, ""]:
    """Robust distance of two sets of views of the same cameras, differentiable in `rendered`.

    Colours are compared as composited over black, so that coverage counts; normals and
    depths only where the target is covered. Channels that either side lacks are skipped.
    """
    trust = torch.ones_like(target.alpha) if confidence is None else confidence
    color = target.base_color_srgb if target.base_color_srgb is not None else target.rgb_srgb
    total = weights.alpha * charbonnier(rendered.alpha - target.alpha).mean()
    if color is not None and rendered.base_color_srgb is not None:
        residual = rendered.alpha * rendered.base_color_srgb - target.alpha * color
        total = total + weights.color * (trust * charbonnier(residual)).mean()
    solid = trust * (target.alpha > 0.5) * rendered.alpha
    if target.normal is not None and rendered.normal is not None:
        total = total + weights.normal * (solid * charbonnier(rendered.normal - target.normal)).mean()
    if target.depth is not None and rendered.depth is not None:
        total = total + weights.depth * (solid * charbonnier(rendered.depth - target.depth)).mean()
    for name in ("metallic", "roughness"):
        ours, theirs = getattr(rendered, name), getattr(target, name)
        if ours is not None and theirs is not None:
            residual = rendered.alpha * ours - target.alpha * theirs
            total = total + weights.material * (trust * charbonnier(residual)).mean()
    return total


def psnr(rendered: GBuffer, target: GBuffer) -> dict[str, float]:
    """Peak signal-to-noise ratio per channel, dB; values composited over black, depth over 1 unit."""
    out = {}
    ours = rendered.channels()
    for name, theirs in target.channels().items():
        if name not in ours:
            continue
        if name == "alpha":
            residual = ours[name] - theirs
        elif name in ("normal", "depth"):
            both = ((target.alpha > 0.5) & (rendered.alpha > 0.5)).to(theirs)
            residual = (ours[name] - theirs) * both
            residual = residual / (2 if name == "normal" else 1)
        else:
            residual = rendered.alpha * ours[name] - target.alpha * theirs
        error = (residual.double() ** 2).mean().clamp_min(1e-12)
        out[name] = float(-10 * error.log10())
    return out


def silhouette_iou(rendered: GBuffer, target: GBuffer) -> float:
    """Intersection over union of the covered pixels of all views."""
    ours, theirs = rendered.alpha > 0.5, target.alpha > 0.5
    return float((ours & theirs).sum() / (ours | theirs).sum().clamp_min(1))
