"""Fit a field of signed distances to views: NeuS's losses on random rays.

In: views, with depth and normals or without. The start is the fused volume of the depth maps, else the
visual hull. Out: a `SdfField` and the losses of all steps. Rays are drawn from what the silhouettes cover and
from a rim around them; the rest of the pictures says nothing that the hull does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool3d, max_pool2d

from recon.adam import restore_torch, torch_state
from recon.fields.lattices import composed
from recon.fields.sdf import SdfField, Traced
from recon.fusion import Volume, depth_maps, fuse
from recon.hull import carve, hull_volume, silhouettes, widened
from recon.keeper import Keeper, Snapshot, forgetful
from recon.losses import LossWeights, charbonnier
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import ViewSet
from render.progress import Progress, silent

_DIFFUSE_EVERY = 8
_REFRESH_EVERY = 16
_MANY_VIEWS = 16
_MEASURED_RATE = 0.1
"""Share of the distances' learning rate where depth was measured: at full rate 200 steps took the fused
depth of a barrel from 0.0012 off the truth to 0.0068."""


@dataclass(frozen=True)
class NerfConfig:
    """How a field of distances is fitted."""

    steps: int = 600
    rays: int = 1024
    """Per step."""
    max_voxels: int = 1_000_000
    """Of the finest lattice, which fills a box around the hull."""
    std_voxels_start: float = 1.5
    """Width of the logistic at the start: half of an object of colours only is found by its blur."""
    std_voxels_end: float = 0.4
    lr_distance_voxels: float = 0.06
    """Step of the finest lattice; coarser ones take half of that each."""
    lr_features: float = 0.03
    lr_mlp: float = 0.005
    lr_final: float = 0.1
    """All rates decay exponentially to this share."""
    eikonal: float = 0.1
    smoothness: float = 0.3
    """How far the distances move to the mean of their neighbours, every eight steps, in [0, 1]."""
    residual: float = 0.1
    """Weight of what light adds: as little as explains the views."""

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "steps": (0, 1_000_000),
            "rays": (16, 1_000_000),
            "max_voxels": (10_000, 100_000_000),
            "std_voxels_start": (0.1, 20),
            "std_voxels_end": (0.05, 20),
            "lr_distance_voxels": (0, 10),
            "lr_features": (0, 10),
            "lr_mlp": (0, 10),
            "lr_final": (1e-4, 1),
            "eikonal": (0, 1000),
            "smoothness": (0, 1),
            "residual": (0, 1000),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"nerf.{name} must be from {low:g} to {high:g}, not {getattr(self, name)}")


@dataclass(frozen=True)
class _Rays:
    """The rays that a fit draws from, and what they saw."""

    pixels: Int[Tensor, " n"]
    """Flat over views, rows and columns."""
    targets: dict[str, Tensor]


def fit_sdf(
    views: ViewSet,
    config: NerfConfig,
    weights: LossWeights,
    *,
    generator: torch.Generator,
    progress: Progress = silent,
    keeper: Keeper = forgetful,
) -> tuple[SdfField, list[float]]:
    """A field that shows what the views show, and the loss of every step.

    A snapshot is offered whenever the field's occupancy is about to be made anew.
    """
    progress(0.0, "carving")
    volume = first_volume(views, config.max_voxels)
    if not (volume.values < 0).any():
        raise InputError("the views show no object: their silhouettes have nothing in common")
    measured = views.gbuffer.depth is not None
    # A blurred surface is looked for where there is only a hull; measured depth would be blurred by it.
    first_std = config.std_voxels_end if measured else config.std_voxels_start
    field = SdfField.from_volume(volume, first_std * volume.voxel, generator)
    leaves = field.parameters()
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    optimizer = _adam(field, config, _MEASURED_RATE if measured else 1.0)
    rays = _rays(views)
    decay = config.lr_final ** (1 / max(1, config.steps))
    losses: list[float] = []
    first = 0
    if (kept := keeper.load()) is not None:
        kept.fill(leaves, generator)
        restore_torch(optimizer, kept.optimizer)
        first, losses = kept.step, kept.losses

    def snapshot() -> Snapshot:
        return Snapshot(step, losses, generator.get_state(), leaves, torch_state(optimizer))

    for step in range(first, config.steps):
        if step % _REFRESH_EVERY == 0:
            keeper.offer(snapshot)
        progress(step / config.steps, "fitting")
        done = step / config.steps
        field.std = volume.voxel * first_std ** (1 - done) * config.std_voxels_end**done
        if step % _REFRESH_EVERY == 0:
            field.refresh()
        chosen = torch.randint(len(rays.pixels), (config.rays,), generator=generator)
        origins, directions = _cast(views.cameras, rays.pixels[chosen])
        traced = field.trace(origins, directions, jitter=generator)
        target = {name: value[chosen] for name, value in rays.targets.items()}
        loss = _loss(traced, target, weights, config.residual)
        losses.append(float(loss.detach()))
        loss = loss + _regularity(field, config, generator)
        loss.backward()
        _blur(field.distances[-1])
        optimizer.step()
        if step % _DIFFUSE_EVERY == _DIFFUSE_EVERY - 1:
            _diffuse(field, config.smoothness)
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] *= decay
    for leaf in leaves.values():
        leaf.requires_grad_(False)
    field.refresh()
    return field, losses


def first_volume(views: ViewSet, max_voxels: int) -> Volume:
    """The fused depth of the views where they have any, else their hull."""
    if views.gbuffer.depth is not None:
        wide = widened(views)
        # Of few views, one alone may see a side: the bottom, say.
        votes = 2 if len(views) >= _MANY_VIEWS else 1
        return fuse(depth_maps(wide.cameras, wide.gbuffer), max_voxels, votes=votes)
    coarse = hull_volume(views, 64)
    found = np.argwhere(coarse.values < coarse.voxel)
    if len(found) == 0:
        return coarse
    low = coarse.origin + (found.min(0) - 1) * coarse.voxel
    size = (found.max(0) - found.min(0) + 2) * coarse.voxel
    voxel = float(np.cbrt(size.prod() / max_voxels))
    pixel = float(1 / views.cameras.intrinsics[:, 0].max())
    if views.cameras.projection == "perspective":
        pixel *= float(views.cameras.c2w[:, :3, 3].norm(dim=-1).min())
    voxel = max(voxel, 0.5 * pixel)
    nx, ny, nz = (int(np.ceil(extent / voxel)) + 5 for extent in size)
    tolerated = 1 if len(views) >= 24 else 0
    volume = carve(silhouettes(views), low - 2 * voxel, voxel, (nx, ny, nz), tolerated)
    return Volume(np.clip(volume.values, -8 * voxel, 8 * voxel), volume.origin, voxel)


def _adam(field: SdfField, config: NerfConfig, share: float) -> torch.optim.Adam:
    finest = len(field.distances) - 1
    rate = share * config.lr_distance_voxels * field.voxel
    groups: list[dict[str, object]] = [
        {"params": [lattice], "lr": rate * 0.5 ** (finest - level), "eps": 1e-7}
        for level, lattice in enumerate(field.distances)
    ]
    groups.append({"params": field.features, "lr": config.lr_features})
    groups.append({"params": list(field.mlp.values()), "lr": config.lr_mlp})
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12, fused=True)


def _rays(views: ViewSet) -> _Rays:
    """Pixels that are covered or within 4 pixels of it, with their channels."""
    seen = views.gbuffer
    rim = max_pool2d((seen.alpha > 0.02).float().permute(0, 3, 1, 2), 9, 1, 4)[:, 0] > 0
    pixels = rim.reshape(-1).nonzero()[:, 0]
    targets = {name: value.reshape(-1, value.shape[-1])[pixels] for name, value in seen.channels().items()}
    if seen.depth is not None:
        origins, directions = _cast(views.cameras, pixels)
        view = pixels // (views.cameras.width * views.cameras.height)
        forward = -views.cameras.c2w[view, :3, 2]
        along = (directions * forward).sum(-1, keepdim=True)
        ahead = ((views.cameras.c2w[view, :3, 3] - origins) * forward).sum(-1, keepdim=True)
        targets["distance"] = (targets.pop("depth") + ahead) / along
    return _Rays(pixels, targets)


def _cast(cameras: Cameras, pixels: Tensor) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Origins and unit directions of flat pixel indices."""
    area = cameras.width * cameras.height
    view, at = pixels // area, pixels % area
    fx, fy, cx, cy = cameras.intrinsics[view].unbind(-1)
    x = (at % cameras.width + 0.5 - cx) / fx
    y = -(torch.div(at, cameras.width, rounding_mode="floor") + 0.5 - cy) / fy
    c2w = cameras.c2w[view]
    if cameras.projection == "perspective":
        local = torch.stack([x, y, -torch.ones_like(x)], -1)
        world = (c2w[:, :3, :3] @ local[..., None])[..., 0]
        return c2w[:, :3, 3], torch.nn.functional.normalize(world, dim=-1)
    local = torch.stack([x, y, torch.zeros_like(x)], -1)
    return (c2w[:, :3, :3] @ local[..., None])[..., 0] + c2w[:, :3, 3], -c2w[:, :3, 2]


