"""Real spherical harmonics (Sloan, "Stupid Spherical Harmonics Tricks", 2008) of any degree.

The polar axis is +Y. `render.environment.sh_basis` has an order and axes of its own, which its kernels have
built in.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import sph_harm_y


def harmonics(directions: Float[np.ndarray, "n 3"], degree: int) -> Float[np.ndarray, "n K"]:
    """(degree + 1)^2 orthonormal functions of unit directions, ordered by degree and then order."""
    x, y, z = np.asarray(directions, np.float64).T
    polar, azimuth = np.arccos(np.clip(y, -1, 1)), np.arctan2(x, z)
    out = []
    for band in range(degree + 1):
        for order in range(-band, band + 1):
            value = sph_harm_y(band, abs(order), polar, azimuth)
            part = value.imag if order < 0 else value.real
            out.append(part * (np.sqrt(2) if order else 1.0))
    return np.stack(out, -1)
