"""Gaussians as the files that splatting viewers read: PLY, .splat and SPZ. Metres, +Y up, where the mesh
stands.

* PLY: the layout of Kerbl et al. (2023), as their reference code writes it: position, unused normals, the
  constant spherical harmonic of colour, opacity before the sigmoid, log scales, rotation wxyz; float32.
* .splat: 32 bytes a Gaussian (position and scale float32, colour with opacity and rotation as bytes), the
  largest and most opaque first: what antimatter15's viewer and its relatives stream.
* SPZ, version 2: Niantic's compressed format, gzip over columns of 24-bit positions and bytes.

Our Gaussians are flat: the third scale is a fixed small fraction of the others.
"""

from __future__ import annotations

import gzip
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon.asset import Asset
from render.errors import InputError

_SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""

_FLATNESS = 0.05
"""Third scale over the smaller of the other two: thin, but no needle that makes viewers flicker."""

_SPZ_FRACTION_BITS = 12
_SPZ_COLOR_SCALE = 0.15


class _Table(NamedTuple):
    """float64, metres."""

    means: NDArray[np.float64]
    log_scales: NDArray[np.float64]
    quats: NDArray[np.float64]
    opacity_logits: NDArray[np.float64]
    color_srgb: NDArray[np.float64]


def _table(asset: Asset) -> _Table:
    splats = asset.splats
    if splats is None:
        raise InputError("this asset has no splats to export; leave the splat formats out")

    def array(values: object) -> np.ndarray:
        return np.asarray(values.detach().cpu().numpy(), np.float64)  # type: ignore[attr-defined]

    means = (array(splats.means) - asset.pivot) * asset.scale
    scales = array(splats.log_scales) + np.log(asset.scale)
    quats = array(splats.quats)
    quats = quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), 1e-12)
    thin = scales.min(1, keepdims=True) + np.log(_FLATNESS)
    return _Table(
        means,
        np.concatenate([scales, thin], 1),
        quats,
        array(splats.opacity_logits).reshape(-1),
        array(splats.base_color_srgb),
    )


def splat_bytes(asset: Asset) -> bytes:
    """PLY of the asset's Gaussians; raises `InputError` when it has none."""
    t = _table(asset)
    table = np.concatenate(
        [
            t.means,
            np.zeros_like(t.means),
            (t.color_srgb - 0.5) / _SH_C0,
            t.opacity_logits[:, None],
            t.log_scales,
            t.quats,
        ],
        axis=1,
    ).astype("<f4")
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    return "\n".join(header).encode() + table.tobytes()


def compact_splat_bytes(asset: Asset) -> bytes:
    """The `.splat` file of the asset's Gaussians."""
    t = _table(asset)
    opacity = 1 / (1 + np.exp(-t.opacity_logits))
    order = np.argsort(-np.exp(t.log_scales.sum(1)) * opacity, kind="stable")
    records = np.zeros(
        len(order), np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
    )
    records["mean"] = t.means[order]
    records["scale"] = np.exp(t.log_scales[order])
    rgba = np.concatenate([t.color_srgb, opacity[:, None]], 1)[order]
    records["rgba"] = _bytes(rgba * 255)
    records["quat"] = _bytes(t.quats[order] * 128 + 128)
    return records.tobytes()


def spz_bytes(asset: Asset) -> bytes:
    """The SPZ file (version 2, no spherical harmonics beyond the constant one)."""
    t = _table(asset)
    count = len(t.means)
    limit = 2**23 - 1
    fixed = np.clip(np.round(t.means * 2**_SPZ_FRACTION_BITS), -limit, limit).astype("<i4")
    positions = fixed.reshape(-1, 1).view(np.uint8).reshape(-1, 4)[:, :3]
    alphas = _bytes(255 / (1 + np.exp(-t.opacity_logits)))
    constant = (t.color_srgb - 0.5) / _SH_C0
    colors = _bytes(constant * (_SPZ_COLOR_SCALE * 255) + 0.5 * 255)
    scales = _bytes((t.log_scales + 10) * 16)
    # Only x, y, z are kept; w is positive and follows.
    turned = t.quats * np.where(t.quats[:, :1] < 0, -1, 1)
    rotations = _bytes(turned[:, 1:] * 127.5 + 127.5)
    head = struct.pack("<IIIBBBB", 0x5053474E, 2, count, 0, _SPZ_FRACTION_BITS, 0, 0)
    columns = [positions, alphas, colors, scales, rotations]
    return gzip.compress(head + b"".join(c.tobytes() for c in columns), compresslevel=9, mtime=0)


def _bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
