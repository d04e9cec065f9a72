from __future__ import annotations

import pytest
from PIL import Image

from pipeline.prompt import MAX_CHARACTERS, Prompt
from render.errors import InputError


def test_white_space_is_joined_and_unicode_composed():
    prompt = Prompt("  a mossy\n\tstone  well ", negative="cafe\u0301")
    assert prompt.text == "a mossy stone well"
    assert prompt.negative == "caf\u00e9"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text_without_an_image_is_refused(text: str):
    with pytest.raises(InputError, match="prompt is empty"):
        Prompt(text)


def test_an_image_needs_no_text():
    assert Prompt(image=Image.new("RGBA", (64, 64))).text == ""


def test_up_to_four_pictures_stand_side_by_side():
    row = Image.new("RGBA", (96, 32), "blue")
    row.paste((255, 0, 0, 255), (32, 0, 64, 32))
    prompt = Prompt(image=row)
    assert [picture.size for picture in prompt.pictures] == [(32, 32)] * 3
    assert prompt.pictures[1].getpixel((5, 5)) == (255, 0, 0, 255)
    assert prompt.azimuths_deg == (0.0, 120.0, 240.0)
    assert (Prompt("a barrel").pictures, Prompt("a barrel").azimuths_deg) == ((), ())
    for size in ((160, 32), (48, 32), (32, 64)):
        with pytest.raises(InputError, match="side by side"):
            Prompt(image=Image.new("RGBA", size))


def test_an_empty_square_is_a_side_without_a_picture():
    row = Image.new("RGBA", (128, 32), "blue")
    for empty in (32, 64):
        row.paste((0, 0, 0, 0), (empty, 0, empty + 32, 32))
    assert Prompt(image=row).azimuths_deg == (0.0, 270.0)
    assert len(Prompt(image=row).pictures) == 2
    with pytest.raises(InputError, match="shows anything"):
        Prompt(image=Image.new("RGBA", (128, 32)))


def test_the_longest_prompt_passes_and_one_more_does_not():
    assert len(Prompt("x" * MAX_CHARACTERS).text) == MAX_CHARACTERS
    with pytest.raises(InputError, match=f"{MAX_CHARACTERS + 1} characters"):
        Prompt("x" * (MAX_CHARACTERS + 1))
    with pytest.raises(InputError, match="10,000 characters"):
        Prompt("x" * 10_000)
    with pytest.raises(InputError, match="negative prompt has"):
        Prompt("a barrel", negative="x" * 10_000)


@pytest.mark.parametrize(("character", "code"), [("\0", "U+0000"), ("\x1b", "U+001B"), ("\ud800", "U+D800")])
def test_unreadable_characters_are_named(character: str, code: str):
    with pytest.raises(InputError, match=rf"U\+{code[2:]} at 3"):
        Prompt(f"ab{character}cd")


@pytest.mark.parametrize("image", [Image.new("RGB", (8, 8)), Image.new("RGBA", (8, 9))])
def test_images_are_square_rgba(image: Image.Image):
    with pytest.raises(InputError, match="square RGBA"):
        Prompt("a barrel", image=image)
