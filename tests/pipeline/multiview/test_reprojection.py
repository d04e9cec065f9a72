"""Finished views, seen from elsewhere: what they saw lies in its place, the object within what they allow."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.multiview.autoencoder import GBufferAutoencoder
from pipeline.multiview.reprojection import carried_views, known_features
from pipeline.multiview.transformer import MultiViewTransformer, ray_features
from render.cameras import Cameras, orbit_cameras

SIZE = 64
RADII = torch.tensor([0.8, 0.4, 0.5])


def ellipsoid(cameras: Cameras) -> torch.Tensor:
    """Network images of an ellipsoid whose colour is its position."""
    right, up, back = (cameras.c2w[:, :3, i] for i in range(3))
    half = SIZE / 2
    across = (cameras.resized(SIZE, SIZE).pixel_centers() - half) / half
    origin = across[..., :1] * right[:, None, None] - across[..., 1:] * up[:, None, None]
    back = back[:, None, None].expand_as(origin)
    # |(origin + h back) / radii| = 1
    a, b, c = ((x / RADII * y / RADII).sum(-1) for x, y in ((back, back), (origin, back), (origin, origin)))
    root = (b * b - a * (c - 1)).clamp_min(0).sqrt()
    hit = b * b - a * (c - 1) > 0
    height = (-b + root) / a
    point = origin + height[..., None] * back
    normal = torch.nn.functional.normalize(point / RADII**2, dim=-1)
    normal = torch.einsum("vhwk,vkj->vhwj", normal, cameras.c2w[:, :3, :3])
    shown = torch.cat([point, torch.ones_like(point[..., :1]), normal, height[..., None]], -1)
    image = torch.where(hit[..., None], torch.cat([shown, shown[..., :2] * 0 + 0.5], -1), torch.zeros(()))
    image[..., 3] = hit.float() * 2 - 1
    return image.permute(0, 3, 1, 2)


FRONT = orbit_cameras([0.0], [15.0], SIZE)
AROUND = orbit_cameras([40.0, 90.0, 180.0, 300.0], [0.0, 30.0, 15.0, 60.0], SIZE)


def test_a_view_carried_to_its_own_camera_is_itself() -> None:
    image = ellipsoid(FRONT)
    carried, maps = carried_views(image, FRONT, FRONT)
    torch.testing.assert_close(carried, image, atol=1e-2, rtol=0)
    assert torch.equal(maps[:, 0], (image[:, 3] > 0).float())
    assert torch.equal(maps[:, 0], maps[:, 3])


def test_what_was_seen_lies_where_it_is() -> None:
    carried, maps = carried_views(ellipsoid(FRONT), FRONT, AROUND)
    true = ellipsoid(AROUND)
    for view in range(3):
        seen = (maps[view, 3] > 0) & (true[view, 3] > 0)
        assert seen.sum() > 25
        # Where the front's surface is met, it is the true one.
        for channels, within in ((slice(0, 3), 0.12), (slice(4, 7), 0.2), (slice(7, 8), 0.05)):
            error = (carried[view, channels] - true[view, channels]).abs().amax(0)[seen]
            assert error.quantile(0.9) < within, (view, channels)
    # From three quarters, most of the object was seen; from behind, its back was not.
    share = [(float(maps[v, 3].sum() / (true[v, 3] > 0).sum())) for v in (0, 2)]
    assert share[0] > 0.6
    assert share[1] < 0.3


def test_the_object_lies_within_what_views_leave_possible() -> None:
    true = ellipsoid(AROUND)
    covered = true[:, 3] > 0
    areas = []
    for cameras in (FRONT, orbit_cameras([0.0, 90.0], [15.0, 0.0], SIZE)):
        _, maps = carried_views(ellipsoid(cameras), cameras, AROUND)
        possible = maps[:, 0] > 0
        assert (possible & covered).sum() > 0.98 * covered.sum()
        inside = possible & covered
        assert (maps[:, 1] - true[:, 7])[inside].quantile(0.02) > -0.06  # no lower than the surface
        assert (maps[:, 1] >= maps[:, 2])[inside].all()
        areas.append(int(possible.sum()))
    assert areas[1] < 0.95 * areas[0]


def test_from_behind_the_front_is_seen_from_inside() -> None:
    behind = orbit_cameras([180.0], [-15.0], SIZE)
    image = ellipsoid(FRONT)
    _, maps = carried_views(image, FRONT, behind)
    mask = image[:, 3] > 0
    assert torch.equal(maps[:, 0] > 0, mask.flip(-1))
    inner = mask.flip(-1) & (maps[:, 4] > 0)
    assert inner.sum() > 0.9 * mask.sum()
    mirrored = image.flip(-1)
    assert (maps[:, 5:8] - mirrored[:, :3]).abs().amax(1)[inner].quantile(0.95) < 0.05
    assert (maps[:, 2] + mirrored[:, 7]).abs()[inner].quantile(0.95) < 0.05


def test_nothing_given_is_nothing_possible_nowhere() -> None:
    empty = torch.zeros(1, 10, SIZE, SIZE)
    empty[:, 3] = -1
    carried, maps = carried_views(empty, FRONT, AROUND)
    assert maps.abs().max() == 0
    assert torch.equal(carried, empty.expand(4, -1, -1, -1))


@pytest.fixture
def told() -> tuple[MultiViewTransformer, torch.Tensor, tuple[Any, ...]]:
    """A transformer, what it is told, and its other arguments."""
    torch.manual_seed(0)
    model = MultiViewTransformer(width=32, depth=2, heads=2, reference_depth=1, reprojection=True)
    for name, parameter in model.named_parameters():
        if "modulation" in name or "patch_out" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    autoencoder = GBufferAutoencoder(widths=(16, 16, 16)).eval()
    with torch.no_grad():
        known = known_features(autoencoder, *carried_views(ellipsoid(FRONT), FRONT, AROUND))[None]
        context = model.context(torch.zeros(1, 3, 384), None)
    level = torch.tensor([[0.9, 0.5, 0.5, 0.1]])
    return model, known, (torch.randn(1, 4, 16, 8, 8), level, ray_features(AROUND, 4, 4)[None], context)


@torch.no_grad()
def test_the_transformer_is_told_and_nothing_known_changes_nothing(
    told: tuple[MultiViewTransformer, torch.Tensor, tuple[Any, ...]],
) -> None:
    model, known, rest = told
    assert model.known_views is not None
    without = model(*rest)
    for layer in model.known_views.into_blocks:
        torch.nn.init.normal_(layer.weight, std=0.2)
    assert (model(*rest, known) - without).abs().amax((0, 2, 3, 4)).min() > 1e-3
    nothing = known.clone()
    nothing[:, 1] = 0
    alone = model(*rest, nothing)
    assert not torch.equal(alone[:, 0], without[:, 0])
    torch.testing.assert_close(model(*rest, torch.zeros_like(known)), without)


@torch.no_grad()
def test_trusted_latents_are_copied(
    told: tuple[MultiViewTransformer, torch.Tensor, tuple[Any, ...]],
) -> None:
    model, known, (latents, level, *rest) = told
    assert model.known_views is not None
    model.known_views.trust.bias.fill_(30.0)
    sigma = level[:, :, None, None, None]
    clean = latents - sigma * model(latents, level, *rest, known)
    given = (
        known[..., : 16 * 4].view(1, 4, 4, 4, 16, 2, 2).permute(0, 1, 4, 2, 5, 3, 6).reshape(latents.shape)
    )
    torch.testing.assert_close(clean[:, :3], given[:, :3], atol=1e-4, rtol=1e-4)
    # With little noise left, the noisy latents themselves say more.
    without = (latents - sigma * model(latents, level, *rest))[:, 3]
    torch.testing.assert_close(clean[:, 3], without + 0.4 * (given[:, 3] - without), atol=1e-4, rtol=1e-4)


def test_a_model_made_without_it_takes_no_notice() -> None:
    model = MultiViewTransformer(width=32, depth=2, heads=2, reference_depth=1)
    assert model.known_views is None
