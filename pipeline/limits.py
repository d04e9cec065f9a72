"""What may be asked for: ranges, formats, names of files. Loads no heavy library, so that whoever takes
requests can check them at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from recon.export import FORMATS, Format
from render.errors import InputError

MAX_VARIANTS = 16
MAX_SEED = 2**63 - 1
POLYCOUNTS = (100, 500_000)
"""Fewest and most triangles of a budget."""
TEXTURE_SIZES = (16, 8192)
"""Side of the textures, pixels."""
HEIGHTS_M = (0.001, 1000.0)
STEM = r"[a-z0-9][a-z0-9_-]{0,63}"
"""Names of files, without suffix."""


def checked_range(name: str, value: float, limits: tuple[float, float], unit: str = "") -> None:
    """`InputError` when the value lies outside."""
    low, high = limits
    if not low <= value <= high:
        raise InputError(f"{name} must be between {low:g} and {high:.20g}{unit}, not {value:.20g}.")


def checked_formats(formats: Sequence[str]) -> tuple[Format, ...]:
    """The formats; `InputError` when there is none, an unknown one, or one twice."""
    if not formats:
        raise InputError(f"formats must name at least one of {', '.join(FORMATS)}.")
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"formats: {name!r} is unknown. Known: {', '.join(FORMATS)}.")
    if len(set(formats)) != len(formats):
        raise InputError(f"formats: {', '.join(formats)} names one twice.")
    return tuple(known for name in formats for known in FORMATS if known == name)


def slug(text: str, limit: int = 40) -> str:
    """`text` as a file name: ASCII letters, digits and hyphens, at most `limit`, whole words where it can."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", ascii_text)
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word
        if len(longer) > limit:
            break
        name = longer
    return name or (words[0][:limit] if words else "")
