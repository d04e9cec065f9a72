"""Gaussians as the PLY that 3D Gaussian splatting viewers read.

Layout of Kerbl et al. (2023), as their reference code writes it: position, unused
normals, the constant spherical harmonic of colour, opacity before the sigmoid, log
scales, and the rotation wxyz; all float32. Our Gaussians are flat: the third scale
is a fixed small fraction of the others. Metres, +Y up, standing where the mesh stands.
"""

from __future__ import annotations

import numpy as np

from recon.asset import Asset
from render.errors import InputError

_SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""

_FLATNESS = 0.05
"""Third scale over the smaller of the other two: thin, but no needle that makes viewers flicker."""


def splat_bytes(asset: Asset) -> bytes:
    """The asset's Gaussians; raises `InputError` when it has none."""
    splats = asset.splats
    if splats is None:
        raise InputError("this asset has no splats to export; leave the format 'splat' out")

    def array(values: object) -> np.ndarray:
        return np.asarray(values.detach().cpu().numpy(), np.float64)  # type: ignore[attr-defined]

    means = (array(splats.means) - asset.pivot) * asset.scale
    scales = array(splats.log_scales) + np.log(asset.scale)
    quats = array(splats.quats)
    quats = quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), 1e-12)
    thin = scales.min(1, keepdims=True) + np.log(_FLATNESS)
    table = np.concatenate(
        [
            means,
            np.zeros_like(means),
            (array(splats.base_color_srgb) - 0.5) / _SH_C0,
            array(splats.opacity_logits).reshape(-1, 1),
            scales,
            thin,
            quats,
        ],
        axis=1,
    ).astype("<f4")
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    return "\n".join(header).encode() + table.tobytes()
