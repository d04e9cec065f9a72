"""A prompt's pictures as views without light, for the texture of what they show.

Drawn views have a thing's colours by and large, and the picture has its face. The lifter says where the
picture is a view from (`Lifted`) and, in a blur, which colours are there without light. What a picture is
brighter or darker by is taken out of it in two steps: what depends on how the surface is turned (spherical
harmonics to the second order; Ramamoorthi and Hanrahan, 2001), and what else changes slowly. Both are grey,
so that hues stay the picture's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.lifter_network import Framing, laid_over
from pipeline.multiview.sampler import ViewSampler, reference_tensor
from pipeline.prompt import Prompt
from render.cameras import orbit_cameras
from render.conventions import linear_to_srgb, srgb_to_linear
from render.gbuffer import GBuffer, ViewSet
from render.harmonics import harmonics

_FINE = 2
"""Pixels of the picture, a side, for one of a drawn view."""
_SLOW = 0.25
"""Of the picture's side: over less than this, brightness is the thing's own."""
_LEAST, _MOST = 0.4, 2.5
"""By what light may have changed a colour, in each step."""
_LUMINANCE = (0.2126, 0.7152, 0.0722)


@torch.no_grad()
def pictured(sampler: ViewSampler, prompt: Prompt, size_px: int) -> ViewSet | None:
    """Alpha and base colour as orthographic cameras of twice `size_px` see them; None without pictures."""
    if not prompt.pictures:
        return None
    side = _FINE * size_px
    lifted = sampler.lifted(prompt, size_px)
    framings = [Framing.from_tensor(view.framing.float().cpu()) for view in lifted]
    elevations = [float(torch.rad2deg(framing.elevation_rad)) for framing in framings]
    azimuths = [view.azimuth_deg for view in lifted]
    seen = sampler.decode_views(
        torch.cat([view.latents for view in lifted]), orbit_cameras(azimuths, elevations, size_px)
    )
    alphas, colors = [], []
    for number, (image, framing) in enumerate(zip(prompt.pictures, framings, strict=True)):
        picture = laid_over(reference_tensor(image, side), framing, side)[0]
        alpha = (picture[3:] > 0.5).float()
        color = alpha * picture[:3] / picture[3:].clamp_min(0.5)
        alphas.append(alpha)
        colors.append(alpha * _without_light(color, alpha, _view(seen, number, side)))
    gbuffer = GBuffer(
        alpha=torch.stack(alphas).permute(0, 2, 3, 1), base_color_srgb=torch.stack(colors).permute(0, 2, 3, 1)
    )
    return ViewSet(orbit_cameras(azimuths, elevations, side), gbuffer)


def _view(seen: GBuffer, number: int, side: int) -> Float[Tensor, "7 s s"]:
    """Alpha, base colour and normal of a lifted view, in pixels of the picture."""
    assert seen.base_color_srgb is not None
    assert seen.normal is not None
    channels = torch.cat([x[number] for x in (seen.alpha, seen.base_color_srgb, seen.normal)], -1)
    channels = channels.permute(2, 0, 1)[None].float().cpu()
    return F.interpolate(channels, (side, side), mode="bilinear", align_corners=False)[0]


def _without_light(
    color: Float[Tensor, "3 s s"], alpha: Float[Tensor, "1 s s"], lifted: Float[Tensor, "7 s s"]
) -> Float[Tensor, "3 s s"]:
    """sRGB to sRGB, as bright as the lifted view but for what changes over few pixels."""
    linear = srgb_to_linear(color.clamp(0, 1))
    bright, wanted = _luminance(linear), _luminance(srgb_to_linear(lifted[1:4].clamp(0, 1)))
    both = (alpha > 0.5) & (lifted[:1] > 0.5)
    if not bool(both.any()):
        return color
    normals = F.normalize(lifted[4:], dim=0, eps=1e-3).permute(1, 2, 0).numpy()
    turned = torch.from_numpy(harmonics(normals.reshape(-1, 3), 2)).float().T.reshape(-1, *bright.shape[1:])
    rows = (turned * wanted)[:, both[0]].T
    firm = 1e-3 * len(rows) * torch.eye(len(turned)) * float(wanted[both].square().mean())
    share = torch.linalg.solve(rows.T @ rows + firm, rows.T @ bright[both])
    light = torch.where(both, torch.einsum("k,khw->hw", share, turned)[None], torch.ones(1))
    light = light.clamp(_LEAST, _MOST)
    window = 2 * int(_SLOW * color.shape[-1] / 2) + 1

    def slow(values: Tensor) -> Tensor:
        for _ in range(2):
            values = F.avg_pool2d(values[None], window, 1, window // 2, count_include_pad=False)[0]
        return values

    inside = both.float()
    rest = slow(wanted * inside) / slow(bright / light * inside).clamp_min(1e-4)
    rest = torch.where(slow(inside) > 1e-3, rest, torch.ones(1)).clamp(1 / _MOST, 1 / _LEAST)
    return linear_to_srgb((linear / light * rest).clamp(0, 1))


def _luminance(linear: Float[Tensor, "3 s s"]) -> Float[Tensor, "1 s s"]:
    return torch.einsum("chw,c->hw", linear, torch.tensor(_LUMINANCE))[None]
