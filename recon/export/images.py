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


def webp(pixels: UInt8[np.ndarray, "H W k"] | UInt8[np.ndarray, "H W"], *, lossless: bool) -> bytes:
    """WebP of RGB or RGBA pixels: without loss, or at quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=lossless, quality=70 if lossless else 90, method=4)
    return buffer.getvalue()


def base_color(material: Material) -> UInt8[np.ndarray, "H W k"]:
    """sRGB, with alpha where the material has opacity."""
    color = to_bytes(material.base_color_srgb)
    if material.opacity is None:
        return color
    opacity = resized(material.opacity, color.shape[:2])
    return np.concatenate([color, to_bytes(opacity)[..., None]], -1)


def metallic_roughness(material: Material) -> UInt8[np.ndarray, "H W 3"]:
    """glTF's packing: occlusion in red (full where there is none), roughness in green, metallic in blue."""
    maps = [material.metallic, material.roughness]
    if material.occlusion is not None:
        maps.append(material.occlusion)
    shape = max((values.shape for values in maps), key=lambda s: (s[0] * s[1], s))
    out = np.full((*shape, 3), 255, np.uint8)
    if material.occlusion is not None:
        out[..., 0] = to_bytes(resized(material.occlusion, shape))
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
