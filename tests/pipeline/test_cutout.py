from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from pipeline.cutout import FILL, _step, cut_out, matte
from render.errors import InputError

SIZE = 400
OBJECT = (170, 90, 40)


def scene(
    background: np.ndarray, *, shadow: bool = False, fill: tuple[int, int, int] = OBJECT
) -> Image.Image:
    """An ellipse of 160 x 200 pixels with a round hole of 40, drawn with smooth edges on `background`."""
    s = 4
    image = Image.fromarray(background).resize((SIZE * s, SIZE * s))
    plain = image.copy()
    if shadow:
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).ellipse([100 * s, 270 * s, 300 * s, 310 * s], fill=90)
        mask = mask.filter(ImageFilter.GaussianBlur(10 * s))
        image = Image.composite(Image.new("RGB", image.size), image, mask)
    body = Image.new("L", image.size)
    draw = ImageDraw.Draw(body)
    draw.ellipse([120 * s, 100 * s, 280 * s, 300 * s], fill=255)
    image.paste(fill, mask=body)
    hole = Image.new("L", image.size)
    ImageDraw.Draw(hole).ellipse([180 * s, 180 * s, 220 * s, 220 * s], fill=255)
    image.paste(plain, mask=hole)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def truth() -> np.ndarray:
    """Alpha of `scene` framed as `cut_out` frames it: 200 pixels of 250."""
    s = 4
    mask = Image.new("L", (250 * s, 250 * s))
    draw = ImageDraw.Draw(mask)
    draw.ellipse([45 * s, 25 * s, 205 * s, 225 * s], fill=255)
    draw.ellipse([105 * s, 105 * s, 145 * s, 145 * s], fill=0)
    return np.asarray(mask.resize((250, 250), Image.Resampling.BOX), np.float32) / 255


def overlap(cutout: Image.Image) -> float:
    """Soft intersection over union with the truth."""
    alpha = np.asarray(cutout.resize((250, 250)).getchannel("A"), np.float32) / 255
    return float(np.minimum(alpha, truth()).sum() / np.maximum(alpha, truth()).sum())


def white() -> np.ndarray:
    return np.full((SIZE, SIZE, 3), 245, np.uint8)


def gradient() -> np.ndarray:
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]
    return np.stack([180 + 60 * x, 190 + 40 * y, 200 + 30 * x * y], -1).astype(np.uint8)


