"""Maps corrected by what the views show of them: render, compare, give the differences back to the texels.

In: maps baked from views and the mesh they lie on. Out: maps that, rendered as the views were taken, show
what the views show. A bake samples pictures between their pixels and blends them, which blurs twice; every
pixel of a view, however, is the mean of the texels it covers, a linear equation. These are solved by
simultaneous iterative reconstruction (SIRT; Gilbert, 1972, doi:10.1016/0022-5193(72)90180-4), for pictures
also known as iterative back-projection (Irani and Peleg, 1991, doi:10.1016/1049-9652(91)90045-L): from many
views that see a texel at different places between pixels it recovers detail finer than one view's pixels.

Colours are averaged in linear light, as renderers do, and compared in sRGB. Corrections live on a grid of
texels of half a pixel, coarser than most maps, and are added to the map smoothly: what they cannot know is
left as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from recon.texels import pull_push
from recon.topology import face_vectors
from render.cameras import Cameras
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.rasterize import rasterize
from render.scene import Mesh

_TEXELS_PER_PX = 2.0
"""Of the grid of corrections, along a line; finer ones are hardly seen by any pixel."""
_MANY_PIXELS = 6_000_000
"""Views of more pixels together are sampled once a pixel instead of four times, to save memory."""
_PARTS = 2
"""Sums are made in this many parts whatever the number of threads, so that their bits do not depend on it."""
_DAMPING = 0.5
"""Samples' worth of weight that pulls a correction to nothing: texels that are hardly seen stay."""


@dataclass(frozen=True)
class _Samples:
    """Where the subsamples of all views lie on the map; those of one pixel follow each other."""

    first: Int[np.ndarray, " q"]
    """Of each pixel, and the end."""
    place: Int[np.ndarray, " p"]
    """Index of the pixel in the flattened views."""
    texel: Float[np.ndarray, "n 2"]
    """Column and row on the grid, so that centres are whole numbers."""
    cosine: Float[np.ndarray, " p"]
    """Of the surface to the view, mean over the pixel."""


def retouched(
    mesh: Mesh,
    image: Float[np.ndarray, "S S 5"],
    known: Bool[np.ndarray, "S S"],
    cameras: Cameras,
    channels: Float[np.ndarray, "C H W 5"],
    confidence: Float[np.ndarray, "C H W"],
    rounds: int,
) -> Float[np.ndarray, "S S 5"]:
    """`image` (base colour in sRGB, metallic, roughness) after `rounds` corrections; unknown texels are left.

    confidence: how much each pixel of the views counts, 0 where it shows several surfaces.
    """
    size = image.shape[0]
    grid = _grid_size(mesh, size, cameras)
    samples = _samples(mesh, grid, cameras, confidence)
    if len(samples.place) == 0:
        return image
    block = size // grid
    seen = known.reshape(grid, block, grid, block).sum((1, 3), dtype=np.float32)
    start = (image * known[..., None]).reshape(grid, block, grid, block, -1).sum((1, 3), dtype=np.float32)
    start = pull_push(start / np.maximum(seen, 1)[..., None], seen > 0)
    wanted = channels.reshape(-1, channels.shape[-1])[samples.place]
    weight = (confidence.ravel()[samples.place] * samples.cosine).astype(np.float32)
    values = start.copy()
    reached = np.zeros((grid, grid), np.bool_)
    for _ in range(rounds):
        linear = values.copy()
        linear[..., :3] = srgb_to_linear_np(np.clip(values[..., :3], 0, 1))
        shown = np.zeros_like(wanted)
        _project(linear, samples.first, samples.texel, shown)
        shown[:, :3] = linear_to_srgb_np(np.clip(shown[:, :3], 0, 1))
        total = np.zeros((_PARTS, grid, grid, values.shape[-1] + 1), np.float32)
        _back_project((wanted - shown) * weight[:, None], weight, samples.first, samples.texel, total)
        summed = total.sum(0)
        reached = summed[..., -1] > 0
        values += summed[..., :-1] / (summed[..., -1:] + np.float32(_DAMPING))
        np.clip(values, 0, 1, out=values)
    change = pull_push(values - start, reached)
    return np.where(known[..., None], image + _enlarged(change, block), image).astype(np.float32)


def _grid_size(mesh: Mesh, size: int, cameras: Cameras) -> int:
    """Side of the grid of corrections: the map's, halved while its texels stay below half a pixel."""
    assert mesh.uvs is not None
    flat = np.concatenate([mesh.uvs * size, np.zeros((len(mesh.uvs), 1), np.float32)], 1)
    texels = np.linalg.norm(face_vectors(flat, mesh.faces), axis=1).sum()
    area = np.linalg.norm(face_vectors(mesh.vertices, mesh.faces), axis=1).sum()
    per_unit = float(cameras.intrinsics[:, 0].mean())
    if cameras.projection == "perspective":
        per_unit /= float(cameras.c2w[:, :3, 3].norm(dim=-1).mean())
    density = float(np.sqrt(max(texels, 1e-12) / max(area, 1e-12))) / per_unit
    # Charts are kept apart by 1/256 of the map: not so coarse that they touch.
    smallest = max(16, min(size, 256))
    while size % 2 == 0 and size // 2 >= smallest and density / 2 >= _TEXELS_PER_PX:
        size, density = size // 2, density / 2
    return size


