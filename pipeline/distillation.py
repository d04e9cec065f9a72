"""Score distillation: a diffusion model's opinion about views that nobody has drawn.

In: renders of a field from fresh cameras. Out: a loss whose gradient moves the
field towards what the model finds likely for the prompt and the generated views.

Notation of flow matching (arXiv:2209.03003): z the latents of the render, eps
Gaussian noise, z_s = (1 - s) z + s eps, x0 the model's guided prediction of the
clean latents from z_s. The noise it implies is eps_pred = (z_s - (1 - s) x0) / s.

* `sds` (DreamFusion, arXiv:2209.14988, Eq. 3, in latent space):
  d loss / d z = w(s) (eps_pred - eps) / n, w(s) = s^2, n the number of latent values.
  Since eps_pred - eps = (1 - s) / s (z - x0), that is the gradient of
  s (1 - s) / 2n |z - x0|^2 with x0 held fixed, which is the loss that is returned.
  It reaches the field through the encoder.
* `x0` (as in HiFA, arXiv:2305.18766): x0 is decoded to a G-buffer, and the render is
  pulled to it channel by channel in image space, where the losses are robust and
  know which pixels are covered.

The noise level falls from `sigma_start` to `sigma_end` while the refinement goes
on: first the shape, then the details.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from recon.guidance import Objective
from recon.losses import LossWeights, gbuffer_loss, view_confidence
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer

Strategy = Literal["x0", "sds"]


@runtime_checkable
class Denoiser(Protocol):
    """A multi-view diffusion model with its conditions (prompt, generated views) already bound."""

    def encode(self, gbuffer: GBuffer, cameras: Cameras) -> Float[Tensor, "C c h w"]:
        """Latents of views; differentiable."""
        ...

    def decode(self, latents: Float[Tensor, "C c h w"], cameras: Cameras) -> GBuffer:
        """Views of latents."""
        ...

    def predict_clean(
        self, noisy: Float[Tensor, "C c h w"], sigma: float, cameras: Cameras
    ) -> Float[Tensor, "C c h w"]:
        """Guided x0 prediction at flow-matching noise `sigma`; no gradient."""
        ...


@dataclass(frozen=True)
class DistillationConfig:
    """How the model's opinion is asked for."""

    strategy: Strategy = "x0"
    sigma_start: float = 0.75
    sigma_end: float = 0.15
    sigma_jitter: float = 0.05
    """Half the width of the uniform spread around the annealed noise level."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Of the channels, for `x0`."""

    def __post_init__(self) -> None:
        for name in ("sigma_start", "sigma_end"):
            if not 0.02 <= getattr(self, name) <= 0.98:
                raise InputError(f"distillation.{name} must be from 0.02 to 0.98, not {getattr(self, name)}")
        if not 0 <= self.sigma_jitter <= 0.5:
            raise InputError(f"distillation.sigma_jitter must be from 0 to 0.5, not {self.sigma_jitter}")


@dataclass(frozen=True)
class Distillation:
    """A `recon.guidance.Guidance` on a denoiser."""

    denoiser: Denoiser
    config: DistillationConfig = field(default_factory=DistillationConfig)

    def sigma(self, fraction: float, generator: torch.Generator) -> float:
        """The noise level at a fraction in [0, 1] of the refinement."""
        config = self.config
        level = config.sigma_start + (config.sigma_end - config.sigma_start) * fraction
        spread = config.sigma_jitter * (2 * float(torch.rand(1, generator=generator)) - 1)
        return min(max(level + spread, 0.02), 0.98)

    def objective(
        self, rendered: GBuffer, cameras: Cameras, fraction: float, generator: torch.Generator
    ) -> Objective:
        """Ask the denoiser once; the result may pull several steps' renders from `cameras`."""
        sigma = self.sigma(fraction, generator)
        with torch.no_grad():
            latents = self.denoiser.encode(rendered.detach(), cameras)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            clean = self.denoiser.predict_clean((1 - sigma) * latents + sigma * noise, sigma, cameras)
        match self.config.strategy:
            case "sds":
                return self._sds(clean.detach(), sigma, cameras)
            case "x0":
                return self._x0(clean.detach(), cameras)

    def loss(
        self, rendered: GBuffer, cameras: Cameras, fraction: float, generator: torch.Generator
    ) -> Tensor:
        """Scalar, differentiable in `rendered`."""
        return self.objective(rendered, cameras, fraction, generator)(rendered)

    def _sds(self, clean: Float[Tensor, "C c h w"], sigma: float, cameras: Cameras) -> Objective:
        def pull(rendered: GBuffer) -> Tensor:
            latents = self.denoiser.encode(rendered, cameras)
            return 0.5 * sigma * (1 - sigma) * (latents - clean).square().mean()

        return pull

    def _x0(self, clean: Float[Tensor, "C c h w"], cameras: Cameras) -> Objective:
        with torch.no_grad():
            target = self.denoiser.decode(clean, cameras).detach()
        confidence = view_confidence(target, cameras)

        def pull(rendered: GBuffer) -> Tensor:
            return gbuffer_loss(rendered, target, self.config.weights, confidence)

        return pull
