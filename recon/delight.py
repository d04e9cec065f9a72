"""Baked light out of base colour: an estimate of the illumination, and of the albedo under it.

In: a mesh with UVs and the colours that its pictures show, light and all. Out: the map with that light
divided out, and what the light was. The model is a diffuse surface under one distant light that stands still.
The logarithm of the shading is a sum of that of what the object leaves open of the sky (as for ambient
occlusion, `recon.ambient`; times a power, since hollows are lit by their own walls) and of the mean of each
spherical harmonic over the directions that reach the point: positive whatever the coefficients, and linear
in them.

One picture cannot tell paint from shade; a whole object nearly can, because the same paint turns towards many
directions. Points whose colours could be one paint (near in chromaticity) are paired, far apart as well as
near, and the light is sought under which the most pairs have one albedo: robust differences of logarithms,
solved on reweighted pairs whose tolerance narrows. That albedos are few is the prior of Gehler et al.
("Recovering Intrinsic Images with a Global Sparsity Prior on Reflectance", 2011) and, with a light that is
smooth and nearly grey, of Barron and Malik ("Shape, Illumination, and Reflectance from Shading", 2015). What
no light explains stays in the colour, as does what metals mirror: they have no diffuse colour.

Exposure and the light's own hue cannot be known: a ball under the same light has a mean shading of one in
every channel. `docs/reconstruct.md` says how good it is, measured by `python -m bench.delight`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from recon.ambient import VisibleLight
from recon.texels import pull_push, texels_of
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.errors import InputError
from render.harmonics import harmonics
from render.occlusion import fibonacci_sphere
from render.progress import Progress, silent
from render.scene import Mesh
from render.shading import untone_mapped, without_reflectance

_FLOOR = 0.02
"""Least shading and open share of the sky: nothing is taken for brighter than fifty times what it shows."""
_HOLLOWS = 0.6
"""Power of the open share of the sky to begin with; less than 1, as hollows are lit by their walls too."""
_DARKEST = 1e-3
"""Linear colour below which a pixel says nothing of light."""


@dataclass(frozen=True)
class DelightConfig:
    """How the light is sought."""

    degree: int = 3
    """Of the light's harmonics: 2 is what smooth irradiance shows, more lets shadows speak."""
    directions: int = 128
    """In which the object may hide the light, over the whole sphere."""
    samples: int = 4000
    """Surface points that are compared."""
    pairs: int = 12
    """Others that each is compared with."""
    chroma: float = 0.18
    """Difference of log-chromaticities at which two points have half the weight of one paint."""
    tolerance: tuple[float, float] = (1.0, 0.15)
    """Difference of log-albedos that still counts as one paint, at the start and at the end."""
    steps: int = 16
    smoothness: float = 3e-5
    """Weight of the light being smooth, beside the pairs' weight of 1."""
    grey: float = 1e-2
    """Weight of its channels being alike."""
    neutral: bool = False
    """The pictures were tone-mapped by Khronos PBR Neutral, as this project's renderers do: undone first."""
    seed: int = 0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "degree": (1, 4),
            "directions": (16, 1024),
            "samples": (100, 100_000),
            "pairs": (1, 256),
            "chroma": (1e-3, 10),
            "steps": (1, 1000),
            "smoothness": (0, 1e3),
            "grey": (0, 1e3),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"delight.{name} is {getattr(self, name)}; it must be from {low:g} to {high:g}"
                )


@dataclass(frozen=True)
class Light:
    """What was divided out."""

    coefficients: Float[np.ndarray, "K 3"]
    """Of the shading's logarithm: the power of the open share of the sky, then the harmonics from degree 1 on
    (`render.harmonics`)."""
    contrast: float
    """Standard deviation of the logarithm of the shading over the surface: 0 is no light to take out."""
    explained: float
    """Share of the paired differences (squared, of those that count as one paint) that the light explains."""

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        rows = [[round(float(c), 4) for c in row] for row in self.coefficients]
        return {"contrast": self.contrast, "explained": self.explained, "coefficients": rows}


def delight(
    mesh: Mesh,
    color_srgb: Float[np.ndarray, "S S 3"],
    config: DelightConfig | None = None,
    *,
    occluder: Mesh | None = None,
    progress: Progress = silent,
) -> tuple[Float[np.ndarray, "S S 3"], Light]:
    """The map of `mesh` (which must have UVs and normals) without the light, and the light.

    `occluder`, by default the mesh, is what throws shadows. The same arguments give the same bits.
    """
    config = config or DelightConfig()
    assert mesh.normals is not None
    texels = texels_of(mesh, len(color_srgb))
    known = texels.face >= 0
    positions = texels.interpolate(mesh.vertices, mesh.faces)
    normals = texels.interpolate(mesh.normals, mesh.faces)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    colors = srgb_to_linear_np(np.asarray(color_srgb[known], np.float32))
    if config.neutral:
        colors = untone_mapped(colors)
    blocking = occluder or mesh
    sky = VisibleLight(blocking.vertices, blocking.faces, config.directions)
    rng = np.random.default_rng(config.seed)
    bright = np.flatnonzero(colors.max(1) > _DARKEST)
    if len(bright) < 100:
        raise InputError("the texture is black nearly everywhere: no light can be told from paint")
    some = bright[rng.permutation(len(bright))[: config.samples]]
    progress(0.1, "finding the light")
    basis = _basis(sky, positions[some], normals[some], config.degree)
    light = _found(basis, positions[some], colors[some], config, rng)
    progress(0.5, "taking the light out")
    shading = _shading(sky, positions, normals, light.coefficients, config.degree)
    colors = colors / shading
    if config.neutral:
        colors = without_reflectance(colors)
    image = np.zeros_like(color_srgb)
    image[known] = linear_to_srgb_np(np.clip(colors, 0, 1).astype(np.float32))
    spread = float(np.log(shading.mean(1)).std())
    light = Light(light.coefficients, round(spread, 4), light.explained)
    progress(1.0, "light is out")
    return pull_push(image, known), light