def noisy() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 5, (SIZE, SIZE, 3))
    return np.clip(120 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("background", [white, gradient, noisy])
def test_plain_backgrounds_with_a_hole(background):
    found = cut_out(scene(background()).convert("RGBA"))
    assert found.method == "plain background"
    assert overlap(found.image) > 0.94


def test_a_soft_shadow_is_not_object():
    assert overlap(cut_out(scene(white(), shadow=True).convert("RGBA")).image) > 0.93


def test_a_grey_object_on_white_is_no_shadow():
    assert overlap(cut_out(scene(white(), fill=(150, 150, 150)).convert("RGBA")).image) > 0.95


BEIGE = (201, 183, 154)


def faint_stem(*, damage: str, shadow: bool = True) -> tuple[Image.Image, np.ndarray]:
    """A red cap on a stem that differs from the background by 3 Lab units at its top and 8 at its foot,
    standing in a soft shadow; and the true mask."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
    stem = (np.abs(x - 200) < 40 + 0.1 * (y - 180)) & (y > 170) & (y < 330)
    cap = ((x - 200) / 130) ** 2 + ((y - 180) / 90) ** 2 < 1
    cap &= y < 190
    pixels = np.broadcast_to(np.array(BEIGE, np.float32), (SIZE, SIZE, 3)).copy()
    if shadow:
        pixels *= (1 - 0.4 * np.exp(-(((x - 200) / 90) ** 2) - ((y - 330) / 35) ** 2))[..., None]
    pixels[stem] = np.array((196, 185, 150)) + (y[stem, None] - 190) / 140 * np.array((16, 20, 22))
    pixels[cap] = (200, 40, 40)
    if damage == "noise":
        pixels += np.random.default_rng(0).normal(0, 2, pixels.shape)
    image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    if damage == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=75)
        image = Image.open(file)
    return image.convert("RGBA"), stem | cap


@pytest.mark.parametrize("damage", ["none", "noise", "jpeg"])
def test_a_part_of_hardly_another_colour_than_the_background_is_kept_and_its_shadow_is_not(damage):
    image, truth = faint_stem(damage=damage)
    alpha = matte(image)[1]
    assert np.minimum(alpha, truth).sum() / np.maximum(alpha, truth).sum() > 0.95
    stem = truth[200:325]
    assert alpha[200:325][stem].mean() > 0.95


def test_a_faint_shadow_alone_is_no_part_of_the_object():
    with_shadow, truth = faint_stem(damage="none")
    without, _ = faint_stem(damage="none", shadow=False)
    assert np.abs(matte(with_shadow)[1] - matte(without)[1])[~truth].mean() < 5e-3  # a rim


def test_the_sample_mushroom_keeps_its_beige_stem_on_beige():
    path = Path(__file__).parents[2] / "assets" / "samples" / "mushroom.png"
    alpha = matte(Image.open(path).convert("RGBA"))[1]
    assert alpha[252:430, 215:290].mean() > 0.99  # the stem
    assert alpha[470:].max() == 0  # its shadow
    assert alpha[260:430, :170].max() == alpha[260:430, 345:].max() == 0


def test_a_step_has_its_own_height_and_a_ramp_has_none():
    ramp = np.repeat(np.arange(60, dtype=np.float32)[None, :, None], 50, 0) * 3.0
    step = np.where(np.arange(60) < 30, 0.0, 5.0).astype(np.float32)[None, :, None].repeat(50, 0)
    assert _step(ramp, 2)[6:-6, 6:-6].max() == pytest.approx(0, abs=1e-4)
    assert _step(step, 2).max() == pytest.approx(5)
    assert _step(step, 2)[:, 35:].max() == 0


def test_edges_carry_the_colour_of_the_object_not_of_the_background():
    pixels = np.asarray(cut_out(scene(white()).convert("RGBA")).image).astype(int)
    rim = (pixels[..., 3] > 40) & (pixels[..., 3] < 215)
    assert rim.sum() > 50
    assert np.abs(pixels[rim][:, :3] - OBJECT).max() < 30


def test_an_alpha_channel_is_taken_as_it_is():
    image = scene(white()).convert("RGBA")
    image.putalpha(Image.new("L", image.size))
    image.paste(scene(white()).convert("RGBA").crop((120, 100, 280, 300)), (10, 20))
    found = cut_out(image)
    assert found.method == "alpha"
    assert found.image.getchannel("A").getextrema() == (0, 255)


def test_the_object_is_centred_and_fills_its_part_of_the_frame():
    off_centre = Image.new("RGB", (700, 300), (240, 240, 240))
    off_centre.paste((20, 60, 120), (30, 40, 130, 240))
    frame = cut_out(off_centre.convert("RGBA")).image
    left, top, right, bottom = frame.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    assert frame.width == frame.height
    assert bottom - top == pytest.approx(FILL * frame.height, abs=2)
    assert (right - left) / (bottom - top) == pytest.approx(0.5, abs=0.02)
    assert left + right == pytest.approx(frame.width, abs=2)
    assert top + bottom == pytest.approx(frame.height, abs=2)


def test_a_cluttered_background_falls_back_to_statistics():
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]
    clutter = np.stack(
        [90 + 60 * np.sin(x * 40), 120 + 50 * np.sin(y * 37 + x * 9), 80 + 40 * np.sin(x * 29)], -1
    )
    found = cut_out(scene(clutter.clip(0, 255).astype(np.uint8), fill=(230, 40, 160)).convert("RGBA"))
    assert found.method == "colour statistics"
    assert overlap(found.image) > 0.8


def test_fully_transparent():
    with pytest.raises(InputError, match="fully transparent"):
        cut_out(Image.new("RGBA", (100, 100)))


def test_an_empty_picture_has_no_object():
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    for pixels in (np.full((200, 200, 3), 200, np.uint8), noise):
        with pytest.raises(InputError, match=r"cannot be told from the background|No object"):
            cut_out(Image.fromarray(pixels).convert("RGBA"))


def test_a_speck_is_too_small_to_make():
    image = Image.new("RGB", (400, 400), "white")
    image.paste((200, 0, 0), (200, 200, 212, 212))
    with pytest.raises(InputError, match=r"only 1\d pixels large"):
        cut_out(image.convert("RGBA"))
