"""Where a picture that is framed a little wrong lies over a view.

A framing that was guessed is near, and what a view should show of the object is known: tried are all zooms
and shifts around the guess, over views from several elevations, and the one that is likeliest for what the
picture covers counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_SCALE, _SHIFT = 0.04, 0.034
"""Standard deviations of what may be wrong with a framing: the natural logarithm of the scale, and the place
as a share of half the view. Half of what guesses err by, as the objects err with them."""
_ELEVATION_RAD = 0.12
"""Likewise of the camera's elevation."""
_REACH = 2.8
"""How far is looked, in standard deviations."""
_SCALES, _SHIFTS, _ELEVATIONS = 7, 7, 17
"""How many of each are tried."""
_ALIKE = 20 / 64**2
"""Share of a view that says as much as one pixel that nothing is like."""


@dataclass(frozen=True)
class Place:
    """What a view has at x, y (right and up, from -1 to 1), the picture has at `zoom` times that and on by
    `right`, `up`."""

    elevation: int
    """Which of those that were tried."""
    zoom: float
    right: float
    up: float

    def laid(self, shown: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
        """What the picture covers, moved to where the view has it. Rows go up."""
        affine = [[[self.zoom, 0.0, self.right], [0.0, self.zoom, self.up]]]
        grid = F.affine_grid(shown.new_tensor(affine), [1, 1, *shown.shape], align_corners=False)
        return F.grid_sample(shown[None, None], grid, align_corners=False)[0, 0]


def elevations() -> Float[Tensor, " k"]:
    """Radians around a guess, whose views `placed` tells apart."""
    return _ELEVATION_RAD * torch.linspace(-_REACH, _REACH, _ELEVATIONS)


def placed(shown: Float[Tensor, "n n"], logits: Float[Tensor, "k n n"]) -> Place:
    """The likeliest place of what a picture covers (0 to 1), rows going up, by the logits of what views from
    `elevations` show."""
    scale, right, up = torch.meshgrid(_tried(_SCALES), _tried(_SHIFTS), _tried(_SHIFTS), indexing="ij")
    unlikely = 0.5 * (scale.square() + right.square() + up.square()).flatten()
    zoom, right, up = (_SCALE * scale).exp().flatten(), _SHIFT * right.flatten(), _SHIFT * up.flatten()
    affine = torch.zeros(len(zoom), 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = zoom
    affine[:, 0, 2], affine[:, 1, 2] = right, up
    grid = F.affine_grid(affine.to(shown), [len(zoom), 1, *shown.shape], align_corners=False)
    masks = F.grid_sample(shown.expand(len(zoom), 1, -1, -1), grid, align_corners=False).flatten(1)
    # Cross-entropy of every mask with every view; it is linear in the mask.
    views = logits.flatten(1)
    entropy = F.softplus(views).sum(1) - masks @ views.T
    loss = entropy / (_ALIKE * shown.numel()) + unlikely.to(shown)[:, None]
    best = int((loss + 0.5 * _tried(len(logits)).to(shown).square()).argmin())
    one = best // len(logits)
    return Place(best % len(logits), float(zoom[one]), float(right[one]), float(up[one]))


def _tried(count: int) -> Float[Tensor, " count"]:
    return torch.linspace(-_REACH, _REACH, count)
