"""Numbers that the kernels and the torch reference share."""

import math

LOW_PASS_PX2 = 0.3
"""Variance, in square pixels, added to every projected Gaussian (EWA's low-pass filter; 3DGS's value)."""

CUTOFF = 9.0
"""Squared Mahalanobis distance at which a splat ends: three standard deviations."""

FLOOR = math.exp(-0.5 * CUTOFF)
"""The Gaussian at the cut-off. The window is `(exp(-q/2) - FLOOR) / (1 - FLOOR)`, so that it is
continuous where it ends: a step there would make gradients disagree with finite differences and let
rounding decide whole contributions. 3DGS (arXiv:2308.04079) cuts at alpha 1/255 instead."""

MAX_ALPHA = 0.99
"""Upper bound of one splat's alpha at a pixel (3DGS), which keeps 1 / (1 - alpha) finite."""

STOP_TRANSMITTANCE = 1e-4
"""A pixel takes no further splats once its transmittance is below this (3DGS)."""

NEAR = 1e-2
"""Splats whose centre is nearer than this, in world units, are left out."""

TILE_PX = 16
"""Side of a tile. Numba's cache does not see changes of this file: remove `__pycache__` after one."""
