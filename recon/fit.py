"""Fit a field to views: Adam on robust losses, then guided by score distillation.

In: a seeded field and the views. The field is changed in place and pruned. Out: a
`FitReport`. The number of steps is fixed by the config and not by the clock, so
that the same seed gives the same field, also when it was stopped and gone on with (`recon.keeper`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recon.adam import Adam
from recon.fields.gaussians import GaussianField
from recon.fields.sdf import SdfField
from recon.fields.seeding import SeedConfig
from recon.fit_photos import PhotoConfig, Rates, fit_photos
from recon.fit_sdf import NerfConfig, fit_sdf
from recon.guidance import Guidance, Objective
from recon.keeper import Keeper, Snapshot, forgetful
from recon.losses import LossWeights, gbuffer_loss, psnr, silhouette_iou, view_confidence
from render.cameras import Cameras, orbit_cameras
from render.errors import InputError
from render.gbuffer import ViewSet
from render.progress import Progress, silent


@dataclass(frozen=True)
class FitConfig:
    """Steps, learning rates and losses of a fit."""

    field: Literal["gaussians", "nerf"] = "gaussians"
    """What is fitted: flat Gaussians, or a field of signed distances (`nerf`)."""
    steps: int = 150
    """Steps on the views alone."""
    guidance_steps: int = 0
    """Steps on the views and the guidance, after those."""
    measured_steps: int = 60
    """Most steps on posed views with depth and normals: surface and texture come from these themselves."""
    views_per_step: int = 3
    """Views drawn at random (without repetition until all were drawn) for a step."""
    guidance_views: int = 4
    """Fresh random cameras per look of the guidance."""
    guidance_reuse_steps: int = 5
    """Steps that one look of the guidance serves."""
    guidance_weight: float = 0.5
    guidance_size: int = 128
    """Side of the guidance's views, pixels."""
    guidance_elevation_deg: tuple[float, float] = (-20.0, 60.0)
    lr_means: float = 0.004
    """World units; a pixel of a 128-pixel view is 0.016."""
    lr_quats: float = 0.02
    lr_log_scales: float = 0.02
    lr_opacity_logits: float = 0.05
    lr_values: float = 0.02
    """Base colour, metallic and roughness."""
    lr_final: float = 0.1
    """All rates decay exponentially to this share."""
    max_growth: float = 2.5
    """A disc may not grow beyond this multiple of the median disc at the start."""
    min_opacity: float = 0.05
    """Gaussians fainter than this at the end are removed."""
    min_contribution_px: float = 0.5
    """So are those whose compositing weights, over all views and a ring of eight, sum to fewer pixels."""
    weights: LossWeights = dataclasses.field(default_factory=LossWeights)
    photos: PhotoConfig = dataclasses.field(default_factory=PhotoConfig)
    """Of Gaussians that are fitted to views without depth."""
    nerf: NerfConfig = dataclasses.field(default_factory=NerfConfig)
    """Of the field `nerf` alone."""

    def __post_init__(self) -> None:
        limits = {
            "steps": (0, 100_000),
            "guidance_steps": (0, 100_000),
            "measured_steps": (0, 100_000),
            "views_per_step": (1, 1000),
            "guidance_views": (1, 64),
            "guidance_reuse_steps": (1, 1000),
            "guidance_weight": (0, 1000),
            "guidance_size": (16, 2048),
            "lr_means": (0, 1),
            "lr_quats": (0, 1),
            "lr_log_scales": (0, 1),
            "lr_opacity_logits": (0, 10),
            "lr_values": (0, 1),
            "lr_final": (1e-4, 1),
            "max_growth": (1, 100),
            "min_opacity": (0, 0.9),
            "min_contribution_px": (0, 1000),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"fit.{name} must be from {low} to {high}, not {getattr(self, name)}")
        low_deg, high_deg = self.guidance_elevation_deg
        if not -90 <= low_deg <= high_deg <= 90:
            raise InputError(
                f"fit.guidance_elevation_deg must rise within [-90, 90], not {low_deg}, {high_deg}"
            )


@dataclass(frozen=True)
class FitReport:
    """What a fit did: no clock, so that equal fits give equal bytes (its stage's record has the time)."""

    steps: int
    losses: list[float]
    """Loss of every step (of its views; the guidance's share is in `guidance_losses`)."""
    guidance_losses: list[float]
    psnr_db: dict[str, float]
    """Per channel, on the fitted views; see `recon.losses.psnr`."""
    iou: float
    """Of the silhouettes, on the fitted views."""
    gaussians: int
    pruned: int


