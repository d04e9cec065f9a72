"""Material maps as PNG bytes, 8 bits, the same bytes for the same map."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from render.scene import Material


def to_bytes(values: Float[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s"]:
    """[0, 1] to [0, 255], rounded."""
    return np.asarray((np.clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))


def png(pixels: UInt8[np.ndarray, "H W k"] | UInt8[np.ndarray, "H W"]) -> bytes:
    """PNG of grey, RGB or RGBA pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def base_color(material: Material) -> UInt8[np.ndarray, "H W k"]:
    """sRGB, with alpha where the material has opacity."""
    color = to_bytes(material.base_color_srgb)
    if material.opacity is None:
        return color
    opacity = resized(material.opacity, color.shape[:2])
    return np.concatenate([color, to_bytes(opacity)[..., None]], -1)


def metallic_roughness(material: Material) -> UInt8[np.ndarray, "H W 3"]:
    """glTF's packing: roughness in green, metallic in blue, red full (no occlusion)."""
    shape = max(material.metallic.shape, material.roughness.shape)
    out = np.full((*shape, 3), 255, np.uint8)
    out[..., 1] = to_bytes(resized(material.roughness, shape))
    out[..., 2] = to_bytes(resized(material.metallic, shape))
    return out


def resized(values: Float[np.ndarray, "H W"], shape: tuple[int, ...]) -> Float[np.ndarray, "h w"]:
    """Nearest-neighbour resampling to another number of texels."""
    if values.shape == tuple(shape):
        return values
    rows = np.arange(shape[0]) * values.shape[0] // shape[0]
    columns = np.arange(shape[1]) * values.shape[1] // shape[1]
    return np.asarray(values[rows][:, columns])
