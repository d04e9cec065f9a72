"""First guess of a Gaussian field: one disc per seen patch of surface.

In: views with depth and normals. Out: a `GaussianField` of at most
`max_gaussians`. Each covered pixel becomes a disc at its depth, turned along its
normal, as wide as the pixel's footprint on the slanted surface. Generated views
do not agree exactly, so every disc is put to the vote of the other views: one
that lies outside a silhouette or in front of a surface that another view saw is
contradicted, one that lies on it is supported. What is left is merged by voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from recon.fields.gaussians import GaussianField
from render.errors import InputError
from render.gbuffer import ViewSet


@dataclass(frozen=True)
class SeedConfig:
    """How views become first Gaussians."""

    max_gaussians: int = 24_000
    """Seeds are merged by ever larger voxels until at most so many are left."""
    voxel_px: float = 1.0
    """Smallest voxel that merges seeds, in pixel footprints."""
    spread: float = 0.5
    """Standard deviation of a disc in units of its footprint: neighbours overlap without blurring."""
    max_slant: float = 2.5
    """Longest stretch of a disc that is seen at a grazing angle."""
    min_cosine: float = 0.15
    """Pixels seen at a flatter angle (cosine of normal and view) make no seeds."""
    depth_tolerance: float = 0.06
    """World units by which views may disagree about a depth (generated views: about 0.03 rms)."""
    tolerated: int = 1
    """A seed goes when more views contradict it than support it, plus this many."""
    opacity: float = 0.85
    """Opacity of a new disc."""

    def __post_init__(self) -> None:
        limits = {
            "max_gaussians": (100, 1_000_000),
            "voxel_px": (0.1, 16),
            "spread": (0.1, 4),
            "max_slant": (1, 10),
            "min_cosine": (0, 0.9),
            "depth_tolerance": (0, 1),
            "tolerated": (0, 100),
            "opacity": (0.05, 0.99),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"seed.{name} must be from {low} to {high}, not {getattr(self, name)}")


@dataclass(frozen=True)
class _Seeds:
    """Discs before merging."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    towards: Float[Tensor, "n 3"]
    """Unit vectors to the camera that saw them."""
    footprints: Float[Tensor, " n"]
    """Side of a pixel at that depth, world units."""
    cosines: Float[Tensor, " n"]
    values: Float[Tensor, "n 5"]
    """Base colour, metallic, roughness."""
    views: Int[Tensor, " n"]


def seed_field(views: ViewSet, config: SeedConfig) -> GaussianField:
    """A field that shows what the views show. The views need depth, normals and a colour."""
    seeds = _collect(views, config)
    keep = consistent(seeds.points, seeds.views, views, config)
    if not bool(keep.any()):
        keep = torch.ones_like(keep)  # views that agree on nothing: better a bad field than none
    chosen = _Seeds(*(getattr(seeds, name)[keep] for name in seeds.__dataclass_fields__))
    return _discs(chosen, config)


def consistent(
    points: Float[Tensor, "n 3"], origins: Int[Tensor, " n"], views: ViewSet, config: SeedConfig
) -> Bool[Tensor, " n"]:
    """Which points the other views do not contradict. `origins` is the view that proposed each point.

    One pixel of slack at silhouettes and depth edges, because views wobble by about that.
    """
    cameras, seen = views.cameras, views.gbuffer
    assert seen.depth is not None
    alpha = seen.alpha[..., 0]
    depth = seen.depth[..., 0]
    covered = alpha > 0.5
    far = torch.where(covered, depth, depth.new_tensor(-torch.inf))
    near = torch.where(covered, -depth, depth.new_tensor(-torch.inf))
    silhouette = max_pool2d(alpha[:, None], 3, 1, 1)[:, 0]
    farthest = max_pool2d(far[:, None], 3, 1, 1)[:, 0]
    nearest = -max_pool2d(near[:, None], 3, 1, 1)[:, 0]
    pixels, depths = cameras.project(points)
    column, row = pixels.floor().long().unbind(-1)
    inside = (column >= 0) & (column < cameras.width) & (row >= 0) & (row < cameras.height)
    at = row.clamp(0, cameras.height - 1) * cameras.width + column.clamp(0, cameras.width - 1)
    lookup = [image.flatten(1).gather(1, at) for image in (silhouette, nearest, farthest)]
    hit, front, back = lookup
    inside &= torch.arange(len(views), device=points.device)[:, None] != origins
    outside = inside & (hit <= 0.5)
    before = inside & (hit > 0.5) & (depths < front - config.depth_tolerance)
    on = inside & (depths >= front - config.depth_tolerance) & (depths <= back + config.depth_tolerance)
    contradictions = (outside | before).sum(0)
    return contradictions <= on.sum(0) + config.tolerated


