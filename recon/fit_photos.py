"""Fit flat Gaussians to pictures alone: photometry, silhouettes, and a surface that is one.

In: a field seeded on the visual hull (`recon.fields.hull_seeding`) and views with colours. The field is
changed in place. What differs from `recon.fit.fit`, which has depth and normals to follow:

* Every Gaussian has a highlight: a white lobe max(0, w . d) over the direction d to the eye, added to its
  colour and never negative. It is kept small and thrown away at the end, so that what only some views see
  bright neither pushes the surface out nor stays in the colour.
* The discs' normals follow the surface that the discs' depths form (2DGS, arXiv:2403.17888, Eq. 14).
* Densification: discs whose positions the loss pulls at most, for their size, are split within their own
  plane, so that new ones lie on the surface; faint and unseen ones are removed on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, normalize

from recon.adam import restore_torch, torch_state
from recon.fields.gaussians import GaussianField
from recon.keeper import Keeper, Snapshot, forgetful
from recon.losses import LossWeights, charbonnier
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import ViewSet
from render.progress import Progress, silent
from render.splats import rasterize_splats
from render.splats.reference import rotations


@dataclass(frozen=True)
class PhotoConfig:
    """How Gaussians are fitted to pictures without depth."""

    steps: int = 240
    lr_means: float = 0.0015
    """World units; the hull is near already."""
    lr_light: float = 0.01
    consistency: float = 0.05
    """Weight of the discs' normals following their depths."""
    dssim: float = 0.2
    """Share of structural dissimilarity in the colour loss (3DGS's value)."""
    light: float = 0.05
    """Weight of what depends on the direction: as little as explains the views."""
    splits: tuple[float, ...] = (0.3, 0.5)
    """Where in the fit discs are split and removed, as fractions."""
    split_share: float = 0.1
    """Of the discs, at each of them."""
    max_gaussians: int = 40_000

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "steps": (0, 100_000),
            "lr_means": (0, 1),
            "lr_light": (0, 1),
            "consistency": (0, 1000),
            "dssim": (0, 1),
            "light": (0, 1000),
            "split_share": (0, 1),
            "max_gaussians": (100, 1_000_000),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"photos.{name} must be from {low:g} to {high:g}, not {getattr(self, name)}")
        if any(not 0 < at < 1 for at in self.splits):
            raise InputError(f"photos.splits must lie between 0 and 1, not {self.splits}")


@dataclass(frozen=True)
class Rates:
    """Learning rates of the leaves besides the means."""

    quats: float
    log_scales: float
    opacity_logits: float
    values: float
    final: float
    """All rates decay exponentially to this share."""


def fit_photos(
    field: GaussianField,
    views: ViewSet,
    config: PhotoConfig,
    weights: LossWeights,
    rates: Rates,
    views_per_step: int,
    *,
    generator: torch.Generator,
    progress: Progress = silent,
    keeper: Keeper = forgetful,
) -> tuple[GaussianField, list[float]]:
    """The field that shows what the pictures show, and the loss of every step."""
    seen = views.gbuffer
    color = seen.base_color_srgb if seen.base_color_srgb is not None else seen.rgb_srgb
    if color is None:
        raise InputError("views without depth need colours to be fitted to")
    lit = seen.base_color_srgb is None
    kept = keeper.load()
    if kept is None:
        # Not 0, where the lobe has no gradient.
        light = 0.02 * field.normals.detach()
        pull = torch.zeros(len(field))
        first, losses = 0, []
    else:
        field, light, pull = GaussianField(**kept.leaves), kept.extra["light"], kept.extra["pull"]
        generator.set_state(kept.generator)
        first, losses = kept.step, kept.losses
    optimizer = _adam(field, light, config, rates)
    if kept is not None:
        restore_torch(optimizer, kept.optimizer)
    decay = rates.final ** (1 / max(1, config.steps))
    splits = {round(at * config.steps) for at in config.splits}

    def snapshot() -> Snapshot:
        extra = {"light": light, "pull": pull}
        return Snapshot(
            step, losses, generator.get_state(), field.parameters(), torch_state(optimizer), extra
        )

    for step in range(first, config.steps):
        keeper.offer(snapshot)
        progress(step / config.steps, "fitting")
        if step in splits:
            field, light = _refined(field, light, pull, views.cameras, config)
            scale = optimizer.param_groups[0]["lr"] / config.lr_means
            optimizer = _adam(field, light, config, rates, scale)
            pull = torch.zeros(len(field))
        chosen = torch.randperm(len(views), generator=generator)[:views_per_step].tolist()
        total = torch.zeros(())
        for index in chosen:
            total = total + _view_loss(
                field, light if lit else None, views.cameras[index], color[index], seen.alpha[index],
                config, weights,
            )  # fmt: skip
        total = total / len(chosen)
        losses.append(float(total.detach()))
        total = total + config.light * light.abs().mean()
        total.backward()
        assert field.means.grad is not None
        pull += field.means.grad.norm(dim=-1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] *= decay
        with torch.no_grad():
            field.base_color_srgb.clamp_(0, 1)
    for leaf in field.parameters().values():
        leaf.requires_grad_(False)
    return field, losses


