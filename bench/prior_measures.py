"""Measures of drawn views: plain functions of arrays, each over one object.

In: network images (`pipeline.multiview.codec`) or G-buffers. Every function says what it leaves out, so
that a number in the report can be read without the code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pipeline.color_names import SHADES
from pipeline.multiview.codec import ALPHA, COLOR, HEIGHT, METALLIC, NORMAL, ROUGHNESS
from render.gbuffer import GBuffer

OBJECTS = (
    "barrel",
    "chair",
    "table",
    "sword",
    "shield",
    "treasure chest",
    "car",
    "bottle",
    "house",
    "mushroom",
)
"""The objects of the compositional prompts: all ten are common among the training captions."""


@dataclass(frozen=True)
class Finish:
    """A colour and perhaps a material that a prompt asks for."""

    words: str
    colors: tuple[str, ...]
    """Palette words that count as the asked colour."""
    metal: bool | None
    """None where the words leave it open."""


FINISHES = (
    Finish("red", ("red", "dark red"), None),
    Finish("blue", ("blue", "light blue", "dark blue"), None),
    Finish("green", ("green", "dark green", "light green"), None),
    Finish("wooden", ("brown", "dark brown", "beige", "orange"), False),
    Finish("golden", ("gold", "yellow", "orange"), True),
    Finish("black metal", ("black", "dark grey"), True),
    Finish("yellow metal", ("yellow", "gold"), True),
    Finish("red plastic", ("red", "dark red"), False),
    Finish("blue wooden", ("blue", "light blue", "dark blue"), False),
    Finish("white stone", ("white", "light grey"), False),
)


def compositional_prompts() -> list[tuple[str, str, Finish]]:
    """(prompt, object, finish) of the 100 prompts; any first n hold all objects and finishes alike."""
    out = []
    for i in range(100):
        name, finish = OBJECTS[i % 10], FINISHES[(3 * (i % 10) + i // 10) % 10]
        article = "an" if finish.words[0] in "aeiou" else "a"
        out.append((f"{article} {finish.words} {name}", name, finish))
    return out


def asked_colors(text: str) -> tuple[str, ...]:
    """Palette words of one family that a caption names first ("dark red" asks for red too); empty if none."""
    return next((SHADES[word] for word in text.lower().split() if word in SHADES), ())


@dataclass(frozen=True)
class Difference:
    """Drawn against true views of one object, means over views."""

    iou: float
    """Of the masks (coverage over one half)."""
    psnr_db: float
    """Base colour over white, the whole frame."""
    psnr_common_db: float
    """Base colour where both cover."""
    normal_deg: float
    """Mean angle where both cover."""
    depth: float
    """Mean absolute difference where both cover, in units (the object lies in the unit ball)."""
    metallic_right: float
    """Part of the commonly covered pixels of known material whose metallic is on the right side of 0.5; nan
    if there are none."""
    roughness: float
    """Mean absolute difference there."""


def compare(
    drawn: Float[Tensor, "v 10 H W"], true: Float[Tensor, "v 10 H W"], known: Float[Tensor, "v H W"]
) -> Difference:
    """How far drawn views are from true ones."""
    a, b = drawn[:, 3] > 0, true[:, 3] > 0
    both = a & b
    union = (a | b).flatten(1).sum(1).clamp_min(1)
    iou = (both.flatten(1).sum(1) / union).mean()
    flat = (over_white(drawn) - over_white(true)).square().mean()
    common = ((drawn[:, COLOR] - true[:, COLOR]) / 2).square().mean(1)[both]
    cosine = (functional.normalize(drawn[:, NORMAL], dim=1) * true[:, NORMAL]).sum(1).clamp(-1, 1)
    sure = both & (known > 0.5)
    metal = ((drawn[:, 8] > 0) == (true[:, 8] > 0))[sure].float()
    rough = (drawn[:, 9] - true[:, 9]).abs()[sure] / 2
    return Difference(
        float(iou),
        _db(flat),
        _db(common.mean()),
        float(torch.rad2deg(torch.acos(cosine))[both].mean()),
        float((drawn[:, HEIGHT] - true[:, HEIGHT]).abs()[:, 0][both].mean()),
        float(metal.mean()),
        float(rough.mean()),
    )


def over_white(image: Float[Tensor, "v 10 H W"]) -> Float[Tensor, "v 3 H W"]:
    """Base colour in [0, 1] over white."""
    cover = (image[:, ALPHA] * 0.5 + 0.5).clamp(0, 1)
    return (image[:, COLOR] * 0.5 + 0.5).clamp(0, 1) * cover + 1 - cover


def channel_psnr(
    drawn: Float[Tensor, "v 10 H W"], true: Float[Tensor, "v 10 H W"], known: Float[Tensor, "v H W"]
) -> dict[str, float]:
    """PSNR of each channel in dB where the truth covers (alpha: everywhere), peak = the channel's range of 2.

    Metallic and roughness count where the material is known, too.
    """
    cover = true[:, 3] > 0
    sure = cover & (known > 0.5)
    out = {}
    for name, channel, where in (
        ("base colour", COLOR, cover), ("alpha", ALPHA, torch.ones_like(cover)), ("normal", NORMAL, cover),
        ("height", HEIGHT, cover), ("metallic", METALLIC, sure), ("roughness", ROUGHNESS, sure),
    ):  # fmt: skip
        limited = drawn[:, channel].clamp(-1, 1)
        error = ((limited - true[:, channel]) / 2).square().mean(1)[where]
        out[name] = _db(error.mean())
    return out


def _db(mean_square: Tensor) -> float:
    return float(-10 * torch.log10(mean_square.clamp_min(1e-10)))


def color_is_right(shares: dict[str, float], asked: tuple[str, ...]) -> tuple[float, bool]:
    """The asked colour's share, and whether no other family of colours has more.

    The other words are grouped by their last word (light, dark and plain blue are one family).
    """
    share = sum(shares[name] for name in asked)
    others: dict[str, float] = {}
    for name, value in shares.items():
        if name not in asked:
            family = name.split()[-1]
            others[family] = others.get(family, 0.0) + value
    return share, share > 0 and share >= max(others.values())


def mask_iou(a: GBuffer, b: GBuffer) -> float:
    """Mean over views of the masks' overlap; the same cameras."""
    first, second = a.alpha.flatten(1) > 0.5, b.alpha.flatten(1) > 0.5
    return float(((first & second).sum(1) / (first | second).sum(1).clamp_min(1)).mean())
