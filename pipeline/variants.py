"""The picture of all variants of a prompt: a row for each seed, best to judge by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from render.gbuffer import ViewSet

_BACKGROUND = (30, 32, 36)
_TEXT = (225, 228, 232)
_LABEL_PX = 18
_COLUMNS = 6


def variants_sheet(sets: Sequence[ViewSet], labels: Sequence[str]) -> Image.Image:
    """Base colour of the first views of each set, one set a row, its label above."""
    width, height = sets[0].cameras.width, sets[0].cameras.height
    columns = min(_COLUMNS, len(sets[0]))
    sheet = Image.new("RGB", (columns * width, len(sets) * (height + _LABEL_PX)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for row, (views, label) in enumerate(zip(sets, labels, strict=True)):
        top = row * (height + _LABEL_PX)
        draw.text((6, top + 3), label, fill=_TEXT, font=font)
        # Evenly over the ring, so that front, sides and back are all seen.
        chosen = np.linspace(0, len(views), columns, endpoint=False).astype(int)
        for column, view in enumerate(chosen.tolist()):
            buffer = views.gbuffer
            color = buffer.base_color_srgb if buffer.base_color_srgb is not None else buffer.rgb_srgb
            alpha = buffer.alpha[view].numpy()
            rgb = alpha.repeat(3, -1) * 0.7 if color is None else color[view].numpy()
            background = np.asarray(_BACKGROUND, np.float32) / 255
            pixels = rgb * alpha + background * (1 - alpha)
            tile = Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8))
            sheet.paste(tile, (column * width, top + _LABEL_PX))
    return sheet
