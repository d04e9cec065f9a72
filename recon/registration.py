"""Drawn views bent until they show one object: non-rigid registration.

A multi-view model draws the right object in every view, but a leg stands some pixels further left in one
than in the next, and the underside of a table top comes to lie above its top. Of such views a
field keeps what all of them share: no legs, and sheets that pass through each other. So every view gets a
smooth field of displacements, two in its plane and one along its rays, which brings it together with the
others before anything is built of it:

* a surface point of one view must not lie beside the outline of another view that it faces, nor ahead of the
  surface seen there;
* a point that faces away from a view lies behind the surface seen there, by some thickness.

Both are as they are measured by `recon.consensus.disagreement_px`. Squared errors are taken by the
measure of Geman and McClure (1985), so that what a view draws that no other has pulls little; the fields are
cubic interpolants of a coarse grid, held together by springs, and the whole is minimised by Adam. In the
spirit of embedded deformation (Sumner, Schmid and Pauly, 2007), in the views instead of in space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from recon.consensus import lookup_maps
from recon.fusion import DepthMaps, depth_maps
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet

_FACING = 0.3
"""Cosine from which a point faces a view, or faces away from it."""
_RIM_PX = 2.5
"""Near an outline every second pixel counts, elsewhere every ninth."""


@dataclass(frozen=True)
class RegistrationConfig:
    """How drawn views are bent into one another. Pixels are those of the views."""

    steps: int = 100
    """Of the optimiser; 0 leaves the views as they are drawn."""
    nodes: int = 13
    """Control points along each side of a view."""
    stiffness: float = 0.5
    """Weight of the squared difference of neighbouring displacements beside that of a typical error."""
    depth_stiffness: float = 1.0
    """The same along the rays, where a bent field makes flat faces bumpy."""
    pull: float = 0.02
    """The same for the squared displacements themselves."""
    typical_px: float = 4.0
    """Errors above this count less and less."""
    thickness_px: float = 2.0
    """Of what is seen from two sides."""
    reach_px: float = 6.0
    """Largest displacement of a control point."""

    def __post_init__(self) -> None:
        limits = {
            "steps": (0, 10_000),
            "nodes": (2, 64),
            "stiffness": (0, 1000),
            "depth_stiffness": (0, 1000),
            "pull": (0, 1000),
            "typical_px": (0.1, 1000),
            "thickness_px": (0, 100),
            "reach_px": (0, 100),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"registration.{name} must be from {low} to {high}, not {getattr(self, name)}"
                )


def registered(views: ViewSet, config: RegistrationConfig) -> ViewSet:
    """The views bent into one another.

    Views without depth, fewer than three of them, or empty ones come back as they are.
    """
    seen = views.gbuffer
    if config.steps == 0 or seen.depth is None or len(views) < 3 or not bool((seen.alpha > 0.5).any()):
        return views
    maps = depth_maps(views.cameras, seen)
    return bent(views, displacements(maps, config), maps.footprint)


def displacements(maps: DepthMaps, config: RegistrationConfig) -> Float[Tensor, "C 3 n n"]:
    """For the control points of every view: from where in the drawn view, right and down, in pixels,
    the bent view takes what it shows there, and by how many pixels' size it lies farther away."""
    pixel = maps.footprint
    filled, outside = lookup_maps(maps)
    look = torch.from_numpy(np.stack([outside, filled / pixel], 1).astype(np.float32))
    points = _Points.of(maps)
    w2c, intrinsics = torch.from_numpy(maps.w2c), torch.from_numpy(maps.intrinsics)
    c2w = torch.linalg.inv(w2c)[points.view]
    fx, fy, cx, cy = intrinsics[points.view].unbind(1)
    view, pair, cosine = _pairs(points, w2c)
    rotation, shift, lens = w2c[view, :3, :3], w2c[view, :3, 3], intrinsics[view]
    front = cosine > 0
    field = torch.zeros(len(maps.depth), 3, config.nodes, config.nodes, requires_grad=True)
    # A pair counts so much that all of them weigh as much as all control points.
    weight = cosine.abs() * (field[:, 0].numel() / max(len(pair), 1)) ** 0.5
    stiffness = torch.tensor([config.stiffness, config.stiffness, config.depth_stiffness])
    rate = 0.25
    optimizer = torch.optim.Adam([field], lr=rate, betas=(0.9, 0.95))
    size = (maps.depth.shape[2], maps.depth.shape[1])
    for step in range(config.steps):
        moved = _interpolated(field, points.view, points.pixel, size)
        x, y = (points.pixel - moved[:, :2]).unbind(1)
        z = points.depth + pixel * moved[:, 2]
        w = z if maps.perspective else torch.ones_like(z)
        local = torch.stack([(x + 0.5 - cx) / fx * w, -(y + 0.5 - cy) / fy * w, -z], 1)
        world = torch.einsum("nij,nj->ni", c2w[:, :3, :3], local) + c2w[:, :3, 3]
        there = torch.einsum("nij,nj->ni", rotation, world.index_select(0, pair)) + shift
        w = -there[:, 2:] if maps.perspective else torch.ones_like(there[:, 2:])
        at = there[:, :2] / w.clamp_min(1e-3) * lens[:, :2] * torch.tensor([1.0, -1.0]) + lens[:, 2:] - 0.5
        other = _interpolated(field, view, at, size)
        beside, surface = _sampled(look, view, at + other[:, :2], size).unbind(1)
        ahead = surface + other[:, 2] + there[:, 2] / pixel
        ahead = ahead + torch.where(front, 0.0, config.thickness_px)
        error = (weight * torch.maximum(beside, ahead).clamp_min(0)).square()
        scale = config.typical_px**2 * weight.square()
        springs = field.diff(dim=2).square().sum((0, 2, 3)) + field.diff(dim=3).square().sum((0, 2, 3))
        loss = (error / (1 + error / scale)).sum()
        loss = loss + (stiffness * springs).sum() + config.pull * field.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate * (1 - step / config.steps)
        optimizer.step()
        with torch.no_grad():
            field.clamp_(-config.reach_px, config.reach_px)
    return field.detach()


