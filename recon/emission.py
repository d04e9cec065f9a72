"""What glows, from views that tell emitted light from reflected (`emissive_file_path` of a posed set).

The map is gathered as base colour is (`recon.bake`), from the views alone: what none of them sees emits
nothing, as does all that emits less than an 8-bit step or two.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from recon.bake import BakeConfig, bake
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent
from render.scene import Mesh

_DARK = 2.5 / 255


def emission(
    mesh: Mesh, views: ViewSet, config: BakeConfig, *, progress: Progress = silent
) -> Float[np.ndarray, "S S 3"] | None:
    """The emissive map (sRGB) of `mesh`, which must have UVs; None when the views say nothing of emission,
    or that nothing glows."""
    seen = views.gbuffer
    if seen.emissive_srgb is None or float(seen.emissive_srgb.max()) < _DARK:
        return None
    light = GBuffer(alpha=seen.alpha, base_color_srgb=seen.emissive_srgb, depth=seen.depth)
    # Light beside darkness is no outlier, however few of the views have it.
    config = replace(config, outlier=10.0)
    found = bake(mesh, ViewSet(views.cameras, light), None, config, progress=progress).base_color_srgb
    return np.where(found.max(-1, keepdims=True) < _DARK, np.float32(0), found)
