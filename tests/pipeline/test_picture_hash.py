"""Perceptual hashes: those of the reference, near for the same picture, far for others, and their lists."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline.picture_hash import (
    MIN_QUALITY,
    NEAR_BITS,
    HashList,
    PictureHash,
    all_ways,
    picture_hash,
    read_hash_list,
)
from render.errors import InputError

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
# Of the sample pictures over white, by pdqhash 0.2.8, the binding of Facebook's own code: hash, quality.
REFERENCE = {
    "barrel": ("1f34f1ec6963870ee1e69e79649b1e33969e5926924961e3786da486e5a41a59", 100),
    "crate": ("979f278fdf392d0c4870d25c24c659b3968f2d29ba4ca6dee17058931685a76c", 79),
    "house": ("4eccf6c6b4b3893c4b665b113cb9e42cb2ce1ed34706690e387be7b194b49864", 100),
    "mushroom": ("6bcc656d2469ac63b4d15386539edb9efa129c391d3905a949a4eb84eac4dc72", 100),
    "sword": ("cca3cd9898cd9996999998cc9999339966663333666666676666666666669999", 37),
    "tree": ("6582b6699a6669a4669986da6964965bb69c3923999e9b63699c669b264d996c", 92),
}


def sample(name: str) -> Image.Image:
    with Image.open(SAMPLES / f"{name}.png") as picture:
        return picture.convert("RGBA")


def bits_apart(a: PictureHash, b: PictureHash) -> int:
    return int((a.bits != b.bits).sum())


@pytest.mark.parametrize("name", REFERENCE)
def test_hashes_are_those_of_the_reference(name: str):
    found = picture_hash(sample(name))
    assert (found.hex, found.quality) == REFERENCE[name]


def test_the_same_picture_is_near_and_others_are_far():
    names = [name for name, (_, quality) in REFERENCE.items() if quality >= MIN_QUALITY]
    own = {name: picture_hash(sample(name)) for name in names}
    for name in names:
        white = Image.new("RGBA", sample(name).size, "white")
        picture = Image.alpha_composite(white, sample(name)).convert("RGB")
        saved = io.BytesIO()
        picture.save(saved, "JPEG", quality=40)
        for changed in (
            picture.resize((picture.width // 2, picture.height // 2)),
            picture.resize((900, 700)),
            Image.open(saved),
            ImageEnhance.Brightness(picture).enhance(0.8),
            picture.convert("L"),
        ):
            assert bits_apart(picture_hash(changed), own[name]) <= NEAR_BITS
        others = [bits_apart(own[name], own[other]) for other in names if other != name]
        assert min(others) > 2 * NEAR_BITS


def test_mirrored_and_turned_pictures_are_found():
    crate = sample("crate")
    listed = HashList(packed(picture_hash(crate)), ("crate",))
    for turn in Image.Transpose:
        found = listed.nearest(all_ways(crate.transpose(turn)))
        assert found is not None
        assert (found[0], found[1] <= NEAR_BITS) == ("crate", True)


def test_what_is_nearly_flat_matches_nothing():
    flat = Image.new("RGB", (300, 200), (120, 40, 30))
    assert picture_hash(flat).quality < MIN_QUALITY
    assert HashList(packed(picture_hash(flat)), ("flat",)).nearest(all_ways(flat)) is None


def test_a_hash_has_about_as_many_ones_as_zeros():
    noise = np.random.default_rng(0).integers(0, 256, (128, 96, 3), np.uint8)
    assert picture_hash(Image.fromarray(noise)).bits.sum() == 128


def test_lists_are_read(tmp_path: Path):
    path = tmp_path / "known.txt"
    crate, house = (picture_hash(sample(name)) for name in ("crate", "house"))
    path.write_text(f"# ours\n\n{crate.hex},case 12\n  {house.hex.upper()}  \n")
    listed = read_hash_list(path)
    assert listed.labels == ("case 12", "line 4")
    assert listed.nearest([crate]) == ("case 12", 0)
    assert listed.nearest([house]) == ("line 4", 0)


@pytest.mark.parametrize("text", ["abc", "0" * 63, "g" * 64, "0" * 65])
def test_a_wrong_line_is_named(tmp_path: Path, text: str):
    path = tmp_path / "known.txt"
    path.write_text(f"{'0' * 64}\n{text}\n")
    with pytest.raises(InputError, match="line 2"):
        read_hash_list(path)


def test_a_missing_list_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        read_hash_list(tmp_path / "none.txt")


def packed(one: PictureHash) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(one.hex), np.uint8)[None].copy()
