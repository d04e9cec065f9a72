"""The conventions of the whole project, stated once.

World: right-handed, +Y up, the object's front faces +Z (as glTF 2.0, section
3.4). Generated objects live in the unit ball; export scales to metres.
Camera: OpenGL `c2w` (+X right, +Y up, looks along -Z). Azimuth 0 is a camera on
+Z, +90 on +X; elevation is positive above the horizon.
Pixels: row 0 on top, pixel centres at +0.5. UV origin bottom-left inside the
project; only the glTF reader and writer flip it.
Depth: distance along the viewing direction (z-depth), positive, in world units.
Colour: names end in `_srgb` or `_linear`, values in [0, 1]. Metallic and
roughness are linear. Quaternions are wxyz. Normals are unit vectors in world space.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

ORTHOGRAPHIC_HALF_EXTENT = 1.0
"""Half the side, in world units, of what a generated orthographic view shows: the unit ball."""

CAMERA_RADIUS = 2.0
"""Distance of generated cameras from the origin; the unit ball lies at depths 1 to 3."""

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
"""`c2w_opencv = c2w_opengl @ OPENGL_TO_OPENCV`; only at the border of a library that wants it."""


def srgb_to_linear(srgb: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Decode sRGB in [0, 1] (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Encode linear light in [0, 1] as sRGB (IEC 61966-2-1)."""
    return torch.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    )


def srgb_to_linear_np(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """`srgb_to_linear` for arrays."""
    out = np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)
    return out.astype(np.float32)


def linear_to_srgb_np(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """`linear_to_srgb` for arrays."""
    out = np.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    )
    return out.astype(np.float32)
