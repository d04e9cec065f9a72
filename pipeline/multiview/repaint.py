"""New colours and materials for a shape that is given: views of it, painted by the multi-view model.

The model draws shape and colours together. Here the shape is known, so in every step the predicted clean
views are decoded, their coverage, normals and heights replaced by the true ones, and encoded again; colour,
metallic and roughness stay as predicted (replacement as in inpainting by diffusion, arXiv:2201.09865, but of
channels and not of pixels, and of the clean estimate). Then the views agree on the shape from the first step
on, and the colours follow it.

What it can do is what the model can: overall colours and materials that fit the words and the shape. It does
not draw lettering or small patterns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.codec import (
    ALPHA,
    COLOR,
    HEIGHT,
    METALLIC,
    NORMAL,
    ROUGHNESS,
    decode_gbuffer,
    encode_gbuffer,
)
from pipeline.multiview.sampler import ViewSampler
from pipeline.prompt import Prompt
from render.errors import InputError
from render.gbuffer import ViewSet
from render.progress import Progress, silent


@dataclass(frozen=True)
class RepaintConfig:
    """How the views are painted."""

    num_inference_steps: int = 25
    guidance_scale: float = 3.0
    strength: float = 1.0
    """The noise level at which painting begins: 1 forgets the old colours, 0.9 keeps traces, 0.75 most."""
    guidance_rescale: float = 0.0
    """As `ViewSampler.velocity` takes it."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= 1000:
            raise InputError(
                f"num_inference_steps must be between 1 and 1000, not {self.num_inference_steps}."
            )
        if not 0 <= self.guidance_scale <= 50:
            raise InputError(f"guidance_scale must be between 0 and 50, not {self.guidance_scale:g}.")
        if not 0.05 <= self.strength <= 1:
            raise InputError(f"strength must be between 0.05 and 1, not {self.strength:g}.")


@torch.no_grad()
def repaint(
    sampler: ViewSampler,
    prompt: Prompt,
    views: ViewSet,
    config: RepaintConfig,
    *,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> ViewSet:
    """The views with other colours and materials.

    `views` have all unlit channels, orthographic cameras and sides that are multiples of 16 pixels; their
    alpha, normals and depth come back as they are, the other channels only where alpha is not 0.
    """
    device = sampler.transformer.device
    cameras = views.cameras.to(device)
    truth = encode_gbuffer(views.gbuffer.to(device), cameras)
    conditioning, rays = sampler.condition(prompt), sampler.rays(cameras)
    lifted = sampler.lifted(prompt, cameras.height)
    sigmas = sampler.sigmas(config.num_inference_steps).to(device)
    if config.strength < 1:
        start = torch.tensor([config.strength], device=device)
        sigmas = torch.cat([start, sigmas[sigmas < start]])
    given = _encoded(sampler, truth)
    # Noise is drawn on the CPU, so that a seed means the same on every device.
    noise = torch.randn(given.shape, generator=generator).to(device)
    latents = (1 - sigmas[0]) * given + sigmas[0] * noise
    steps = len(sigmas) - 1
    for step in range(steps):
        progress(step / steps, "painting")
        sigma, following = sigmas[step], sigmas[step + 1]
        velocity = sampler.velocity(
            latents,
            sigma.expand(len(cameras)),
            rays,
            conditioning,
            config.guidance_scale,
            lifted,
            config.guidance_rescale,
        )
        clean = _encoded(sampler, _shaped(_decoded(sampler, latents - sigma * velocity), truth))
        latents = (1 - following) * clean + following * (latents + (1 - sigma) * velocity)
    painted = decode_gbuffer(_shaped(_decoded(sampler, latents), truth), cameras).to("cpu")
    # Exactly what was given, without the way through the codec.
    known = views.gbuffer
    keep = (known.alpha > 0).float()
    channels = {name: value * keep for name, value in painted.channels().items()}
    assert known.normal is not None
    assert known.depth is not None
    channels |= {"alpha": known.alpha, "normal": known.normal, "depth": known.depth}
    progress(1.0)
    return ViewSet(views.cameras, type(known)(**channels))


def _decoded(sampler: ViewSampler, latents: Float[Tensor, "v c h w"]) -> Float[Tensor, "v 10 H W"]:
    latents = latents.to(sampler.autoencoder.dtype).contiguous(memory_format=torch.channels_last)
    return sampler.autoencoder.decode(latents).float()


def _encoded(sampler: ViewSampler, image: Float[Tensor, "v 10 H W"]) -> Float[Tensor, "v c h w"]:
    image = image.to(sampler.autoencoder.dtype).contiguous(memory_format=torch.channels_last)
    return sampler.autoencoder.encode(image).float()


def _shaped(image: Float[Tensor, "v 10 H W"], truth: Float[Tensor, "v 10 H W"]) -> Float[Tensor, "v 10 H W"]:
    """The image's colours and materials on the true shape."""
    out = image.clamp(-1, 1)
    covered = (truth[:, ALPHA] > -1).to(out)
    for channel in (COLOR, METALLIC, ROUGHNESS):
        out[:, channel] *= covered
    for channel in (ALPHA, NORMAL, HEIGHT):
        out[:, channel] = truth[:, channel]
    return out
