"""Pictures become views without light: what light changes slowly goes, what is painted stays."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.pictured import _without_light
from pipeline.prompt import Prompt
from render.conventions import linear_to_srgb, srgb_to_linear
from tests.pipeline.multiview.test_pipeline import tiny_pipeline

SIDE = 64


def ball() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Alpha, normals and base colour (sRGB) of a ball with a small blue patch."""
    along = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    y, x = torch.meshgrid(-along, along, indexing="ij")
    alpha = ((x * x + y * y) < 0.8).float()[None]
    z = (1 - x * x - y * y).clamp_min(0.01).sqrt()
    color = torch.tensor([0.7, 0.4, 0.2])[:, None, None].expand(3, SIDE, SIDE).clone()
    color[:, 28:34, 28:34] = torch.tensor([0.1, 0.2, 0.8])[:, None, None]
    return alpha, torch.stack([x, y, z]), color


def test_light_from_one_side_goes_and_the_patch_stays() -> None:
    alpha, normal, color = ball()
    x, y, z = normal
    light = 0.35 + 0.5 * (0.6 * x + 0.5 * y + 0.6 * z).clamp_min(0)
    lit = linear_to_srgb(srgb_to_linear(color) * light)
    # The lifted view is a blur, without the patch.
    plain = torch.tensor([0.7, 0.4, 0.2])[:, None, None].expand(3, SIDE, SIDE)
    found = _without_light(lit, alpha, torch.cat([alpha, plain, normal]))
    inside = torch.nn.functional.avg_pool2d(alpha[None], 9, 1, 4)[0, 0] > 0.99
    before, after = ((one - color).abs().mean(0)[inside].mean() for one in (lit, found))
    assert float(before) > 0.08
    assert float(after) < 0.03
    patch = found[:, 29:33, 29:33].mean((1, 2))
    assert patch[2] - patch[0] > 0.4


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
    assert view.gbuffer.base_color_srgb is not None
    red, green, blue = view.gbuffer.base_color_srgb[0][covered].mean(0).tolist()
    assert red > 2 * green
    assert green == pytest.approx(blue, abs=0.02)
    assert float(view.gbuffer.base_color_srgb[0][~covered].abs().max()) == 0
