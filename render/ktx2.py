"""KTX2 textures with Basis Universal (KHR_texture_basisu): bytes -> pixels, from a stranger.

The package opengl_basisu (extra `ktx2`) carries Basis Universal's transcoder. The size stands in the header
(KTX 2.0, section 3), and is held to what is read before anything is unpacked.
"""

from __future__ import annotations

import struct

import numpy as np
from jaxtyping import UInt8

IDENTIFIER = b"\xabKTX 20\xbb\r\n\x1a\n"


class NotInstalledError(Exception):
    """The package is missing."""


def ktx2_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header; `ValueError` where there is none, or the texture has no two sides."""
    if len(data) < 80 or not data.startswith(IDENTIFIER):
        raise ValueError
    width, height, depth, layers, faces = struct.unpack_from("<5I", data, 20)
    if min(width, height) < 1 or depth > 0 or layers > 1 or faces != 1:
        raise ValueError
    return width, height


def ktx2_pixels(data: bytes) -> UInt8[np.ndarray, "H W 4"]:
    """RGBA of the largest level. Raises `NotInstalledError`, and `ValueError` for what cannot be unpacked."""
    try:
        import opengl_basisu
    except ImportError:
        raise NotInstalledError from None
    return np.ascontiguousarray(opengl_basisu.open(data).transcode("rgba8", level=0).data)
