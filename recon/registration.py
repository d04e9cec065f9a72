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
cubic interpolants of a coarse grid, held together by springs, and the whole is minimised by Adam; that all
views become smaller together, or come nearer, is taken out of every step, since it would please the measure
and say nothing of where they disagree. In the spirit of embedded deformation (Sumner, Schmid and Pauly,
2007), in the views instead of in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from recon.consensus import cameras_of, lookup_maps
from recon.fusion import DepthMaps, depth_maps
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet

_NODES = 13
"""Control points along each side of a view."""
_PULL = 0.02
"""Weight of the squared displacements beside that of a typical error."""
_TYPICAL_PX = 4.0
"""Errors above this count less and less."""
_THICKNESS_PX = 2.0
"""Of what is seen from two sides."""
_REACH_PX = 6.0
"""Largest displacement of a control point."""
_ALONG_RAYS = 2.0
"""How much stiffer the fields are along the rays, where a bent one makes flat faces bumpy."""
_RATE = 0.25
"""Of the optimiser, in pixels a step; it falls to zero."""
_FACING = 0.3
"""Cosine from which a point faces a view, or faces away from it."""
_RIM_PX = 2.5
"""Near an outline every second pixel counts, elsewhere every ninth."""


@dataclass(frozen=True)
class RegistrationConfig:
    """How drawn views are bent into one another."""

    steps: int = 100
    """Of the optimiser; 0 leaves the views as they are drawn."""
    stiffness: float = 0.5
    """Weight of the squared difference of neighbouring displacements beside that of a typical error."""

    def __post_init__(self) -> None:
        limits = {"steps": (0, 10_000), "stiffness": (0, 1000)}
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
    return _bent(views, _displacements(maps, config), maps.footprint)


@dataclass(frozen=True)
class _View:
    """What the optimiser reads of a view."""

    camera: Cameras
    look: Float[Tensor, "2 H W"]
    """Distance outside of the outline and depth, both in pixels."""
    pixel: Float[Tensor, "n 2"]
    """Column and row of its surface points."""
    depth: Float[Tensor, " n"]
    others: Int[Tensor, " m"]
    """Points of the other views, in the row of all, that face it or face away."""
    cosine: Float[Tensor, " m"]
    """Of their normals with the way to the eye."""


def _displacements(maps: DepthMaps, config: RegistrationConfig) -> Float[Tensor, "C 3 g g"]:
    """For the control points of every view: from where in the drawn view, right and down, in pixels,
    the bent view takes what it shows there, and by how many pixels' size it lies farther away."""
    pixel, views = maps.footprint, _views_of(maps)
    fields = torch.zeros(len(views), 3, _NODES, _NODES, requires_grad=True)
    stiffness = config.stiffness * torch.tensor([1.0, 1.0, _ALONG_RAYS])
    # All pairs of points and views together weigh as much as all control points.
    weight = len(views) * _NODES**2 / max(sum(len(view.others) for view in views), 1)
    optimizer = torch.optim.Adam([fields], lr=_RATE, betas=(0.9, 0.95))
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / config.steps)
        optimizer.zero_grad()
        world = torch.cat([_moved(view, field, pixel) for view, field in zip(views, fields, strict=True)])
        springs = fields.diff(dim=2).square().sum((0, 2, 3)) + fields.diff(dim=3).square().sum((0, 2, 3))
        loss = (stiffness * springs).sum() + _PULL * fields.square().sum()
        for view, field in zip(views, fields, strict=True):
            error = _outside_px(view, field, world.index_select(0, view.others), pixel)
            squares = (error * view.cosine).square()
            loss = loss + weight * (squares / (1 + (error / _TYPICAL_PX).square())).sum()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            fields -= _common(views, fields)
            fields.clamp_(-_REACH_PX, _REACH_PX)
    return fields.detach()


def _common(views: Sequence[_View], fields: Float[Tensor, "C 3 g g"]) -> Float[Tensor, "3 g g"]:
    """What brings all views nearer to one another and says nothing of where they disagree: that all become
    smaller, or show all things nearer, by as much as they do on the mean."""
    camera = views[0].camera
    middle = torch.tensor([camera.width - 1, camera.height - 1]) / 2
    moved = torch.cat(
        [_interpolated(field, view.pixel, camera) for view, field in zip(views, fields, strict=True)]
    )
    away = torch.cat([view.pixel for view in views]) - middle
    larger = (moved[:, :2] * away).sum() / away.square().sum().clamp_min(1e-9)
    along = torch.linspace(-1, 1, _NODES)
    right, down = middle[:, None] * along
    nodes = torch.stack(torch.meshgrid(right, down, indexing="xy"))
    return torch.cat([larger * nodes, moved[:, 2].mean().expand(1, _NODES, _NODES)])


