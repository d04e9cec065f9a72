"""Which of several drawn sets of views is kept: the one that agrees best with itself and with the prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from pipeline.consistency import Consistency, view_consistency
from pipeline.finish import asks_for_color, asks_for_metal, color_lacking, metal_share
from pipeline.preset import ViewsConfig
from pipeline.prompt import Prompt
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import ViewSet
from render.progress import Progress, part_of, silent

if TYPE_CHECKING:
    from pipeline.source import ViewModel


def stage_generator(seed: int, stage: str) -> torch.Generator:
    """The random numbers of one stage: the same whether the stages before it ran now or were kept."""
    import hashlib

    digest = hashlib.sha256(f"{stage}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def view_cameras(config: ViewsConfig) -> Cameras:
    """The cameras of the generated views: orthographic, around the unit ball."""
    return orbit_cameras(list(config.azimuths_deg), list(config.elevations_deg), config.size_px)


@dataclass(frozen=True)
class BestViews:
    """A set of views that was chosen of several."""

    views: ViewSet
    consistency: Consistency
    likeness: float | None
    scores: tuple[float, ...]
    """Of all that were drawn."""


def best_views(
    network: ViewModel, prompt: Prompt, config: ViewsConfig, seed: int, progress: Progress = silent
) -> BestViews:
    """The set of views that agrees best with itself and with the prompt.

    What counts is `score exp(w (likeness - 1) - m d - c l)`, where d is how far the views are from
    the metal, or the lack of it, and l what they lack of the colour that the text asks for.

    The best of the candidates is drawn again from `redraw_level`, of a picture from no higher than where its
    views begin, and kept where that is better.
    """
    cameras, total = view_cameras(config), config.candidates + config.redraws
    best: BestViews | None = None
    scores: list[float] = []
    metal, colors = asks_for_metal(prompt.text), asks_for_color(prompt.text)
    for k in range(total):
        views = network(
            prompt,
            cameras,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_for(prompt),
            guidance_rescale=config.rescale_for(prompt),
            generator=stage_generator(seed, f"views-{k}" if k else "views"),
            start=best.views if best is not None and k >= config.candidates else None,
            start_level=min(config.redraw_level, config.guess_level_for(prompt)),
            guess_level=config.guess_level_for(prompt),
            progress=part_of(progress, k / total, (k + 1) / total),
        ).to("cpu")
        found = view_consistency(views)
        likeness = network.likeness(prompt, views)
        fits = 0.0 if likeness is None else config.likeness_weight * (likeness - 1)
        if metal is not None:
            fits -= config.metal_weight * abs(metal_share(views.gbuffer) - metal)
        if colors:
            fits -= config.color_weight * color_lacking(views.gbuffer, colors)
        scores.append(found.score * math.exp(fits))
        if best is None or scores[-1] > max(scores[:-1]):
            best = BestViews(views, found, likeness, ())
    assert best is not None
    return replace(best, scores=tuple(scores))
