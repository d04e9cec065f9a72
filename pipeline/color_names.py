"""Names of colours, and which of them a pixel is nearest to.

Captions, the choice among drawn views and the benches use the same ones.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from render.gbuffer import GBuffer

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (200, 45, 45), "dark red": (120, 30, 35), "orange": (235, 130, 40), "yellow": (245, 205, 65),
    "gold": (205, 160, 60), "green": (70, 165, 75), "dark green": (35, 90, 55),
    "light green": (150, 210, 110),
    "teal": (50, 165, 155), "light blue": (130, 195, 235), "blue": (60, 110, 205), "dark blue": (35, 50, 110),
    "purple": (125, 75, 170), "pink": (240, 150, 180), "brown": (130, 85, 55), "dark brown": (80, 52, 40),
    "beige": (215, 185, 145), "white": (238, 238, 238), "light grey": (190, 192, 196),
    "grey": (135, 138, 142), "dark grey": (78, 80, 86), "black": (32, 32, 36),
}  # fmt: skip
COLOR_WORDS = tuple(COLORS)
SHADES = {
    base: tuple(name for name in COLOR_WORDS if name.split()[-1] == base)
    for base in dict.fromkeys(name.split()[-1] for name in COLOR_WORDS)
}
"""Light, dark and plain of each colour."""


def nearest_colors(rgb: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Index in `COLOR_WORDS` of the nearest colour (CIE Lab distance) of each of sRGB `rgb` in 0..255."""
    from skimage.color import rgb2lab

    palette = rgb2lab(np.array(list(COLORS.values()), np.float32)[None] / 255)[0]
    lab = rgb2lab(rgb[None] / 255)[0]
    return np.linalg.norm(lab[:, None] - palette[None], axis=-1).argmin(1)


def color_shares(gbuffer: GBuffer) -> dict[str, float]:
    """Share of the covered pixels whose nearest word is each word; zeros if nothing is covered."""
    assert gbuffer.base_color_srgb is not None
    rgb = gbuffer.base_color_srgb[gbuffer.alpha[..., 0] > 0.5].numpy()
    if len(rgb) == 0:
        return dict.fromkeys(COLOR_WORDS, 0.0)
    distinct, count = np.unique(np.round(rgb * 31).astype(np.uint8), axis=0, return_counts=True)
    nearest = nearest_colors(distinct * np.float32(255 / 31))
    share = np.bincount(nearest, count, len(COLOR_WORDS)) / count.sum()
    return dict(zip(COLOR_WORDS, share.tolist(), strict=True))
