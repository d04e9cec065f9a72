"""Perceptual hashes: the same picture has nearly the same hash after scaling, saving anew, slight changes.

The hash is PDQ (Facebook, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019,
section "PDQ"), because lists of pictures that are known to be forbidden are kept and exchanged in it: 256
bits, the signs of the 16 x 16 lowest frequencies of the brightness about their median. A hash says nothing
of what a picture shows; another picture of the same thing has another hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from render.errors import InputError

SIDE = 64
"""Pixels of the picture that is transformed."""
LOW = 16
"""Frequencies that are kept on each axis; the mean is not among them."""
BITS = LOW * LOW
NEAR_BITS = 31
"""Hashes that differ in at most so many bits are of the same picture (PDQ's recommendation)."""
MIN_QUALITY = 50
"""Of 100. Flat pictures have hashes of noise, which match each other by chance (PDQ's recommendation)."""
MAX_SIDE = 512
"""Larger pictures are made smaller first, as PDQ's own tools do."""
MAX_LISTED = 1_000_000


@dataclass(frozen=True)
class PictureHash:
    """A hash and how much there was to hash."""

    bits: Bool[np.ndarray, "16 16"]
    """By frequency: rows are the vertical one, from low to high."""
    quality: int
    """0 to 100, from the picture's edges; below `MIN_QUALITY` the hash means nothing."""

    @property
    def hex(self) -> str:
        """64 digits as PDQ's tools write them: the last bit first."""
        return np.packbits(self.bits.ravel()[::-1]).tobytes().hex()


def picture_hash(picture: Image.Image) -> PictureHash:
    """The hash of a picture; what is transparent is white."""
    return _hash_of(_small(picture))


def all_ways(picture: Image.Image) -> list[PictureHash]:
    """Its hash, and those of the picture mirrored and turned by right angles: eight."""
    small = _small(picture)
    ways = [np.rot90(side, turns) for side in (small, small[:, ::-1]) for turns in range(4)]
    return [_hash_of(np.ascontiguousarray(way)) for way in ways]


@dataclass(frozen=True)
class HashList:
    """Hashes to look for, with what their list says of them."""

    packed: np.ndarray
    """uint8 [n, 32]."""
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def empty() -> HashList:
        return HashList(np.zeros((0, BITS // 8), np.uint8), ())

    def nearest(self, hashes: Iterable[PictureHash]) -> tuple[str, int] | None:
        """Label and distance in bits of the nearest entry; None when no hash is fit to be compared."""
        best: tuple[str, int] | None = None
        for one in hashes:
            if one.quality < MIN_QUALITY or not len(self):
                continue
            mine = np.packbits(one.bits.ravel()[::-1])
            distance = np.bitwise_count(self.packed ^ mine).sum(1, dtype=np.int32)
            place = int(distance.argmin())
            if best is None or distance[place] < best[1]:
                best = self.labels[place], int(distance[place])
        return best


def read_hash_list(path: Path) -> HashList:
    """A file of lines `64 hexadecimal digits[,label]`; empty lines and those that begin with # are skipped.
    `InputError` names the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list of pictures {path} cannot be read ({type(error).__name__}).") from None
    if len(lines) > MAX_LISTED:
        raise InputError(f"{path} has {len(lines):,} lines; at most {MAX_LISTED:,} are read.")
    packed, labels = [], []
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        digits, _, label = text.partition(",")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digits.strip()):
            raise InputError(f"{path}, line {number}: not 64 hexadecimal digits, optionally with ,label.")
        packed.append(bytes.fromhex(digits.strip()))
        labels.append(label.strip()[:60] or f"line {number}")
    return HashList(np.frombuffer(b"".join(packed), np.uint8).reshape(-1, BITS // 8), tuple(labels))


def _small(picture: Image.Image) -> Float[np.ndarray, "64 64"]:
    """Brightness in 0 to 255, blurred and sampled."""
    if "A" in picture.mode or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    picture = picture.convert("RGB")
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    luma = np.asarray(picture, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    for axis in (0, 1):
        for _ in range(2):
            luma = _box(luma, axis)
    rows, columns = (((np.arange(SIDE) + 0.5) * n / SIDE).astype(int) for n in luma.shape)
    return luma[np.ix_(rows, columns)]


def _box(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over a window of a 128th of the picture's length; at the borders over what there is of it."""
    length = values.shape[axis]
    window = -(-length // (2 * SIDE))
    after = (window + 2) // 2
    before = window - after
    total = np.concatenate(
        [np.zeros_like(values.take([0], axis), np.float64), np.cumsum(values, axis, np.float64)], axis
    )
    low = np.clip(np.arange(length) - before, 0, None)
    high = np.clip(np.arange(length) + after, None, length)
    shape = [1, 1]
    shape[axis] = length
    return ((total.take(high, axis) - total.take(low, axis)) / (high - low).reshape(shape)).astype(np.float32)


def _hash_of(small: Float[np.ndarray, "64 64"]) -> PictureHash:
    low = _cosines() @ small @ _cosines().T
    steps = [
        np.trunc((small[1:] - small[:-1]) * 100 / 255),
        np.trunc((small[:, 1:] - small[:, :-1]) * 100 / 255),
    ]
    edges = sum(float(np.abs(step).sum()) for step in steps)
    # PDQ's median is the lower of the two in the middle.
    median = np.sort(low.ravel())[BITS // 2 - 1]
    return PictureHash(low > median, min(100, int(edges / 90)))


@cache
def _cosines() -> Float[np.ndarray, "16 64"]:
    """Rows 1 to 16 of the discrete cosine transform."""
    frequency = np.arange(1, LOW + 1)[:, None]
    place = 2 * np.arange(SIDE)[None] + 1
    return (np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * frequency * place)).astype(np.float32)
