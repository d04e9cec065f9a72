"""Gaussians from pictures alone: hull seeds, colours without highlights, densification on the surface."""

from __future__ import annotations

import pytest
import torch

from recon.fields import GaussianField, SeedConfig
from recon.fields.hull_seeding import seed_hull
from recon.fit import FitConfig, fit_views
from recon.fit_photos import PhotoConfig, dssim
from recon.losses import silhouette_iou
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.rigs import RigConfig, rig_cameras

RADIUS = 0.6
LIGHT = torch.nn.functional.normalize(torch.tensor([0.5, 0.7, 0.5]), dim=0)


def ball_photos(count: int = 16, size: int = 48, shiny: float = 0.0, turn_deg: float = 0.0) -> ViewSet:
    """A ball of two colours in stripes, with a highlight of the given strength."""
    cameras = rig_cameras(RigConfig(count=count, size_px=size, turn_deg=turn_deg))
    origins, directions = cameras.rays()
    along = -(origins * directions).sum(-1, keepdim=True)
    spare = RADIUS**2 - (origins**2).sum(-1, keepdim=True) + along**2
    hit = (spare > 0).float()
    points = origins + (along - spare.clamp_min(0).sqrt()) * directions
    normal = torch.nn.functional.normalize(points, dim=-1)
    stripe = (torch.sin(9 * points[..., 1:2]) > 0).float()
    color = stripe * torch.tensor([0.7, 0.2, 0.1]) + (1 - stripe) * torch.tensor([0.2, 0.3, 0.6])
    mirrored = directions - 2 * (directions * normal).sum(-1, keepdim=True) * normal
    shine = shiny * (mirrored * LIGHT).sum(-1, keepdim=True).clamp_min(0) ** 8
    return ViewSet(cameras, GBuffer(alpha=hit, rgb_srgb=(color + shine).clamp(0, 1) * hit))


def test_seeds_lie_on_the_hull_with_the_colours_of_the_views() -> None:
    views = ball_photos(32)
    field = seed_hull(views, SeedConfig(max_gaussians=3000))
    radii = field.means.norm(dim=-1)
    assert float((radii - RADIUS).abs().mean()) < 0.03
    outward = torch.nn.functional.normalize(field.means)
    assert float((field.normals * outward).sum(-1).mean()) > 0.97
    reddish = field.base_color_srgb[:, 0] > field.base_color_srgb[:, 2]
    stripe = torch.sin(9 * field.means[:, 1] * RADIUS / radii) > 0
    assert float((reddish == stripe).float().mean()) > 0.9


def config(**changes: object) -> FitConfig:
    return FitConfig(photos=PhotoConfig(steps=40, **changes))  # type: ignore[arg-type]


def test_fit_shows_unseen_views_and_splits_lie_on_the_surface() -> None:
    views, unseen = ball_photos(20), ball_photos(5, turn_deg=40.0)
    seeds = SeedConfig(max_gaussians=2500)
    field, report = fit_views(views, seeds, config(), generator=torch.Generator().manual_seed(0))
    assert isinstance(field, GaussianField)
    with torch.no_grad():
        shown = field.render(unseen.cameras)
    assert silhouette_iou(shown, unseen.gbuffer) > 0.9
    assert sum(report.losses[-5:]) < 0.8 * sum(report.losses[:5])
    # Two rounds of splitting a tenth, none of it off the surface.
    assert len(field) > 2500
    assert float((field.means.norm(dim=-1) - RADIUS).abs().quantile(0.95)) < 0.06


def test_lobes_keep_highlights_out_of_the_colour() -> None:
    """Where the highlight wanders, the colour is less too bright with lobes than without."""
    views, matt = ball_photos(16, 40, shiny=0.5), ball_photos(5, 40, turn_deg=40.0)
    excess = []
    for rate in (0.01, 0.0):
        field, _ = fit_views(
            views,
            SeedConfig(max_gaussians=1200),
            FitConfig(photos=PhotoConfig(steps=40, lr_light=rate, light=0.0)),
            generator=torch.Generator().manual_seed(0),
        )
        with torch.no_grad():
            shown = field.render(matt.cameras)
        assert shown.base_color_srgb is not None
        assert shown.normal is not None
        assert matt.gbuffer.rgb_srgb is not None
        lit = (shown.normal * LIGHT).sum(-1) > 0.5
        lit &= (shown.alpha[..., 0] > 0.9) & (matt.gbuffer.alpha[..., 0] > 0.5)
        excess.append(float((shown.base_color_srgb - matt.gbuffer.rgb_srgb)[lit].mean()))
    assert excess[0] < 0.95 * excess[1]


def test_the_same_seed_gives_the_same_bits() -> None:
    states = [
        fit_views(
            ball_photos(6, 32),
            SeedConfig(max_gaussians=500),
            FitConfig(photos=PhotoConfig(steps=6)),
            generator=torch.Generator().manual_seed(3),
        )[0].state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_dssim_is_0_for_equal_pictures_and_grows() -> None:
    picture = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    assert float(dssim(picture, picture)) == pytest.approx(0, abs=1e-6)
    assert 0 < float(dssim(picture, 0.9 * picture + 0.05)) < float(dssim(picture, 1 - picture)) <= 1


def test_config_names_the_wrong_field() -> None:
    with pytest.raises(InputError, match=r"photos\.splits"):
        PhotoConfig(splits=(1.5,))
