"""What metal and colour a prompt asks for, and how much of it views have: words and channels, no network.

Of sets of views drawn for "a yellow metal chair" more than half are yellow paint, and of those for "a teal
palm tree" most are green. Metal and colour can be read from the channels, so what the words say of them takes
part in the choice among sets (`best_views`).
"""

from __future__ import annotations

import re

from pipeline.color_names import SHADES, color_shares
from render.gbuffer import GBuffer

_METAL = (
    "metal metallic iron steel gold golden silver copper bronze brass chrome tin aluminium aluminum titanium"
)
_OTHER = (
    "wood wooden stone marble brick concrete clay ceramic porcelain glass crystal plastic rubber leather "
    "fabric cloth woollen wool paper cardboard straw bamboo bone ice"
)
_ASKED = SHADES | {
    "gold": ("gold", "yellow"), "golden": ("gold", "yellow"), "gray": SHADES["grey"],
    "violet": SHADES["purple"], "turquoise": SHADES["teal"], "crimson": SHADES["red"],
}  # fmt: skip
_LEAST_SHARE = 0.5
"""Of a thing that is said to be red this much at least should be: a mushroom has a white stem."""
_BREAKS = re.compile(r"[,;.:]|\b(?:with|and|on|in|of|under|beside|for|that|which)\b")


def asks_for_metal(text: str) -> bool | None:
    """Whether the thing that a text names first is to be of metal; None where the words leave it open or say
    both. What follows "with" or "on" is of other parts and things."""
    words = re.findall(r"[a-z]+", _BREAKS.split(text.lower(), maxsplit=1)[0])
    metal, other = (any(word in names.split() for word in words) for names in (_METAL, _OTHER))
    return None if metal == other else metal


def metal_share(gbuffer: GBuffer) -> float:
    """Mean metallic of the covered pixels; 0 without any."""
    assert gbuffer.metallic is not None
    values = gbuffer.metallic[gbuffer.alpha > 0.5]
    return float(values.mean()) if len(values) else 0.0


def asks_for_color(text: str) -> tuple[str, ...]:
    """Names of `color_names` that count as the colour that a text says its first thing has, shades included.

    Empty where it names none, or several, as "a black and white cow" does.
    """
    words = re.findall(r"[a-z]+", _BREAKS.split(text.lower(), maxsplit=1)[0])
    named = {_ASKED[word] for word in words if word in _ASKED}
    if len(named) != 1 or words[-1] in _ASKED:
        return ()
    return named.pop()


def color_lacking(gbuffer: GBuffer, asked: tuple[str, ...]) -> float:
    """What half of the covered pixels lacks of the asked colour: 0 where half have it, 1 where none has."""
    shares = color_shares(gbuffer)
    return max(0.0, 1 - sum(shares[name] for name in asked) / _LEAST_SHARE)
