"""Volumes lie where views say, their views are those of the object, and drawing a picture begins there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import CELLS, SURFACE_CELLS, Volume, cell_centers
from pipeline.multiview.volume_views import LEVEL, level_for, volume_views
from pipeline.prompt import Prompt
from pipeline.training.props import Prop
from pipeline.training.train_volume import occupancy_loss, surface_loss
from pipeline.training.views import Pose, cameras_of, network_images
from pipeline.training.volumes import carved, in_ball, turned, volume_targets
from render.conventions import ORTHOGRAPHIC_HALF_EXTENT
from tests.pipeline.multiview.test_lifter import mushroom_prop
from tests.pipeline.multiview.test_pipeline import CAMERAS, tiny_pipeline


def block(low: tuple[float, float, float], high: tuple[float, float, float]) -> Prop:
    """A red box that is not in the middle."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))], np.int32)
    span = np.array(high, np.float32) - np.array(low, np.float32)
    return replace(
        mushroom_prop(0),
        vertices=np.array(low, np.float32) + corners * span,
        faces=faces,
        colors=np.tile(np.uint8([255, 0, 0]), (8, 1)),
        metallic=np.ones(12, np.float32),
        roughness=np.full(12, 0.25, np.float32),
        material_known=np.ones(12, np.float32),
    )


def network() -> PictureVolume:
    torch.manual_seed(0)
    return PictureVolume(48, spread=2, middle=8, width=16, heads=2, depth=1).eval()


def test_an_object_is_carved_where_it_is() -> None:
    low, high = (-0.5, -0.3, 0.1), (0.2, 0.6, 0.4)
    volume = carved(block(low, high))
    centers = cell_centers(CELLS)
    inside = ((centers > torch.tensor(low)) & (centers < torch.tensor(high))).all(-1)
    found = volume[0] > 0.5
    assert (found & inside).sum() / inside.sum() > 0.99
    near = ((centers > torch.tensor(low) - 0.035) & (centers < torch.tensor(high) + 0.035)).all(-1)
    assert not (found & ~near).any()
    targets = volume_targets(volume[None])
    seen = targets.weight[0, 0] > 0
    assert seen.any()
    color = targets.surface[0, :, seen].mean(1)
    assert color.tolist() == pytest.approx([1, -1, -1, 1, -0.5], abs=0.02)
    # Deep inside there is no surface.
    assert not seen[SURFACE_CELLS // 2 + 3, SURFACE_CELLS // 2 + 2, SURFACE_CELLS // 2 - 3]


def test_a_sheet_is_kept_however_thin() -> None:
    volume = carved(block((-0.6, -0.6, 0.0), (0.6, 0.6, 0.0005)))
    across = (cell_centers(CELLS)[..., :2].abs() < 0.55).all(-1)
    assert (volume[0].amax(0) > 0.5)[across[0]].all()


def test_a_turned_volume_is_that_of_the_turned_object() -> None:
    prop = block((-0.5, -0.3, 0.1), (0.2, 0.6, 0.4))
    x, y, z = prop.vertices.T
    quarter = replace(prop, vertices=np.stack([-z, y, x], 1))  # what faced +X faces +Z
    there, here = carved(quarter)[0] > 0.5, turned(carved(prop), 90.0)[0] > 0.5
    assert (there & here).sum() / (there | here).sum() > 0.97


def test_views_of_a_volume_are_those_of_the_object() -> None:
    prop = mushroom_prop(1)
    targets = volume_targets(carved(prop)[None])
    cameras = cameras_of([Pose(0.0, 15.0), Pose(130.0, -20.0), Pose(250.0, 70.0)], 128)
    drawn = volume_views(Volume(targets.occupied * 20 - 10, targets.surface), cameras, level=0.5)
    true = torch.from_numpy(network_images(prop, cameras)[0])
    a, b = drawn[:, 3] > 0, true[:, 3] > 0
    assert (a & b).sum() / (a | b).sum() > 0.93
    both = a & b
    assert (drawn[:, 7] - true[:, 7]).abs()[both].median() < 1.5 / CELLS
    cosine = (drawn[:, 4:7] * true[:, 4:7]).sum(1)[both]
    assert cosine.median() > 0.9
    torch.testing.assert_close(drawn[:, 4:7].norm(dim=1)[a], torch.ones(int(a.sum())))
    nothing = volume_views(Volume(targets.occupied * 0 - 10, targets.surface), cameras)
    assert (nothing[:, 3] == -1).all()
    assert not nothing[:, :3].any()


def test_what_is_likely_nowhere_is_drawn_where_it_is_seen() -> None:
    targets = volume_targets(carved(mushroom_prop(1))[None])
    camera = cameras_of([Pose(0.0, 15.0)], 64)
    sure = Volume(targets.occupied * 20 - 10, targets.surface)
    seen = volume_views(sure, camera)[0, 3] > 0
    assert level_for(sure, camera, seen) == LEVEL
    doubtful = Volume(torch.where(targets.occupied > 0, -2.2, -10.0), targets.surface)  # a tenth
    assert not (volume_views(doubtful, camera)[0, 3] > 0).any()
    level = level_for(doubtful, camera, seen)
    assert 0.05 < level < 0.1
    assert (volume_views(doubtful, camera, level)[0, 3] > 0)[seen].float().mean() > 0.7
    # Where there is nothing at all, the search ends.
    assert level_for(Volume(targets.occupied * 0 - 10, targets.surface), camera, seen) < 0.05


def test_rays_are_brought_upright() -> None:
    """What the lifted view has at a pixel and a height comes to the cell that lies there."""
    elevation = np.deg2rad(30)
    heights = (torch.arange(SURFACE_CELLS) * 2 + 1) / SURFACE_CELLS - 1
    columns = (torch.arange(16) * 2 + 1) / 16 - 1
    rays = torch.zeros(1, 2, SURFACE_CELLS, 16, 16)
    rays[:, 0], rays[:, 1] = heights[:, None, None], columns[:, None]  # the second: down the rows
    found = network()._upright(
        rays.flatten(1, 2), torch.tensor([[elevation, 0.0, 0.0, 0.0]], dtype=torch.float32)
    )
    x, y, z = cell_centers(SURFACE_CELLS).unbind(-1)
    up, height = y * np.cos(elevation) - z * np.sin(elevation), y * np.sin(elevation) + z * np.cos(elevation)
    within = (torch.stack([x, up, height]).abs() < 0.9).all(0)
    torch.testing.assert_close(found[0, 0][within], height[within], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0, 1][within], -up[within] / ORTHOGRAPHIC_HALF_EXTENT, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0, 2], x)


