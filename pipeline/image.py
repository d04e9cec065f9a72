"""Reads a user's picture, which may be anything: missing, cut off, a bomb, or no picture at all.

In: a path. Out: an upright RGBA image of 8 bits. The size is checked from the
header, before a pixel is decoded.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from render.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 40_000_000
"""About what a good camera takes; decoded as RGBA it is 160 MB."""
MAX_SIDE_PX = 16_384
MIN_SIDE_PX = 32
"""Below this there is nothing to see: the model's own views have 128 pixels."""


def load_image(path: Path) -> Image.Image:
    """The picture at `path` as RGBA, turned upright by its EXIF orientation.

    Raises `InputError` when there is no such file, it is no PNG, JPEG or WebP, is damaged or
    animated, or is too small or too large.
    """
    if not path.exists():
        raise InputError(f"There is no image {path}.")
    if not path.is_file():
        raise InputError(f"{path} is not an image file.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the size is checked below, with a message for the user.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
            with image:
                _check_header(image, path)
                image.load()
                return _to_rgba(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise InputError(
            f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels. Make it smaller."
        ) from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a PNG, JPEG or WebP image.") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        # What Pillow raises for damaged files, by format and by place of the damage.
        raise InputError(f"{path} is damaged or cut off ({error}).") from None


def _check_header(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise InputError(
            f"{path} has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million and "
            f"{MAX_SIDE_PX:,} on a side are read. Make it smaller."
        )
    if min(width, height) < MIN_SIDE_PX:
        raise InputError(
            f"{path} has {width} x {height} pixels; at least {MIN_SIDE_PX} on a side are needed."
        )
    # A phone's JPEG may carry a second picture (MPO: depth, a preview); the first is the photo.
    if image.format in {"PNG", "WEBP"} and getattr(image, "n_frames", 1) > 1:
        raise InputError(f"{path} is animated. Save one frame of it as PNG.")


def _to_rgba(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGBA")
    if image.mode in {"I", "F"}:
        values = np.asarray(image, np.float64)
        scale = 255.0 / 65535.0 if values.max(initial=0.0) > 255.0 else 1.0
        return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGBA")
    return image.convert("RGBA")
