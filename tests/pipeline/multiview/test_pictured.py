"""Pictures become views of twice the size, from where the lifter says."""

from __future__ import annotations

import torch
from PIL import Image

from pipeline.multiview.lifter import PictureLifter
from pipeline.prompt import Prompt
from tests.pipeline.multiview.test_pipeline import tiny_pipeline

SIDE = 64


def test_a_picture_becomes_a_view_of_twice_the_size() -> None:
    pipeline = tiny_pipeline()
    torch.manual_seed(0)
    pipeline.register_modules(lifter=PictureLifter(width=32, heads=2, depth=1).eval())
    assert pipeline.pictured(Prompt("a barrel"), SIDE) is None
    pixels = Image.new("RGBA", (64, 64))
    pixels.paste((200, 30, 30, 255), (16, 16, 48, 48))
    view = pipeline.pictured(Prompt("", pixels), SIDE)
    assert view is not None
    assert view.gbuffer.alpha.shape == (1, 2 * SIDE, 2 * SIDE, 1)
    assert view.cameras.projection == "orthographic"
    covered = view.gbuffer.alpha[0, ..., 0] > 0.5
    assert 0.05 < float(covered.float().mean()) < 0.9
    assert view.gbuffer.rgb_srgb is not None
    color = view.gbuffer.rgb_srgb[0]
    # But for what scaling does to its edges.
    assert float((color[covered] - torch.tensor([200, 30, 30]) / 255).abs().mean()) < 0.02
    assert float(color[~covered].abs().max()) == 0