def test_losses_are_of_what_is_known() -> None:
    targets = volume_targets(carved(mushroom_prop(0))[None])
    right = Volume(targets.occupied * 20 - 10, targets.surface)
    assert occupancy_loss(right, targets) < 1e-3
    assert surface_loss(right, targets) == 0
    unknown = replace(targets, weight=targets.weight * torch.tensor([1, 1, 1, 0, 0]).view(1, 5, 1, 1, 1))
    other = targets.surface.clone()
    other[:, 3:] += 1
    assert surface_loss(Volume(right.occupancy, other), unknown) == 0
    assert surface_loss(Volume(right.occupancy, other), targets) > 0
    outside = torch.where(in_ball(), right.occupancy, -right.occupancy)
    assert occupancy_loss(Volume(outside, targets.surface), targets) < 1e-3


def test_views_of_a_picture_begin_from_its_volume() -> None:
    pipeline = tiny_pipeline()
    pipeline.register_modules(lifter=PictureLifter(width=32, heads=2, depth=1).eval())
    prompt = Prompt("", Image.new("RGBA", (64, 64), (200, 30, 30, 255)))

    def draw(level: float) -> torch.Tensor:
        views = pipeline(
            prompt,
            CAMERAS,
            num_inference_steps=8,
            guess_level=level,
            generator=torch.Generator().manual_seed(0),
        )
        assert views.gbuffer.depth is not None
        return views.gbuffer.depth

    without = draw(0.5)
    assert pipeline.volume_latents(pipeline.lifted(prompt, 64), CAMERAS) is None
    pipeline.register_modules(volume=network())
    guess = pipeline.volume_latents(pipeline.lifted(prompt, 64), CAMERAS)
    assert guess is not None
    assert guess.shape == (len(CAMERAS), 16, 8, 8)
    assert pipeline.volume_latents(None, CAMERAS) is None
    begun = draw(0.5)
    assert not torch.equal(begun, without)
    assert torch.equal(begun, draw(0.5))
    # From nothing but noise it plays no part.
    whole = draw(1.0)
    pipeline.register_modules(volume=None)
    assert torch.equal(whole, draw(1.0))
