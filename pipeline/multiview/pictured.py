"""A prompt's pictures as orthographic views, with the light that they were taken in.

The lifter says where a picture is a view from, and how it is framed. For the texture of what it shows, whose
maker takes the light out (`recon.picture_colors`).
"""

from __future__ import annotations

import torch

from pipeline.multiview.lifter_network import Framing, laid_over
from pipeline.multiview.sampler import ViewSampler, reference_tensor
from pipeline.prompt import Prompt
from render.cameras import orbit_cameras
from render.gbuffer import GBuffer, ViewSet

_FINE = 2
"""Pixels of the picture, a side, for one of a drawn view."""


@torch.no_grad()
def pictured(sampler: ViewSampler, prompt: Prompt, size_px: int) -> ViewSet | None:
    """Alpha, 0 or 1, and shaded colour as cameras of twice `size_px` see them; None without pictures."""
    if not prompt.pictures:
        return None
    side = _FINE * size_px
    lifted = sampler.lifted(prompt, size_px)
    framings = [Framing.from_tensor(view.framing.float().cpu()) for view in lifted]
    elevations = [float(torch.rad2deg(framing.elevation_rad)) for framing in framings]
    alphas, colors = [], []
    for image, framing in zip(prompt.pictures, framings, strict=True):
        picture = laid_over(reference_tensor(image, side), framing, side)[0].permute(1, 2, 0)
        alpha = (picture[..., 3:] > 0.5).float()
        alphas.append(alpha)
        colors.append(alpha * picture[..., :3] / picture[..., 3:].clamp_min(0.5))
    cameras = orbit_cameras([view.azimuth_deg for view in lifted], elevations, side)
    return ViewSet(cameras, GBuffer(alpha=torch.stack(alphas), rgb_srgb=torch.stack(colors)))
