"""Turntables: what is written plays back; nothing half-written keeps a final name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from render.errors import CanceledError, InputError
from render.scene import Material, Mesh, Part, Scene
from render.turntable import TurntableConfig, turntable


@pytest.fixture(scope="module")
def scene() -> Scene:
    shape = trimesh.creation.cone(0.4, 1.0)
    shape.apply_transform(trimesh.transformations.rotation_matrix(0.9, [1, 0, 0]))
    material = Material(
        np.array([[[0.8, 0.2, 0.1]]], np.float32),
        np.zeros((1, 1), np.float32),
        np.full((1, 1), 0.5, np.float32),
    )
    return Scene((Part(Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int32)), material),))


def decoded(path: Path, size: int) -> tuple[np.ndarray, str]:
    """RGB frames of a video, and what the decoder says of its stream."""
    command = [get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    run = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(run.stdout, np.uint8).reshape(-1, size, size, 3), run.stderr.decode()


SMALL = TurntableConfig(frames=5, size_px=47, supersample=1)


def test_all_formats_play_back(scene: Scene, tmp_path: Path):
    targets = [tmp_path / name for name in ("turn.mp4", "turn.webp", "turn.gif", "turn")]
    fractions = []
    written = turntable(
        scene, targets, SMALL, progress=lambda fraction, message="": fractions.append(fraction)
    )
    assert written == targets
    assert sorted(path.name for path in tmp_path.iterdir()) == ["turn", "turn.gif", "turn.mp4", "turn.webp"]
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert fractions == sorted(fractions)

    stills = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "turn").iterdir())]
    assert len(stills) == 5
    assert stills[0].shape == (48, 48, 3)
    frames, stream = decoded(tmp_path / "turn.mp4", 48)
    assert "h264" in stream
    assert "yuv420p" in stream
    assert len(frames) == 5
    for still, frame in zip(stills, frames, strict=True):
        # Colours survive BT.709; 4:2:0 smears the red edge over a good part of so small a picture.
        assert np.abs(still.astype(int) - frame).mean() < 6
    for name in ("turn.webp", "turn.gif"):
        with Image.open(tmp_path / name) as animation:
            assert animation.n_frames == 5
            animation.seek(2)
            shown = np.asarray(animation.convert("RGB")).astype(int)
        assert np.abs(shown - stills[2]).mean() < 6
    head = (tmp_path / "turn.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # plays before it is loaded whole


def test_same_scene_same_bytes(scene: Scene, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        turntable(
            scene, [tmp_path / name / f"turn{suffix}" for suffix in (".mp4", ".webp", ".gif", "")], SMALL
        )
    for suffix in (".mp4", ".webp", ".gif"):
        first, second = ((tmp_path / name / f"turn{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second


def test_transparent_frames_keep_alpha(scene: Scene, tmp_path: Path):
    config = TurntableConfig(frames=2, size_px=48, background="transparent", supersample=1)
    turntable(scene, [tmp_path / "turn", tmp_path / "turn.webp", tmp_path / "turn.mp4"], config)
    with Image.open(tmp_path / "turn" / "frame_0000.png") as still:
        assert still.mode == "RGBA"
        assert still.getpixel((0, 0))[3] == 0
        assert still.getpixel((24, 24))[3] == 255
    with Image.open(tmp_path / "turn.webp") as animation:
        assert animation.convert("RGBA").getpixel((0, 0))[3] == 0


def test_cancelling_leaves_nothing(scene: Scene, tmp_path: Path):
    (tmp_path / "turn.mp4").write_bytes(b"earlier")

    def cancel(fraction: float, message: str = "") -> None:
        if fraction > 0.5:
            raise CanceledError("stopped")

    with pytest.raises(CanceledError):
        turntable(
            scene, [tmp_path / "turn.mp4", tmp_path / "turn.gif", tmp_path / "turn"], SMALL, progress=cancel
        )
    assert [path.name for path in tmp_path.iterdir()] == ["turn.mp4"]
    assert (tmp_path / "turn.mp4").read_bytes() == b"earlier"


def test_wrong_targets_are_refused(scene: Scene, tmp_path: Path):
    with pytest.raises(InputError, match="unknown turntable format"):
        turntable(scene, tmp_path / "turn.avi", SMALL)
    with pytest.raises(InputError, match="no such folder"):
        turntable(scene, tmp_path / "none" / "turn.mp4", SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="thesis"):
        turntable(scene, tmp_path / "mine", SMALL)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    # The encoder cannot open its file: a folder lies in the way.
    (tmp_path / ".turn.mp4.partial").mkdir()
    with pytest.raises((InputError, IsADirectoryError)):
        turntable(scene, tmp_path / "turn.mp4", SMALL)


@pytest.mark.parametrize(
    ("name", "value"), [("frames", 0), ("size_px", 8), ("fps", 0), ("elevation_deg", 90.0), ("mode", "xray")]
)
def test_settings_out_of_range_are_named(name: str, value: object):
    with pytest.raises((InputError, TypeError), match=name):
        TurntableConfig(**{name: value})