def fit_views(
    views: ViewSet,
    seeds: SeedConfig,
    config: FitConfig,
    *,
    guidance: Guidance | None = None,
    generator: torch.Generator,
    progress: Progress = silent,
    keeper: Keeper = forgetful,
) -> tuple[GaussianField | SdfField, FitReport]:
    """A new field of the kind `config.field` that shows what the views show; `nerf` takes no guidance.

    What `keeper` holds must be of the same arguments; the seeds are made again before it is taken up.
    """
    match config.field:
        case "gaussians":
            if views.gbuffer.depth is None or views.gbuffer.normal is None:
                return _from_photos(views, seeds, config, guidance, generator, progress, keeper)
            field = GaussianField.from_views(views, seeds)
            report = fit(
                field, views, config, guidance=guidance, generator=generator, progress=progress, keeper=keeper
            )
            return field, report
        case "nerf":
            found, losses = fit_sdf(
                views, config.nerf, config.weights, generator=generator, progress=progress, keeper=keeper
            )
            every = max(1, len(views) // 6)
            some = views[list(range(0, len(views), every))]
            with torch.no_grad():
                shown = found.render(some.cameras)
            return found, FitReport(
                steps=config.nerf.steps,
                losses=losses,
                guidance_losses=[],
                psnr_db=psnr(shown, some.gbuffer),
                iou=silhouette_iou(shown, some.gbuffer),
                gaussians=0,
                pruned=0,
            )


def _from_photos(
    views: ViewSet,
    seeds: SeedConfig,
    config: FitConfig,
    guidance: Guidance | None,
    generator: torch.Generator,
    progress: Progress,
    keeper: Keeper,
) -> tuple[GaussianField, FitReport]:
    """Views without depth: from their hull by photometry; guidance comes after that, as for others.

    Only the photometry is kept: a stop during the guidance begins that again, after the last steps before.
    """
    from recon.fields.hull_seeding import seed_hull

    progress(0.0, "carving")
    rates = Rates(
        config.lr_quats, config.lr_log_scales, config.lr_opacity_logits, config.lr_values, config.lr_final
    )
    field, losses = fit_photos(
        seed_hull(views, seeds),
        views,
        config.photos,
        config.weights,
        rates,
        config.views_per_step,
        generator=generator,
        progress=progress,
        keeper=keeper,
    )
    rest = dataclasses.replace(config, steps=0, guidance_steps=config.guidance_steps if guidance else 0)
    report = fit(field, views, rest, guidance=guidance, generator=generator)
    return field, dataclasses.replace(
        report,
        steps=report.steps + len(losses),
        losses=[*losses, *report.losses],
    )


def fit(
    field: GaussianField,
    views: ViewSet,
    config: FitConfig,
    *,
    guidance: Guidance | None = None,
    generator: torch.Generator,
    progress: Progress = silent,
    keeper: Keeper = forgetful,
) -> FitReport:
    """Change `field` in place until it shows what the views show.

    Views may contradict each other: losses are robust, pixels that see the surface
    at a flat angle count less. With guidance, `config.guidance_steps` more steps pull
    renders from fresh random orthographic cameras to its opinion. A snapshot is offered before every step at
    which no look of the guidance is in use.
    """
    views = views.to(field.means.device)
    confidence = view_confidence(views.gbuffer, views.cameras)
    leaves = field.parameters()
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    limit = float(field.log_scales.detach().median()) + float(torch.tensor(config.max_growth).log())
    optimizer = _adam(leaves, config)
    guided_steps = config.guidance_steps if guidance is not None else 0
    total = config.steps + guided_steps
    decay = config.lr_final ** (1 / max(1, total))
    losses: list[float] = []
    guidance_losses: list[float] = []
    queue: list[int] = []
    cameras: Cameras | None = None
    objective: Objective | None = None
    first = 0
    if (kept := keeper.load()) is not None:
        kept.fill(leaves, generator)
        optimizer.restore(kept.optimizer)
        first, losses = kept.step, kept.losses
        guidance_losses, queue = kept.extra["guidance_losses"].tolist(), kept.extra["queue"].tolist()

    def snapshot() -> Snapshot:
        extra = {
            "guidance_losses": torch.tensor(guidance_losses, dtype=torch.float64),
            "queue": torch.tensor(queue, dtype=torch.int64),
        }
        return Snapshot(step, losses, generator.get_state(), leaves, optimizer.state(), extra)

    for step in range(first, total):
        if step <= config.steps or (step - config.steps) % config.guidance_reuse_steps == 0:
            keeper.offer(snapshot)
        progress(step / max(1, total), "fitting" if step < config.steps else "refining")
        chosen, queue = _draw(queue, len(views), config.views_per_step, generator)
        rendered = field.render(views.cameras[chosen])
        loss = gbuffer_loss(rendered, views.gbuffer[chosen], config.weights, confidence[chosen])
        losses.append(float(loss.detach()))
        loss.backward()
        if guidance is not None and step >= config.steps:
            at = step - config.steps
            if at % config.guidance_reuse_steps == 0 or cameras is None:
                cameras = random_cameras(config, generator).to(field.means.device)
                objective = None
            seen = field.render(cameras)
            if objective is None:
                objective = guidance.objective(seen.detach(), cameras, at / guided_steps, generator)
            opinion = config.guidance_weight * objective(seen)
            guidance_losses.append(float(opinion.detach()))
            opinion.backward()
        optimizer.step()
        optimizer.decay(decay)
        _constrain(field, limit)
    for leaf in leaves.values():
        leaf.requires_grad_(False)
    pruned = _prune(field, views.cameras, config)
    with torch.no_grad():
        shown = field.render(views.cameras)
    progress(1.0, "fitted")
    return FitReport(
        steps=total,
        losses=losses,
        guidance_losses=guidance_losses,
        psnr_db=psnr(shown, views.gbuffer),
        iou=silhouette_iou(shown, views.gbuffer),
        gaussians=len(field),
        pruned=pruned,
    )


def random_cameras(config: FitConfig, generator: torch.Generator) -> Cameras:
    """Orthographic cameras all around: one random turn of evenly spread azimuths, random elevations."""
    count = config.guidance_views
    turn = torch.rand(1, generator=generator)
    azimuths = 360 * (torch.arange(count) + turn + 0.5 * torch.rand(count, generator=generator)) / count
    low, high = (torch.deg2rad(torch.tensor(angle)).sin() for angle in config.guidance_elevation_deg)
    heights = low + (high - low) * torch.rand(count, generator=generator)  # even on the sphere
    elevations = torch.rad2deg(heights.asin())
    return orbit_cameras(azimuths.tolist(), elevations.tolist(), config.guidance_size)


def _adam(leaves: dict[str, Tensor], config: FitConfig) -> Adam:
    rates = {
        "means": config.lr_means,
        "quats": config.lr_quats,
        "log_scales": config.lr_log_scales,
        "opacity_logits": config.lr_opacity_logits,
    }
    # 3DGS's epsilon: gradients of means over all pixels are far below Adam's default of 1e-8.
    each = [(leaf, rates.get(name, config.lr_values)) for name, leaf in leaves.items()]
    return Adam(each, betas=(0.9, 0.99), eps=1e-15)


def _draw(
    queue: list[int], n_views: int, count: int, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """The next `count` views of a shuffled deck, reshuffled when it runs out; and the rest of the deck."""
    drawn: list[int] = []
    while len(drawn) < min(count, n_views):
        if not queue:
            queue = [i for i in torch.randperm(n_views, generator=generator).tolist() if i not in drawn]
        drawn, queue = [*drawn, queue[0]], queue[1:]
    return drawn, queue


@torch.no_grad()
def _constrain(field: GaussianField, limit: float) -> None:
    """Keep values in [0, 1] and discs no larger than the limit, in place."""
    for value in (field.base_color_srgb, field.metallic, field.roughness):
        value.clamp_(0, 1)
    field.log_scales.clamp_(max=limit)


@torch.no_grad()
def _prune(field: GaussianField, cameras: Cameras, config: FitConfig) -> int:
    """Remove Gaussians that are faint or that nobody sees, in place; returns how many.

    Seen means from the views or from a fixed ring around them: few views leave sides
    of the object to the guidance.
    """
    ring = orbit_cameras([45.0 * i for i in range(8)], [35.0, -35.0] * 4, 128).to(field.means.device)
    seen = field.contributions(cameras) + field.contributions(ring)
    keep = (field.opacities >= config.min_opacity) & (seen >= config.min_contribution_px)
    if not bool(keep.any()):
        return 0
    for name, value in field.kept(keep).parameters().items():
        setattr(field, name, value)
    return int((~keep).sum())
