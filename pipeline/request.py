"""One request for an asset: everything that decides what comes out, as plain values.

It is saved beside the stages (so that `--resume` knows what was asked) and inside the receipt
(so that `maquette replay` can ask again). Pictures are kept beside it as `input.png`, cut out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.limits import (
    HEIGHTS_M,
    MAX_SEED,
    MAX_VARIANTS,
    STEM,
    checked_formats,
    checked_range,
    slug,
)
from pipeline.loras import LoraUse
from pipeline.preset import Preset
from recon.export import Format
from recon.needs import require_all
from render.errors import InputError

__all__ = ["Device", "Request", "check_installed", "checked_formats", "slug"]

Device = Literal["auto", "cpu", "cuda"]


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
        checked_range("seed", self.seed, (0, MAX_SEED))
        checked_range("variants", self.variants, (1, MAX_VARIANTS))
        checked_range("height_m", self.height_m, HEIGHTS_M, " metres")
        if not re.fullmatch(STEM, self.stem):
            raise InputError(f"stem must be a short file name of a-z, 0-9, - and _, not {self.stem!r}.")

    @property
    def asset_name(self) -> str:
        """The name inside the asset: from the prompt, not a path, so that equal requests give equal bytes."""
        return slug(self.text) or "asset"


def check_installed(request: Request) -> None:
    """`InputError` when what the asset is to be written with is not installed: before anything is made."""
    package = request.preset.package
    require_all(request.formats, package.textures, package.meshes, collider=package.collider)
