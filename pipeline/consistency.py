"""How well the views of one object agree: depth of one view carried into every other.

In: a `ViewSet` with depth. Out: numbers for the report and for ranking variants.
A visible point of one view, unprojected and projected into another, must either be hidden
there or be seen there at its depth. It contradicts the other view when that one looks
through it: at background, or at something farther away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from render.gbuffer import ViewSet

DEPTH_TOLERANCE_PX = 2.0
"""Agreement is within this many pixels' size in world units, and as many beside the exact pixel: views of
128 pixels do not say more."""


@dataclass(frozen=True)
class Consistency:
    """Agreement of the views, all in [0, 1]."""

    geometry: float
    """Part of the carried points that no other view contradicts; 1 is perfect."""
    color: float
    """1 minus the mean absolute sRGB difference where two views see the same point."""
    framing: float
    """1 minus the part of the frames' border pixels that the object covers: 0 < means it is cut off."""
    shape: float = 1.0
    """Agreement for an object as thick as this one: `exp(-d P / A)`, where views disagree by `d` pixels
    (`recon.consensus.disagreement_px`) and cover A pixels within outlines of P. A pixel is nothing to a
    crate and the whole of a sword."""
    connected: float = 1.0
    """Part of the views' covered pixels that lies in the largest piece of each."""

    @property
    def score(self) -> float:
        """One number to rank variants by.

        `geometry` is not in it: bulky shapes contradict each other least, and ranked by it the worst of
        four seeds was kept for three of six prompts. `bench/variants.py` has the comparison.
        """
        return self.shape * self.connected * self.color * self.framing


def view_consistency(views: ViewSet) -> Consistency:
    """Compares every view with every other. Views without depth count as agreeing where masks do."""
    cameras, buffers = views.cameras, views.gbuffer
    height, width = cameras.height, cameras.width
    mask = buffers.alpha[..., 0] > 0.5
    border = torch.cat(
        [mask[:, 0].flatten(), mask[:, -1].flatten(), mask[:, :, 0].flatten(), mask[:, :, -1].flatten()]
    )
    framing = 1.0 - float(border.float().mean())
    if buffers.depth is None or not bool(mask.any()):
        found = float(mask.any())
        return Consistency(found, 1.0, framing, shape=found)
    depth = buffers.depth[..., 0]
    colors = buffers.base_color_srgb if buffers.base_color_srgb is not None else buffers.rgb_srgb
    world_per_px = float(2.0 / cameras.intrinsics[:, :2].mean()) / 2.0
    if cameras.projection == "perspective":
        world_per_px *= float(depth[mask].mean())
    tolerance = DEPTH_TOLERANCE_PX * world_per_px
    reach = round(DEPTH_TOLERANCE_PX)
    # The nearest and farthest depth around every pixel; background is at infinity.
    far = torch.where(mask, depth, torch.inf)
    nearest = -functional.max_pool2d(-far[:, None], 2 * reach + 1, 1, reach)[:, 0]
    pixels = cameras.pixel_centers().reshape(1, -1, 2).expand(len(views), -1, -1)
    points = cameras.unproject(pixels, depth.reshape(len(views), -1))
    agreed, contradicted, color_error, color_count = 0, 0, 0.0, 0
    for i in range(len(views)):
        # Rims are mixtures of two depths; only pixels inside the mask speak.
        inside = -functional.max_pool2d(-mask[i][None, None].float(), 3, 1, 1)[0, 0] > 0.5
        chosen = inside.flatten()
        xy, z = cameras.project(points[i][chosen])
        column, row = xy[..., 0].floor().long(), xy[..., 1].floor().long()
        in_frame = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
        view = torch.arange(len(views))[:, None].expand_as(row)
        seen = nearest[view, row, column]
        others = in_frame & (view != i)
        # In front of all that the other view sees there: the other looks through the point.
        through = others & (seen > z + tolerance)
        same = others & ((seen - z).abs() <= tolerance) & mask[view, row, column]
        contradicted += int(through.sum())
        agreed += int(same.sum())
        if colors is not None:
            difference: Tensor = (colors[view, row, column] - colors[i].reshape(-1, 3)[chosen]).abs().mean(-1)
            color_error += float(difference[same].sum())
            color_count += int(same.sum())
    geometry = agreed / max(agreed + contradicted, 1)
    color = 1.0 - color_error / max(color_count, 1)
    return Consistency(geometry, color, framing, _shape(views, mask), _connected(mask))


def _shape(views: ViewSet, mask: Bool[Tensor, "C H W"]) -> float:
    """`Consistency.shape`."""
    from recon.consensus import disagreement_px
    from recon.fusion import depth_maps

    inside = -functional.max_pool2d(-mask[:, None].float(), 3, 1, 1)[:, 0]
    seen = mask.any(-1).any(-1)
    area, outline = mask[seen].float().sum((1, 2)), (mask[seen].float() - inside[seen]).sum((1, 2))
    thinness = float((outline / area).mean())
    return math.exp(-disagreement_px(depth_maps(views.cameras, views.gbuffer)) * thinness)


def _connected(mask: Bool[Tensor, "C H W"]) -> float:
    """`Consistency.connected`."""
    from scipy.ndimage import label

    parts = []
    for view in mask.numpy():
        pieces, count = label(view)
        if count:
            parts.append(float(np.bincount(pieces.ravel())[1:].max() / view.sum()))
    return sum(parts) / len(parts)