def _loss(
    traced: Traced, target: dict[str, Tensor], weights: LossWeights, residual: float
) -> Float[Tensor, ""]:
    """As `recon.losses.gbuffer_loss`, on rays."""
    alpha = target["alpha"]
    total = weights.alpha * charbonnier(traced.alpha - alpha).mean()
    base = traced.values[:, :3]
    if "base_color_srgb" in target:
        total = total + weights.color * charbonnier(base - alpha * target["base_color_srgb"]).mean()
    elif "rgb_srgb" in target:
        shown = base + traced.residual
        total = total + weights.color * charbonnier(shown - alpha * target["rgb_srgb"]).mean()
        total = total + residual * traced.residual.abs().mean()
    solid = (alpha > 0.5).to(alpha)
    if "distance" in target:
        known = solid * (target["distance"] > 0)
        difference = traced.distance - traced.alpha.detach() * target["distance"]
        total = total + weights.depth * (known * charbonnier(difference)).mean()
    if "normal" in target:
        known = solid * (target["normal"].square().sum(-1, keepdim=True) > 0.5)
        total = total + weights.normal * (known * charbonnier(traced.normal - target["normal"])).mean()
    for name, column in (("metallic", 3), ("roughness", 4)):
        if name in target:
            ours = traced.values[:, column : column + 1]
            total = total + weights.material * charbonnier(ours - alpha * target[name]).mean()
    return total


def _regularity(field: SdfField, config: NerfConfig, generator: torch.Generator) -> Float[Tensor, ""]:
    """The eikonal term at random points of the band (NeuS, Eq. 15)."""
    near = field.occupied_points(config.rays, generator)
    total: Tensor = config.eikonal * (field.gradient(near).norm(dim=-1) - 1).square().mean()
    return total


@torch.no_grad()
def _blur(lattice: Tensor) -> None:
    """Smooth a lattice's gradient, so that a step bends the surface instead of roughening it.

    As large steps do it on meshes (Nicolet et al., 2021, doi:10.1145/3478513.3480501), with a box of three
    twice in place of their linear solve.
    """
    assert lattice.grad is not None
    for _ in range(2):
        lattice.grad = avg_pool3d(lattice.grad, 3, 1, 1)


@torch.no_grad()
def _diffuse(field: SdfField, share: float) -> None:
    """Move the distances towards their neighbours' mean: what the rays do not hold in place gets smooth."""
    if share == 0:
        return
    total = composed(field.distances)[None, None]
    mean = avg_pool3d(total, 3, 1, 1, count_include_pad=False)
    field.distances[-1] += share * (mean - total)