def _samples(mesh: Mesh, grid: int, cameras: Cameras, confidence: Float[np.ndarray, "C H W"]) -> _Samples:
    assert mesh.uvs is not None
    count, height, width = confidence.shape
    fine = 1 if count * height * width > _MANY_PIXELS else 2
    large = cameras.resized(width * fine, height * fine)
    cross = face_vectors(mesh.vertices, mesh.faces)
    normals = (cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    texels = np.stack([mesh.uvs[:, 0] * grid - 0.5, (1 - mesh.uvs[:, 1]) * grid - 0.5], 1).astype(np.float32)
    places, numbers, cosines, found = [], [], [], []
    for c in range(count):
        fragments = rasterize(mesh.vertices, mesh.faces, large[c])
        # Subsamples of one pixel beside each other.
        face = fragments.face[0].reshape(height, fine, width, fine).swapaxes(1, 2).reshape(-1, fine * fine)
        hit = (face >= 0) & (confidence[c].ravel() > 0)[:, None]
        pixels = np.flatnonzero(hit.any(1))
        hit, face = hit[pixels], face[pixels]
        b = fragments.barycentric[0].reshape(height, fine, width, fine, 3).swapaxes(1, 2)
        weights = b.reshape(-1, fine * fine, 3)[pixels][hit]
        corners = mesh.faces[face[hit]]
        found.append((weights[:, :, None] * texels[corners]).sum(1))
        towards = -cameras[c].rays()[1].reshape(-1, 3).numpy()[pixels]
        facing = np.einsum("pk,psk->ps", towards, normals[np.maximum(face, 0)])
        number = hit.sum(1)
        cosines.append((np.clip(facing, 0, 1) * hit).sum(1) / number)
        places.append(c * height * width + pixels)
        numbers.append(number)
    first = np.concatenate([[0], np.cumsum(np.concatenate(numbers))]).astype(np.int64)
    return _Samples(
        first,
        np.concatenate(places).astype(np.int64),
        np.ascontiguousarray(np.concatenate(found), np.float32),
        np.concatenate(cosines).astype(np.float32),
    )


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _corner(grid: int, x: float, y: float) -> tuple[int, int, float, float]:
    """Upper left of the four texels around a place, and how far the place is from it."""
    x = min(max(x, np.float32(0.0)), np.float32(grid - 1.001))
    y = min(max(y, np.float32(0.0)), np.float32(grid - 1.001))
    column, row = int(x), int(y)
    return column, row, np.float32(x - column), np.float32(y - row)


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _project(
    values: NDArray[np.float32],
    first: NDArray[np.int64],
    texel: NDArray[np.float32],
    shown: NDArray[np.float32],
) -> None:
    """What every pixel shows: the mean of its samples, each between four texels."""
    grid, channels = values.shape[0], values.shape[2]
    for p in numba.prange(len(first) - 1):
        for s in range(first[p], first[p + 1]):
            column, row, tx, ty = _corner(grid, texel[s, 0], texel[s, 1])
            w00, w01 = (1 - tx) * (1 - ty), tx * (1 - ty)
            w10, w11 = (1 - tx) * ty, tx * ty
            for k in range(channels):
                shown[p, k] += (
                    w00 * values[row, column, k]
                    + w01 * values[row, column + 1, k]
                    + w10 * values[row + 1, column, k]
                    + w11 * values[row + 1, column + 1, k]
                )
        inverse = np.float32(1.0) / np.float32(first[p + 1] - first[p])
        for k in range(channels):
            shown[p, k] *= inverse


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _back_project(
    error: NDArray[np.float32],
    weight: NDArray[np.float32],
    first: NDArray[np.int64],
    texel: NDArray[np.float32],
    total: NDArray[np.float32],
) -> None:
    """Adds every pixel's weighted error, and its weight, to the texels it is the mean of."""
    parts, grid, channels = total.shape[0], total.shape[1], error.shape[1]
    for part in numba.prange(parts):
        begin, end = (len(first) - 1) * part // parts, (len(first) - 1) * (part + 1) // parts
        for p in range(begin, end):
            for s in range(first[p], first[p + 1]):
                column, row, tx, ty = _corner(grid, texel[s, 0], texel[s, 1])
                for corner in range(4):
                    x, y = corner & 1, corner >> 1
                    share = (tx if x else 1 - tx) * (ty if y else 1 - ty)
                    for k in range(channels):
                        total[part, row + y, column + x, k] += share * error[p, k]
                    total[part, row + y, column + x, channels] += share * weight[p]


def _enlarged(values: Float[np.ndarray, "s s k"], times: int) -> Float[np.ndarray, "S S k"]:
    """Bilinear, with texels' centres at halves."""
    if times == 1:
        return values
    place = (np.arange(values.shape[0] * times) + 0.5) / times - 0.5
    place = np.clip(place, 0, values.shape[0] - 1)
    low = np.minimum(place.astype(np.int64), max(values.shape[0] - 2, 0))
    high = np.minimum(low + 1, values.shape[0] - 1)
    share = (place - low).astype(np.float32)
    rows = values[low] * (1 - share)[:, None, None] + values[high] * share[:, None, None]
    return np.asarray(rows[:, low] * (1 - share)[None, :, None] + rows[:, high] * share[None, :, None])
