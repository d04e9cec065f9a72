"""What views that contradict each other agree on: one smooth closed shape, seen by all of them.

A small diffusion model draws silhouettes that wobble by pixels and depths that differ by a few
hundredths from view to view. A field fitted to such views is torn between them, and its surface is
full of spikes and handles. `harmonise` measures how far the views disagree. Views that agree to a
pixel come back untouched. Others get the alpha, depth and normals of their consensus, so that all
later stages see one object:

1. Every view votes at every point of a grid with a signed distance, positive outside: to the
   silhouette's cone and to the depth along the viewing ray (Curless and Levoy, 1996), cut off at
   the scale of the disagreement. A view that the object's own surface hides the point from is the
   less sure that it is inside the farther behind that surface it lies; so the one view that sees
   a floor outweighs those that look at the walls, and a bite that one view takes out of a wall
   is filled in part by the views that see the wall whole. What one view alone sees, a top or a floor,
   nobody can outvote.
2. The mean vote is smoothed, at the scale of the disagreement; more where the shape still has more
   handles than props have, because a handle that a little smoothing closes is noise.
3. The level is chosen so that the shape covers as many pixels as the views do on the whole:
   averages of thin parts that wobble would otherwise fade.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from recon.cleanup import clean
from recon.fusion import DepthMaps, Volume, depth_maps, march
from recon.topology import face_components, vertex_normals
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.rasterize import rasterize
from render.scene import Mesh

_REACH = 1.05
"""The grid covers [-1.05, 1.05]: generated objects live in the unit ball."""


@dataclass(frozen=True)
class ConsensusConfig:
    """When and how views are made to agree."""

    tolerance_px: float = 3.0
    """Views that disagree by less (see `disagreement_px`) are left as they are.

    On meshes with noise a field averages errors up to 2.5 pixels out, with the right genus and a truer shape
    than the consensus; from 3 pixels on it gets spurious handles.
    """
    voxels: int = 88
    """Samples along each side of the grid of votes."""
    smoothing: float = 0.4
    """Standard deviation of the first smoothing, in units of the disagreement."""
    slack: float = 3.0
    """How far the depths of opposite views may cross, in units of the disagreement, before there is a hole
    between them: a thin back or wall stays closed."""
    max_genus: int = 4
    """Handles that a shape may keep; one with more is smoothed further."""
    min_component: float = 0.05
    """Parts of less than this fraction of the largest part's area are strays of single views."""

    def __post_init__(self) -> None:
        limits = {
            "tolerance_px": (0, 1000),
            "voxels": (16, 512),
            "smoothing": (0, 10),
            "slack": (0, 10),
            "max_genus": (0, 10_000),
            "min_component": (0, 1),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"consensus.{name} must be from {low} to {high}, not {getattr(self, name)}")


def harmonise(views: ViewSet, config: ConsensusConfig) -> ViewSet:
    """The views, with alpha, depth and normals of one shape if they disagree on theirs.

    Colours stay those of each view, spread to the pixels that it is now said to cover. Views
    without depth, of one camera only, or empty come back as they are.
    """
    seen = views.gbuffer
    if seen.depth is None or len(views) < 3 or not bool((seen.alpha > 0.5).any()):
        return views
    maps = depth_maps(views.cameras, seen)
    disagreement = disagreement_px(maps)
    if disagreement < config.tolerance_px:
        return views
    shape = consensus(maps, disagreement * maps.footprint, config)
    if shape is None:
        return views
    return _seen_by(shape, views)


def disagreement_px(maps: DepthMaps) -> float:
    """How far a surface point of one view lies outside of what another view shows, in pixels.

    The root mean square over all points (every second pixel) and views that the surface faces by
    its normal, measured along it; cut off at 8 pixels, so that the number stays one of typical
    errors. Views of a mesh give 0.0 to 0.4, with silhouettes that wobble by 1 pixel and depths by
    0.01 (`bench.surface`) 0.9 to 1.1, by 2 pixels and 0.02 1.7 to 2.0.
    """
    pixel = maps.footprint
    total, count = 0.0, 0
    lookup = lookup_maps(maps)
    for c in range(len(maps.depth)):
        rows, columns = np.nonzero(maps.depth[c] > 0)
        keep = (rows + columns) % 2 == 0
        rows, columns = rows[keep], columns[keep]
        z = maps.depth[c][rows, columns].astype(np.float64)
        fx, fy, cx, cy = maps.intrinsics[c].astype(np.float64)
        w = z if maps.perspective else 1.0
        local = np.stack([(columns + 0.5 - cx) / fx * w, -(rows + 0.5 - cy) / fy * w, -z], -1)
        points = (local - maps.w2c[c, :3, 3]) @ maps.w2c[c, :3, :3].astype(np.float64)
        normals = maps.normal[c][rows, columns]
        cosine = normals @ maps.w2c[:, 2, :3].T
        facing = (cosine > 0.3) & (cosine[:, c] > 0.3)[:, None]
        facing[:, c] = False
        votes = outside_of(points, maps, lookup)
        excess = np.clip((votes * cosine)[facing] / pixel, 0.0, 8.0)
        total += float((excess.astype(np.float64) ** 2).sum())
        count += excess.size
    return float(np.sqrt(total / max(count, 1)))


