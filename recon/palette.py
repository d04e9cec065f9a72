"""Materials of one colour each, with sharp borders, out of views that blur and mottle them.

Props of the kind that the views are drawn of are painted in a few flat colours; a small network draws these
with stains, with borders blurred over pixels, and every view lays them elsewhere. `palette_of` finds the few
materials (base colour, metallic, roughness) of the views' even parts. Every pixel belongs to those of them
that are found around it, to the nearer the more (`memberships`), so that the middle of a blurred border is
where two belong equally; gathered on the surface like any other channel (`recon.gathering`), the largest
membership says which material a texel has. Its value is the mean of that material around it
(`flattened`): gradients that are wider than that stay.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

_SCALE = np.array([1.0, 1.0, 1.0, 0.35, 0.2], np.float32)
"""What a difference counts: of base colour (sRGB) fully, of metallic and roughness less."""
_APART = 0.17
"""Colours of one material lie within this of its mean: stains do, the red of a roof and its wall do not."""
_STAIN = 0.155
"""Materials nearer to each other than this are one: the stains of a tower's wall were 0.15 from it, the dark
windows of a house 0.16 from theirs."""
_STRANGE = 0.2
"""What is this far from all materials and their mixtures is too small to be one, and stays as it is."""
_MIXED = 0.08
"""A rarer material this near to the line between two commoner ones is what is seen on their border."""
_EVEN = 0.12
"""Largest difference within 3 x 3 pixels of an even part."""
_LEAST = 0.006
"""A material has at least this share of the pixels."""
_MOST = 12
_BIN = 0.06
_NEAR = 0.1
"""Standard deviation of memberships."""


def palette_of(
    channels: Float[np.ndarray, "C H W 5"], alpha: Float[np.ndarray, "C H W"]
) -> NDArray[np.float32]:
    """Materials `[K, 5]`, the commonest first; at least one."""
    covered = alpha > 0.9
    scaled = channels * _SCALE
    shown = np.where(covered[..., None], scaled, np.nan)
    with np.errstate(invalid="ignore"):
        high = maximum_filter(np.where(covered[..., None], scaled, -9.0), (1, 3, 3, 1))
        low = minimum_filter(np.where(covered[..., None], scaled, 9.0), (1, 3, 3, 1))
    even = covered & ((high - low).max(-1) < _EVEN)
    pixels = shown[even] if even.sum() > 50 else shown[covered]
    if len(pixels) == 0:
        return np.array([[0.5, 0.5, 0.5, 0.0, 0.8]], np.float32)
    key = np.round(pixels / _BIN).astype(np.int64)
    _, group, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    bins = np.stack([np.bincount(group.ravel(), pixels[:, i]) / count for i in range(5)], 1)
    left = count.astype(np.float64)
    centers: list[NDArray[np.float64]] = []
    while len(centers) < _MOST and left.max() > 0:
        # The commonest colour that is left, and the mean of what is near it, twice.
        center = bins[left.argmax()]
        for _ in range(2):
            near = left * (np.linalg.norm(bins - center, axis=1) < _APART)
            if near.sum() == 0:
                break
            center = (near[:, None] * bins).sum(0) / near.sum()
        taken = (np.linalg.norm(bins - center, axis=1) < _APART) | (left == left.max())
        if left[taken].sum() >= _LEAST * count.sum() or not centers:
            centers.append(center)
        left[taken] = 0
    found = np.array(centers)
    for _ in range(4):
        nearest = np.linalg.norm(bins[:, None] - found, axis=-1).argmin(1)
        share = np.bincount(nearest, count, len(found))
        means = [
            np.bincount(nearest, count * bins[:, i], len(found)) / np.maximum(share, 1) for i in range(5)
        ]
        found = np.stack(means, 1)[share >= _LEAST * count.sum()]
    return (_distinct(found, share[share >= _LEAST * count.sum()]) / _SCALE).astype(np.float32)


def _distinct(centers: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without stains of a commoner material and without mixtures of two, the commonest first."""
    order = np.argsort(-shares, kind="stable")
    kept: list[NDArray[np.float64]] = []
    for i in order:
        center = centers[i]
        stain = any(float(np.linalg.norm(center - other)) < _STAIN for other in kept)
        mixed = any(_between(center, a, b) for n, a in enumerate(kept) for b in kept[:n])
        if not stain and not mixed:
            kept.append(center)
    return np.array(kept)


