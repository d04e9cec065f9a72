"""What the delivered mesh lacks of what the views show: thin parts that fusing or decimation lost.

In: the views, the dense surface and the mesh that is delivered. Out: `Lost`. A pixel that a view covers
counts as lost when the mesh covers none within two pixels of it: outlines that moved by less are the
views' own resolution. Lost pixels where the view's shape is narrower than a share of its picture (a
morphological opening, Serra 1982, removes them) are those of thin parts: legs, blades, ropes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import binary_dilation

from recon.fidelity import Fidelity, fidelity
from render.gbuffer import ViewSet
from render.rasterize import rasterize
from render.scene import Mesh

_NEAR_PX = 2
_NARROW = 0.06
"""Width of a thin part, as a share of the picture's side: 8 of 128 pixels."""
_WORTH_TELLING = 0.01
"""Share of a view at which a user is told: below it outlines, not parts, are concerned."""


@dataclass(frozen=True)
class Lost:
    """Shares in [0, 1]."""

    seen: float
    """Of the pixels that the views cover: those that the mesh does not."""
    worst: float
    """The same of the view that lost most."""
    worst_view: int
    thin: float
    """Of the lost pixels: those of thin parts."""
    by_decimation: Fidelity
    """From the dense surface to the mesh, which decimation made of it."""

    def warning(self) -> str | None:
        """One line for the user; None when nothing worth telling was lost."""
        if self.worst < _WORTH_TELLING and not self.by_decimation.lost_parts:
            return None
        text = f"{self.seen:.1%} of what the views show is not in the mesh"
        if self.worst >= _WORTH_TELLING:
            text += f" ({self.worst:.1%} in view {self.worst_view}"
            text += f"; {self.thin:.0%} of it thin parts)" if self.thin > 0.005 else ")"
        if self.by_decimation.lost_parts:
            parts = self.by_decimation.lost_parts
            text += f"; decimation lost {parts} separate part{'s' * (parts > 1)}, which more triangles keep"
        return f"{text}."


def lost(views: ViewSet, dense: Mesh, mesh: Mesh) -> Lost:
    """Compares the mesh with the views' silhouettes and with the surface that it was made of."""
    shown = rasterize(mesh.vertices, mesh.faces, views.cameras).face >= 0
    covered = views.gbuffer.alpha[..., 0].cpu().numpy() > 0.5
    near = _disc(_NEAR_PX)
    narrow = _disc(max(_NEAR_PX, round(_NARROW * max(covered.shape[1:]) / 2)))
    missing = np.stack(
        [mask & ~binary_dilation(seen, near) for mask, seen in zip(covered, shown, strict=True)]
    )
    shares = missing.sum((1, 2)) / np.maximum(covered.sum((1, 2)), 1)
    thin = 0
    for index in np.flatnonzero(missing.any((1, 2))).tolist():
        thin += int((missing[index] & ~_opened(covered[index], narrow)).sum())
    worst = int(shares.argmax())
    return Lost(
        seen=round(float(missing.sum() / max(covered.sum(), 1)), 5),
        worst=round(float(shares[worst]), 5),
        worst_view=worst,
        thin=round(thin / max(int(missing.sum()), 1), 4),
        by_decimation=fidelity(dense, mesh),
    )


def _disc(radius: int) -> Bool[np.ndarray, "d d"]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= (radius + 0.5) ** 2)


def _opened(mask: Bool[np.ndarray, "H W"], disc: Bool[np.ndarray, "d d"]) -> Bool[np.ndarray, "H W"]:
    """What discs inside the mask cover. Beyond the picture's edge the object is taken to go on."""
    inside = ~binary_dilation(~mask, disc)
    return np.asarray(binary_dilation(inside, disc))
