"""The report of `bench.prior`: a table, and pictures with the failures left in."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.prior_measures import over_white
from pipeline.multiview.codec import ALPHA, NORMAL


@dataclass(frozen=True)
class Row:
    """A figure of the table."""

    part: str
    measure: str
    value: float
    objects: int
    """How many objects (or prompts) it is the mean of."""
    unit: str = ""
    bar: float | None = None
    """What it should reach; None where nothing was promised."""
    lower_is_better: bool = False
    note: str = ""

    @property
    def reached(self) -> str:
        if self.bar is None:
            return ""
        good = self.value <= self.bar if self.lower_is_better else self.value >= self.bar
        sign = "<=" if self.lower_is_better else ">="
        return f"{sign} {self.bar:g}: {'reached' if good else 'MISSED'}"


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| part | measure | value | objects | bar | note |", "|---|---|---:|---:|---|---|"]
    for row in rows:
        value = "none" if np.isnan(row.value) else f"{row.value:.3f}".rstrip("0").rstrip(".")
        lines.append(
            f"| {row.part} | {row.measure} | {value}{' ' + row.unit if row.unit else ''} | {row.objects} | "
            f"{row.reached} | {row.note} |"
        )
    return "\n".join(lines)


def shaded(image: Float[Tensor, "v 10 H W"]) -> list[Image.Image]:
    """Views as pictures: base colour under a light at the camera, over white."""
    cover = (image[:, ALPHA] * 0.5 + 0.5).clamp(0, 1)
    facing = torch.nn.functional.normalize(image[:, NORMAL], dim=1)[:, 2:3].clamp(0, 1)
    light = 1 - cover * (0.5 - 0.5 * facing)
    pixels = (over_white(image) * light).permute(0, 2, 3, 1)
    return [Image.fromarray(p) for p in (pixels * 255 + 0.5).to(torch.uint8).numpy()]


@dataclass(frozen=True)
class Strip:
    """A row of pictures with a label on its left."""

    label: str
    pictures: Sequence[Image.Image]


def strips(rows: Sequence[Strip], *, cell_px: int = 96, title: str = "") -> Image.Image:
    """Rows of pictures; labels may have several lines."""
    left, gap, header = 190, 3, 34 if title else 4
    columns = max(len(row.pictures) for row in rows)
    page = Image.new(
        "RGB", (left + columns * (cell_px + gap) + gap, header + len(rows) * (cell_px + gap)), "white"
    )
    draw = ImageDraw.Draw(page)
    small, large = ImageFont.load_default(12), ImageFont.load_default(16)
    if title:
        draw.text((8, 8), title, "black", large)
    for number, row in enumerate(rows):
        top = header + number * (cell_px + gap)
        for line, text in enumerate(row.label.split("\n")):
            draw.text((8, top + 6 + 15 * line), text[:34], "black" if line == 0 else "#666", small)
        for column, picture in enumerate(row.pictures):
            shown = picture.convert("RGBA").resize((cell_px, cell_px), Image.Resampling.LANCZOS)
            page.paste(shown.convert("RGB"), (left + column * (cell_px + gap), top), shown)
        draw.line((0, top + cell_px + 1, page.width, top + cell_px + 1), "#e5e5e5")
    return page


def grid(
    pictures: Sequence[Image.Image],
    labels: Sequence[str],
    *,
    columns: int = 10,
    cell_px: int = 136,
    title: str = "",
) -> Image.Image:
    """Pictures with a name and a line of facts below; a label that begins with "!" is a failure and red."""
    caption, gap, header = 48, 4, 34 if title else 4
    rows = -(-len(pictures) // columns)
    page = Image.new(
        "RGB", (columns * (cell_px + gap) + gap, header + rows * (cell_px + caption + gap)), "white"
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    if title:
        draw.text((8, 8), title, "black", ImageFont.load_default(16))
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = gap + i % columns * (cell_px + gap), header + i // columns * (cell_px + caption + gap)
        shown = picture.convert("RGBA").resize((cell_px, cell_px), Image.Resampling.LANCZOS)
        page.paste(shown.convert("RGB"), (x, y), shown)
        ink = "#b00020" if label.startswith("!") else "black"
        name, _, facts = label.removeprefix("!").partition("\n")
        lines = [*textwrap.wrap(name, cell_px // 6, max_lines=2, placeholder="..."), facts]
        for line, text in enumerate(lines):
            draw.text((x + 2, y + cell_px + 2 + 14 * line), text, ink, font)
    return page
