"""What views say of points of a surface: blended samples of their channels, and how much weight they have.

Visibility is a depth test against the mesh itself, rasterised in every view at several times the view's
resolution: for orthographic and perspective views alike it answers what casting a ray per point and view
answers, for the price of one picture a view instead of eight million rays (twelve views, a 1024 texture).

A view's weight rises with the cosine of the viewing angle and falls to zero towards silhouettes and depth
steps, where generated views mix in what is behind. Then outliers lose weight: a view that says something
far from what the others agree on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

from render.cameras import Cameras
from render.gbuffer import GBuffer
from render.rasterize import rasterize
from render.scene import Mesh


@dataclass(frozen=True)
class Evidence:
    """What the views say, ready for the kernel."""

    cameras: Cameras
    channels: Float[np.ndarray, "C H W k"]
    """At least three; the first three tell outliers."""
    alpha: Float[np.ndarray, "C H W"]
    confidence: Float[np.ndarray, "C H W"]
    depth: Float[np.ndarray, "C Hs Ws"]
    """Of the mesh, at `scale` times the views' resolution."""
    scale: int


def evidence_of(
    mesh: Mesh, cameras: Cameras, gbuffer: GBuffer, channels: Float[np.ndarray, "C H W k"], edge_px: float
) -> Evidence:
    """Of views whose alpha and depth are `gbuffer`'s; `edge_px` from a silhouette a view counts fully."""
    scale = max(1, round(480 / cameras.width))
    fine = cameras.resized(cameras.width * scale, cameras.height * scale)
    depth = rasterize(mesh.vertices, mesh.faces, fine).depth
    alpha = gbuffer.alpha.detach().cpu().numpy()[..., 0].astype(np.float32)
    confidence = _confidence(alpha, gbuffer, cameras, depth, scale, edge_px)
    return Evidence(cameras, channels, alpha, confidence, depth, scale)


def gathered(
    evidence: Evidence,
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    *,
    sharpness: float,
    outlier: float,
) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, " n"]]:
    """Blended channels of surface points and the sum of the views' weights (0: no view sees the point).

    sharpness: power of the cosine. outlier: distance from the others at which a view loses half its weight.
    """
    cameras = evidence.cameras
    values = np.zeros((len(positions), evidence.channels.shape[-1]), np.float32)
    weights = np.zeros(len(positions), np.float32)
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
        sharpness,
        outlier,
        values,
        weights,
    )
    return values, weights


def _confidence(
    alpha: Float[np.ndarray, "C H W"],
    gbuffer: GBuffer,
    cameras: Cameras,
    mesh_depth: Float[np.ndarray, "C Hs Ws"],
    scale: int,
    edge_px: float,
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
        out[c] = np.clip(distance / max(edge_px, 1e-6), 0, 1) ** 2
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
