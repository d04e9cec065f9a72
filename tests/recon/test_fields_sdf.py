"""The field of signed distances: rendering against a known ball, its surface, its files, fitting it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recon.fields import GaussianField, SdfField, SeedConfig, load_field
from recon.fit import FitConfig, fit_views
from recon.fit_sdf import NerfConfig, first_volume
from recon.fusion import Volume
from recon.topology import is_closed_manifold
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from tests.recon.test_fields_gaussians import AZIMUTHS, ELEVATIONS, RADIUS, sphere_views
from tests.recon.test_hull import ball_views

CELLS, HALF = 48, 0.8


def ball(radius: float = RADIUS, std_voxels: float = 0.3) -> SdfField:
    axis = np.linspace(-HALF, HALF, CELLS, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    values = np.sqrt(x * x + y * y + z * z) - radius
    voxel = 2 * HALF / (CELLS - 1)
    volume = Volume(values.astype(np.float32), np.full(3, -HALF, np.float32), voxel)
    return SdfField.from_volume(volume, std_voxels * voxel, torch.Generator().manual_seed(0))


def test_distances_and_gradients_are_those_of_a_ball() -> None:
    field = ball()
    points = 0.5 * torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    )
    assert float((field.distance(points) - (0.5 - RADIUS)).abs().max()) < 2e-3
    outward = torch.nn.functional.normalize(points)
    assert float((field.gradient(points) - outward).norm(dim=-1).max()) < 0.02


@pytest.mark.parametrize("kind", ["orthographic", "perspective"])
def test_render_agrees_with_ray_casting(kind: str) -> None:
    field = ball()
    if kind == "orthographic":
        truth = sphere_views([30.0, 200.0], [20.0, -50.0])
        seen = field.render(truth.cameras)
        assert truth.gbuffer.depth is not None
        both = (truth.gbuffer.alpha > 0.5) & (seen.alpha > 0.9)
        assert seen.depth is not None
        assert float((seen.depth - truth.gbuffer.depth)[both].abs().median()) < 0.006
        assert truth.gbuffer.normal is not None
        assert seen.normal is not None
        cosine = (seen.normal * truth.gbuffer.normal).sum(-1, keepdim=True)[both]
        assert float(cosine.mean()) > 0.998
    else:
        truth = ball_views(4, size=64)
        field = ball(0.7)
        seen = field.render(truth.cameras)
    assert float((seen.alpha - truth.gbuffer.alpha).abs().mean()) < 0.016


def test_gradients_move_the_surface() -> None:
    """A ball that is too small grows when its silhouettes are asked to be larger."""
    field = ball(0.5, std_voxels=1.0)
    for leaf in field.distances:
        leaf.requires_grad_(True)
    truth = sphere_views([0.0], [0.0], 48)
    (field.render(truth.cameras).alpha - truth.gbuffer.alpha).square().mean().backward()
    gradient = field.distances[-1].grad
    assert gradient is not None
    assert float(gradient.sum()) > 0  # less distance, more ball


def test_surface_is_closed_and_keeps_no_bubbles() -> None:
    field = ball()
    field.distances[-1][0, 0, 22:26, 22:26, 22:26] = 0.05  # nobody can have seen this
    mesh = field.surface(4, 0.002)
    assert is_closed_manifold(mesh.faces)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radii - RADIUS).max() < 0.01


def test_file_comes_back(tmp_path: Path) -> None:
    field = ball()
    field.save(tmp_path / "field.safetensors")
    again = load_field(tmp_path / "field.safetensors")
    assert isinstance(again, SdfField)
    state = field.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    splats = GaussianField.from_views(sphere_views(AZIMUTHS[:3], ELEVATIONS[:3], 32))
    splats.save(tmp_path / "splats.safetensors")
    assert isinstance(load_field(tmp_path / "splats.safetensors"), GaussianField)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable"):
        load_field(tmp_path / "bad.safetensors")


def quick(steps: int = 40) -> FitConfig:
    return FitConfig(field="nerf", nerf=NerfConfig(steps=steps, rays=512, max_voxels=40_000))


def test_fit_to_views_with_depth_finds_the_sphere_and_its_colours() -> None:
    views = sphere_views(AZIMUTHS, ELEVATIONS, 48)
    field, report = fit_views(views, SeedConfig(), quick(), generator=torch.Generator().manual_seed(0))
    assert isinstance(field, SdfField)
    radii = np.linalg.norm(field.surface(4, 0.002).vertices, axis=1)
    assert np.abs(radii - RADIUS).mean() < 0.01
    assert np.mean(report.losses[-8:]) < 0.9 * np.mean(report.losses[:8])
    assert report.psnr_db["base_color_srgb"] > 20
    assert report.iou > 0.95


def test_fit_to_pictures_alone_starts_from_the_hull() -> None:
    full = sphere_views(AZIMUTHS, ELEVATIONS, 48)
    views = ViewSet(full.cameras, GBuffer(alpha=full.gbuffer.alpha, rgb_srgb=full.gbuffer.base_color_srgb))
    start = first_volume(views, 40_000)
    assert (start.values < 0).any()
    field, report = fit_views(views, SeedConfig(), quick(), generator=torch.Generator().manual_seed(0))
    assert isinstance(field, SdfField)
    assert np.mean(report.losses[-8:]) < 0.6 * np.mean(report.losses[:8])
    radii = np.linalg.norm(field.surface(4, 0.002).vertices, axis=1)
    assert np.abs(radii - RADIUS).mean() < 0.04


def test_the_same_seed_gives_the_same_bits() -> None:
    views = sphere_views(AZIMUTHS[:4], ELEVATIONS[:4], 32)
    states = [
        fit_views(views, SeedConfig(), quick(4), generator=torch.Generator().manual_seed(5))[0].state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_config_names_the_wrong_field() -> None:
    with pytest.raises(InputError, match=r"nerf\.rays"):
        NerfConfig(rays=1)
