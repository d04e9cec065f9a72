"""What a picture's outline says of the volume that the picture is taken for.

Nothing is beside the outline, and within it there is something on every ray. But how the picture was framed
is a guess too, and where it is a little wrong the outline would cut off what is right: the rim of a plate,
the top of a table. So first the framing is found again, near to the guess, at which the outline is likeliest
to be that of the volume.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.volume_network import CELLS, Volume, cell_centers
from render.placing import elevations, placed

_SOMEWHERE = 0.65
"""Probability of the likeliest cell of a ray that is known to pass something."""


def as_shown(found: Volume, shown: Float[Tensor, "b n n"], elevation_rad: Float[Tensor, " b"]) -> Volume:
    """Volumes, knowing where views from azimuth 0, at about these elevations, show them: nothing is beside
    the outline, and within it something is on every ray, where it was likeliest."""
    probability = found.occupancy.sigmoid()
    covered = shown.to(probability).flip(1)
    framed = [_framed_again(*one) for one in zip(probability, covered, elevation_rad, strict=True)]
    turn = torch.stack([elevation for elevation, _ in framed])
    inside = torch.stack([mask for _, mask in framed]) > 0.5
    greatest = _silhouettes(probability, turn).clamp_min(1e-3)
    times = (_SOMEWHERE / greatest).clamp_min(1) * inside
    x, y, z = cell_centers(CELLS).to(probability).unbind(-1)
    cosine, sine = (f(turn)[:, None, None, None] for f in (torch.cos, torch.sin))
    across = torch.stack([x.expand(len(turn), -1, -1, -1), y * cosine - z * sine], -1)
    times = F.grid_sample(times[:, None], across.flatten(1, 2), align_corners=False).view_as(probability)
    return Volume(torch.logit(probability * times, eps=1e-4), found.surface)


def _silhouettes(
    probability: Float[Tensor, "b n n n"], elevation_rad: Float[Tensor, " b"]
) -> Float[Tensor, "b n n"]:
    """The greatest on each ray, seen from azimuth 0 and elevations; y up."""
    x, y, z = cell_centers(CELLS).to(probability).unbind(-1)
    cosine, sine = (f(elevation_rad)[:, None, None, None] for f in (torch.cos, torch.sin))
    # The same grid as places of the view: z is height towards it, y up in it.
    along = torch.stack([x.expand(len(cosine), -1, -1, -1), y * cosine + z * sine, z * cosine - y * sine], -1)
    return F.grid_sample(probability[:, None], along, align_corners=False)[:, 0].amax(1)


def _framed_again(
    probability: Float[Tensor, "n n n"], shown: Float[Tensor, "n n"], elevation_rad: Float[Tensor, ""]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n n"]]:
    """The likeliest elevation, and what a view from there shows."""
    turns = (elevation_rad.cpu() + elevations()).to(probability)
    seen = torch.cat([_silhouettes(probability[None], turn[None]) for turn in turns]).logit(eps=1e-3)
    # What is doubtful as a whole is not small: half of what is shown is likelier than not.
    half = max(1, int(shown.sum() / 2))
    least = seen.flatten(1).topk(half, 1).values[:, -1]
    place = placed(shown, seen - least.clamp_max(0)[:, None, None])
    return turns[place.elevation], place.laid(shown)
