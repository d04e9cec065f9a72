"""Views -> the maps of a material on a UV-mapped mesh. No light is baked in: the views hold none.

Every texel gathers the views that see its point. Visibility is a depth test
against the mesh itself, rasterised in every view at several times the view's
resolution: for orthographic and perspective views alike it answers what casting a
ray per texel and view answers, for the price of one picture a view instead of
eight million rays (twelve views, a 1024 texture).

A view's weight rises steeply with the cosine of the viewing angle, so that one
view, the most frontal, decides nearly alone: blending equally views that do not
quite agree would blur the detail of each. It falls to zero towards silhouettes
and depth steps, where generated views mix in what is behind. Then outliers lose
weight: a view whose colour is far from what the others agree on.

Texels that no view sees are filled from the field's own pictures, then from the
nearest seen points of the surface in 3D. Views that agree, as pictures of a real thing do, then correct the
maps until they show what the views show (`recon.retouch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter
from scipy.spatial import cKDTree

from recon.field import Renderable
from recon.fusion import survey_cameras
from recon.retouch import retouched
from recon.texels import pull_push, texels_of
from recon.topology import face_vectors
from render.cameras import Cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent
from render.rasterize import rasterize
from render.scene import Material, Mesh

_CHANNELS = 5
"""Base colour, metallic, roughness."""


@dataclass(frozen=True)
class BakeConfig:
    """How views are blended into maps."""

    texture_size: int = 1024
    sharpness: float = 6.0
    """Power of the cosine in a view's weight; higher keeps more of the most frontal view alone."""
    edge_px: float = 2.0
    """Pixels from a silhouette or depth step at which a view counts fully."""
    outlier: float = 0.2
    """Colour distance (sRGB, Euclidean) from the others at which a view loses half of its weight."""
    field_view_size: int = 192
    """Side of the field's pictures that fill what no view sees."""
    default_roughness: float = 0.8
    """Where views carry no roughness."""
    rounds: int = 6
    """Corrections by what the views show of the maps, where these are posed pictures."""

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "texture_size": (16, 8192),
            "sharpness": (0.5, 32.0),
            "edge_px": (0.0, 16.0),
            "outlier": (0.01, 10.0),
            "field_view_size": (32, 1024),
            "default_roughness": (0.0, 1.0),
            "rounds": (0, 200),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"bake.{name} is {value}; it must be from {low:g} to {high:g}")


