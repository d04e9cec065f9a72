"""`maquette retexture`: any GLB in, the same shape in a new look out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.cli import invoke
from pipeline.preset import PreviewConfig, ViewsConfig, load_preset
from pipeline.prompt import Prompt
from pipeline.receipt import Receipt
from pipeline.replay import replay
from pipeline.retexture import RetextureConfig, retexture
from pipeline.source import ModelSource
from recon.export.glb import glb_bytes
from recon.package import package_of_scene
from recon.uv import unwrap
from render.errors import InputError
from render.glb import load_scene
from render.scene import Material, Part, Scene
from tests.recon.mesh_field import as_mesh

if TYPE_CHECKING:
    from pipeline.multiview.pipeline import MultiViewPipeline

CONFIG = RetextureConfig(
    replace(
        load_preset("draft"),
        views=ViewsConfig((0.0, 180.0, 0.0), (15.0, 15.0, 89.0), 64, num_inference_steps=2),
        preview=PreviewConfig(size_px=64, turntable_frames=0),
    ),
    texture_size=128,
)


def written(path: Path, *, parts: int = 1) -> Path:
    """Balls in a row, unwrapped, checked in grey, two metres above the floor."""
    one = np.ones((1, 1), np.float32)
    checks = np.where(np.indices((8, 8)).sum(0)[..., None] % 2, 0.4, 0.6).repeat(3, -1)
    material = Material(checks.astype(np.float32), one * 0.0, one * 0.5)
    found = []
    for number in range(parts):
        ball = trimesh.creation.icosphere(2, 0.4)
        ball.apply_translation((number, 2.0, 0.0))
        found.append(Part(unwrap(as_mesh(ball), 128), material, f"ball{number}"))
    path.write_bytes(glb_bytes(package_of_scene(Scene(tuple(found)), "balls")))
    return path


def made(asset: Path, out: Path, pipeline: MultiViewPipeline, **given: object) -> dict[str, bytes]:
    files = retexture(
        asset,
        "a red ball",
        out=out,
        config=CONFIG,
        model=ModelSource(model=pipeline),
        **given,  # type: ignore[arg-type]
    )
    return {path.name: path.read_bytes() for path in files}


def test_the_mesh_stays_and_the_look_changes(tmp_path: Path, tiny_multiview_pipeline: MultiViewPipeline):
    asset = written(tmp_path / "My Ball.glb")
    files = made(asset, tmp_path / "out", tiny_multiview_pipeline)
    assert set(files) == {"my-ball.glb", "preview.png", "views.png", "report.json", "receipt.json"}
    old, new = load_scene(asset).parts[0], load_scene(tmp_path / "out" / "my-ball.glb").parts[0]
    np.testing.assert_allclose(new.mesh.vertices, old.mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(new.mesh.faces, old.mesh.faces)
    assert old.mesh.uvs is not None
    np.testing.assert_allclose(new.mesh.uvs, old.mesh.uvs, atol=1e-6)
    assert new.material.base_color_srgb.shape == (128, 128, 3)
    report = json.loads(files["report.json"])
    assert report["asset"]["watertight"] is True
    assert [one["name"] for one in report["stages"]] == ["paint", "texture", "export", "preview"]
    assert [verdict["allowed"] for verdict in report["safety"]] == [True, True, True]


def test_the_same_request_gives_the_same_bytes(tmp_path: Path, tiny_multiview_pipeline: MultiViewPipeline):
    asset = written(tmp_path / "ball.glb")
    first, again, other = (
        made(asset, tmp_path / str(number), tiny_multiview_pipeline, seed=seed)
        for number, seed in enumerate((4, 4, 5))
    )
    assert first["ball.glb"] == again["ball.glb"]
    assert first["preview.png"] == again["preview.png"]
    assert first["ball.glb"] != other["ball.glb"]


def test_a_receipt_is_replayed(tmp_path: Path, tiny_multiview_pipeline: MultiViewPipeline):
    asset = written(tmp_path / "ball.glb")
    look = Image.new("RGBA", (64, 64), (200, 30, 30, 255))
    made(asset, tmp_path / "out", tiny_multiview_pipeline, image=look)
    receipt, again = tmp_path / "out" / "receipt.json", tmp_path / "again"
    moved = asset.rename(tmp_path / "other-name.glb")
    replayed = replay(receipt, again, asset=moved, model=tiny_multiview_pipeline)
    assert replayed.changes == []
    assert replayed.same == dict.fromkeys(("ball.glb", "preview.png", "views.png", "input.png"), True)
    with pytest.raises(InputError, match="--asset"):
        replay(receipt, again)
    with pytest.raises(InputError, match="not the model that was worked on"):
        replay(receipt, again, asset=tmp_path / "out" / "ball.glb")
    with pytest.raises(InputError, match="another operation"):
        Receipt.load(receipt)
    (tmp_path / "out" / "input.png").unlink()
    with pytest.raises(InputError, match=r"input\.png"):
        replay(receipt, again, asset=moved)


def test_several_parts_get_one_atlas(tmp_path: Path, tiny_multiview_pipeline: MultiViewPipeline):
    asset = written(tmp_path / "balls.glb", parts=2)
    made(asset, tmp_path / "out", tiny_multiview_pipeline)
    parts = load_scene(tmp_path / "out" / "balls.glb").parts
    assert len(parts) == 1
    assert len(parts[0].mesh.faces) == 640


def test_what_is_refused_leaves_nothing(tmp_path: Path, tiny_multiview_pipeline: MultiViewPipeline):
    asset = written(tmp_path / "ball.glb")
    broken = tmp_path / "broken.glb"
    broken.write_bytes(asset.read_bytes()[:300])
    for path, out in ((broken, tmp_path / "out"), (asset, tmp_path)):
        with pytest.raises(InputError):
            made(path, out, tiny_multiview_pipeline)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ball.glb", "broken.glb"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ball.glb"], "prompt is empty"),
        (["ball.glb", "gold", "--strength", "2"], "strength"),
        (["ball.glb", "gold", "--grain", "2"], "grain"),
        (["missing.glb", "gold"], "missing.glb"),
        (["ball.glb", "gold", "--device", "tpu"], "--device"),
        (["ball.glb", "gold", "--picture-policy", "maybe"], "picture policy"),
    ],
)
def test_command_line_says_what_is_wrong(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch
):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "ball.glb")
    assert invoke(["retexture", *arguments, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "ball.glb").exists()


def test_a_picture_alone_is_painted_with_its_own_guidance() -> None:
    config = RetextureConfig()
    views, picture = config.preset.views, Image.new("RGBA", (8, 8), "red")
    by_words, by_picture = config.painting(Prompt("a crate")), config.painting(Prompt("", picture))
    assert (by_words.guidance_scale, by_words.guidance_rescale) == (views.guidance_scale, 1.0)
    assert (by_picture.guidance_scale, by_picture.guidance_rescale) == (views.picture_guidance_scale, 0.0)
