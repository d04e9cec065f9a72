"""Cuts the object out of a picture and frames it as the model's reference view.

In: any RGBA picture. Out: a square RGBA picture with the object centred and filling
80 % of it. The mask comes from the first that can tell:

1. the picture's own alpha;
2. a plain background, also one that is lit unevenly: a quadratic colour model of the border in
   CIE Lab, flooded inwards from the border, less the parts that differ from it only faintly but have
   an edge around them;
3. `rembg`, when it is installed;
4. colour statistics of border against centre, made sharp by a random walk (Grady, 2006, in
   scikit-image): the idea of GrabCut (Rother et al., 2004) with soft labels.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage
from skimage.color import lab2rgb, rgb2lab
from skimage.segmentation import random_walker

from render.conventions import srgb_to_linear_np
from render.errors import InputError

Method = Literal["alpha", "plain background", "rembg", "colour statistics"]

FILL = 0.8
"""Part of the frame that the object's longer side takes; the model is trained with such references."""
MAX_FRAME_PX = 512
WORK_SIDE_PX = 1024
"""Pictures are cut out at no more than this: a frame of the model has 128 pixels."""
PLAIN_BORDER = 0.8
"""Part of the border that must fit the background's model; the rest may be the object, cut by the frame."""
MIN_THRESHOLD = 7.0
"""Lab units: above JPEG's noise (2 to 4 at quality 75), below what a plain object differs by."""
FAINT_THRESHOLD = 2.5
"""Lab units: what a faint part of the object must differ by, where the picture has no noise to speak of."""
FAINT_STEP = 1.5
"""Lab units: the least step that counts as an edge of a faint part."""
FAINT_EDGE = 0.65
"""Share of the contour of a faint part that must be an edge. Shadows and uneven light, which fade, have next
to none; what is left to the contour of a faint part may be a gap in the edge, through which a flood leaks."""
FAINT_SIZE = 2e-3
"""Share of the picture that a faint part covers at least; what JPEG leaves beside an edge is smaller."""
LIGHTNESS_WEIGHT = 0.6
"""Shadows on the background change L and hardly a and b; they should not count as object."""


@dataclass(frozen=True)
class CutOut:
    """A framed object and how it was found."""

    image: Image.Image
    """Square RGBA; colours of soft edges are the object's own."""
    method: Method


def cut_out(image: Image.Image) -> CutOut:
    """The object of an RGBA picture, framed. `InputError` when none can be told from the background."""
    image = image.convert("RGBA")
    if max(image.size) > WORK_SIDE_PX:
        image = _resized(image, WORK_SIDE_PX / max(image.size))
    rgb, alpha, method = matte(image)
    return CutOut(_framed(rgb, alpha), method)


def matte(image: Image.Image) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"], Method]:
    """Colours (corrected on soft edges) and alpha of the object in an RGBA picture, and how it was found.

    `InputError` when none can be told from the background.
    """
    pixels = np.asarray(image, np.float32) / 255.0
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    if alpha.max() < 0.5:
        raise InputError("The image is fully transparent; there is nothing to make.")
    if (alpha < 0.5).mean() > 0.005:
        return rgb, alpha, "alpha"
    plain = plain_background_alpha(rgb)
    if plain is not None:
        return plain[1], plain[0], "plain background"
    if importlib.util.find_spec("rembg") is not None:
        return rgb, _rembg_alpha(image), "rembg"
    return rgb, statistics_alpha(rgb), "colour statistics"