def bake(
    mesh: Mesh,
    views: ViewSet,
    field: Renderable | None,
    config: BakeConfig,
    *,
    rounds: int = 0,
    progress: Progress = silent,
) -> Material:
    """Base colour (sRGB), metallic and roughness maps of `mesh`, which must have UVs and normals.

    rounds: corrections by what the views show of the maps; only for views that agree within a pixel.
    """
    size = config.texture_size
    texels = texels_of(mesh, size)
    chosen = texels.face >= 0
    positions = texels.interpolate(mesh.vertices, mesh.faces)
    # Faces' own normals decide what can be seen; smooth ones would see around edges.
    cross = face_vectors(mesh.vertices, mesh.faces)
    unit = (cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    normals = unit[texels.face[chosen]]
    progress(0.2, "gathering views")
    evidence = _evidence(mesh, views, config)
    values, weights = _gathered(evidence, positions, normals, config)
    progress(0.6, "filling what no view sees")
    unseen = weights < 1e-4
    if unseen.any() and field is not None:
        cameras = survey_cameras(config.field_view_size)
        with torch.no_grad():
            filler = ViewSet(cameras, field.render(cameras).detach())
        extra, extra_weights = gather(mesh, positions[unseen], normals[unseen], filler, config)
        values[unseen], weights[unseen] = extra, extra_weights
        unseen = weights < 1e-4
    if unseen.any() and not unseen.all():
        values[unseen] = _from_neighbours(
            positions, normals, values, ~unseen, positions[unseen], normals[unseen]
        )
    elif unseen.all():
        values[:] = (0.5, 0.5, 0.5, 0.0, config.default_roughness)
    image = np.zeros((size, size, _CHANNELS), np.float32)
    image[chosen] = values
    if rounds:
        progress(0.7, "correcting by the views")
        image = retouched(mesh, image, chosen, views.cameras, evidence.channels, evidence.confidence, rounds)
    progress(0.9, "padding charts")
    image = np.clip(pull_push(image, chosen), 0.0, 1.0)
    progress(1.0, "baked")
    return Material(
        base_color_srgb=np.ascontiguousarray(image[..., :3]),
        metallic=np.ascontiguousarray(image[..., 3]),
        roughness=np.ascontiguousarray(image[..., 4]),
    )


@dataclass(frozen=True)
class _Evidence:
    """What the views say, ready for the kernel."""

    cameras: Cameras
    channels: Float[np.ndarray, "C H W 5"]
    alpha: Float[np.ndarray, "C H W"]
    confidence: Float[np.ndarray, "C H W"]
    depth: Float[np.ndarray, "C Hs Ws"]
    """Of the mesh, at `scale` times the views' resolution."""
    scale: int


def gather(
    mesh: Mesh,
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    views: ViewSet,
    config: BakeConfig,
) -> tuple[Float[np.ndarray, "n 5"], Float[np.ndarray, " n"]]:
    """Blended channels of surface points and the sum of the views' weights (0: no view sees the point)."""
    return _gathered(_evidence(mesh, views, config), positions, normals, config)


def _evidence(mesh: Mesh, views: ViewSet, config: BakeConfig) -> _Evidence:
    cameras = views.cameras
    scale = max(1, round(480 / cameras.width))
    fine = cameras.resized(cameras.width * scale, cameras.height * scale)
    depth = rasterize(mesh.vertices, mesh.faces, fine).depth
    channels, alpha = _channels(views.gbuffer, config)
    confidence = _confidence(alpha, views.gbuffer, cameras, depth, scale, config)
    return _Evidence(cameras, channels, alpha, confidence, depth, scale)


def _gathered(
    evidence: _Evidence,
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    config: BakeConfig,
) -> tuple[Float[np.ndarray, "n 5"], Float[np.ndarray, " n"]]:
    cameras = evidence.cameras
    count = len(positions)
    values = np.zeros((count, _CHANNELS), np.float32)
    weights = np.zeros(count, np.float32)
    _gather(
        np.ascontiguousarray(positions, np.float32),
        np.ascontiguousarray(normals, np.float32),
        cameras.w2c.cpu().numpy().astype(np.float32),
        cameras.c2w.cpu().numpy().astype(np.float32),
        cameras.intrinsics.cpu().numpy().astype(np.float32),
        cameras.projection == "perspective",
        evidence.channels,
        evidence.alpha,
        evidence.confidence,
        evidence.depth,
        evidence.scale,
        config.sharpness,
        config.outlier,
        values,
        weights,
    )
    return values, weights


def _channels(
    gbuffer: GBuffer, config: BakeConfig
) -> tuple[Float[np.ndarray, "C H W 5"], Float[np.ndarray, "C H W"]]:
    """The five channels, and alpha."""
    alpha = gbuffer.alpha.detach().cpu().numpy()[..., 0].astype(np.float32)
    color = gbuffer.base_color_srgb if gbuffer.base_color_srgb is not None else gbuffer.rgb_srgb
    if color is None:
        raise InputError("the views have no colour to bake")
    out = np.zeros((*alpha.shape, _CHANNELS), np.float32)
    out[..., :3] = color.detach().cpu().numpy()
    out[..., 3] = 0.0 if gbuffer.metallic is None else gbuffer.metallic.detach().cpu().numpy()[..., 0]
    rough = gbuffer.roughness
    out[..., 4] = config.default_roughness if rough is None else rough.detach().cpu().numpy()[..., 0]
    return out, alpha


def _confidence(
    alpha: Float[np.ndarray, "C H W"],
    gbuffer: GBuffer,
    cameras: Cameras,
    mesh_depth: Float[np.ndarray, "C Hs Ws"],
    scale: int,
    config: BakeConfig,
) -> Float[np.ndarray, "C H W"]:
    """How far each pixel is from silhouettes and depth steps, 0 to 1."""
    count, height, width = alpha.shape
    out = np.zeros(alpha.shape, np.float32)
    step = 6.0 / float(cameras.intrinsics[:, 0].min())
    for c in range(count):
        good = alpha[c] > 0.9
        if gbuffer.depth is not None:
            good &= ~_steps(gbuffer.depth[c, ..., 0].detach().cpu().numpy(), step)
        blocks = mesh_depth[c].reshape(height, scale, width, scale)
        hit = (blocks > 0).all((1, 3))
        near = np.where(blocks > 0, blocks, np.inf).min((1, 3))
        good &= hit & ~_steps(np.where(hit, near, 0), step)
        # A step removes the pixels on both sides of it.
        distance = distance_transform_edt(np.pad(good, 1))[1:-1, 1:-1]
        out[c] = np.clip(distance / max(config.edge_px, 1e-6), 0, 1) ** 2
        # What is barely covered is better than nothing where no other view sees.
        out[c] = np.maximum(out[c], np.where(alpha[c] > 0.5, 2e-3, 0.0))
    return out


def _steps(depth: NDArray[np.float32], step: float) -> NDArray[np.bool_]:
    """Pixels beside a jump in depth."""
    shown = depth > 0
    high = maximum_filter(np.where(shown, depth, -np.inf), 3)
    low = minimum_filter(np.where(shown, depth, np.inf), 3)
    with np.errstate(invalid="ignore"):
        return np.asarray(shown & (high - low > 2 * step))


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _gather(
    positions: NDArray[np.float32],
    normals: NDArray[np.float32],
    w2c: NDArray[np.float32],
    c2w: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    perspective: bool,
    channels: NDArray[np.float32],
    alpha: NDArray[np.float32],
    confidence: NDArray[np.float32],
    depth: NDArray[np.float32],
    scale: int,
    sharpness: float,
    outlier: float,
    values: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> None:
    count, height, width = alpha.shape
    k_count = channels.shape[3]
    blocks = 64
    for block in numba.prange(blocks):
        sampled = np.empty((count, k_count), np.float32)
        weight = np.empty(count, np.float32)
        first, last = block * len(positions) // blocks, (block + 1) * len(positions) // blocks
        for i in range(first, last):
            x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
            total = 0.0
            for c in range(count):
                weight[c] = 0.0
                m = w2c[c]
                cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                cz = -(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
                w = cz if perspective else np.float32(1.0)
                if w <= 1e-3:
                    continue
                if perspective:
                    dx, dy, dz = c2w[c, 0, 3] - x, c2w[c, 1, 3] - y, c2w[c, 2, 3] - z
                    length = np.sqrt(dx * dx + dy * dy + dz * dz)
                    cosine = (normals[i, 0] * dx + normals[i, 1] * dy + normals[i, 2] * dz) / length
                else:
                    cosine = (
                        normals[i, 0] * c2w[c, 0, 2]
                        + normals[i, 1] * c2w[c, 1, 2]
                        + normals[i, 2] * c2w[c, 2, 2]
                    )
                if cosine < 0.08:
                    continue
                fx, fy = intrinsics[c, 0] / w, intrinsics[c, 1] / w
                px, py = fx * cx + intrinsics[c, 2], -fy * cy + intrinsics[c, 3]
                if px < 0.0 or py < 0.0 or px >= width or py >= height:
                    continue
                # Depth test at the nearest fine pixel; the tolerance grows with the slope.
                u, v = int(px * scale), int(py * scale)
                surface = depth[c, v, u]
                slope = np.sqrt(max(0.0, 1.0 - cosine * cosine)) / cosine
                if surface > 0.0 and cz > surface + 0.004 + (1.5 / (fx * scale)) * (1.0 + slope):
                    continue
                # Bilinear sample of what the view shows, weighted by coverage so that no background enters.
                bx, by = px - 0.5, py - 0.5
                c0, r0 = int(np.floor(bx)), int(np.floor(by))
                tx, ty = bx - c0, by - r0
                coverage = 0.0
                trust = 0.0
                for k in range(k_count):
                    sampled[c, k] = 0.0
                for corner in range(4):
                    column = min(max(c0 + (corner & 1), 0), width - 1)
                    row = min(max(r0 + (corner >> 1), 0), height - 1)
                    part = (tx if corner & 1 else 1.0 - tx) * (ty if corner >> 1 else 1.0 - ty)
                    covered = part * alpha[c, row, column]
                    coverage += covered
                    trust += part * confidence[c, row, column]
                    for k in range(k_count):
                        sampled[c, k] += covered * channels[c, row, column, k]
                if coverage < 0.3 or trust <= 0.0:
                    continue
                for k in range(k_count):
                    sampled[c, k] /= coverage
                # Resolution: pixels per world unit on the surface, relative to a frontal view.
                weight[c] = cosine**sharpness * trust * (fx / intrinsics[c, 0])
                total += weight[c]
            if total <= 0.0:
                continue
            # One round of re-weighting by distance from the mean, itself taken with softer weights.
            m0, m1, m2, soft = 0.0, 0.0, 0.0, 0.0
            for c in range(count):
                if weight[c] > 0.0:
                    s = np.sqrt(weight[c])
                    m0 += s * sampled[c, 0]
                    m1 += s * sampled[c, 1]
                    m2 += s * sampled[c, 2]
                    soft += s
            m0, m1, m2 = m0 / soft, m1 / soft, m2 / soft
            total = 0.0
            kept = 0.0
            for c in range(count):
                if weight[c] > 0.0:
                    d2 = (sampled[c, 0] - m0) ** 2 + (sampled[c, 1] - m1) ** 2 + (sampled[c, 2] - m2) ** 2
                    kept += weight[c]
                    weight[c] /= 1.0 + d2 / (outlier * outlier)
                    total += weight[c]
            for k in range(k_count):
                s = 0.0
                for c in range(count):
                    if weight[c] > 0.0:
                        s += weight[c] * sampled[c, k]
                values[i, k] = s / total
            weights[i] = kept


def _from_neighbours(
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    values: Float[np.ndarray, "n 5"],
    known: NDArray[np.bool_],
    at: Float[np.ndarray, "m 3"],
    at_normals: Float[np.ndarray, "m 3"],
) -> Float[np.ndarray, "m 5"]:
    """Inverse-distance mean of the nearest known points in 3D; a side that faces away counts as farther."""
    stretch = 0.1
    source: Int[np.ndarray, " s"] = np.flatnonzero(known)
    source = source[:: max(1, len(source) // 60_000)]
    tree = cKDTree(np.concatenate([positions[source], stretch * normals[source]], 1))
    # Neighbouring texels have the same answer: ask once per cell of a fine grid.
    cell = np.concatenate([at / 0.01, at_normals * 4.0], 1).round().astype(np.int64)
    _, first, inverse = np.unique(cell, axis=0, return_index=True, return_inverse=True)
    query = np.concatenate([at[first], stretch * at_normals[first]], 1)
    distance, index = tree.query(query, k=min(8, len(source)))
    distance, index = distance.reshape(len(query), -1), index.reshape(len(query), -1)
    weight = 1.0 / (distance + 1e-4) ** 2
    weight /= weight.sum(1, keepdims=True)
    found = np.einsum("mk,mkc->mc", weight, values[source][index]).astype(np.float32)
    return np.asarray(found[inverse.ravel()])
