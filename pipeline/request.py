"""One request for an asset: everything that decides what comes out, as plain values.

It is saved beside the stages (so that `--resume` knows what was asked) and inside the receipt
(so that `maquette replay` can ask again). Pictures are kept beside it as `input.png`, cut out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.loras import LoraUse
from pipeline.preset import Preset
from recon.export import FORMATS, Format
from render.errors import InputError

Device = Literal["auto", "cpu", "cuda"]

MAX_VARIANTS = 16
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Request:
    """What to make."""

    text: str
    negative: str
    image_sha256: str | None
    """Of the cut-out's pixels; None for a prompt without an image."""
    preset: Preset
    """Its values, with the user's changes (`--polycount`, `--texture-size`) in them."""
    seed: int
    variants: int
    height_m: float
    formats: tuple[Format, ...]
    stem: str
    """Name of the files, without suffix."""
    device: Literal["cpu", "cuda"]
    views_sha256: str | None = None
    """Of a reconstruction: of the posed views' files, which take the place of a prompt."""
    scale_m: float | None = None
    """Of a reconstruction: metres per unit of the unit ball, in place of `height_m`."""
    lora: LoraUse | None = None
    """What is added to the model's weights."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed must be between 0 and {MAX_SEED}, not {self.seed}.")
        if not 1 <= self.variants <= MAX_VARIANTS:
            raise InputError(f"variants must be between 1 and {MAX_VARIANTS}, not {self.variants}.")
        if not 0.001 <= self.height_m <= 1000.0:
            raise InputError(f"height_m must be between 0.001 and 1000 metres, not {self.height_m:g}.")
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", self.stem):
            raise InputError(f"stem must be a short file name of a-z, 0-9, - and _, not {self.stem!r}.")

    @property
    def asset_name(self) -> str:
        """The name inside the asset: from the prompt, not a path, so that equal requests give equal bytes."""
        return slug(self.text) or "asset"


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
