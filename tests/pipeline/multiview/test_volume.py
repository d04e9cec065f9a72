"""Volumes lie where views say, their views are those of the object, and drawing a picture begins there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import (
    CELLS,
    SURFACE_CELLS,
    Volume,
    cell_centers,
    together,
    turned,
)
from pipeline.multiview.volume_views import volume_views
from pipeline.prompt import Prompt
from pipeline.training.props import Prop
from pipeline.training.train_volume import (
    occupancy_loss,
    overlap_loss,
    surface_f_score_loss,
    surface_loss,
)
from pipeline.training.views import Pose, cameras_of, network_images
from pipeline.training.volume_examples import Reading, from_bytes, to_bytes
from pipeline.training.volumes import VolumeTargets, carved, in_ball, volume_targets
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
    return PictureVolume(48, width=16, heads=2, depth=1, column_width=8).eval()


def whole(targets: VolumeTargets) -> Volume:
    """What is sure of objects."""
    return Volume(targets.occupied * 20 - 10, targets.surface)


def test_an_object_is_carved_where_it_is() -> None:
    low, high = (-0.5, -0.3, 0.1), (0.2, 0.6, 0.4)
    volume = carved(block(low, high))
    centers = cell_centers(CELLS)
    inside = ((centers > torch.tensor(low)) & (centers < torch.tensor(high))).all(-1)
    found = volume[0] > 0.5
    assert (found & inside).sum() / inside.sum() > 0.99
    near = ((centers > torch.tensor(low) - 0.035) & (centers < torch.tensor(high) + 0.035)).all(-1)
    assert not (found & ~near).any()
    targets = volume_targets(volume, [0.0])
    seen = targets.weight[0, 0] > 0
    assert seen.any()
    color = targets.surface[0, :, seen].mean(1)
    assert color.tolist() == pytest.approx([1, -1, -1, 1, -0.5], abs=0.02)
    # Deep inside there is no surface.
    assert not seen[SURFACE_CELLS // 2 + 3, SURFACE_CELLS // 2 + 3, SURFACE_CELLS // 2 - 3]


def test_a_sheet_is_kept_however_thin() -> None:
    volume = carved(block((-0.6, -0.6, 0.0), (0.6, 0.6, 0.0005)))
    across = (cell_centers(CELLS)[..., :2].abs() < 0.55).all(-1)
    assert (volume[0].amax(0) > 0.5)[across[0]].all()


def test_targets_face_where_pictures_were_taken_from() -> None:
    prop = block((-0.5, -0.3, 0.1), (0.2, 0.6, 0.4))
    x, y, z = prop.vertices.T
    quarter = replace(prop, vertices=np.stack([-z, y, x], 1))  # what faced +X faces +Z
    found = volume_targets(carved(prop), [0.0, 90.0])
    for i, object_ in enumerate((prop, quarter)):
        there, here = carved(object_)[0] > 0.5, found.occupied[i] > 0
        assert (there & here).sum() / (there | here).sum() > 0.99


def test_views_of_a_volume_are_those_of_the_object() -> None:
    prop = mushroom_prop(1)
    volume = whole(volume_targets(carved(prop), [0.0]))
    cameras = cameras_of([Pose(0.0, 15.0), Pose(130.0, -20.0), Pose(250.0, 70.0)], 128)
    drawn = volume_views(volume, cameras, level=0.5)
    true = torch.from_numpy(network_images(prop, cameras)[0])
    a, b = drawn[:, 3] > 0, true[:, 3] > 0
    assert (a & b).sum() / (a | b).sum() > 0.93
    both = a & b
    assert (drawn[:, 7] - true[:, 7]).abs()[both].median() < 1.5 / CELLS
    cosine = (drawn[:, 4:7] * true[:, 4:7]).sum(1)[both]
    assert cosine.median() > 0.9
    torch.testing.assert_close(drawn[:, 4:7].norm(dim=1)[a], torch.ones(int(a.sum())))
    nothing = volume_views(Volume(volume.occupancy * 0 - 10, volume.surface), cameras)
    assert (nothing[:, 3] == -1).all()
    assert not nothing[:, :3].any()


def test_volumes_of_several_pictures_are_one() -> None:
    """Each turned to where its picture was taken, with the look of the side that it saw."""
    prop = mushroom_prop(1)
    targets = volume_targets(carved(prop), [0.0, 120.0])
    found = []
    for i, azimuth in enumerate((0.0, 120.0)):
        seen = Volume(targets.occupied[i : i + 1] * 20 - 10, targets.surface[i : i + 1] * 0 + (1 - 2 * i))
        found.append(turned(seen, azimuth))
    a, b = (one.occupancy > 0 for one in found)
    assert (a & b).sum() / (a | b).sum() > 0.85
    one = together(found, [0.0, 120.0])
    # Where both agree it is sure, where they do not it is open.
    sure = [one.occupancy.abs() > 2 for one in found]
    agree = sure[0] & sure[1] & (a == b)
    assert torch.equal(one.occupancy[agree] > 1, a[agree])
    assert one.occupancy[sure[0] & sure[1] & (a != b)].abs().max() < 1e-5
    middle, last = SURFACE_CELLS // 2, SURFACE_CELLS - 1
    assert one.surface[0, 0, last, middle, middle] > 0.9
    assert one.surface[0, 0, 0, middle, last] < -0.9
    # One alone stays what it is.
    assert together(found[:1], [0.0]) is found[0]


def test_a_volume_is_turned_about_the_vertical_axis() -> None:
    """What faced azimuth 0 faces another: of a quarter turn every number is where it should be."""
    torch.manual_seed(0)
    volume = Volume(torch.randn(1, CELLS, CELLS, CELLS), torch.randn(1, 5, *(SURFACE_CELLS,) * 3))
    assert turned(volume, 0.0) is volume
    quarter = turned(volume, 90.0)
    # +Z comes to +X, and +X to -Z.
    torch.testing.assert_close(
        quarter.occupancy, volume.occupancy.permute(0, 3, 2, 1).flip(1), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        quarter.surface, volume.surface.permute(0, 1, 4, 3, 2).flip(2), atol=1e-4, rtol=0
    )


def test_losses_are_of_what_is_known() -> None:
    targets = volume_targets(carved(mushroom_prop(0)), [0.0])
    right = Volume(targets.occupied * 20 - 10, targets.surface)
    assert occupancy_loss(right, targets) < 1e-3
    assert overlap_loss(right, targets) < 1e-2
    assert overlap_loss(Volume(right.occupancy * 0 - 10, right.surface), targets) > 0.99
    assert surface_loss(right, targets) == 0
    unknown = replace(targets, weight=targets.weight * torch.tensor([1, 1, 1, 0, 0]).view(1, 5, 1, 1, 1))
    other = targets.surface.clone()
    other[:, 3:] += 1
    assert surface_loss(Volume(right.occupancy, other), unknown) == 0
    assert surface_loss(Volume(right.occupancy, other), targets) > 0
    outside = torch.where(in_ball(), right.occupancy, -right.occupancy)
    for loss in (occupancy_loss, overlap_loss):
        assert loss(Volume(outside, targets.surface), targets) < 1e-2


def test_surfaces_that_are_near_score_and_scattered_cells_do_not() -> None:
    there = torch.zeros(1, CELLS, CELLS, CELLS)
    there[:, 20:44, 32, 20:44] = 1  # a plate, a cell thick
    colors = torch.zeros(1, 5, *(SURFACE_CELLS,) * 3)
    targets = VolumeTargets(there, colors, colors)

    def loss(occupied: torch.Tensor) -> float:
        return float(surface_f_score_loss(Volume(occupied * 20 - 10, colors), targets))

    assert loss(there) < 1e-3
    assert loss(there.roll(1, 2)) < 0.35
    assert loss(there.roll(8, 2)) > 0.99
    scattered = torch.zeros_like(there)
    scattered[:, 20:44:3, 32, 20:44:3] = 1
    assert loss(scattered) > 0.75
    # Twice as much is not better either.
    assert loss(torch.maximum(there, there.roll(4, 2))) > 0.3
    # What is deep inside counts for nothing.
    solid = torch.zeros_like(there)
    solid[:, 20:44, 20:44, 20:44] = 1
    hollow = solid.clone()
    hollow[:, 28:36, 28:36, 28:36] = 0
    targets = replace(targets, occupied=solid)
    assert loss(solid) < 1e-3
    assert loss(hollow) < 0.15


def test_examples_come_as_they_were_made() -> None:
    targets = volume_targets(carved(mushroom_prop(1)), [0.0, 70.0])
    reading = Reading(
        torch.randn(2, 8, 16, 16).bfloat16(),
        torch.randn(2, 4, 16, 16).bfloat16().float(),
        torch.randn(2, 320, 6, 6).bfloat16(),
        torch.randn(2, 4),
    )
    again, what = from_bytes(to_bytes(reading, targets))
    for name in ("tokens", "latents", "seen", "framing"):
        assert torch.equal(getattr(again, name), getattr(reading, name))
    assert torch.equal(what.occupied, targets.occupied)
    assert torch.equal(what.weight, targets.weight)
    torch.testing.assert_close(what.surface, targets.surface, atol=1 / 254, rtol=0)


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
    assert pipeline.volume_latents((), CAMERAS) is None
    begun = draw(0.5)
    assert not torch.equal(begun, without)
    assert torch.equal(begun, draw(0.5))
    # From nothing but noise it plays no part.
    whole = draw(1.0)
    pipeline.register_modules(volume=None)
    assert torch.equal(whole, draw(1.0))