def _moved(view: _View, field: Float[Tensor, "3 g g"], pixel: float) -> Float[Tensor, "n 3"]:
    """The view's surface points in the world. A field is smooth: its inverse is its negative."""
    moved = _interpolated(field, view.pixel, view.camera)
    at, depth = view.pixel + 0.5 - moved[:, :2], view.depth + pixel * moved[:, 2]
    return view.camera.unproject(at[None], depth[None])[0]


def _outside_px(
    view: _View, field: Float[Tensor, "3 g g"], points: Float[Tensor, "m 3"], pixel: float
) -> Float[Tensor, " m"]:
    """How far points lie beside the view's outline, or ahead of what it shows; 0 where they do neither."""
    at, depth = (found[0] for found in view.camera.project(points))
    at = at - 0.5
    moved = _interpolated(field, at, view.camera)
    beside, surface = _sampled(view.look, at + moved[:, :2]).unbind(1)
    ahead = surface + moved[:, 2] - depth / pixel
    ahead = ahead + torch.where(view.cosine > 0, 0.0, _THICKNESS_PX)
    return torch.maximum(beside, ahead).clamp_min(0)


def _views_of(maps: DepthMaps) -> list[_View]:
    """Surface points are all pixels near outlines and a ninth of the rest, none seen at a grazing angle."""
    cameras = cameras_of(maps)
    filled, outside = lookup_maps(maps)
    look = torch.from_numpy(np.stack([outside, filled / maps.footprint], 1).astype(np.float32))
    rows, columns = np.mgrid[: cameras.height, : cameras.width]
    thin = np.where(outside > -_RIM_PX, (rows + columns) % 2 == 0, (rows % 3 + columns % 3) == 0)
    own = np.einsum("chwi,ci->chw", maps.normal, maps.w2c[:, 2, :3])
    of, row, column = np.nonzero((maps.depth > 0) & thin & (own > _FACING))
    at = torch.from_numpy(np.stack([column, row], 1)).float()
    depth = torch.from_numpy(maps.depth[of, row, column])
    cosine = torch.from_numpy(maps.normal[of, row, column] @ maps.w2c[:, 2, :3].T)
    found = []
    for c in range(len(cameras)):
        mine = torch.from_numpy(of == c)
        others = torch.nonzero((cosine[:, c].abs() > _FACING) & ~mine)[:, 0]
        found.append(_View(cameras[c], look[c], at[mine], depth[mine], others, cosine[others, c]))
    return found


def _bent(views: ViewSet, fields: Float[Tensor, "C 3 g g"], pixel: float) -> ViewSet:
    """The views with the displacements of `_displacements`; `pixel` is one's size in world units."""
    channels = views.gbuffer.to("cpu").channels()
    names = list(channels)
    rows, columns = torch.meshgrid(
        torch.arange(views.cameras.height), torch.arange(views.cameras.width), indexing="ij"
    )
    here = torch.stack([columns, rows], -1).float()
    out: dict[str, list[Tensor]] = {name: [] for name in names}
    for c in range(len(views)):
        moved = _interpolated(fields[c], here.view(-1, 2), views.cameras).view(*rows.shape, 3)
        alpha = channels["alpha"][c]
        covered = (alpha > 0.5).float()
        stacked = torch.cat([alpha, covered, *(covered * channels[name][c] for name in names)], -1)
        found = _sampled(stacked.permute(2, 0, 1), (here + moved[..., :2]).view(-1, 2)).view(*rows.shape, -1)
        sizes = [channels[name].shape[-1] for name in names]
        coverage, share, *values = found.split([1, 1, *sizes], -1)
        keep = (coverage > 0.5).float()
        for name, value in zip(names, values, strict=True):
            value = keep * value / share.clamp_min(1e-3)
            match name:
                case "alpha":
                    value = keep * coverage
                case "depth":
                    value = value + keep * pixel * moved[..., 2:]
                case "normal":
                    value = F.normalize(value, dim=-1)
            out[name].append(value)
    gbuffer = GBuffer(**{name: torch.stack(value) for name, value in out.items()})
    return replace(views, gbuffer=gbuffer.to(views.gbuffer.alpha.device))


def _interpolated(
    field: Float[Tensor, "k g g"], at: Float[Tensor, "m 2"], cameras: Cameras
) -> Float[Tensor, "m k"]:
    """Cubic interpolants of a view's control points, whose outermost lie on the outermost pixels."""
    across = torch.tensor([cameras.width - 1, cameras.height - 1])
    return _looked_up(field, at / across * 2 - 1, "bicubic", align_corners=True)


def _sampled(image: Float[Tensor, "k H W"], at: Float[Tensor, "m 2"]) -> Float[Tensor, "m k"]:
    """A view's image between its pixels."""
    size = torch.tensor([image.shape[2], image.shape[1]])
    return _looked_up(image, (at + 0.5) / size * 2 - 1, "bilinear", align_corners=False)


def _looked_up(image: Tensor, at: Tensor, mode: str, *, align_corners: bool) -> Tensor:
    found = F.grid_sample(
        image[None], at[None, None], mode=mode, padding_mode="border", align_corners=align_corners
    )
    return found[0, :, 0].T