def _view_loss(
    field: GaussianField,
    light: Tensor | None,
    camera: Cameras,
    target: Float[Tensor, "H W 3"],
    alpha: Float[Tensor, "H W 1"],
    config: PhotoConfig,
    weights: LossWeights,
) -> Float[Tensor, ""]:
    color = field.base_color_srgb
    if light is not None:
        if camera.projection == "perspective":
            direction = normalize(field.means.detach() - camera.c2w[0, :3, 3], dim=-1)
        else:
            direction = -camera.c2w[:, :3, 2].expand(len(field), -1)
        color = color + torch.relu((light * -direction).sum(-1, keepdim=True))
    scales = torch.nn.functional.pad(field.log_scales.exp(), (0, 1))
    seen = rasterize_splats(field.means, field.quats, scales, field.opacities, color, camera)
    shown, wanted = seen.channels[0], alpha * target
    photometric = charbonnier(shown - wanted).mean()
    if config.dssim:
        photometric = (1 - config.dssim) * photometric + config.dssim * dssim(shown, wanted)
    total = weights.color * photometric + weights.alpha * charbonnier(seen.alphas[0] - alpha).mean()
    if config.consistency:
        total = total + config.consistency * _bent(seen.alphas, seen.depths, seen.normals, camera)
    return total


def dssim(a: Float[Tensor, "H W k"], b: Float[Tensor, "H W k"], window: int = 7) -> Float[Tensor, ""]:
    """(1 - SSIM) / 2 with a square window (Wang et al., 2004, Eq. 13, constants for values in [0, 1])."""
    x, y = a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None]
    mean_x, mean_y, xx, yy, xy = (
        avg_pool2d(value, window, 1, window // 2, count_include_pad=False)
        for value in (x, y, x * x, y * y, x * y)
    )
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    ssim = ((2 * mean_x * mean_y + 1e-4) * (2 * cov + 9e-4)) / (
        (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
    )
    return ((1 - ssim) / 2).mean()


def _bent(
    alphas: Float[Tensor, "1 H W 1"],
    depths: Float[Tensor, "1 H W 1"],
    normals: Float[Tensor, "1 H W 3"],
    camera: Cameras,
) -> Float[Tensor, ""]:
    """Mean angle (1 - cosine) between the discs' normals and those of the surface that their depths form."""
    solid = alphas > 0.9
    inside = -max_pool2d(-solid.float().permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    depth = torch.where(solid, depths / alphas.clamp_min(0.5), 0.0)
    pixels = camera.pixel_centers().reshape(1, -1, 2)
    points = camera.unproject(pixels, depth.reshape(1, -1)).reshape(1, camera.height, camera.width, 3)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    surface = normalize(torch.linalg.cross(down, across), dim=-1, eps=1e-9)
    towards = (surface * camera.c2w[0, :3, 2]).sum(-1, keepdim=True)
    ours = normalize(normals[:, 1:-1, 1:-1], dim=-1, eps=1e-6)
    # Where depth jumps, differences are no surface.
    good = inside[:, 1:-1, 1:-1] * (towards.detach() > 0.2)
    return (good * (1 - (surface * ours).sum(-1, keepdim=True))).mean()


def _adam(
    field: GaussianField, light: Tensor, config: PhotoConfig, rates: Rates, scale: float = 1.0
) -> torch.optim.Adam:
    groups: list[dict[str, object]] = []
    for name, leaf in [*field.parameters().items(), ("light", light)]:
        rate = {
            "means": config.lr_means,
            "quats": rates.quats,
            "log_scales": rates.log_scales,
            "opacity_logits": rates.opacity_logits,
            "light": config.lr_light,
        }.get(name, rates.values)
        groups.append({"params": [leaf.requires_grad_(True)], "lr": scale * rate})
    return torch.optim.Adam(groups, eps=1e-15, betas=(0.9, 0.99), fused=True)


@torch.no_grad()
def _refined(
    field: GaussianField, light: Tensor, pull: Float[Tensor, " N"], cameras: Cameras, config: PhotoConfig
) -> tuple[GaussianField, Tensor]:
    """The field without what nobody sees, and with the most pulled discs split in two within their planes."""
    for leaf in [*field.parameters().values(), light]:
        leaf.requires_grad_(False)
    seen = field.contributions(cameras.resized(max(16, cameras.width // 2), max(16, cameras.height // 2)))
    keep = (field.opacities > 0.05) & (seen > 0.1)
    if not bool(keep.any()):
        keep = torch.ones_like(keep)
    field, light, pull = field.kept(keep), light[keep].clone(), pull[keep]
    number = min(int(config.split_share * len(field)), config.max_gaussians - len(field))
    if number <= 0:
        return field, light
    worth = pull * field.log_scales.exp().amax(-1)
    chosen: Bool[Tensor, " N"] = torch.zeros(len(field), dtype=torch.bool)
    chosen[worth.argsort(descending=True, stable=True)[:number]] = True
    parents = field.kept(chosen)
    scales = parents.log_scales.exp()
    axis = scales.argmax(-1)
    along = rotations(parents.quats).gather(2, axis[:, None, None].expand(-1, 3, 1))[..., 0]
    offset = 0.6 * scales.gather(1, axis[:, None]) * along
    halves = []
    for side in (-1.0, 1.0):
        half = parents.kept(torch.ones(len(parents), dtype=torch.bool))
        half.means += side * offset
        half.log_scales.scatter_add_(1, axis[:, None], torch.full((len(half), 1), -0.5))
        halves.append(half.state_dict())
    rest = field.kept(~chosen).state_dict()
    joined = {name: torch.cat([rest[name], *(half[name] for half in halves)]) for name in rest}
    return GaussianField(**joined), torch.cat([light[~chosen], light[chosen], light[chosen]])
