"""A given shape is painted: it comes back exactly, and the colours follow prompt, seed and strength."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pipeline.multiview.repaint import RepaintConfig, repaint
from pipeline.prompt import Prompt
from render.cameras import orbit_cameras
from render.errors import CanceledError, InputError
from render.gbuffer import ViewSet
from tests.conftest import barrel_views

if TYPE_CHECKING:
    from pipeline.multiview.pipeline import MultiViewPipeline

CAMERAS = orbit_cameras([0.0, 120.0, 240.0], [15.0] * 3, 64)


def paint(pipeline: MultiViewPipeline, text: str = "a red barrel", seed: int = 1, **config: float) -> ViewSet:
    settings = RepaintConfig(**{"num_inference_steps": 3, **config})  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    return repaint(pipeline, Prompt(text), barrel_views(CAMERAS), settings, generator=generator)


def test_the_shape_comes_back_exactly(tiny_multiview_pipeline: MultiViewPipeline):
    given = barrel_views(CAMERAS).gbuffer
    made = paint(tiny_multiview_pipeline).gbuffer
    for name in ("alpha", "normal", "depth"):
        assert torch.equal(getattr(made, name), getattr(given, name)), name
    empty = given.alpha[..., 0] == 0
    for name, value in made.channels().items():
        assert value[empty].abs().sum() == 0, name
        assert name == "depth" or (value.min() >= -1 and value.max() <= 1)


def test_colours_follow_seed_prompt_and_strength(tiny_multiview_pipeline: MultiViewPipeline):
    def colors(**given: object) -> torch.Tensor:
        made = paint(tiny_multiview_pipeline, **given).gbuffer.base_color_srgb  # type: ignore[arg-type]
        assert made is not None
        return made

    first = colors()
    assert torch.equal(first, colors())
    for other in (colors(seed=2), colors(text="a golden barrel"), colors(strength=0.6)):
        assert not torch.equal(first, other)


def test_the_first_noise_level_is_the_strength(tiny_multiview_pipeline: MultiViewPipeline, monkeypatch):
    levels: list[float] = []
    velocity = tiny_multiview_pipeline.velocity

    def heard(noisy, sigma, *rest):
        levels.append(round(float(sigma[0]), 4))
        return velocity(noisy, sigma, *rest)

    monkeypatch.setattr(tiny_multiview_pipeline, "velocity", heard)
    paint(tiny_multiview_pipeline, strength=0.7)
    assert levels[0] == 0.7
    assert levels == sorted(levels, reverse=True)
    levels.clear()
    paint(tiny_multiview_pipeline)
    assert levels[0] == 1.0


def test_progress_can_stop_it(tiny_multiview_pipeline: MultiViewPipeline):
    def stop(fraction: float, message: str = "") -> None:
        if fraction > 0.3:
            raise CanceledError("stop")

    with pytest.raises(CanceledError):
        repaint(
            tiny_multiview_pipeline,
            Prompt("a barrel"),
            barrel_views(CAMERAS),
            RepaintConfig(num_inference_steps=3),
            generator=torch.Generator().manual_seed(0),
            progress=stop,
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [("strength", 0.0), ("strength", 1.1), ("num_inference_steps", 0), ("guidance_scale", -1.0)],
)
def test_settings_out_of_range(field: str, value: float):
    with pytest.raises(InputError, match=field):
        RepaintConfig(**{field: value})
