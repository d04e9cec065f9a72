"""Drawn views that are bent apart are bent together again; views that agree are left nearly as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import trimesh

from recon.consensus import disagreement_px
from recon.fusion import depth_maps
from recon.registration import RegistrationConfig, registered
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from tests.recon.mesh_field import MeshField, views_of


def table() -> ViewSet:
    """A top of 0.1 on four legs of 0.12."""
    parts = [trimesh.creation.box((1.2, 0.1, 1.0), trimesh.transformations.translation_matrix((0, 0.3, 0)))]
    for x in (-0.5, 0.5):
        for z in (-0.4, 0.4):
            at = trimesh.transformations.translation_matrix((x, -0.05, z))
            parts.append(trimesh.creation.box((0.12, 0.65, 0.12), at))
    return views_of(MeshField(trimesh.util.concatenate(parts)))


def bent_apart(views: ViewSet, pixels: float = 2.0) -> ViewSet:
    """Every view bent by itself and moved along its rays, over some 40 pixels."""
    generator = torch.Generator().manual_seed(0)
    count, height, width, _ = views.gbuffer.alpha.shape
    coarse = torch.randn(count, 3, 4, 4, generator=generator) * pixels
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([columns + field[:, 0] + 0.5, rows + field[:, 1] + 0.5], -1)
    grid = at / torch.tensor([width, height]) * 2 - 1
    channels = {}
    for name, value in views.gbuffer.channels().items():
        moved = F.grid_sample(value.permute(0, 3, 1, 2), grid, mode="nearest", align_corners=False)
        channels[name] = moved.permute(0, 2, 3, 1)
    covered = channels["alpha"] > 0.5
    channels["depth"] = channels["depth"] + field[:, 2, ..., None] * covered / 64
    return replace(views, gbuffer=GBuffer(**{n: v * covered for n, v in channels.items()}))


def apart_px(views: ViewSet) -> float:
    return disagreement_px(depth_maps(views.cameras, views.gbuffer))


def test_views_bent_apart_are_bent_together() -> None:
    views = bent_apart(table())
    together = registered(views, RegistrationConfig())
    assert apart_px(views) > 2.0
    assert apart_px(together) < 0.6 * apart_px(views)


def test_the_legs_come_to_stand_where_they_stand() -> None:
    true, views = table(), bent_apart(table())
    together = registered(views, RegistrationConfig())

    def overlap(of: ViewSet) -> float:
        a, b = of.gbuffer.alpha > 0.5, true.gbuffer.alpha > 0.5
        a, b = a[:, 70:], b[:, 70:]  # below the top
        return float((a & b).sum() / (a | b).sum())

    assert overlap(together) > overlap(views) + 0.1


def test_views_neither_swell_nor_shrink_together() -> None:
    views = bent_apart(views_of(MeshField(trimesh.creation.box((1.0, 0.8, 0.6)))), 3.0)
    together = registered(views, RegistrationConfig())
    both = ((views.gbuffer.alpha > 0.5) & (together.gbuffer.alpha > 0.5))[..., 0]
    assert views.gbuffer.depth is not None
    assert together.gbuffer.depth is not None
    nearer = (views.gbuffer.depth - together.gbuffer.depth)[both].mean()
    # Measured 0.08 pixels and 0.002; 0.54 and 0.013 where what is common is not taken out.
    assert abs(float(nearer) * 64) < 0.25
    assert abs(float(together.gbuffer.alpha.sum() / views.gbuffer.alpha.sum()) - 1) < 0.006


def test_views_that_agree_hardly_move() -> None:
    views = table()
    together = registered(views, RegistrationConfig())
    a, b = together.gbuffer.alpha > 0.5, views.gbuffer.alpha > 0.5
    assert float((a & b).sum() / (a | b).sum()) > 0.97


def test_what_comes_out_is_a_set_of_views() -> None:
    together = registered(bent_apart(table()), RegistrationConfig(steps=10)).gbuffer
    outside = together.alpha[..., 0] == 0
    for value in together.channels().values():
        assert (value[outside] == 0).all()
    assert together.normal is not None
    torch.testing.assert_close(together.normal[~outside].norm(dim=-1), torch.ones(int((~outside).sum())))
    again = registered(bent_apart(table()), RegistrationConfig(steps=10)).gbuffer
    assert all(torch.equal(v, again.channels()[n]) for n, v in together.channels().items())


def test_views_that_cannot_be_registered_come_back_as_they_are() -> None:
    views = table()
    flat = replace(views, gbuffer=replace(views.gbuffer, depth=None))
    empty = replace(views, gbuffer=GBuffer(**{n: 0 * v for n, v in views.gbuffer.channels().items()}))
    for given in (flat, empty, views[:2]):
        assert registered(given, RegistrationConfig()) is given
    assert registered(views, RegistrationConfig(steps=0)) is views


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"registration\.steps must be from 0 to 10000, not -1"):
        RegistrationConfig(steps=-1)
