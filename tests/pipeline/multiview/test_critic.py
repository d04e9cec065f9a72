"""The critic: what the shipped one sees in exact views, and that a pipeline keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.best_views import view_cameras
from pipeline.multiview.codec import decode_gbuffer
from pipeline.multiview.critic import ViewCritic
from pipeline.multiview.critic_network import shrink
from pipeline.multiview.pipeline import load, save
from pipeline.multiview.sampler import load as load_sampler
from pipeline.preset import ViewsConfig
from pipeline.prompt import Prompt
from pipeline.training.procedural import containers, nature, street
from pipeline.training.procedural.maker import Maker
from pipeline.training.views import network_images
from render.gbuffer import ViewSet
from tests.conftest import barrel_views
from tests.pipeline.multiview.test_pipeline import tiny_pipeline

CAMERAS = view_cameras(ViewsConfig())


def exact_views(make: Callable[[Maker], object], seed: int) -> ViewSet:
    """G-buffers of a procedural object that the critic was not trained on."""
    maker = Maker(np.random.default_rng([seed, 99]))
    make(maker)
    image, _ = network_images(maker.prop(["a thing"], "prop"), CAMERAS)
    return ViewSet(CAMERAS, decode_gbuffer(torch.from_numpy(image), CAMERAS))


def test_things_are_seen_as_what_they_are() -> None:
    sampler = load_sampler()
    known = {"barrel": containers.barrel, "mushroom": nature.mushroom, "traffic cone": street.traffic_cone}
    for name, make in known.items():
        views = [exact_views(make, seed) for seed in range(3)]
        assert sum(name in " ".join(sampler.looks_like(one)) for one in views) >= 2, name
        for other in known.keys() | {"sword", "car", "house", "chair"}:
            if other != name:
                for one in views:
                    own = sampler.likeness(Prompt(f"a {name}"), one)
                    less = sampler.likeness(Prompt(f"a {other}"), one)
                    assert own is not None
                    assert less is not None
                    assert own > less, (name, other)


def test_nothing_is_said_without_a_text_or_a_critic() -> None:
    pipeline, views = tiny_pipeline(), barrel_views(CAMERAS[:2])
    assert pipeline.critic is None
    assert pipeline.likeness(Prompt("a barrel"), views) is None
    assert pipeline.looks_like(views) == ()
    pipeline.register_modules(critic=ViewCritic(8))
    assert pipeline.likeness(Prompt("", Image.new("RGBA", (8, 8), "red")), views) is None


def test_a_saved_pipeline_keeps_its_critic(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipeline = tiny_pipeline()
    pipeline.register_modules(critic=ViewCritic(8).eval())
    views, prompt = barrel_views(CAMERAS[:2]), Prompt("a barrel")
    expected = pipeline.likeness(prompt, views)
    save(pipeline, tmp_path / "model")
    for read in (load, load_sampler):
        again = read(tmp_path / "model", dtype=torch.float32)
        assert again.likeness(prompt, views) == pytest.approx(expected, abs=2e-3)


def test_a_smaller_view_is_the_mean_over_what_is_covered() -> None:
    image = torch.zeros(1, 10, 128, 128)
    image[:, 3] = -1
    image[:, 3, :, :65], image[:, 0, :, :65] = 1, 0.5
    small = shrink(image)
    assert small.shape == (1, 10, 64, 64)
    # The column that is covered by half has the colour of what covers it.
    assert small[0, 0, 0, 31:34].tolist() == [0.5, 0.5, 0.0]
    assert small[0, 3, 0, 31:34].tolist() == [1.0, 0.0, -1.0]
