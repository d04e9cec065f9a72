"""Pictures of stages in the middle: three sides over white, their form and their triangles to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.artifacts import save_material, save_mesh
from pipeline.checkpoints import StageOutput
from pipeline.stages import MATERIAL_FILE, MESH_FILE
from render.scene import Material, Mesh
from worker.stage_pictures import GREY, KEY_LIGHT, SIDE_PX, stage_picture


@pytest.fixture
def made(tmp_path: Path) -> dict[str, StageOutput]:
    """A ball, red where it has a material."""
    ball = trimesh.creation.icosphere(3, 0.5)
    mesh = Mesh(
        np.asarray(ball.vertices, np.float32),
        np.asarray(ball.faces, np.int32),
        np.asarray(ball.vertex_normals, np.float32),
        np.zeros((len(ball.vertices), 2), np.float32),
    )
    one = np.ones((1, 1), np.float32)
    red = Material(np.array([[[1.0, 0.0, 0.0]]], np.float32), 0 * one, one)
    outputs = {}
    for name in ("surface", "mesh", "texture"):
        folder = tmp_path / name
        folder.mkdir()
        save_mesh(mesh, folder / MESH_FILE)
        save_material(red, folder / MATERIAL_FILE)
        outputs[name] = StageOutput(name, name, folder, {}, 0.0, 0.0, reused=False)
    return outputs


def pixels(stage: str, made: dict[str, StageOutput]) -> np.ndarray:
    picture = stage_picture(stage, made)
    assert picture is not None
    assert picture.size == (3 * SIDE_PX, SIDE_PX)
    sides = np.asarray(picture, np.float32).reshape(SIDE_PX, 3, SIDE_PX, 3) / 255
    if stage != "mesh":  # a ball looks alike from everywhere, and the light goes with the camera
        assert np.abs(np.diff(sides, axis=1)).mean() < 0.01
    assert (sides[0] == 1).all()
    return sides[:, 0]


def test_a_ball_is_lit_from_above_the_left_shoulder(made: dict[str, StageOutput]):
    side = pixels("surface", made)[..., 0]
    rows, columns = np.nonzero(side < 1)
    np.testing.assert_allclose([rows.mean(), columns.mean()], (SIDE_PX - 1) / 2, atol=1.0)
    radius = np.sqrt(len(rows) / np.pi)
    down, right = np.indices(side.shape) - (SIDE_PX - 1) / 2
    inside = np.hypot(down, right) < 0.95 * radius  # without the border, which is mixed with white
    assert side[inside].max() == pytest.approx(GREY, abs=0.01)
    x, y, _ = KEY_LIGHT
    bright = inside & (side > 0.99 * GREY)
    middle = down[bright].mean() / radius, right[bright].mean() / radius
    np.testing.assert_allclose(middle, (-y, x), atol=0.06)
    unlit = inside & (down * -y + right * x < -0.55 * radius)
    assert np.median(side[unlit]) < 0.8 * GREY


def test_triangles_have_borders(made: dict[str, StageOutput]):
    plain, lined = pixels("surface", made), pixels("mesh", made)
    assert (lined <= plain).all()
    inside = (plain < 0.99).all(-1)
    share = (lined < plain).all(-1)[inside].mean()
    assert 0.1 < share < 0.7


def test_textures_show_their_colour(made: dict[str, StageOutput]):
    side = pixels("texture", made)
    middle = side[SIDE_PX // 2, SIDE_PX // 2]
    assert middle[0] > 0.8
    assert (middle[1:] == 0).all()


def test_other_stages_have_none(made: dict[str, StageOutput]):
    assert stage_picture("export", made) is None
