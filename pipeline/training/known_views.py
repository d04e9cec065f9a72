"""What the clean views of training samples say of the noisy ones (`pipeline.multiview.reprojection`)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.autoencoder_network import DOWNSAMPLING, AutoencoderNetwork
from pipeline.multiview.reprojection import carried_views, known_features
from pipeline.training.views import Pose, cameras_of
from render.cameras import Cameras


@torch.no_grad()
def known_views(
    autoencoder: AutoencoderNetwork,
    latents: Float[Tensor, "b v c h w"],
    poses: Float[np.ndarray, "b v 2"],
    noisy: Float[Tensor, "b v"],
    given: Float[Tensor, "b v"],
) -> Float[Tensor, "b v n k"] | None:
    """Features of the `noisy` views, carried from the `given` ones of their sample; None if none is given.

    `latents` are those of all views, of which only the given ones are looked at. Poses are azimuths and
    elevations in degrees. Zero for views that are not noisy, and in samples of which no view is given.
    """
    noisy_at, given_at = noisy.cpu().numpy() > 0, given.cpu().numpy() > 0
    noisy_at &= given_at.any(1, keepdims=True)
    given_at &= noisy_at.any(1, keepdims=True)
    if not noisy_at.any():
        return None
    size = latents.shape[-1] * DOWNSAMPLING
    chosen = latents[torch.from_numpy(given_at).to(latents.device)].to(autoencoder.dtype)
    images = autoencoder.decode(chosen.contiguous(memory_format=torch.channels_last)).float().cpu()
    carried, maps, first = [], [], 0
    for sample in np.flatnonzero(noisy_at.any(1)):
        count = int(given_at[sample].sum())
        sources, targets = (_cameras(poses[sample][at[sample]], size) for at in (given_at, noisy_at))
        found = carried_views(images[first : first + count], sources, targets)
        carried.append(found[0])
        maps.append(found[1])
        first += count
    features = known_features(autoencoder, torch.cat(carried), torch.cat(maps))
    out = features.new_zeros(*noisy_at.shape, *features.shape[1:])
    out[torch.from_numpy(noisy_at).to(out.device)] = features
    return out


def _cameras(poses: Float[np.ndarray, "k 2"], size: int) -> Cameras:
    return cameras_of([Pose(float(a), float(e)) for a, e in poses], size)
