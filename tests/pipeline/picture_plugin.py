"""A picture policy of one's own, for example: `MAQUETTE_PICTURE_POLICY=tests.pipeline.picture_plugin:no_red`

It refuses pictures that are mostly red, which stands for whatever a real one looks for, and keeps what it was
asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pipeline.picture_safety import Origin
from pipeline.safety import Verdict


@dataclass
class NoRed:
    """Refuses red from a share of the picture on; `only` looks at nothing but pictures of that origin."""

    share: float = 0.5
    light: bool = True
    only: Origin | None = None
    asked: list[tuple[Origin, int, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"no-red-1 {self.share:g} {self.only or ''}".rstrip()

    def screen(self, pictures: Sequence[Image.Image], origin: Origin, text: str) -> Verdict:
        self.asked.append((origin, len(pictures), text))
        if self.only not in (None, origin):
            return Verdict(True, self.name, screened=False)
        worst = max(_red(picture) for picture in pictures)
        if worst >= self.share:
            return Verdict(False, self.name, "red", f"{worst:.0%} of it is red", worst)
        return Verdict(True, self.name, score=worst)


def no_red() -> NoRed:
    return NoRed()


def no_wood() -> NoRed:
    """Refuses what the tests' barrel looks like when it is finished, and only then."""
    return NoRed(share=0.05, only="asset")


def no_drawn_wood() -> NoRed:
    """The same of the drawn views."""
    return NoRed(share=0.05, only="views")


def nothing() -> object:
    """No policy at all."""
    return object()


def _red(picture: Image.Image) -> float:
    r, g, b = np.moveaxis(np.asarray(picture.convert("RGB"), np.int32), -1, 0)
    return float(((r > g + 30) & (r > b + 30)).mean())