def plain_background_alpha(
    rgb: Float[np.ndarray, "H W 3"],
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W 3"]] | None:
    """Alpha and edge-corrected colours when the background is plain, else None."""
    height, width = rgb.shape[:2]
    lab = rgb2lab(rgb).astype(np.float32)
    border = _border(height, width, max(2, round(0.02 * min(height, width))))
    background_lab, scatter = _background_model(lab, border)
    sigma = min(0.11 * scatter, 1.5)  # brings white noise down to 2.5 Lab units
    if sigma > 0.4:
        lab = ndimage.gaussian_filter(lab, (sigma, sigma, 0.0))
        background_lab, scatter = _background_model(lab, border)
    distance = _distance(lab, background_lab)
    threshold = max(MIN_THRESHOLD, 4.0 * scatter)
    if threshold > 3 * MIN_THRESHOLD or (distance[border] < threshold).mean() < PLAIN_BORDER:
        return None
    similar = distance < threshold
    labels, _ = ndimage.label(similar)
    reached = np.unique(labels[_border(height, width, 1) & similar])
    background = np.isin(labels, reached[reached > 0])
    # Holes (a handle, the gap in a chair's back) are background when they match it much better than the
    # threshold asks: a pale patch of the object seldom does.
    sizes = ndimage.sum_labels(similar, labels, np.arange(labels.max() + 1))
    medians = ndimage.median(distance, labels, np.arange(labels.max() + 1))
    holes = np.flatnonzero(
        (sizes > 5e-4 * height * width) & (np.nan_to_num(medians, nan=9e9) < threshold / 4)
    )
    background |= np.isin(labels, holes[holes > 0])
    background = _with_shadows(rgb, lab, background_lab, background)
    background &= ~_faint_parts(lab, background)
    solid = _without_specks(~background)
    if not solid.any() or solid.mean() > 0.95:
        return None
    # Soft edge: where a pixel of the rim is a mixture, its distance to the background lies between 0 and
    # that of the object's colour next to it.
    inside = ndimage.binary_erosion(solid, iterations=2)
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    full = distance[tuple(nearest)] if inside.any() else distance
    rim = ndimage.binary_dilation(solid, iterations=1) & ~inside
    ramp = np.where(full < threshold, 1.0, np.clip(distance / np.maximum(full, threshold), 0.0, 1.0))
    alpha = np.where(rim, ramp, solid).astype(np.float32)
    corrected = np.where((rim & (alpha < 0.99))[..., None], rgb[tuple(nearest)] if inside.any() else rgb, rgb)
    return alpha, corrected.astype(np.float32)


def _with_shadows(
    rgb: Float[np.ndarray, "H W 3"],
    lab: Float[np.ndarray, "H W 3"],
    background_lab: Float[np.ndarray, "H W 3"],
    background: Bool[np.ndarray, "H W"],
) -> Bool[np.ndarray, "H W"]:
    """The background and the soft shadows that lie on it.

    A shadow is the background's colour times a factor, and fades in without an edge. A grey object on
    white has the colour of a shadow too, but an edge around it, where the flood stops.
    """
    base = np.maximum(srgb_to_linear_np(lab2rgb(background_lab).astype(np.float32)), 1e-3)
    ratio = srgb_to_linear_np(rgb) / base
    red, green, blue = np.moveaxis(ratio, -1, 0)
    factor = (red + green + blue) / 3.0
    tint = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    grey = (tint < 0.12 * np.maximum(factor, 0.2)) & (factor > 0.25) & (factor < 1.05)
    lightness = ndimage.gaussian_filter(lab[..., 0], 1.0)
    soft = np.hypot(*np.gradient(lightness)) < 2.5  # Lab units per pixel
    labels, _ = ndimage.label((grey & soft) | background)
    touched = np.unique(labels[background])
    shadow = np.isin(labels, touched[touched > 0])
    # A pixel or two between shadow and object are neither: part of the edge.
    return background | ndimage.binary_opening(shadow, iterations=1)


def _faint_parts(
    lab: Float[np.ndarray, "H W 3"], background: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """Parts of `background` that are object: hardly of another colour, but bounded by an edge.

    Both thresholds follow the noise, so that a clean picture is held to finer differences. The pieces that
    differ are judged whole, by how much of their contour is an edge: a flood that stops at edges would leak
    through the first gap.
    """
    height, width = background.shape
    border = _border(height, width, max(2, round(0.02 * min(height, width))))
    smooth = ndimage.gaussian_filter(lab, (1.0, 1.0, 0.0))
    model, scatter = _background_model(smooth, border)
    sigma = min(0.56 * scatter, 2.5)  # brings white noise, after the first pixel of blur, down to half a unit
    if sigma > 1.0:
        smooth = ndimage.gaussian_filter(lab, (sigma, sigma, 0.0))
        model, scatter = _background_model(smooth, border)
    span = max(2, round(height / 250))
    step = _step(smooth, span)
    noise = max(np.quantile(step[background], 0.9), np.quantile(step[border & background], 0.95))
    edges = step > max(FAINT_STEP, 1.35 * noise)
    labels, _ = ndimage.label(edges, np.ones((3, 3)))
    edges &= (np.bincount(labels.ravel()) >= 16 * span)[labels]  # noise makes short ones
    distance = _distance(smooth, model)
    low = max(FAINT_THRESHOLD, 4.0 * scatter)
    faint = (distance > low) & (background | (distance < low + MIN_THRESHOLD))
    # Thick pieces only: the blur and JPEG's ringing leave a seam around all that differs strongly.
    labels, count = ndimage.label(ndimage.binary_opening(faint & ~edges, iterations=2 * span))
    grown = ndimage.grey_dilation(labels, footprint=ndimage.generate_binary_structure(2, 1))
    # Next to the rest of the object there is an edge in any case.
    beside_object = ndimage.binary_dilation(~(background | faint), iterations=2 * span + 2)
    contour = (labels == 0) & (grown > 0) & ~beside_object
    at_edge = contour & ndimage.binary_dilation(edges, iterations=2)
    lengths = np.bincount(grown[contour], minlength=count + 1)
    edge_lengths = np.bincount(grown[at_edge], minlength=count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = (edge_lengths > FAINT_EDGE * lengths) & (sizes > FAINT_SIZE * height * width)
    kept[0] = False
    # From the pieces to the middle of the edge.
    parts = ndimage.binary_dilation(kept[labels], iterations=span, mask=background)
    # Where the object's shade crosses the background's, a faint part has dents.
    reach = 3 * span
    object_here = parts | (~background & ndimage.binary_dilation(parts, iterations=reach))
    closed = ndimage.binary_closing(np.pad(object_here, reach), iterations=reach)
    return np.asarray(closed[reach:-reach, reach:-reach] & background)


def _step(values: Float[np.ndarray, "H W C"], span_px: int) -> Float[np.ndarray, "H W"]:
    """How much `values` change over twice `span_px`, less what the change on both sides would explain.

    The length of the edge of a step, but nothing on a ramp, however steep.
    """
    found = np.zeros(values.shape[:2], np.float32)
    for axis in (0, 1):
        along = np.moveaxis(values, axis, 0)
        change = np.zeros_like(along)
        change[span_px:-span_px] = along[2 * span_px :] - along[: -2 * span_px]
        sides = np.zeros_like(along)
        sides[2 * span_px :] += change[: -2 * span_px]
        sides[: -2 * span_px] += change[2 * span_px :]
        size = np.sqrt(np.einsum("abc,abc->ab", change, change))
        explained = np.maximum(np.einsum("abc,abc->ab", change, sides), 0.0) / np.maximum(2.0 * size, 1e-3)
        found = np.maximum(found, np.moveaxis(size - explained, 0, axis))
    return found


def _distance(
    lab: Float[np.ndarray, "H W 3"], background_lab: Float[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "H W"]:
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0], np.float32)
    difference = (lab - background_lab) * weights
    return np.sqrt(np.einsum("hwc,hwc->hw", difference, difference))


def _background_model(
    lab: Float[np.ndarray, "H W 3"], border: Bool[np.ndarray, "H W"]
) -> tuple[Float[np.ndarray, "H W 3"], float]:
    """Quadratic surface through the border's Lab colours and its scatter (robust, in Lab units).

    Reweighted least squares with Cauchy weights: parts of the border that the object covers lose their say.
    """
    height, width = lab.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1).reshape(-1, 6)
    chosen = np.flatnonzero(border.ravel())
    chosen = chosen[:: max(1, len(chosen) // 8000)]
    design, target = terms[chosen], lab.reshape(-1, 3)[chosen].astype(np.float64)
    # The start is the commonest colour, not the mean: the object may cover a third of the border.
    start = np.median(target, axis=0)
    residual = np.linalg.norm(target - start, axis=1)
    coefficients = np.zeros((6, 3))
    for _ in range(12):
        scale = max(1.5 * float(np.median(residual)), 1.0)
        weights = 1.0 / (1.0 + (residual / scale) ** 2)
        weighted = design * weights[:, None]
        # The ridge keeps the curved terms small where the border says little about them.
        ridge = np.diag([1e-9, 1e-2, 1e-2, 1e-1, 1e-1, 1e-1]) * weights.sum()
        coefficients = np.linalg.solve(design.T @ weighted + ridge, weighted.T @ target)
        residual = np.linalg.norm(target - design @ coefficients, axis=1)
    model = (terms @ coefficients).reshape(lab.shape).astype(np.float32)
    return model, float(np.median(residual))


def statistics_alpha(rgb: Float[np.ndarray, "H W 3"], rounds: int = 4) -> Float[np.ndarray, "H W"]:
    """Alpha of the object in the middle of a cluttered picture. `InputError` when it does not stand out."""
    height, width = rgb.shape[:2]
    scale = min(1.0, 160 / max(height, width))
    small = np.asarray(_resized(Image.fromarray((rgb * 255).astype(np.uint8)), scale), np.float32) / 255.0
    rows, columns = small.shape[:2]
    lab = rgb2lab(small)
    bins = np.clip(((lab + np.array([0.0, 110.0, 110.0])) / [101, 220, 220] * 16).astype(int), 0, 15)
    flat = np.ravel_multi_index(tuple(np.moveaxis(bins, -1, 0)), (16, 16, 16))
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    radius = np.hypot(x, y)
    border = _border(rows, columns, max(2, rows // 20))
    weight = np.exp(-2.0 * radius**2)
    weight[border] = 0.0
    for _ in range(rounds):
        inside = _colour_histogram(flat, weight)
        outside = _colour_histogram(flat, 1.0 - weight)
        likelihood = inside / (inside + outside)
        score = likelihood[flat] * np.exp(-0.5 * radius**2)
        labels = np.zeros((rows, columns), np.int32)
        labels[(score > np.quantile(score, 0.9)) & ~border] = 1
        labels[(score < np.quantile(score, 0.35)) | border] = 2
        with warnings.catch_warnings():
            # Across strong edges the system is nearly singular; values outside [0, 1] are clipped below.
            warnings.filterwarnings("ignore", "The probability range", UserWarning)
            probability = random_walker(
                lab / 100.0, labels, beta=400, mode="cg_j", channel_axis=-1, return_full_prob=True
            )[0]
        weight = np.clip(np.nan_to_num(probability), 0.0, 1.0)
        weight[border] = 0.0
    alpha = ndimage.zoom(weight, (height / rows, width / columns), order=1, grid_mode=True, mode="nearest")
    alpha = np.clip((alpha[:height, :width] - 0.4) / 0.2, 0.0, 1.0).astype(np.float32)
    alpha *= _without_specks(alpha > 0.5)
    separation = abs(float(np.average(likelihood[flat], weights=weight + 1e-9)) - 0.5)
    if not 0.02 < (alpha > 0.5).mean() < 0.8 or separation < 0.15:
        raise InputError(
            "The object cannot be told from the background of the image. Use a plain background or a PNG "
            'with transparency, or: pip install "maquette[cutout]"'
        )
    return alpha


def _colour_histogram(flat: np.ndarray, weight: np.ndarray) -> Float[np.ndarray, " bins"]:
    counts = np.bincount(flat.ravel(), weight.ravel(), minlength=16**3).reshape(16, 16, 16)
    smooth = ndimage.gaussian_filter(counts, 0.7).ravel() + 1e-3
    return smooth / smooth.sum()


def _rembg_alpha(image: Image.Image) -> Float[np.ndarray, "H W"]:
    from rembg import remove

    try:
        mask = remove(image.convert("RGB"), only_mask=True)
    except Exception as error:  # its model downloads on first use and fails in as many ways as networks do
        raise InputError(f"rembg could not cut out the image: {error}") from error
    return np.asarray(mask.convert("L"), np.float32) / 255.0


def _border(height: int, width: int, thickness_px: int) -> Bool[np.ndarray, "H W"]:
    border = np.ones((height, width), bool)
    border[thickness_px:-thickness_px, thickness_px:-thickness_px] = False
    return border


def _without_specks(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """`mask` without the parts smaller than a fiftieth of the largest."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = ndimage.sum_labels(mask, labels, np.arange(count + 1))
    return np.isin(labels, np.flatnonzero(sizes >= sizes.max() / 50)) & mask


def _resized(image: Image.Image, scale: float) -> Image.Image:
    """Smaller or larger, with colours weighted by alpha."""
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.mode != "RGBA":
        return image.resize(size, Image.Resampling.LANCZOS)
    return image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def _framed(rgb: Float[np.ndarray, "H W 3"], alpha: Float[np.ndarray, "H W"]) -> Image.Image:
    """The object centred in a square, its longer side `FILL` of it."""
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    if len(rows) == 0:
        raise InputError("No object was found in the image; there is nothing to make.")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    longer = int(max(bottom - top, right - left))
    if longer < 24:
        raise InputError(f"The object in the image is only {longer} pixels large; at least 24 are needed.")
    side = round(longer / FILL)
    rgba = (np.concatenate([rgb, alpha[..., None]], -1) * 255 + 0.5).astype(np.uint8)
    picture = Image.fromarray(rgba)
    frame = Image.new("RGBA", (side, side))
    # Soft rims reach past the box by a pixel or two; the crop takes the whole frame around it.
    corner = (int(left + right - side) // 2, int(top + bottom - side) // 2)
    frame.paste(picture.crop((*corner, corner[0] + side, corner[1] + side)))
    return _resized(frame, min(1.0, MAX_FRAME_PX / side))
