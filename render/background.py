"""What a preview shows behind the object.

In: "gradient", "transparent" or a colour "#rrggbb". Out: linear colours of every pixel.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float

from render.conventions import srgb_to_linear_np
from render.environment import Environment
from render.errors import InputError

_NAMED = {"white": "#ffffff", "black": "#000000", "grey": "#808080"}


def background_linear(
    background: str, environment: Environment, width: int, height: int
) -> Float[np.ndarray, "H W 3"]:
    """The picture behind the object; black where it is transparent. Raises `InputError` on another name.

    The gradient is a soft pool of light around the middle in the environment's two background colours,
    blended in sRGB, where equal steps look equal.
    """
    if background == "transparent":
        return np.zeros((height, width, 3), np.float32)
    if background == "gradient":
        x = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5)[None]
        y = ((np.arange(height, dtype=np.float32) + 0.5) / height - 0.45)[:, None]
        t = np.clip(np.sqrt(x * x + y * y) / 0.78, 0, 1)[..., None]
        t = t * t * (3 - 2 * t)
        middle, rim = environment.background_srgb
        return srgb_to_linear_np((middle + (rim - middle) * t).astype(np.float32))
    match = re.fullmatch(r"#([0-9a-fA-F]{6})", _NAMED.get(background, background))
    if match is None:
        raise InputError(
            f"Unknown background {background!r}; use gradient, transparent, white, black, grey or a colour "
            f"such as #f0f0f0."
        )
    color = np.array([int(match[1][i : i + 2], 16) / 255 for i in (0, 2, 4)], np.float32)
    return np.broadcast_to(srgb_to_linear_np(color), (height, width, 3)).copy()
