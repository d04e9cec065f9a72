"""The views stage: of several sets, the one that agrees best with itself and with the prompt is kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.best_views import best_views
from pipeline.consistency import view_consistency
from pipeline.finish import metal_share
from pipeline.preset import ViewsConfig
from pipeline.prompt import Prompt
from pipeline.report import prompt_warning
from pipeline.source import ModelSource
from pipeline.stages import DRAWN_FILE, REGISTERED_FILE, draw_views, load_drawn
from render.errors import InputError
from render.gbuffer import ViewSet
from tests.conftest import BarrelPipeline


def drawn(folder: Path, candidates: int, redraws: int = 0) -> ViewSet:
    folder.mkdir()
    config = ViewsConfig(size_px=64, num_inference_steps=2, candidates=candidates, redraws=redraws)
    model = BarrelPipeline(jitter=2.0)
    fractions: list[float] = []
    draw_views(
        folder,
        Prompt("a barrel"),
        config,
        0,
        ModelSource(model=model),
        progress=lambda fraction, message="": fractions.append(fraction),
    )
    assert model.calls == candidates + redraws
    assert model.started == [False] * candidates + [True] * redraws
    assert model.start_levels[candidates:] == [config.redraw_level] * redraws
    assert fractions == sorted(fractions)
    return ViewSet.load(folder / DRAWN_FILE)


def test_the_best_of_several_sets_is_kept(tmp_path: Path) -> None:
    kept = drawn(tmp_path / "four", 4)
    scores = load_drawn(tmp_path / "four" / "views.json").candidates
    assert len(set(scores)) == 4
    assert view_consistency(kept).score == pytest.approx(max(scores))
    # The first set is the one that is drawn alone: a seed keeps its meaning.
    alone = drawn(tmp_path / "one", 1)
    assert view_consistency(alone).score == pytest.approx(scores[0])
    again = drawn(tmp_path / "again", 4)
    assert torch.equal(again.gbuffer.alpha, kept.gbuffer.alpha)


def test_the_best_set_is_drawn_again_and_kept_where_it_gets_better(tmp_path: Path) -> None:
    kept = drawn(tmp_path / "again", 2, redraws=3)
    scores = load_drawn(tmp_path / "again" / "views.json").candidates
    assert len(scores) == 5
    assert view_consistency(kept).score == pytest.approx(max(scores))


def test_the_views_are_bent_into_one_another_and_kept_as_drawn(tmp_path: Path) -> None:
    kept = drawn(tmp_path / "barrel", 1)
    found = load_drawn(tmp_path / "barrel" / "views.json")
    assert found.looks_like == ("barrel",)
    said = found.consistency
    assert view_consistency(kept) == said
    together = ViewSet.load(tmp_path / "barrel" / REGISTERED_FILE)
    assert view_consistency(together).score > said.score + 0.05


def test_what_fits_the_prompt_is_preferred_to_what_agrees(tmp_path: Path) -> None:
    config = ViewsConfig(size_px=64, num_inference_steps=2, candidates=4)
    plain = best_views(BarrelPipeline(jitter=2.0), Prompt("a barrel"), config, 0)
    assert plain.likeness is None
    worst = int(np.argmin(plain.scores))
    model = BarrelPipeline(jitter=2.0)
    model.likes = lambda views: 0.9 if model.calls == worst + 1 else -0.9
    chosen = best_views(model, Prompt("a barrel"), config, 0)
    assert chosen.likeness == 0.9
    assert chosen.consistency.score == pytest.approx(min(plain.scores))
    assert max(chosen.scores) == pytest.approx(min(plain.scores) * math.exp(-0.1 * config.likeness_weight))
    model = BarrelPipeline(jitter=2.0)
    model.likes = lambda views: 0.9 if model.calls == worst + 1 else -0.9
    chosen = best_views(model, Prompt("a barrel"), replace(config, likeness_weight=0.0), 0)
    assert chosen.consistency.score == pytest.approx(max(plain.scores))


def test_what_is_asked_for_in_metal_is_chosen_in_metal() -> None:
    class Alternately(BarrelPipeline):
        def __call__(self, *args: Any, **options: Any) -> ViewSet:
            views = super().__call__(*args, **options)
            alpha, metallic = views.gbuffer.alpha, float(self.calls % 2)
            return replace(views, gbuffer=replace(views.gbuffer, metallic=metallic * alpha))

    config = ViewsConfig(size_px=64, num_inference_steps=1, candidates=4)
    for text, share in (("a yellow metal barrel", 1), ("a wooden barrel", 0)):
        chosen = best_views(Alternately(jitter=2.0), Prompt(text), config, 0)
        assert metal_share(chosen.views.gbuffer) == pytest.approx(share)
    # The best that agree, of both kinds: where the words leave it open, that alone decides.
    plain = best_views(Alternately(jitter=2.0), Prompt("a barrel"), config, 0)
    assert plain.consistency.score == pytest.approx(max(plain.scores))
    weightless = best_views(
        Alternately(jitter=2.0), Prompt("a wooden barrel"), replace(config, metal_weight=0.0), 0
    )
    assert weightless.scores == plain.scores


def test_what_is_asked_for_in_a_colour_is_chosen_in_it() -> None:
    class Alternately(BarrelPipeline):
        def __call__(self, *args: Any, **options: Any) -> ViewSet:
            views = super().__call__(*args, **options)
            rgb = torch.tensor([0.2, 0.4, 0.8] if self.calls % 2 else [0.8, 0.2, 0.2])
            return replace(views, gbuffer=replace(views.gbuffer, base_color_srgb=views.gbuffer.alpha * rgb))

    config = ViewsConfig(size_px=64, num_inference_steps=1, candidates=4)
    for text, channel in (("a blue barrel", 2), ("a red barrel", 0)):
        chosen = best_views(Alternately(jitter=2.0), Prompt(text), config, 0).views.gbuffer
        assert chosen.base_color_srgb is not None
        assert int(chosen.base_color_srgb.sum((0, 1, 2)).argmax()) == channel
    plain = best_views(Alternately(jitter=2.0), Prompt("a barrel"), config, 0)
    weightless = best_views(
        Alternately(jitter=2.0), Prompt("a blue barrel"), replace(config, color_weight=0.0), 0
    )
    assert weightless.scores == plain.scores


def test_a_picture_alone_has_its_own_guidance_and_every_picture_a_first_guess() -> None:
    picture = Image.new("RGBA", (8, 8), "red")
    config = ViewsConfig(
        size_px=64, num_inference_steps=1, guidance_scale=2.5, picture_guidance_scale=1.5,
        picture_start_level=0.7,
    )  # fmt: skip
    model = BarrelPipeline()
    for prompt in (Prompt("a barrel"), Prompt("", picture), Prompt("a barrel", picture)):
        best_views(model, prompt, config, 0)
    assert model.guidance == [2.5, 1.5, 2.5]
    assert model.rescales == [1.0, 0.0, 1.0]
    assert model.guess_levels == [1.0, 0.7, 0.7]
    # What is drawn again of a picture keeps as much of its first guess.
    again = BarrelPipeline()
    for prompt in (Prompt("a barrel"), Prompt("", picture)):
        best_views(again, prompt, replace(config, redraws=1, redraw_level=0.9), 0)
    assert [level for level, redrawn in zip(again.start_levels, again.started, strict=True) if redrawn] == [
        0.9,
        0.7,
    ]


def test_candidates_are_a_few() -> None:
    with pytest.raises(InputError, match="candidates"):
        ViewsConfig(candidates=0)


def test_what_a_picture_was_taken_for_is_told(tmp_path: Path) -> None:
    model = BarrelPipeline()
    model.takes_pictures_for = "a barrel"
    picture = Image.new("RGBA", (64, 64), (120, 80, 40, 255))
    config = ViewsConfig(size_px=64, num_inference_steps=1, candidates=1, redraws=0)
    for folder, text, name in ((tmp_path / "alone", "", "a barrel"), (tmp_path / "named", "a keg", None)):
        folder.mkdir()
        draw_views(folder, Prompt(text, picture), config, 0, ModelSource(model=model))
        found = load_drawn(folder / "views.json")
        assert found.taken_for == name
        said = prompt_warning(found, text)
        assert (said is None) == (name is None)
        assert said is None or 'taken for "a barrel"' in said