def _basis(
    sky: VisibleLight, positions: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], degree: int
) -> Float[np.ndarray, "n K"]:
    """What the logarithm of the shading is a sum of: that of the open share of the sky, and the mean
    of every harmonic over the directions that reach the point."""
    values = harmonics(sky.directions, degree)[:, 1:]
    total = np.full(len(positions), 1e-4)
    out = np.zeros((len(positions), values.shape[1] + 1))
    for index, reached in enumerate(sky.reaching(positions, normals)):
        total += reached
        out[:, 1:] += reached[:, None] * values[index]
    out[:, 1:] /= total[:, None]
    out[:, 0] = np.log(np.maximum(total, _FLOOR))
    return out


def _shading(
    sky: VisibleLight,
    positions: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    coefficients: Float[np.ndarray, "K 3"],
    degree: int,
) -> Float[np.ndarray, "n 3"]:
    """The shading of many points, without holding their bases; a ball's has a mean of 1 in every channel."""
    each = (harmonics(sky.directions, degree)[:, 1:] @ coefficients[1:]).astype(np.float32)
    total = np.full(len(positions), 1e-4, np.float32)
    mean = np.zeros((len(positions), 3), np.float32)
    for index, reached in enumerate(sky.reaching(positions, normals)):
        total += reached
        for c in range(3):
            mean[:, c] += reached * each[index, c]
    open_sky = np.log(np.maximum(total, _FLOOR))[:, None] * coefficients[0].astype(np.float32)
    logs = open_sky + mean / total[:, None]
    return np.asarray(np.maximum(np.exp(logs) / _of_a_ball(coefficients, degree), _FLOOR), np.float32)


def _of_a_ball(coefficients: Float[np.ndarray, "K 3"], degree: int) -> Float[np.ndarray, "3"]:
    """Mean shading over a ball, which hides nothing from itself."""
    normals = fibonacci_sphere(500)
    cosines = np.maximum(normals @ normals.T, 0)
    means = cosines @ harmonics(normals, degree)[:, 1:] / cosines.sum(1, keepdims=True)
    return np.asarray(np.exp(means @ coefficients[1:]).mean(0))


def _found(
    basis: Float[np.ndarray, "n K"],
    positions: Float[np.ndarray, "n 3"],
    colors: Float[np.ndarray, "n 3"],
    config: DelightConfig,
    rng: np.random.Generator,
) -> Light:
    """The coefficients under which the most pairs have one albedo."""
    log_color = np.log(np.maximum(colors, _DARKEST)).astype(np.float64)
    first, second = _pairs(positions, config.pairs, rng)
    count = basis.shape[1]
    orders = np.arange(1, config.degree + 1)
    degrees = np.repeat(orders, 2 * orders + 1)
    stiff = config.smoothness * np.concatenate([[1.0], (degrees * (degrees + 1.0)) ** 2 / 4])
    start = np.zeros((count, 3))
    start[0] = _HOLLOWS
    light = start.copy()
    apart = log_color[first] - log_color[second]
    slope = basis[first] - basis[second]
    explained = 0.0
    for step in range(config.steps):
        share = step / max(config.steps - 1, 1)
        tolerance = config.tolerance[0] ** (1 - share) * config.tolerance[1] ** share
        rest = apart - slope @ light
        level = rest.mean(1)
        hue = rest - level[:, None]
        weight = np.exp2(-((hue**2).mean(1) / config.chroma**2)) * np.exp(-0.5 * (level / tolerance) ** 2)
        weight /= max(float(weight.sum()), 1e-12)
        explained = 1 - float(weight @ level**2) / max(float(weight @ apart.mean(1) ** 2), 1e-12)
        weighted = slope * weight[:, None]
        normal, right = weighted.T @ slope, weighted.T @ apart
        # The mean of the channels is drawn to what an even sky gives, and each of them to the mean.
        stiffness = np.diag(stiff)
        mean = np.linalg.solve(normal + stiffness, right.mean(1) + stiff * start[:, 0])
        tint = np.linalg.solve(
            normal + stiffness + config.grey * np.eye(count), right - (normal @ mean)[:, None]
        )
        light = mean[:, None] + tint - tint.mean(1, keepdims=True)
    return Light(light, 0.0, round(explained, 4))


def _pairs(
    positions: Float[np.ndarray, "n 3"], count: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Every point with its nearest ones, half of `count`, and as many from anywhere."""
    number = len(positions)
    near = max(1, count // 2)
    _, found = cKDTree(positions).query(positions, k=near + 1)
    first = np.repeat(np.arange(number), near)
    second = found[:, 1:].reshape(-1)
    far = rng.integers(0, number, (2, number * max(1, count - near)))
    return np.concatenate([first, far[0]]), np.concatenate([second, far[1]])
