"""Posed sets: what is written is read back; what is wrong is said in one line with its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.posed_views import load_views
from pipeline.transforms_json import read_transforms
from render.errors import InputError
from tests.pipeline.posed import barrel_set


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return barrel_set(
        tmp_path_factory.mktemp("posed") / "set", channels=("mask", "depth", "normal", "material")
    )


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(kept, tmp_path / "set"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "transforms.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("fov_deg", [40.0, None])
@pytest.mark.parametrize("channels", [("depth", "normal"), ()])
def test_views_come_back_in_the_unit_ball(
    tmp_path: Path, fov_deg: float | None, channels: tuple[str, ...]
) -> None:
    folder = barrel_set(tmp_path, fov_deg=fov_deg, channels=channels)  # type: ignore[arg-type]
    posed = read_transforms(folder)
    assert posed.projection == ("orthographic" if fov_deg is None else "perspective")
    found = load_views(posed)
    assert found.up == "z"
    assert found.warnings == ()
    # The barrel is 0.6 high around (0.3, 1, -0.2); the ball around it has the radius of its rims' corners.
    radius = float(np.hypot(0.3, 0.168)) / 0.94
    assert np.abs(found.placement.center - [0.3, 1.0, -0.2]).max() < 0.03 * radius
    assert found.placement.radius == pytest.approx(radius, rel=0.08)
    views = found.views
    pixels, _ = views.cameras.project(torch.zeros(1, 3))
    assert float((pixels - views.cameras.width / 2).abs().max()) < 0.1 * views.cameras.width
    if channels:
        assert views.gbuffer.depth is not None
        assert views.gbuffer.normal is not None
        seen = views.gbuffer.alpha[..., 0] > 0.99
        towards = -views.cameras.rays()[1]
        assert float((views.gbuffer.normal * towards).sum(-1)[seen].min()) > -0.4
        grid = views.cameras.pixel_centers().reshape(1, -1, 2).expand(len(views), -1, -1)
        points = views.cameras.unproject(grid, views.gbuffer.depth.flatten(1))[seen.flatten(1)]
        assert float(points.norm(dim=-1).max()) < 1.0
        # Its side is 0.54 to 0.42 of the barrel's half height of 0.75 from the axis.
        side = points[points[:, 1].abs() < 0.5]
        assert float(side[:, [0, 2]].norm(dim=-1).max()) < 0.54 * 0.4 / radius / 0.94 * 1.06


def test_a_blender_set_needs_no_more_than_an_angle(folder: Path) -> None:
    def blender(data: dict[str, Any]) -> None:
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_model", "up", "color"):
            data.pop(key)
        for frame in data["frames"]:
            for key in ("mask_path", "depth_file_path", "normal_file_path", "material_file_path"):
                frame.pop(key)
            frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")

    before = load_views(read_transforms(folder))
    edit(folder, blender)
    after = load_views(read_transforms(folder))
    assert after.up == "z"
    assert after.method == "alpha"
    assert after.views.gbuffer.rgb_srgb is not None
    assert after.views.gbuffer.depth is None
    assert after.placement.radius == pytest.approx(before.placement.radius, rel=0.08)


def test_normals_of_the_camera_are_told_from_those_of_the_world(folder: Path) -> None:
    posed = read_transforms(folder)
    wanted = load_views(posed).views.gbuffer.normal
    for frame in posed.frames:
        assert frame.normal is not None
        world = np.asarray(Image.open(frame.normal), np.float64) / 127.5 - 1
        camera = world @ frame.c2w[:3, :3]
        Image.fromarray(((camera * 0.5 + 0.5) * 255).round().clip(0, 255).astype(np.uint8)).save(frame.normal)
    edit(folder, lambda data: data.pop("normal_space"))
    found = load_views(read_transforms(folder)).views.gbuffer.normal
    assert wanted is not None
    assert found is not None
    solid = wanted.norm(dim=-1) > 0.5
    assert float((found * wanted).sum(-1)[solid].mean()) > 0.999


def test_pictures_of_other_sizes_and_shapes_agree(folder: Path) -> None:
    """One picture twice as large, one cropped: the windows around the object are the same."""
    wanted = load_views(read_transforms(folder)).views

    def change(data: dict[str, Any]) -> None:
        first, second = data["frames"][:2]
        for frame, size in ((first, (128, 128)), (second, (64, 64))):
            for key in ("file_path", "mask_path"):
                image = Image.open(folder / frame[key]).resize(size, Image.Resampling.BICUBIC)
                if frame is second:
                    image = image.crop((4, 8, 64, 62))
                image.save(folder / frame[key])
            for key in ("depth_file_path", "normal_file_path", "material_file_path"):
                frame.pop(key)
        second |= {"w": 60, "h": 54, "cx": data["cx"] - 4, "cy": data["cy"] - 8}

    edit(folder, change)
    found = load_views(read_transforms(folder))
    assert any("depth" in warning for warning in found.warnings)
    for view in (0, 1):
        pixels, _ = found.views.cameras[view].project(torch.zeros(1, 3))
        expected, _ = wanted.cameras[view].project(torch.zeros(1, 3))
        scale = wanted.cameras.width / found.views.cameras.width
        assert float((pixels * scale - expected).abs().max()) < 4.0


def test_distortion_is_undone(folder: Path) -> None:
    wanted = load_views(read_transforms(folder))
    edit(folder, lambda data: data.update(k1=0.0, k2=0.0, p1=1e-9))
    again = load_views(read_transforms(folder))
    assert float((again.views.gbuffer.alpha - wanted.views.gbuffer.alpha).abs().max()) < 0.02


def turn_around(data: dict[str, Any]) -> None:
    """Cameras that look outward: half a turn about their own up axis."""
    for frame in data["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[0], row[2] = -row[0], -row[2]


def shuffle(data: dict[str, Any]) -> None:
    """Another frame's pose each, and cameras whose distances do not fit."""
    poses = [frame["transform_matrix"] for frame in data["frames"]]
    for index, frame in enumerate(data["frames"]):
        frame["transform_matrix"] = [
            [*row[:3], row[3] + 0.4 * ((index * 7 + k * 5) % 12 - 6)]
            for k, row in enumerate(poses[-1 - index][:3])
        ]
        frame.pop("depth_file_path")


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "too few": (lambda d: d["frames"].__delitem__(slice(2, None)), "2 frames; at least 3"),
    "no intrinsics": (lambda d: [d.pop(k) for k in ("fl_x", "camera_angle_x")], "no intrinsics"),
    "NaN": (
        lambda d: d["frames"][1]["transform_matrix"][0].__setitem__(0, float("nan")),
        "frame 1 .*not finite",
    ),
    "scaled": (lambda d: d["frames"][2]["transform_matrix"][1].__setitem__(1, 3.0), "frame 2 .*not rigid"),
    "mirrored": (
        lambda d: [row.__setitem__(0, -row[0]) for row in d["frames"][0]["transform_matrix"]],
        "mirrors",
    ),
    "no matrix": (lambda d: d["frames"][0].pop("transform_matrix"), "4 x 4"),
    "missing file": (lambda d: d["frames"][0].update(file_path="images/none.png"), "there is no file"),
    "missing depth": (lambda d: d["frames"][0].update(depth_file_path="d.npy"), "there is no file"),
    "outside": (lambda d: d["frames"][0].update(file_path="../../etc/hostname"), "no file|out of the folder"),
    "text": (lambda d: d.update(fl_x="big"), "fl_x must be a finite number"),
    "fisheye": (lambda d: d.update(camera_model="OPENCV_FISHEYE"), "OPENCV_FISHEYE"),
    "same pose": (
        lambda d: [f.update(transform_matrix=d["frames"][0]["transform_matrix"]) for f in d["frames"]],
        "same pose",
    ),
    "other size": (lambda d: d.update(w=64, h=48), "intrinsics are of 64 x 48"),
    "no frames": (lambda d: d.pop("frames"), "no list of frames"),
    "looking away": (turn_around, "look away|point in common"),
    "depth of another unit": (lambda d: d.update(depth_unit_scale_factor=1.4e-3), "depths contradict"),
    "shuffled poses": (shuffle, "do not belong|look away"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_said(folder: Path, name: str) -> None:
    change, message = WRONG[name]
    edit(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        load_views(read_transforms(folder))
    assert "\n" not in str(caught.value)


def test_a_picture_of_nothing_is_left_out(folder: Path) -> None:
    first = read_transforms(folder).frames[0].image
    empty = Image.open(first).convert("RGBA")
    empty.putalpha(0)
    empty.save(first)
    edit(folder, lambda data: [frame.pop("mask_path") for frame in data["frames"]])
    found = load_views(read_transforms(folder))
    assert len(found.views) == 11
    assert found.warnings == ("images/0000.png shows nothing (its mask is empty); it was left out.",)


def test_one_depth_that_contradicts_the_others_is_named(folder: Path) -> None:
    frame = read_transforms(folder).frames[4]
    assert frame.depth is not None
    depth = np.load(frame.depth)
    np.save(frame.depth, depth * (0.7 if depth.dtype.kind == "f" else 1))
    found = load_views(read_transforms(folder))
    assert len(found.warnings) == 1
    assert "The depth of view 4 (images/0004.png) contradicts" in found.warnings[0]


def test_two_views_whose_poses_are_exchanged_are_named_though_they_look_alike(folder: Path) -> None:
    """A barrel has much the same outline from all sides: the depths tell, the silhouettes do not."""

    def exchange(data: dict[str, Any]) -> None:
        first, second = data["frames"][4], data["frames"][7]
        key = "transform_matrix"
        first[key], second[key] = second[key], first[key]

    edit(folder, exchange)
    found = load_views(read_transforms(folder))
    assert [warning.split(")")[0] for warning in found.warnings] == [
        "The depth of view 4 (images/0004.png",
        "The depth of view 7 (images/0007.png",
    ]
    edit(folder, lambda data: [frame.pop("depth_file_path") for frame in data["frames"]])
    assert load_views(read_transforms(folder)).warnings == ()


def test_damaged_files_are_said(folder: Path) -> None:
    frame = read_transforms(folder).frames[3]
    assert frame.depth is not None
    frame.depth.write_bytes(b"no numpy")
    with pytest.raises(InputError, match="cannot be read as depth"):
        load_views(read_transforms(folder))
    frame.image.write_bytes(frame.image.read_bytes()[:200])
    with pytest.raises(InputError, match="damaged"):
        load_views(read_transforms(folder))
    (folder / "transforms.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_transforms(folder)
    with pytest.raises(InputError, match=r"There is no .*transforms\.json"):
        read_transforms(folder / "images")


def test_empty_masks_are_left_out_and_a_turned_picture_is_named(folder: Path) -> None:
    frames = read_transforms(folder).frames
    assert frames[0].mask is not None
    Image.new("L", (64, 64)).save(frames[0].mask)
    # On its side: the silhouette no longer fits its pose.
    for path in (frames[5].image, frames[5].mask):
        assert path is not None
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    edit(folder, lambda data: [frame.pop("depth_file_path") for frame in data["frames"]])
    found = load_views(read_transforms(folder))
    assert len(found.views) == 11
    assert any("0000.png shows nothing" in warning for warning in found.warnings)
    for frame in frames:
        assert frame.mask is not None
        Image.new("L", (64, 64)).save(frame.mask)
    with pytest.raises(InputError, match="Only 0 of 12"):
        load_views(read_transforms(folder))
