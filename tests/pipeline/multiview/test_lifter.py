"""The lifter: framing is exact, a picture comes to lie over its view, and the sampler uses what is lifted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.multiview import sampler
from pipeline.multiview.domain import Domain
from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.lifter_network import Framing, laid_over
from pipeline.prompt import Prompt
from pipeline.training.procedural.maker import Maker
from pipeline.training.procedural.nature import mushroom
from pipeline.training.props import Prop
from pipeline.training.train_lifter import lifting_loss, taken, targets
from render.cameras import Cameras, orbit_cameras, orbit_pose
from render.errors import InputError
from tests.pipeline.multiview.test_pipeline import CAMERAS, tiny_pipeline


def mushroom_prop(seed: int) -> Prop:
    maker = Maker(np.random.default_rng(seed))
    mushroom(maker)
    return maker.prop(["a mushroom"], "nature")


def test_framing_of_a_camera_and_back() -> None:
    c2w = orbit_pose(torch.tensor([30.0]), torch.tensor([20.0]), 5.0)
    # At a distance of 5 a focal length of 320 pixels shows the unit ball as the orthographic view does: 64.
    camera = Cameras(c2w, torch.tensor([[320.0, 320.0, 80.0, 48.0]]), 128, 128, "perspective")
    framing = Framing.of(camera)
    assert framing.elevation_rad.item() == pytest.approx(np.deg2rad(20), abs=1e-5)
    assert framing.log2_magnification.item() == pytest.approx(0, abs=1e-5)
    assert framing.center[0].tolist() == pytest.approx([0.25, -0.25])
    again = Framing.from_tensor(framing.to_tensor())
    assert torch.equal(again.center, framing.center)
    # What is far off is kept within what pictures are like.
    assert Framing.from_tensor(torch.full((1, 4), 9.0)).log2_magnification.item() == 2


def test_a_picture_laid_over_its_view_covers_the_same_pixels() -> None:
    rngs = [np.random.default_rng(i) for i in range(4)]
    pictures = [taken(mushroom_prop(i), 64, rng) for i, rng in enumerate(rngs) for _ in range(2)]
    picture = torch.stack([p.picture for p in pictures])
    framing = torch.stack([p.framing for p in pictures])
    moved = laid_over(picture, Framing.from_tensor(framing))[:, 3] > 0.5
    there, straight = targets(pictures, framing).image[:, 3] > 0, picture[:, 3] > 0.5

    def iou(a: torch.Tensor) -> float:
        return float((a & there).sum() / (a | there).sum())

    # Perspective is the rest.
    assert iou(moved) > 0.8
    assert iou(moved) > iou(straight) + 0.05


def test_the_view_to_predict_is_from_the_height_that_is_told() -> None:
    picture = taken(mushroom_prop(0), 64, np.random.default_rng(0))
    told = picture.framing[None].clone()
    told[0, 0] = np.pi / 2
    from_above = targets([picture], told)
    cap = from_above.image[0, 3] > 0
    assert from_above.known.shape == (1, 64, 64)
    height, width = (int(torch.nonzero(cap.any(axis))[:, 0].diff().sum()) for axis in (1, 0))
    assert abs(height - width) <= 2  # a mushroom is round from above


def test_loss_leaves_unknown_materials_out() -> None:
    torch.manual_seed(0)
    predicted, latents = torch.randn(2, 16, 8, 8), torch.zeros(2, 16, 8, 8)
    unknown = torch.zeros(2, 64, 64)
    error = lifting_loss(predicted, latents, unknown)
    assert error == pytest.approx(float(predicted[:, :-2].square().mean()))
    latents[:, -2:] = 100.0
    assert lifting_loss(predicted, latents, unknown) == error
    assert lifting_loss(predicted, latents, torch.ones(2, 64, 64)) > error


def test_the_sampler_draws_beside_the_lifted_view() -> None:
    pipeline = tiny_pipeline()
    prompt = Prompt("", Image.new("RGBA", (64, 64), (200, 30, 30, 255)))

    def draw() -> torch.Tensor:
        views = pipeline(prompt, CAMERAS, num_inference_steps=2, generator=torch.Generator().manual_seed(0))
        assert len(views) == len(CAMERAS)
        return views.gbuffer.depth  # type: ignore[return-value]

    with pytest.raises(InputError, match="reads no pictures"):
        draw()
    torch.manual_seed(0)
    pipeline.register_modules(lifter=PictureLifter(width=32, heads=2, depth=1).eval())
    (lifted,) = pipeline.lifted(prompt, 64)
    assert lifted.latents.shape == (1, 16, 8, 8)
    # The rays are those of a view from the front at the estimated height.
    color = torch.tensor([200 / 255, 30 / 255, 30 / 255, 1.0]).view(1, 4, 1, 1).expand(1, 4, 64, 64)
    assert pipeline.lifter is not None
    with torch.no_grad():
        features = pipeline.lifter.features(color)
        framing = Framing.from_tensor(pipeline.lifter.framing(color, features))
    elevation = torch.rad2deg(framing.elevation_rad).item()
    assert torch.allclose(lifted.rays, pipeline.rays(orbit_cameras([0.0], [elevation], 64)), atol=1e-3)
    assert torch.equal(draw(), draw())
    assert pipeline.lifted(Prompt("a barrel"), 64) == ()
    # It is part of the condition: guidance leads away from what is drawn without it.
    noisy, conditioning = torch.randn(len(CAMERAS), 16, 8, 8), pipeline.condition(prompt)
    rest = torch.full((len(CAMERAS),), 0.5), pipeline.rays(CAMERAS), conditioning
    with torch.no_grad():
        for scale, alike in ((0.0, True), (1.0, False)):
            beside, without = (pipeline.velocity(noisy, *rest, scale, given) for given in ([lifted], []))
            assert torch.equal(beside, without) == alike


def test_a_picture_without_a_text_is_drawn_as_what_it_is_recognised_as(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = tiny_pipeline()
    torch.manual_seed(0)
    pipeline.register_modules(lifter=PictureLifter(width=32, heads=2, depth=1).eval())
    picture = Image.new("RGBA", (64, 64), (200, 30, 30, 255))
    assert pipeline.named(Prompt("", picture)) is None  # nothing is known
    pipeline.known = Domain.build(["a barrel", "a mug on a barrel", "a sword"], pipeline.text_encoder)
    monkeypatch.setattr(sampler, "SURE_OF_NAME", -1.0)
    name = pipeline.named(Prompt("", picture))
    assert name in ("a barrel", "a sword")
    found, said = (pipeline.condition(Prompt(text, picture)).conditional for text in ("", name))
    assert torch.equal(found[0], said[0])
    # What the user says counts, and a model that is not sure says nothing.
    assert pipeline.named(Prompt("a cake", picture)) is None
    assert pipeline.named(Prompt("a cake")) is None
    monkeypatch.setattr(sampler, "SURE_OF_NAME", 1.1)
    assert pipeline.named(Prompt("", picture)) is None
    nothing = pipeline.condition(Prompt("", picture)).conditional
    assert not torch.equal(nothing[0], said[0])
