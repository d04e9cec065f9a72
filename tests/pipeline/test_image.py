from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.image import load_image
from render.errors import InputError


def picture(width: int = 64, height: int = 48) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 3, y * 4, (x + y)], -1).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_lossless_formats_keep_their_pixels(tmp_path: Path, suffix: str):
    picture().save(tmp_path / f"p.{suffix}", lossless=True)
    loaded = load_image(tmp_path / f"p.{suffix}")
    assert loaded.mode == "RGBA"
    assert np.array_equal(np.asarray(loaded)[..., :3], np.asarray(picture()))


def test_jpeg_is_read_whatever_its_name(tmp_path: Path):
    picture().save(tmp_path / "photo.dat", format="JPEG", quality=95)
    assert (
        np.abs(
            np.asarray(load_image(tmp_path / "photo.dat"))[..., :3].astype(int) - np.asarray(picture())
        ).mean()
        < 4
    )


def test_exif_orientation_turns_the_picture_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows run down on the right
    picture().save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(
        np.asarray(load_image(tmp_path / "p.png"))[..., :3], np.rot90(np.asarray(picture()), -1)
    )


def test_sixteen_bits_keep_their_brightness(tmp_path: Path):
    Image.fromarray(np.full((40, 40), 0x8000, np.uint16)).save(tmp_path / "p.png")
    assert np.asarray(load_image(tmp_path / "p.png"))[0, 0].tolist() == [128, 128, 128, 255]


def test_palette_transparency_becomes_alpha(tmp_path: Path):
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (10, 10, 30, 30))
    image.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(load_image(tmp_path / "p.png"))[[0, 20], [0, 20], 3].tolist() == [0, 255]


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(InputError, match="There is no image"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="not an image file"):
        load_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"%PDF-1.7", b"GIF89a" + b"\0" * 100])
def test_what_is_no_picture(tmp_path: Path, content: bytes):
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(InputError, match="is not a PNG, JPEG or WebP image"):
        load_image(tmp_path / "p.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated_files(tmp_path: Path, kind: str, part: float):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "p"
    Image.fromarray(noise).save(path, format=kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(InputError, match=r"damaged or cut off|is not a PNG, JPEG or WebP"):
        load_image(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path):
    picture().save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(200):
        data = bytearray(good)
        for position in generator.integers(8, len(data), 3):
            data[position] = int(generator.integers(256))
        (tmp_path / "p.png").write_bytes(bytes(data))
        with contextlib.suppress(InputError):
            load_image(tmp_path / "p.png")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(tmp_path: Path, kind: str):
    frames = [picture(), picture().rotate(180)]
    frames[0].save(tmp_path / "p", format=kind, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="is animated"):
        load_image(tmp_path / "p")


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (31, 500)])
def test_too_small(tmp_path: Path, size: tuple[int, int]):
    picture(*size).save(tmp_path / "p.png")
    with pytest.raises(InputError, match="at least 32"):
        load_image(tmp_path / "p.png")


@pytest.mark.parametrize("size", [(20_000, 40), (8000, 6000)])
def test_too_large(tmp_path: Path, size: tuple[int, int]):
    Image.new("1", size).save(tmp_path / "p.png")
    with pytest.raises(InputError, match=f"{size[0]} x {size[1]} pixels; at most 40 million"):
        load_image(tmp_path / "p.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path):
    picture().save(tmp_path / "p.png")
    data = bytearray((tmp_path / "p.png").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "p.png").write_bytes(data)
    with pytest.raises(InputError, match="more than 40 million"):
        load_image(tmp_path / "p.png")
