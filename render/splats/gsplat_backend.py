"""Splats by gsplat's CUDA kernels (arXiv:2409.06765), an optional dependency: extra `gpu`.

Projection is ours (`reference.project`, in torch, differentiated by autograd), so cameras,
footprints, near plane and normals are the same as on the CPU. gsplat's public stages do
what takes the time: `isect_tiles` and `isect_offset_encode` sort splats into tiles,
`rasterize_to_pixels` composites them, forward and backward. Its own projection is not
used: it gives no depth across a splat, and bends the Jacobian of perspective cameras
outside the picture.

Depth across a splat is linear in the pixel, z + slope . (pixel - center), so it is
composited as three channels: depth at the middle of the picture, and two slopes.

What gsplat 1.5.3 does otherwise than `compositing` and `reference`:

* The window is exp(-q/2), cut where alpha is below `ALPHA_THRESHOLD`; ours falls to 0 at
  `constants.CUTOFF`. A splat's alpha is larger by up to `FLOOR / (1 - FLOOR)`, 0.0112.
* Opacities are bounded by `constants.MAX_ALPHA`, not alphas at a pixel.
* A pixel ends before the splat that would take its transmittance to
  `constants.STOP_TRANSMITTANCE`, not after it: alpha is at most 0.01 smaller.
* float32 whatever the inputs are, and gradients are added up atomically: not the same
  bits from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from render.cameras import Cameras
from render.errors import InputError
from render.splats.constants import MAX_ALPHA, TILE_PX
from render.splats.reference import project

ALPHA_THRESHOLD = 1 / 255
"""Fainter contributions are skipped at a pixel (gsplat's `csrc/Common.h`; 3DGS's value)."""

INSTALL = "pip install 'maquette[gpu]'"

_COMPILED_CHANNELS = (8, 16, 32)
"""Widths for which gsplat has kernels and which are used here; more channels go in chunks of the last."""

_LEADING = 6
"""Channels before the caller's: depth at the middle of the picture, its two slopes, the normal."""


@dataclass(frozen=True)
class GsplatArguments:
    """What gsplat's stages take, for `C` cameras and `N` splats."""

    means2d: Float[Tensor, "C N 2"]
    """Pixels, x right and y down, centres of pixels at +0.5."""
    conics: Float[Tensor, "C N 3"]
    """xx, xy and yy of the inverse covariances, low-pass filter included."""
    depths: Float[Tensor, "C N"]
    """Of the centres: splats are sorted by them, ties by index."""
    radii: Int32[Tensor, "C N 2"]
    """Half sides, in pixels, of the box outside which alpha is below the threshold; 0: left out."""
    opacities: Float[Tensor, "C N"]
    colors: Float[Tensor, "C N F"]
    """Depth at the middle of the picture, its slopes (2), normal (3), the caller's channels."""


def gsplat_arguments(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    channels: Float[Tensor, "N K"],
    cameras: Cameras,
    low_pass_px2: float,
) -> GsplatArguments:
    """Splats as gsplat's stages take them; differentiable, on any device, in the inputs' type."""
    seen = project(means, quats, scales, cameras, low_pass_px2)
    # Bounded in value only: a gradient of 0 above the bound could never bring an opacity down again.
    bounded = opacities - (opacities - MAX_ALPHA).clamp_min(0).detach()
    with torch.no_grad():
        # alpha(q) = opacity exp(-q / 2) is at the threshold where q = extent ** 2.
        extent = (2 * torch.log(bounded / ALPHA_THRESHOLD).clamp_min(0)).sqrt()
        sides = torch.diagonal(seen.covariances, dim1=-2, dim2=-1).sqrt()
        reach = (extent[:, None] * sides).clamp_max(2.0**30).ceil()
        size = means.new_tensor([cameras.width, cameras.height])
        inside = ((seen.centers + reach > 0) & (seen.centers - reach < size)).all(-1)
        drawn = seen.visible & (extent > 0) & inside
        radii = torch.where(drawn[..., None], reach, torch.zeros_like(reach)).int()
    middle_depths = seen.depths - (seen.slopes * (seen.centers - size / 2)).sum(-1)
    conics = seen.conics
    return GsplatArguments(
        means2d=seen.centers,
        conics=torch.stack([conics[..., 0, 0], conics[..., 0, 1], conics[..., 1, 1]], -1),
        depths=seen.depths,
        radii=radii,
        opacities=bounded.expand(len(cameras), -1),
        colors=torch.cat(
            [middle_depths[..., None], seen.slopes, seen.normals, channels.expand(len(cameras), -1, -1)], -1
        ),
    )


