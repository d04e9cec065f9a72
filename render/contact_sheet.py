"""Contact sheets: labelled pictures on one page.

`views_sheet` shows all channels of all views of a `ViewSet` (what the diffusion model drew); `sheet` any
pictures with labels (galleries, variants).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from render.cameras import Cameras
from render.gbuffer import ViewSet

_PAPER = (247, 247, 245)
_INK = (38, 40, 43)
_FAINT = (128, 131, 136)
_CELL = (255, 255, 255)
_LINE = (226, 227, 228)
_WHITE = (1.0, 1.0, 1.0)
_BLUE = (0.55, 0.68, 0.84)
"""Behind grey channels, where white and black must both stand out."""
_TITLES = {
    "base_color_srgb": "base colour",
    "rgb_srgb": "colour",
    "normal": "normal",
    "depth": "depth",
    "metallic": "metallic",
    "roughness": "roughness",
    "alpha": "alpha",
}


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _depth_range(depth: torch.Tensor, seen: torch.Tensor) -> tuple[float, float]:
    """Over all views, so that their greys compare; ends leave out the 1 % that noise may have thrown far."""
    values = depth[seen]
    if values.numel() == 0:
        return 0.0, 1.0
    values = values.flatten().sort().values
    near, far = float(values[int(0.01 * (len(values) - 1))]), float(values[int(0.99 * (len(values) - 1))])
    return near, max(far, near + 1e-6)


def channel_pictures(views: ViewSet) -> dict[str, UInt8[np.ndarray, "C H W 3"]]:
    """Every channel as it is shown: over a plain colour; near is light in depth; normals as n / 2 + 0.5."""
    gbuffer = views.gbuffer.detach().to("cpu")
    alpha = gbuffer.alpha.clamp(0, 1)
    pictures: dict[str, UInt8[np.ndarray, "C H W 3"]] = {}
    for name in _TITLES:
        value = gbuffer.channels().get(name)
        if value is None:
            continue
        if name == "normal":
            value = torch.nn.functional.normalize(value, dim=-1) * 0.5 + 0.5
        elif name == "depth":
            near, far = _depth_range(value, alpha > 0.5)
            value = 0.95 - 0.8 * ((value - near) / (far - near)).clamp(0, 1)
        value = value.nan_to_num().clamp(0, 1)
        if name != "alpha":
            behind = _WHITE if value.shape[-1] == 3 else _BLUE
            value = value * alpha + torch.tensor(behind) * (1 - alpha)
        pictures[name] = (value.expand(-1, -1, -1, 3) * 255 + 0.5).to(torch.uint8).numpy()
    return pictures


def view_labels(cameras: Cameras) -> list[str]:
    """Azimuth and elevation of every camera, in whole degrees."""
    labels = []
    for back, right in zip(cameras.c2w[:, :3, 2].tolist(), cameras.c2w[:, :3, 0].tolist(), strict=True):
        elevation = round(math.degrees(math.asin(min(max(back[1], -1.0), 1.0))))
        azimuth = round(math.degrees(math.atan2(-right[2], right[0]))) % 360
        if abs(elevation) >= 89:
            labels.append("top" if elevation > 0 else "bottom")
        else:
            labels.append(f"{azimuth}° / {elevation:+d}°" if elevation else f"{azimuth}°")
    return labels


def views_sheet(views: ViewSet, *, cell_px: int = 160, title: str = "") -> Image.Image:
    """One row a channel, one column a view, azimuth / elevation above."""
    pictures = channel_pictures(views)
    gap, margin, left, header = 8, 28, 112, 26 + (34 if title else 0)
    columns, rows = len(views), len(pictures)
    width = 2 * margin + left + columns * (cell_px + gap) - gap
    height = 2 * margin + header + rows * (cell_px + gap) - gap
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((margin, margin), _fitted(title, _font(22), width - 2 * margin), _INK, _font(22))
    top = margin + header
    for column, label in enumerate(view_labels(views.cameras)):
        x = margin + left + column * (cell_px + gap) + cell_px / 2
        draw.text((x, top - 8), label, _FAINT, _font(14), anchor="ms")
    for row, (name, stack) in enumerate(pictures.items()):
        y = top + row * (cell_px + gap)
        draw.text((margin, y + cell_px / 2), _TITLES[name], _INK, _font(16), anchor="lm")
        for column in range(columns):
            x = margin + left + column * (cell_px + gap)
            _paste(page, draw, Image.fromarray(stack[column]), x, y, cell_px)
    return page


def sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    columns: int = 4,
    *,
    cell_px: int = 256,
    title: str = "",
) -> Image.Image:
    """Pictures in a grid with a label under each; alpha lies on white, labels break into two lines."""
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    gap, margin, caption, header = 14, 28, 46, 44 if title else 0
    width = 2 * margin + columns * (cell_px + gap) - gap
    height = 2 * margin + header + rows * (cell_px + caption + gap) - gap
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((margin, margin), _fitted(title, _font(24), width - 2 * margin), _INK, _font(24))
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        x = margin + index % columns * (cell_px + gap)
        y = margin + header + index // columns * (cell_px + caption + gap)
        _paste(page, draw, image, x, y, cell_px)
        for number, line in enumerate(_two_lines(label, _font(14), cell_px)):
            draw.text((x + cell_px / 2, y + cell_px + 17 + 18 * number), line, _INK, _font(14), anchor="ms")
    return page


def _paste(
    page: Image.Image, draw: ImageDraw.ImageDraw, image: Image.Image, x: int, y: int, side: int
) -> None:
    image = image.convert("RGBA")
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Whole enlargements stay sharp, so that single pixels of a small view can be judged.
    resample = Image.Resampling.NEAREST if scale >= 2 and scale == int(scale) else Image.Resampling.LANCZOS
    image = image.resize(size, resample)
    draw.rectangle((x - 1, y - 1, x + side, y + side), fill=_CELL, outline=_LINE)
    page.paste(image, (x + (side - size[0]) // 2, y + (side - size[1]) // 2), image)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """One line, shortened with an ellipsis to fit `width` pixels."""
    text = " ".join(text.split())[:500]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _two_lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    words = text.split()
    first = ""
    while words and font.getlength(f"{first} {words[0]}".strip()) <= width:
        first = f"{first} {words.pop(0)}".strip()
    if not first:
        return [_fitted(" ".join(words), font, width)]
    return [first, _fitted(" ".join(words), font, width)] if words else [first]
