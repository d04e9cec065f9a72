"""What views say of a surface, together with what they say of its mirror image.

Of an object whose left and right are alike every point is seen twice: where it is, and where its image is.
Views that are drawn lay a border of two colours elsewhere on each side; gathered from both, it lies between,
on both alike. What one side has to itself, a door, is of a material that the other has nowhere near, and
there each keeps its own. Front and back stay apart: what has a front mostly shows it by its colours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from recon.gathering import Evidence, gathered
from recon.palette import flattened

_NEAR_PX = 8.0
"""What a side has within some two times as many pixels of the views, the other may have."""
_THERE = 0.1
"""Share of what is near that a material has where it counts as there."""


@dataclass(frozen=True)
class Points:
    """Points of a surface, for which views are asked."""

    positions: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    share: Float[np.ndarray, " n"] | None = None
    """What the mirror image across x counts beside each point; None where there is none."""

    def gathered(
        self, evidence: Evidence, sharpness: float, outlier: float
    ) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, " n"]]:
        """As `recon.gathering.gathered`, of both sides where there are two."""
        values, weights = gathered(
            evidence, self.positions, self.normals, sharpness=sharpness, outlier=outlier
        )
        if self.share is None:
            return values, weights
        of_image, image_weights = self._image().gathered(evidence, sharpness, outlier)
        image_weights = image_weights * self.share
        total = weights + image_weights
        both = weights[:, None] * values + image_weights[:, None] * of_image
        return (both / np.maximum(total, 1e-12)[:, None]).astype(np.float32), total.astype(np.float32)

    def mirrored(self, memberships: Evidence, sharpness: float) -> Points:
        """The points with their mirror image, in the middle of all of them, by how much each belongs to each
        material."""
        own, weights = self.gathered(memberships, sharpness, np.inf)
        other, image_weights = self._image().gathered(memberships, sharpness, np.inf)
        near_own = smoothed(self.positions, own, weights, _NEAR_PX, memberships)
        near_other = smoothed(self.positions, other, image_weights, _NEAR_PX, memberships)
        every = np.arange(len(own))
        there = np.minimum(near_other[every, own.argmax(1)], near_own[every, other.argmax(1)])
        return replace(self, share=np.clip(there / _THERE, 0, 1))

    def _image(self) -> Points:
        positions, normals = self.positions.copy(), self.normals.copy()
        x = positions[:, 0]
        positions[:, 0] = x.min() + x.max() - x
        normals[:, 0] *= -1
        return Points(positions, normals)


def smoothed(
    positions: Float[np.ndarray, "n 3"],
    values: Float[np.ndarray, "n k"],
    weights: Float[np.ndarray, " n"],
    reach_px: float,
    evidence: Evidence,
) -> NDArray[np.float32]:
    """Weighted means around points, over some two times `reach_px` pixels of the views."""
    cell = reach_px / float(evidence.cameras.intrinsics[:, 0].min())
    everywhere = np.zeros(len(values), np.int64)
    return flattened(positions, values, everywhere, np.maximum(weights, 1e-6).astype(np.float32), cell)
