"""Contact sheets: every channel of every view is there, labels fit, odd inputs do not break the page."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from render.cameras import orbit_cameras
from render.contact_sheet import channel_pictures, sheet, view_labels, views_sheet
from render.gbuffer import GBuffer, ViewSet


def views(count: int = 3, size: int = 16) -> ViewSet:
    cameras = orbit_cameras([0.0, 90.0, 0.0][:count], [15.0, 0.0, 90.0][:count], size)
    alpha = torch.zeros(count, size, size, 1)
    alpha[:, 4:12, 4:12] = 1
    return ViewSet(
        cameras,
        GBuffer(
            alpha=alpha,
            base_color_srgb=alpha * torch.tensor([1.0, 0.0, 0.0]),
            normal=alpha * torch.tensor([0.0, 0.0, 1.0]),
            depth=alpha * torch.linspace(1, 3, size)[None, :, None, None],
            metallic=alpha * 1.0,
            roughness=alpha * 0.25,
        ),
    )


def test_channels_show_their_values():
    pictures = channel_pictures(views())
    assert set(pictures) == {"base_color_srgb", "normal", "depth", "metallic", "roughness", "alpha"}
    assert tuple(pictures["base_color_srgb"][0, 8, 8]) == (255, 0, 0)
    assert tuple(pictures["base_color_srgb"][0, 0, 0]) == (255, 255, 255)
    assert tuple(pictures["normal"][0, 8, 8]) == (128, 128, 255)
    assert tuple(pictures["roughness"][0, 8, 8]) == (64, 64, 64)
    assert pictures["depth"][0, 5, 8, 0] > pictures["depth"][0, 11, 8, 0]  # near is light


def test_labels_name_the_cameras():
    assert view_labels(views().cameras) == ["0° / +15°", "90°", "top"]


def test_views_sheet_holds_every_cell():
    page = np.asarray(views_sheet(views(), cell_px=64, title="a red square, " * 40))
    red = (page == (255, 0, 0)).all(-1)
    # 8 of 16 pixels a side, four times enlarged, in three views.
    assert red.sum() == 3 * 32 * 32
    missing = views_sheet(ViewSet(views().cameras, GBuffer(alpha=views().gbuffer.alpha)))
    assert missing.height < 300


def test_views_with_nan_and_nothing_seen():
    broken = views()
    empty = GBuffer(**{name: value * float("nan") for name, value in broken.gbuffer.channels().items()})
    empty = GBuffer(**{**empty.channels(), "alpha": torch.zeros_like(broken.gbuffer.alpha)})
    assert views_sheet(ViewSet(broken.cameras, empty)).width > 0


def test_sheet_places_pictures_in_rows():
    images = [Image.new("RGBA", (40, 20), (0, 0, 255, 255)), Image.new("RGB", (20, 40), (0, 255, 0))] * 2
    page = np.asarray(sheet(images, ["a", "b " * 60, "ü", ""], columns=3, cell_px=80, title="pictures"))
    assert (page == (0, 0, 255)).all(-1).sum() == 2 * 80 * 40
    assert (page == (0, 255, 0)).all(-1).sum() == 2 * 40 * 80
    with pytest.raises(ValueError, match="labels"):
        sheet(images, ["a"])
