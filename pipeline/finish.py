"""Whether a prompt asks for metal, and how much of drawn views is: words and channels, no network.

Of sets of views drawn for "a yellow metal chair" more than half are yellow paint. Metal is a channel that can
be read, so what the words say of it takes part in the choice among sets (`best_views`).
"""

from __future__ import annotations

import re

from render.gbuffer import GBuffer

_METAL = (
    "metal metallic iron steel gold golden silver copper bronze brass chrome tin aluminium aluminum titanium"
)
_OTHER = (
    "wood wooden stone marble brick concrete clay ceramic porcelain glass crystal plastic rubber leather "
    "fabric cloth woollen wool paper cardboard straw bamboo bone ice"
)
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
