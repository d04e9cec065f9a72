"""Words say whether metal is asked for, and the channel how much there is."""

from __future__ import annotations

import pytest
import torch

from pipeline.finish import asks_for_metal, metal_share
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