def outside_of(
    points: Float[np.ndarray, "n 3"],
    maps: DepthMaps,
    lookup: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> Float[np.ndarray, "n C"]:
    """How far every point is outside of what each view shows: beside its outline or ahead of its surface, in
    world units; negative inside."""
    filled, outside = lookup or lookup_maps(maps)
    votes = np.zeros((len(points), len(maps.depth)), np.float32)
    _vote_at(points.astype(np.float64), maps.w2c, maps.intrinsics, maps.perspective, filled, outside, votes)
    return votes


def consensus(maps: DepthMaps, disagreement: float, config: ConsensusConfig) -> Mesh | None:
    """The shape that the views agree on; None if there is none. `disagreement` in world units."""
    filled, outside = lookup_maps(maps)
    spacing = 2 * _REACH / (config.voxels - 1)
    values = np.empty((config.voxels,) * 3, np.float32)
    cut = max(1.5 * disagreement, 1.5 * spacing)
    slack = config.slack * disagreement
    _vote_grid(spacing, cut, slack, maps.w2c, maps.intrinsics, maps.perspective, filled, outside, values)
    sigma = config.smoothing * disagreement / spacing
    best: Mesh | None = None
    for _ in range(6):
        smooth = gaussian_filter(values, sigma, mode="nearest")
        mesh = _at_fair_level(smooth, spacing, cut, maps, config)
        if mesh is None:
            break
        best = mesh
        if genus(mesh) <= config.max_genus:
            break
        sigma = max(1.4 * sigma, 0.5)
    return best


def genus(mesh: Mesh) -> int:
    """Handles of a closed manifold mesh, summed over its parts: parts - Euler characteristic / 2."""
    parts, _ = face_components(mesh.faces)
    euler = len(np.unique(mesh.faces)) - len(mesh.faces) // 2
    return parts - euler // 2


def _at_fair_level(
    values: NDArray[np.float32], spacing: float, cut: float, maps: DepthMaps, config: ConsensusConfig
) -> Mesh | None:
    """The level set, within half the cut-off, that covers as many pixels as the views do."""
    cameras = cameras_of(maps)
    wanted = int((maps.depth > 0).sum())
    low, high = -0.5 * cut, 0.5 * cut
    best: Mesh | None = None
    level = 0.0
    for _ in range(5):
        mesh = _level_set(values - np.float32(level), spacing, config)
        covered = 0 if mesh is None else int((rasterize(mesh.vertices, mesh.faces, cameras).face >= 0).sum())
        best = mesh if mesh is not None else best
        if abs(covered - wanted) < 0.01 * wanted:
            break
        if covered < wanted:
            low = level
        else:
            high = level
        level = (low + high) / 2
    return best


def _level_set(values: NDArray[np.float32], spacing: float, config: ConsensusConfig) -> Mesh | None:
    padded = np.pad(values, 1, constant_values=np.float32(spacing))
    origin = np.full(3, -_REACH - spacing, np.float32)
    vertices, faces = march(Volume(padded, origin, spacing))
    if len(faces) == 0:
        return None
    vertices, faces = clean(vertices, faces, min_component=config.min_component)
    return Mesh(vertices, faces, vertex_normals(vertices, faces)) if len(faces) else None


def cameras_of(maps: DepthMaps) -> Cameras:
    """The cameras that saw them."""
    height, width = maps.depth.shape[1:]
    return Cameras(
        torch.linalg.inv(torch.from_numpy(maps.w2c)),
        torch.from_numpy(maps.intrinsics),
        width,
        height,
        "perspective" if maps.perspective else "orthographic",
    )


def lookup_maps(maps: DepthMaps) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth spread over the background, and the silhouettes' signed distance in pixels."""
    filled = maps.depth.copy()
    for image in filled:
        if (image > 0).any():
            index = distance_transform_edt(image <= 0, return_distances=False, return_indices=True)
            image[:] = image[tuple(index)]
    return filled, np.ascontiguousarray(maps.outside_px)


def _seen_by(shape: Mesh, views: ViewSet) -> ViewSet:
    """The views with the geometry of `shape`."""
    cameras = views.cameras
    height, width = cameras.height, cameras.width
    fragments = rasterize(shape.vertices, shape.faces, cameras)
    hit = fragments.face >= 0
    fine = rasterize(shape.vertices, shape.faces, cameras.resized(2 * width, 2 * height)).face >= 0
    alpha = fine.reshape(len(views), height, 2, width, 2).mean((2, 4)).astype(np.float32)
    alpha = np.where(hit, np.maximum(alpha, 0.51), 0).astype(np.float32)
    assert shape.normals is not None
    corners = shape.normals[shape.faces[np.maximum(fragments.face, 0)]]
    normal = np.einsum("chwk,chwki->chwi", fragments.barycentric, corners)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    seen = views.gbuffer
    covered = seen.alpha[..., 0].cpu().numpy() > 0.5
    kept = {}
    for name, value in seen.channels().items():
        if name in ("alpha", "normal", "depth"):
            continue
        picture = value.detach().cpu().numpy().copy()
        for c in range(len(views)):
            # A rim is often darkened by the background: colours are spread from one pixel inside.
            distance = distance_transform_edt(covered[c])
            source = distance > 1.5 if (distance > 1.5).any() else covered[c]
            if source.any():
                index = distance_transform_edt(~source, return_distances=False, return_indices=True)
                picture[c] = picture[c][tuple(index)]
        kept[name] = torch.from_numpy(picture * hit[..., None]).to(value)
    gbuffer = GBuffer(
        alpha=torch.from_numpy(alpha[..., None]),
        normal=torch.from_numpy((normal * hit[..., None]).astype(np.float32)),
        depth=torch.from_numpy((fragments.depth * hit)[..., None].astype(np.float32)),
    )
    return replace(views, gbuffer=replace(gbuffer.to(seen.alpha.device), **kept))


@numba.njit(cache=True, inline="always")
@no_type_check
def _vote(x, y, z, m, k, perspective, depth, outside):
    """How far a point is beside what one view shows (negative inside the outline); how far it is ahead of
    the surface seen there (negative behind it); and whether it is ahead of the view.

    Beside the frame is outside: the whole object is in the frame.
    """
    height, width = depth.shape
    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    cz = -(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
    w = cz if perspective else 1.0
    if w <= 1e-3:
        return 0.0, 0.0, False
    fx, fy = k[0] / w, k[1] / w
    px, py = fx * cx + k[2] - 0.5, -fy * cy + k[3] - 0.5
    over = max(0.0, -0.5 - px, px - width + 0.5, -0.5 - py, py - height + 0.5)
    px, py = min(max(px, 0.0), width - 1.001), min(max(py, 0.0), height - 1.001)
    c0, r0 = int(np.floor(px)), int(np.floor(py))
    tx, ty = px - c0, py - r0
    a, b, c, d = (1 - tx) * (1 - ty), tx * (1 - ty), (1 - tx) * ty, tx * ty
    beside = (
        a * outside[r0, c0] + b * outside[r0, c0 + 1] + c * outside[r0 + 1, c0] + d * outside[r0 + 1, c0 + 1]
    ) / fx
    surface = a * depth[r0, c0] + b * depth[r0, c0 + 1] + c * depth[r0 + 1, c0] + d * depth[r0 + 1, c0 + 1]
    if over > 0.0:
        beside = max(beside, 0.0) + over / fx
    return beside, surface - cz, True


@numba.njit(cache=True)
@no_type_check
def _vote_at(points, w2c, intrinsics, perspective, depth, outside, votes):
    for i in range(len(points)):
        for c in range(len(w2c)):
            beside, ahead, valid = _vote(
                points[i, 0],
                points[i, 1],
                points[i, 2],
                w2c[c],
                intrinsics[c],
                perspective,
                depth[c],
                outside[c],
            )
            votes[i, c] = max(beside, ahead) if valid else 0.0


@numba.njit(cache=True, parallel=True)
@no_type_check
def _vote_grid(spacing, cut, slack, w2c, intrinsics, perspective, depth, outside, values):
    n, views = values.shape[0], len(w2c)
    low = -spacing * (n - 1) / 2
    for i in numba.prange(n):
        beside, ahead = np.empty(views), np.empty(views)
        for j in range(n):
            for k in range(n):
                count, sx, sy, sz = 0, 0.0, 0.0, 0.0
                for c in range(views):
                    beside[c], ahead[c], valid = _vote(
                        low + i * spacing,
                        low + j * spacing,
                        low + k * spacing,
                        w2c[c],
                        intrinsics[c],
                        perspective,
                        depth[c],
                        outside[c],
                    )
                    if not valid:
                        beside[c] = np.nan
                    elif beside[c] < 0.0 and ahead[c] > 0.0:
                        count += 1
                        sx += w2c[c, 2, 0]
                        sy += w2c[c, 2, 1]
                        sz += w2c[c, 2, 2]
                # Those that look at air here from opposite sides have a thin wall between them.
                opposed = 1.0 - np.sqrt(sx * sx + sy * sy + sz * sz) / max(count, 1)
                total, weights = 0.0, 0.0
                for c in range(views):
                    if np.isnan(beside[c]):
                        continue
                    value = max(beside[c], ahead[c] - slack * opposed)
                    weight = 1.0
                    if value < 0.0:
                        weight = np.exp(min(ahead[c], 0.0) / cut)
                        value = max(value, -cut)
                    else:
                        value = min(value, cut)
                    total += weight * value
                    weights += weight
                prior = 0.02
                values[i, j, k] = (total - prior * cut) / (weights + prior)