def _between(x: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    along = b - a
    t = float((x - a) @ along / max(float(along @ along), 1e-12))
    return 0.1 < t < 0.9 and float(np.linalg.norm(a + t * along - x)) < _MIXED


def memberships(
    channels: Float[np.ndarray, "C H W 5"],
    alpha: Float[np.ndarray, "C H W"],
    palette: Float[np.ndarray, "K 5"],
) -> NDArray[np.float32]:
    """How much every pixel belongs to every material, `[C, H, W, K]`; they sum to 1."""
    scaled, centers = channels * _SCALE, palette * _SCALE
    distance = np.stack([((scaled - center) ** 2).sum(-1) for center in centers], -1)
    nearest = np.where(alpha > 0.9, distance.argmin(-1), -1)
    high = maximum_filter(scaled, (1, 3, 3, 1)) - minimum_filter(scaled, (1, 3, 3, 1))
    sure = high.max(-1) < 2 * _EVEN
    out = np.zeros(distance.shape, np.float32)
    for k in range(len(palette)):
        # On a border between two materials a third may be the nearest: only those that have an even part
        # within reach count.
        around = maximum_filter(((nearest == k) & sure).astype(np.uint8), (1, 7, 7)) > 0
        out[..., k] = np.where(around, np.exp(-distance[..., k] / (2 * _NEAR**2)) + 1e-12, 0)
    total = out.sum(-1, keepdims=True)
    alone = np.eye(len(palette), dtype=np.float32)[distance.argmin(-1)]
    return np.asarray(np.where(total > 0, out / np.maximum(total, 1e-30), alone), np.float32)


def strange(values: Float[np.ndarray, "n 5"], palette: Float[np.ndarray, "K 5"]) -> NDArray[np.float32]:
    """From 0 for materials and mixtures of two to 1 for what is neither, such as the hub of a wheel."""
    scaled, centers = values * _SCALE, palette * _SCALE
    least = ((scaled - centers[0]) ** 2).sum(1)
    for n, a in enumerate(centers):
        for b in centers[:n]:
            along = b - a
            t = np.clip((scaled - a) @ along / max(float(along @ along), 1e-12), 0, 1)
            least = np.minimum(least, ((scaled - a - t[:, None] * along) ** 2).sum(1))
    return np.asarray(np.clip(np.sqrt(least) / (_STRANGE / 2) - 1.5, 0, 1), np.float32)


def flattened(
    positions: Float[np.ndarray, "n 3"],
    values: Float[np.ndarray, "n k"],
    material: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    cell: float,
) -> NDArray[np.float32]:
    """The weighted mean of the values of each point's material around it, some two cells wide.

    A bilateral grid (Chen, Paris and Durand, 2007) whose range is the material.
    """
    place = positions / cell
    corner = np.floor(place).astype(np.int64)
    corner -= (low := corner.min(0) - 1)
    part = (place - low - corner).astype(np.float32)
    span = corner.max(0) + 3
    size = int(span.prod())
    count = int(material.max()) + 1
    columns = np.concatenate([values * weights[:, None], weights[:, None]], 1)
    grid = np.zeros((count * size, columns.shape[1]))
    ends = [(np.array([i, j, k]), _share(part, i, j, k)) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    for step, share in ends:
        index = _index(corner + step, span) + material * size
        for column in range(columns.shape[1]):
            grid[:, column] += np.bincount(index, share * columns[:, column], count * size)
    blurred = grid.reshape(count, *span, -1)
    for axis in (1, 2, 3):
        blurred = _blurred(blurred, axis)
    grid = blurred.reshape(count * size, -1)
    found = np.zeros(columns.shape)
    for step, share in ends:
        found += share[:, None] * grid[_index(corner + step, span) + material * size]
    total = found[:, -1:]
    return np.where(total > 1e-6, found[:, :-1] / np.maximum(total, 1e-6), values).astype(np.float32)


def _share(part: NDArray[np.float32], *step: int) -> NDArray[np.float32]:
    sides = [part[:, axis] if on else 1 - part[:, axis] for axis, on in enumerate(step)]
    return np.asarray(sides[0] * sides[1] * sides[2])


def _index(at: NDArray[np.int64], span: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray((at[:, 0] * span[1] + at[:, 1]) * span[2] + at[:, 2])


def _blurred(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """1, 2, 1 along one axis."""
    out = 2 * values
    moved = np.moveaxis(out, axis, 0)
    given = np.moveaxis(values, axis, 0)
    for low, high in pairwise(range(len(given))):
        moved[low] += given[high]
        moved[high] += given[low]
    return out