def bent(views: ViewSet, field: Float[Tensor, "C 3 n n"], pixel: float) -> ViewSet:
    """The views with the displacements of `displacements`; `pixel` is one's size in world units."""
    seen = views.gbuffer
    device = seen.alpha.device
    count, height, width, _ = seen.alpha.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    here = torch.stack([columns, rows], -1).reshape(-1, 2).float().repeat(count, 1)
    view = torch.arange(count).repeat_interleave(height * width)
    size = (width, height)
    moved = _interpolated(field, view, here, size)
    source = here + moved[:, :2]
    names = list(seen.channels())
    stacked = torch.cat([seen.channels()[name].cpu() for name in names], -1).permute(0, 3, 1, 2)
    alpha = seen.alpha.cpu().permute(0, 3, 1, 2)
    covered = (alpha > 0.5).float()
    values = _sampled(stacked * covered, view, source, size)
    share = _sampled(covered, view, source, size)
    coverage = _sampled(alpha, view, source, size)
    keep = (coverage > 0.5).float()
    values = values / share.clamp_min(1e-3) * keep
    channels = {}
    start = 0
    for name in names:
        depth = seen.channels()[name].shape[-1]
        value = values[:, start : start + depth]
        start += depth
        if name == "alpha":
            value = coverage * keep
        elif name == "depth":
            value = value + pixel * moved[:, 2:] * keep
        elif name == "normal":
            value = value / value.norm(dim=1, keepdim=True).clamp_min(1e-6)
        channels[name] = value.reshape(count, height, width, depth).to(device)
    return replace(views, gbuffer=GBuffer(**channels))


@dataclass(frozen=True)
class _Points:
    """Surface points of all views."""

    view: Int[Tensor, " n"]
    pixel: Float[Tensor, "n 2"]
    """Column and row."""
    depth: Float[Tensor, " n"]
    normal: Float[Tensor, "n 3"]

    @staticmethod
    def of(maps: DepthMaps) -> _Points:
        """All pixels near outlines and depth in between, thinned; none that is seen at a grazing angle."""
        rows, columns = np.mgrid[: maps.depth.shape[1], : maps.depth.shape[2]]
        thin = np.where(maps.outside_px > -_RIM_PX, (rows + columns) % 2 == 0, (rows % 3 + columns % 3) == 0)
        cosine = np.einsum("chwi,ci->chw", maps.normal, maps.w2c[:, 2, :3])
        view, row, column = np.nonzero((maps.depth > 0) & thin & (cosine > _FACING))
        return _Points(
            torch.from_numpy(view),
            torch.from_numpy(np.stack([column, row], 1)).float(),
            torch.from_numpy(maps.depth[view, row, column]),
            torch.from_numpy(maps.normal[view, row, column]),
        )


def _pairs(points: _Points, w2c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(view, index of the point, cosine of its normal and the view's) of all that face or face away."""
    cosine = points.normal @ w2c[:, 2, :3].T
    use = cosine.abs() > _FACING
    use[torch.arange(len(use)), points.view] = False
    view, pair = use.T.nonzero(as_tuple=True)
    return view, pair, cosine[pair, view]


def _interpolated(
    field: Float[Tensor, "C k n n"], view: Int[Tensor, " m"], at: Float[Tensor, "m 2"], size: tuple[int, int]
) -> Float[Tensor, "m k"]:
    """Cubic interpolants of the views' control points, whose outermost lie on the outermost pixels."""
    across = torch.tensor([size[0] - 1, size[1] - 1])
    return _looked_up(field, view, at / across * 2 - 1, "bicubic", align_corners=True)


def _sampled(
    images: Float[Tensor, "C k H W"], view: Int[Tensor, " m"], at: Float[Tensor, "m 2"], size: tuple[int, int]
) -> Float[Tensor, "m k"]:
    """Images between their pixels."""
    return _looked_up(images, view, (at + 0.5) / torch.tensor(size) * 2 - 1, "bilinear", align_corners=False)


def _looked_up(images: Tensor, view: Tensor, at: Tensor, mode: str, *, align_corners: bool) -> Tensor:
    """`grid_sample` of as many images at as many points each; `view` is sorted."""
    counts = torch.bincount(view, minlength=len(images)).tolist()
    found = [
        F.grid_sample(
            image[None], points[None, None], mode=mode, padding_mode="border", align_corners=align_corners
        )[0, :, 0].T
        for image, points in zip(images, at.split(counts), strict=True)
    ]
    return torch.cat(found)