def _collect(views: ViewSet, config: SeedConfig) -> _Seeds:
    """One seed per covered pixel that is not seen at too flat an angle."""
    cameras, seen = views.cameras, views.gbuffer
    color = seen.base_color_srgb if seen.base_color_srgb is not None else seen.rgb_srgb
    if seen.depth is None or seen.normal is None or color is None:
        raise InputError("a Gaussian field needs views with depth, normals and colour")
    towards = -cameras.rays()[1]
    normals = normalize(seen.normal, dim=-1)
    cosines = (normals * towards).sum(-1)
    # A surface that was seen faces the camera; a normal just past the horizon is an error of the view.
    chosen = (seen.alpha[..., 0] > 0.5) & (seen.depth[..., 0] > 0) & (cosines > config.min_cosine)
    if not bool(chosen.any()):
        raise InputError("the views show nothing: every pixel is transparent")
    which, row, column = chosen.nonzero().unbind(-1)
    pixels = cameras.pixel_centers().reshape(1, -1, 2).expand(len(cameras), -1, -1)
    points = cameras.unproject(pixels, seen.depth.flatten(1))
    depth = seen.depth[which, row, column, 0]
    scale = depth if cameras.projection == "perspective" else torch.ones_like(depth)
    metallic = seen.metallic if seen.metallic is not None else torch.zeros_like(seen.alpha)
    roughness = seen.roughness if seen.roughness is not None else torch.full_like(seen.alpha, 0.8)
    values = torch.cat([color, metallic, roughness], -1)
    return _Seeds(
        points=points[which, row * cameras.width + column],
        normals=normals[chosen],
        towards=towards[chosen],
        footprints=scale / cameras.intrinsics[which, 0],
        cosines=cosines[chosen],
        values=values[chosen],
        views=which,
    )


def _merge(keys: Int[np.ndarray, "n 4"]) -> tuple[Int[np.ndarray, " n"], int]:
    """The group of every row of equal keys, numbered in sorted order, and the number of groups."""
    packed = keys @ np.array([1 << 44, 1 << 24, 1 << 4, 1])
    unique, group = np.unique(packed, return_inverse=True)
    return group.reshape(-1), len(unique)


def _discs(seeds: _Seeds, config: SeedConfig) -> GaussianField:
    """Merge seeds of one voxel that face the same way, and build their discs.

    The direction (one of six) is part of the key, so that the two sides of a thin
    sheet stay apart. Sums run in the order of the seeds, so results are reproducible.
    """
    points = seeds.points.double().cpu().numpy()
    normals = seeds.normals.double().cpu().numpy()
    axis = np.abs(normals).argmax(1)
    facing = 2 * axis + (np.take_along_axis(normals, axis[:, None], 1)[:, 0] < 0)
    voxel = config.voxel_px * float(seeds.footprints.median())
    while True:
        cells = np.floor(points / voxel).astype(np.int64) + (1 << 18)
        group, count = _merge(np.concatenate([cells, facing[:, None]], 1))
        if count <= config.max_gaussians:
            break
        voxel *= max(1.02, (count / config.max_gaussians) ** 0.4)
    weights = seeds.cosines.double().cpu().numpy() ** 2
    total = np.bincount(group, weights, count)

    def averaged(values: Tensor) -> Tensor:
        columns = values.double().cpu().numpy().reshape(len(values), -1).T
        sums = [np.bincount(group, weights * column, count) / total for column in columns]
        return torch.from_numpy(np.stack(sums, -1)).to(seeds.points)

    # The frame comes from the seed that was seen most frontally.
    best = np.full(count, -1)
    order = np.argsort(weights, kind="stable")
    best[group[order]] = order
    chosen = torch.from_numpy(best).to(seeds.points.device)
    normal = normalize(averaged(seeds.normals), dim=-1)
    quats, slant = _frames(normal, seeds.towards[chosen])
    width = torch.maximum(seeds.footprints[chosen], seeds.footprints.new_tensor(voxel))
    stretch = (1 / slant.clamp_min(1e-3)).clamp(1, config.max_slant)
    scales = config.spread * torch.stack([width * stretch, width], -1)
    values = averaged(seeds.values)
    logit = float(np.log(config.opacity / (1 - config.opacity)))
    return GaussianField(
        means=averaged(seeds.points),
        quats=quats,
        log_scales=scales.log(),
        opacity_logits=torch.full((count,), logit).to(seeds.points),
        base_color_srgb=values[:, :3].contiguous(),
        metallic=values[:, 3:4].contiguous(),
        roughness=values[:, 4:5].contiguous(),
    )


def _frames(
    normals: Float[Tensor, "n 3"], towards: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 4"], Float[Tensor, " n"]]:
    """Quaternions whose Z axis is the normal and whose X axis is the direction of slant; cosines."""
    cosine = (normals * towards).sum(-1)
    x = towards - cosine[:, None] * normals
    # Seen head-on there is no slant: any tangent does.
    helper = torch.eye(3).to(normals)[normals.abs().argmin(-1)]
    fallback = helper - (helper * normals).sum(-1, keepdim=True) * normals
    x = normalize(torch.where(x.norm(dim=-1, keepdim=True) > 1e-3, x, fallback), dim=-1)
    y = torch.linalg.cross(normals, x)
    return quaternions(torch.stack([x, y, normals], -1)), cosine


def quaternions(matrices: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions wxyz of rotation matrices: the row of 4 q q^T with the largest diagonal."""
    m = matrices
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    rows = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], -1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        1,
    )
    best = torch.diagonal(rows, dim1=1, dim2=2).argmax(-1)
    return normalize(rows[torch.arange(len(rows), device=rows.device), best], dim=-1)
