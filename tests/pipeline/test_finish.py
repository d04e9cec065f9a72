"""Words say what metal and colour is asked for, and the channels how much there is."""

from __future__ import annotations

import pytest
import torch

from pipeline.finish import asks_for_color, asks_for_metal, color_lacking, metal_share
from render.gbuffer import GBuffer


@pytest.mark.parametrize(
    ("text", "metal"),
    [
        ("a yellow metal chair", True),
        ("a Golden sword", True),
        ("an iron-bound box", True),
        ("a wooden barrel with iron bands", False),
        ("a white stone house", False),
        ("a red plastic bucket, metal handle", False),
        ("a crate on a metal shelf", None),
        ("a chair", None),
        ("a wooden iron-bound chest", None),
        ("a goldfish", None),
        ("", None),
    ],
)
def test_metal_is_what_the_first_thing_is_said_to_be_of(text: str, metal: bool | None) -> None:
    assert asks_for_metal(text) is metal


def test_the_share_of_metal_is_that_of_covered_pixels() -> None:
    alpha = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 2, 2, 1)
    metallic = torch.tensor([1.0, 0.5, 1.0, 1.0]).view(1, 2, 2, 1)
    assert metal_share(GBuffer(alpha=alpha, metallic=metallic)) == 0.75
    assert metal_share(GBuffer(alpha=0 * alpha, metallic=metallic)) == 0


@pytest.mark.parametrize(
    ("text", "colors"),
    [
        ("a red mushroom with white dots", ("red", "dark red")),
        ("a dark red bow", ("red", "dark red")),
        ("a Gray wolf", ("light grey", "grey", "dark grey")),
        ("a golden sword", ("gold", "yellow")),
        ("a house with a red roof", ()),
        ("a black and white cow", ()),
        ("a red blue ball", ()),
        ("a goldfish", ()),
        ("a wooden chair", ()),
        ("", ()),
    ],
)
def test_the_colour_is_what_the_first_thing_is_said_to_have(text: str, colors: tuple[str, ...]) -> None:
    assert asks_for_color(text) == colors


def test_a_colour_lacks_until_half_of_the_covered_pixels_have_it() -> None:
    alpha = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]).view(1, 1, 5, 1)
    red, white = torch.tensor([0.8, 0.1, 0.1]), torch.ones(3)
    rgb = torch.stack([red, red, white, white, white]).view(1, 1, 5, 3)
    views = GBuffer(alpha=alpha, base_color_srgb=rgb)
    assert color_lacking(views, ("red", "dark red")) == 0
    assert color_lacking(views, ("blue",)) == 1
    rgb[0, 0, 1] = white
    assert color_lacking(views, ("red", "dark red")) == 0.5
    assert color_lacking(GBuffer(alpha=0 * alpha, base_color_srgb=rgb), ("red",)) == 1
