"""The picture of all variants of a prompt, to judge the ranking by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from render.contact_sheet import sheet
from render.gbuffer import ViewSet


def variants_sheet(sets: Sequence[ViewSet], labels: Sequence[str]) -> Image.Image:
    """Base colour of four views of each set (front, sides and back of a ring), its label below."""
    return sheet([_four_views(views) for views in sets], labels)


def _four_views(views: ViewSet) -> Image.Image:
    buffer = views.gbuffer
    color = buffer.base_color_srgb if buffer.base_color_srgb is not None else buffer.rgb_srgb
    if color is None:
        color = buffer.alpha.expand(-1, -1, -1, 3) * 0.7
    rgba = np.concatenate([color.numpy(), buffer.alpha.numpy()], -1).clip(0, 1)
    pixels = (rgba * 255 + 0.5).astype(np.uint8)
    # Of eight views around and others after them, every second of the eight.
    chosen = np.linspace(0, min(len(views), 8), 4, endpoint=False).astype(int)
    height, width = pixels.shape[1:3]
    tile = Image.new("RGBA", (2 * width, 2 * height))
    for place, view in enumerate(chosen.tolist()):
        tile.paste(Image.fromarray(pixels[view]), (place % 2 * width, place // 2 * height))
    return tile