def images_of(
    colors: Float[Tensor, "C H W F"], alphas: Float[Tensor, "C H W 1"], cameras: Cameras
) -> tuple[
    Float[Tensor, "C H W 1"], Float[Tensor, "C H W K"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 3"]
]:
    """Alphas, channels, depths and normals from the composited `GsplatArguments.colors`."""
    offsets = cameras.pixel_centers().to(colors) - colors.new_tensor([cameras.width, cameras.height]) / 2
    depths = colors[..., :1] + (colors[..., 1:3] * offsets).sum(-1, keepdim=True)
    return alphas, colors[..., _LEADING:], depths, colors[..., 3:_LEADING]


def rasterize_gsplat(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    channels: Float[Tensor, "N K"],
    cameras: Cameras,
    low_pass_px2: float,
) -> tuple[
    Float[Tensor, "C H W 1"], Float[Tensor, "C H W K"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 3"]
]:
    """Alphas, and the composited (alpha-weighted) channels, depths and normals, as float32."""
    from gsplat import isect_offset_encode, isect_tiles, rasterize_to_pixels

    given = gsplat_arguments(
        means.float(), quats.float(), scales.float(), opacities.float(), channels.float(),
        cameras, low_pass_px2,
    )  # fmt: skip
    width, height = cameras.width, cameras.height
    tiles = (-(-width // TILE_PX), -(-height // TILE_PX))
    _, keys, entries = isect_tiles(
        given.means2d.detach(), given.radii, given.depths.detach(), TILE_PX, *tiles
    )
    starts = isect_offset_encode(keys, len(cameras), *tiles).reshape(len(cameras), tiles[1], tiles[0])
    drawn = []
    for chunk in given.colors.split(_COMPILED_CHANNELS[-1], -1):
        count = chunk.shape[-1]
        padding = next(size for size in _COMPILED_CHANNELS if size >= count) - count
        drawn.append(
            rasterize_to_pixels(
                given.means2d,
                given.conics,
                torch.nn.functional.pad(chunk, (0, padding)),
                given.opacities,
                width,
                height,
                TILE_PX,
                starts,
                entries,
            )
        )
    colors = torch.cat([color for color, _ in drawn], -1)[..., : given.colors.shape[-1]]
    return images_of(colors, drawn[0][1], cameras)


@cache
def gsplat_obstacle() -> str | None:
    """Why gsplat cannot draw here and what to do about it, or None. The first call may build its kernels."""
    if find_spec("gsplat") is None:
        return f"gsplat is not installed; install it with: {INSTALL}"
    try:
        from gsplat.cuda._backend import _C as kernels  # its only sign of having no kernels
    except Exception as error:  # of compiler, linker, loader or torch: none of them may stop a run
        return (
            f"gsplat's CUDA kernels could not be built or loaded ({type(error).__name__}: {error}); "
            "they need a CUDA toolkit (nvcc) of the version that torch was built with"
        )
    if kernels is None:
        return "gsplat found no CUDA toolkit (nvcc) to build its kernels with; install one and start again"
    return None


def require_gsplat(device: torch.device) -> None:
    """An `InputError` unless gsplat can draw tensors on `device`."""
    if find_spec("gsplat") is None:
        raise InputError(f"Backend gsplat needs the package gsplat; install it with: {INSTALL}")
    if device.type != "cuda":
        raise InputError(f"Backend gsplat draws on CUDA, and these splats are on {device}; take backend auto")
    obstacle = gsplat_obstacle()
    if obstacle is not None:
        raise InputError(f"Backend gsplat: {obstacle}")
