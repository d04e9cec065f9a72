"""Fine-tuning on a user's own GLBs: what is read, what is refused, what a LoRA does, and going on."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from pipeline.cli import invoke
from pipeline.config import build, plain
from pipeline.loras import (
    CARD,
    WEIGHTS,
    LoraUse,
    find_lora,
    installed_loras,
    merge,
    parse_lora,
    read_lora,
    use_lora,
)
from pipeline.models import revision_of, verified_model
from pipeline.multiview.pipeline import MultiViewPipeline, load, save
from pipeline.preset import Preset
from pipeline.request import Request
from pipeline.source import ModelSource
from pipeline.training.finetune import (
    CHECKPOINT,
    FinetuneConfig,
    LoraState,
    add_lora,
    finetune,
    split_assets,
)
from pipeline.training.own_assets import (
    all_vertices,
    build_cache,
    caption_of_name,
    in_unit_ball,
    load_assets,
    mirrored,
    read_captions,
    scene_images,
)
from pipeline.training.views import Pose, cameras_of
from recon.asset import Asset
from recon.export.glb import glb_bytes
from render.errors import CanceledError, InputError
from render.scene import Material, Mesh

CONFIG = FinetuneConfig(steps=3, size=64, rank=2, views=2, views_per_batch=4)


def write_glb(path: Path, width: float = 1.0) -> Path:
    """A red box, `width` units wide."""
    box = trimesh.creation.box((width, 1.0, 0.5))
    mesh = Mesh(
        np.asarray(box.vertices, np.float32),
        np.asarray(box.faces, np.int32),
        colors_srgb=np.tile(np.float32([0.8, 0.2, 0.2]), (len(box.vertices), 1)),
    )
    one = np.ones((1, 1), np.float32)
    material = Material(np.ones((1, 1, 3), np.float32), 0 * one, 0.5 * one)
    path.write_bytes(glb_bytes(Asset(mesh, material, path.stem.lower(), 2.0)))
    return path


@pytest.fixture
def pack(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "pack"
    folder.mkdir()
    return [write_glb(folder / f"WideCrate_{i}.glb", 1 + 0.4 * i) for i in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_multiview_pipeline: MultiViewPipeline) -> Path:
    """A tiny model on disk."""
    folder = tmp_path_factory.mktemp("model")
    save(copy.deepcopy(tiny_multiview_pipeline), folder)
    return folder


def test_names_become_captions() -> None:
    assert caption_of_name("Big_WoodenBarrel-01") == "big wooden barrel"
    assert caption_of_name("SM_OldTV_lod1") == "sm old tv"
    assert caption_of_name("0001") == ""


def test_assets_are_placed_as_training_objects(pack: list[Path]) -> None:
    for asset in load_assets(pack):
        vertices = all_vertices(asset.scene)
        assert np.linalg.norm(vertices, axis=1).max() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(vertices.min(0) + vertices.max(0), 0, atol=1e-6)
        assert asset.captions == ("wide crate",)


def test_captions_from_a_csv(pack: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text(
        f'path,caption\npack/{pack[0].name},"a crate, wide"\n{pack[0].name},crate\n{pack[1]},box\n',
        "utf-8-sig",
    )
    assert read_captions(table, pack) == {pack[0]: ["a crate, wide", "crate"], pack[1]: ["box"]}
    assert load_assets(pack, table)[2].captions == ("wide crate",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,words\n", "must begin with the line: path,caption"),
        ("path,caption\nnone.glb,box\n", r"line 2: 'none.glb' is not among the assets"),
        ("path,caption\nWideCrate_0.glb,\n", "line 2: lacks its path or its caption"),
        (f"path,caption\nWideCrate_0.glb,{'x' * 300}\n", "longer than 200"),
    ],
)
def test_wrong_captions_are_refused(pack: list[Path], tmp_path: Path, text: str, complaint: str) -> None:
    table = tmp_path / "captions.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=complaint):
        load_assets(pack, table)


def test_assets_that_cannot_be_used_are_refused(pack: list[Path], tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="No assets were given"):
        finetune([], "style", out=tmp_path / "out", model=model)
    with pytest.raises(InputError, match="There is no file"):
        load_assets([tmp_path / "none.glb"])
    with pytest.raises(InputError, match="is no GLB"):
        load_assets([write_glb(tmp_path / "box.glb").rename(tmp_path / "box.obj")])
    with pytest.raises(InputError, match="given twice"):
        load_assets([pack[0], pack[0]])
    with pytest.raises(InputError, match="its name says nothing"):
        load_assets([write_glb(tmp_path / "0001.glb")])
    hostile = tmp_path / "hostile.glb"
    hostile.write_bytes(b"glTF" + b"\xff" * 40)
    with pytest.raises(InputError, match=r"hostile\.glb"):
        load_assets([*pack, hostile])
    with pytest.raises(InputError, match="1 asset is too few"):
        finetune(pack[:1], "style", out=tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_mirror_images_are_views_of_the_mirrored_object(pack: list[Path]) -> None:
    scene = load_assets(pack)[1].scene
    # A corner is cut off, so that the object is not its own mirror image.
    part = scene.parts[0]
    lopsided = part.mesh.vertices.copy()
    lopsided[lopsided[:, 0] > 0, 1] *= 0.4
    one = in_unit_ball(type(scene)((type(part)(Mesh(lopsided, part.mesh.faces), part.material),)))
    flipped = Mesh(one.parts[0].mesh.vertices * np.float32([-1, 1, 1]), part.mesh.faces)
    other = type(scene)((type(part)(flipped, part.material),))
    seen = mirrored(scene_images(one, cameras_of([Pose(40.0, 20.0)], 64)))
    true = scene_images(other, cameras_of([Pose(-40.0, 20.0)], 64))
    assert np.abs(seen - true).mean() < 0.01


def test_cache_holds_each_asset_and_its_mirror_image(
    pack: list[Path], tiny_multiview_pipeline: MultiViewPipeline
) -> None:
    cache = build_cache(load_assets(pack)[:2], tiny_multiview_pipeline, 64, 0)
    assert cache.latents[0].shape == (4, 8, 16, 8, 8)
    assert len(cache.index()) == 4
    assert cache.poses[0][1, 1, 0] <= 0 <= cache.poses[0][0, 1, 0]
    assert np.isfinite(cache.latents[0]).all()


def test_held_out_assets_are_not_trained_on(pack: list[Path]) -> None:
    assets = load_assets(pack)
    training, held_out = split_assets(assets, 0.15, 0)
    assert len(held_out) == 1
    assert {a.name for a in training} | {a.name for a in held_out} == {a.name for a in assets}
    assert not {a.name for a in training} & {a.name for a in held_out}


def test_a_lora_is_made_used_and_refused_elsewhere(
    pack: list[Path], tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    card = finetune(pack, "my-style", config=CONFIG, model=model)
    folder = tmp_path / "data" / "maquette" / "loras" / "my-style"
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", WEIGHTS, CARD]
    assert [lora.card for lora in installed_loras()] == [card]
    assert card.steps == 3
    assert np.isfinite([card.loss_before, card.loss_after]).all()
    assert len(card.held_out) == 1

    # The same assets, seed and steps give the same bytes.
    again = finetune(pack, "again", out=tmp_path / "again", config=CONFIG, model=model)
    assert again.weights_sha256 == card.weights_sha256

    # Merged weights draw what the adapter draws in peft, and weight 0 draws what the model draws.
    revision = revision_of(verified_model(model).hashes)
    from peft import PeftModel

    plain, adapted = load(model, dtype=torch.float32), load(model, dtype=torch.float32)
    wrapped = PeftModel.from_pretrained(adapted.transformer, folder).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 16, 8, 8, generator=generator)
    rays = plain.rays(cameras_of([Pose(0.0, 15.0), Pose(90.0, 15.0)], 64))[None]
    context = plain.transformer.context(torch.randn(1, 5, 384, generator=generator))
    sigma = torch.full((1, 2), 0.5)
    with torch.no_grad():
        before = plain.transformer(x, sigma, rays, context)
        expected = wrapped(x, sigma, rays, context)
        merge(plain.transformer, find_lora("my-style"), 0.0)
        torch.testing.assert_close(plain.transformer(x, sigma, rays, context), before)
        merge(plain.transformer, find_lora("my-style"), 1.0)
        after = plain.transformer(x, sigma, rays, context)
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)
    assert (after - before).abs().max() > 1e-5

    # A run's weights name it; another revision refuses it.
    use = use_lora("my-style:0.5", revision)
    assert use == LoraUse("my-style", 0.5, card.weights_sha256)
    assert ModelSource(model, lora=use).weights["lora my-style x 0.5"] == card.weights_sha256
    with pytest.raises(InputError, match=f"made for .* of revision {revision}, but the model here is 0000"):
        use_lora("my-style", "0000")
    with pytest.raises(InputError, match="is not the one of the request"):
        ModelSource(model, lora=LoraUse("my-style", 1.0, "0" * 64))
    with pytest.raises(InputError, match=r"Installed in .*: my-style"):
        use_lora("my-stile", revision)
    with pytest.raises(InputError, match="holds a finished LoRA"):
        finetune(pack, "my-style", config=CONFIG, model=model)
    (folder / WEIGHTS).write_bytes(b"other")
    with pytest.raises(InputError, match="is not the file"):
        read_lora(folder)


def test_a_stopped_training_goes_on(pack: list[Path], tmp_path: Path, model: Path) -> None:
    out = tmp_path / "style"

    def stop(fraction: float, message: str = "") -> None:
        if message == "training, step 0":
            raise CanceledError("stop")

    with pytest.raises(CanceledError):
        finetune(pack, "style", out=out, config=CONFIG, model=model, progress=stop)
    with pytest.raises(InputError, match="nothing to resume"):
        finetune(pack, "style", out=out, config=CONFIG, model=model, resume=True)
    (out / CHECKPOINT).write_bytes(b"")
    with pytest.raises(InputError, match="give --resume to go on"):
        finetune(pack, "style", out=out, config=CONFIG, model=model)


def test_checkpoints_restore_everything(tmp_path: Path, tiny_multiview_pipeline: MultiViewPipeline) -> None:
    def begun() -> LoraState:
        parameters = add_lora(copy.deepcopy(tiny_multiview_pipeline.transformer), 2, 0)
        ema = {n: p.detach().clone() for n, p in parameters.items()}
        return LoraState(parameters, ema, torch.optim.AdamW(list(parameters.values()), lr=0.1))

    def step(state: LoraState) -> None:
        for parameter in state.parameters.values():
            parameter.grad = parameter.detach() + 1
        state.optimizer.step()
        state.steps += 1

    first, second = begun(), begun()
    step(first)
    first.save(tmp_path / "c.safetensors", "these")
    second.load(tmp_path / "c.safetensors", "these")
    assert second.steps == 1
    step(first)
    step(second)
    for name, parameter in first.parameters.items():
        torch.testing.assert_close(parameter, second.parameters[name])
    with pytest.raises(InputError, match="other assets"):
        second.load(tmp_path / "c.safetensors", "those")


def test_a_fresh_lora_changes_nothing(tiny_multiview_pipeline: MultiViewPipeline) -> None:
    transformer = copy.deepcopy(tiny_multiview_pipeline.transformer)
    x, sigma = torch.randn(1, 1, 16, 8, 8), torch.full((1, 1), 0.5)
    rays = tiny_multiview_pipeline.rays(cameras_of([Pose(0.0, 15.0)], 64))[None]
    context = transformer.context(torch.zeros(1, 4, 384))
    with torch.no_grad():
        before = transformer(x, sigma, rays, context)
        parameters = add_lora(transformer, 2, 0)
        torch.testing.assert_close(transformer(x, sigma, rays, context), before)
    assert {n for n, p in transformer.named_parameters() if p.requires_grad} == set(parameters)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("style", ("style", 1.0)), ("style:0.7", ("style", 0.7)), ("a/b:c", ("a/b:c", 1.0))],
)
def test_lora_options(text: str, expected: tuple[str, float]) -> None:
    assert parse_lora(text) == expected


@pytest.mark.parametrize("weight", [-0.1, 2.5, float("nan")])
def test_lora_weights_out_of_range(weight: float) -> None:
    with pytest.raises(InputError, match="weight must be between 0 and 2"):
        LoraUse("style", weight, "")


def test_a_damaged_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text(json.dumps({"format": 1, "nmae": "x"}))
    with pytest.raises(InputError, match="Unknown setting nmae"):
        read_lora(tmp_path)


def test_a_request_keeps_its_lora() -> None:
    request = Request("a box", "", None, Preset(), 0, 1, 1.0, ("glb",), "box", "cpu")
    with_lora = replace(request, lora=LoraUse("my-style", 0.5, "00ff"))
    assert build(Request, plain(with_lora)) == with_lora
    assert build(Request, plain(request)).lora is None


def test_generate_refuses_a_lora_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert invoke(["generate", "a box", "--lora", "nope", "--out", str(tmp_path / "out")]) == 2
    assert "There is no LoRA 'nope'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_finetune_command_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    glb = write_glb(tmp_path / "box.glb")
    for arguments, complaint in (
        (["--name", "a/b"], "--name must be letters"),
        (["--name", "x", "--minutes", "0"], "minutes must be between"),
        (["--name", "x", "--resume"], "nothing to resume"),
    ):
        out = ["--out", str(tmp_path / "out")] if "a/b" not in arguments else []
        assert invoke(["finetune", str(glb), "--quiet", *arguments, *out]) == 2
        assert complaint in capsys.readouterr().err
