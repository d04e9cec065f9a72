"""Training end to end on two boxes: parts run, resume, and lower their losses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import build, read_yaml
from pipeline.multiview.sampler import load
from pipeline.multiview.transformer import MultiViewTransformer
from pipeline.training.train import TrainingConfig, run
from pipeline.training.train_autoencoder import cropped, reconstruction_loss
from pipeline.training.train_transformer import (
    Batch,
    TransformerTraining,
    draw_noise_levels,
    flow_matching_loss,
    rays_of,
)
from pipeline.training.views import lit_picture
from pipeline.training.weights import MasterWeights, warmup_cosine
from render.conventions import srgb_to_linear_np
from render.errors import InputError
from tests.pipeline.training.test_props import write_pack

RECIPES = Path(__file__).parents[3] / "configs" / "train"


def test_masters_follow_an_exact_problem_and_resume(tmp_path: Path) -> None:
    def build() -> tuple[torch.nn.Linear, MasterWeights]:
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 8)
        return model, MasterWeights(
            model, use_muon=lambda name, p: p.ndim == 2, learning_rate=0.2, muon_learning_rate=0.2,
            weight_decay=0.0, ema_decay=0.9,
        )  # fmt: skip

    target = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))

    def step(model: torch.nn.Linear, weights: MasterWeights) -> float:
        x = torch.eye(8)
        loss = (model(x) - target).square().mean()
        loss.backward()
        weights.step(1.0)
        return float(loss.detach())

    model, weights = build()
    first = step(model, weights)
    for _ in range(20):
        step(model, weights)
    weights.save(tmp_path / "w.safetensors")
    expected = [step(model, weights) for _ in range(5)]
    assert expected[-1] < first / 2
    model, weights = build()
    weights.load(tmp_path / "w.safetensors")
    # The optimisers' state is restored too, so the resumed run is the same run.
    np.testing.assert_allclose([step(model, weights) for _ in range(5)], expected, rtol=1e-5)


def test_schedule_warms_up_and_falls() -> None:
    rates = [warmup_cosine(s, 10, 100) for s in range(101)]
    assert rates[0] == 0.1
    assert max(rates) == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.02)


def test_clean_views_have_no_noise_and_never_all_of_them() -> None:
    config = TransformerTraining(clean_views_share=1.0)
    sigma, clean = draw_noise_levels(500, 4, config, torch.Generator().manual_seed(0))
    assert (sigma[clean == 1] == 0).all()
    assert (sigma[clean == 0] > 0).all()
    counts = clean.sum(1)
    assert counts.min() >= 1
    assert counts.max() <= 3


def test_loss_ignores_unknown_materials_and_clean_views() -> None:
    torch.manual_seed(0)
    model = MultiViewTransformer(width=32, depth=2, heads=2)
    latents = torch.randn(1, 2, 16, 16, 16)
    mask = torch.ones_like(latents)
    mask[:, :, -2:] = 0
    rays = rays_of(np.array([[[0.0, 15.0], [90.0, 15.0]]]), 8)
    batch = Batch(latents, mask, rays, torch.zeros(1, 4, 384))
    noise = torch.randn_like(latents)
    sigma, clean = torch.tensor([[0.5, 0.0]]), torch.tensor([[0.0, 1.0]])
    with torch.no_grad():
        loss = flow_matching_loss(model, batch, sigma, clean, noise, torch.float32)
    # A fresh network predicts zero velocity, so the loss is the mean square of what counts.
    expected = (noise - latents)[:, 0, :14].square().mean()
    torch.testing.assert_close(loss, expected)


def test_a_lifted_view_stands_beside_the_others_and_takes_no_part_in_the_loss() -> None:
    torch.manual_seed(0)
    model = MultiViewTransformer(width=32, depth=2, heads=2)
    torch.nn.init.normal_(model.patch_out.weight, std=0.1)
    torch.nn.init.normal_(model.blocks[1].modulation.weight, std=0.1)
    torch.nn.init.normal_(model.final_modulation.bias, std=0.1)
    latents, noise = torch.randn(2, 1, 2, 16, 16, 16)
    rays = rays_of(np.array([[[40.0, 15.0], [90.0, 15.0], [0.0, 20.0]]]), 8)
    sigma, clean = torch.full((1, 2), 0.5), torch.zeros(1, 2)
    batch = Batch(latents, torch.ones_like(latents), rays, torch.zeros(1, 4, 384), latents[:, :1])
    # The same as three views of which the last is clean.
    three = Batch(torch.cat([latents, latents[:, :1]], 1), torch.ones(1, 3, 16, 16, 16), rays, batch.text)
    with torch.no_grad():
        loss = flow_matching_loss(model, batch, sigma, clean, noise, torch.float32)
        longer = torch.cat([noise, noise[:, :1]], 1)
        given, level = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.5, 0.0]])
        expected = flow_matching_loss(model, three, level, given, longer, torch.float32)
    torch.testing.assert_close(loss, expected)


def test_turning_the_world_with_the_reference_changes_rays_only_by_azimuth() -> None:
    straight = rays_of(np.array([[[10.0, 15.0]]]), 8)
    turned = rays_of(np.array([[[370.0, 15.0]]]), 8)
    torch.testing.assert_close(straight, turned, atol=1e-5, rtol=0)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_read(recipe: Path) -> None:
    assert build(TrainingConfig, read_yaml(recipe)).data


@pytest.mark.slow
def test_recipe_runs_and_resumes(tmp_path: Path) -> None:
    write_pack(tmp_path / "props", 6)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {tmp_path / 'props'}\n"
        "autoencoder: {minutes: 0.05, crop: 32}\n"
        "lifter: {minutes: 0.05, batch: 4}\n"
        "volume: {minutes: 0.05, examples: {objects_per_batch: 1}}\n"
        "latents: {procedural: 3, compositions: 2, assemblies: 2}\n"
        "critic: {width: 8, steps: 2, objects_per_batch: 8, bank: 4, free_views: 1}\n"
        "transformer: {minutes: 0.1, width: 32, depth: 2, heads: 2, views_per_batch: 8}\n"
    )
    out = tmp_path / "run"
    run(recipe, out=out, device="cpu")
    items = (out / "latents" / "train-assemblies-items.jsonl").read_text().splitlines()
    assert len(items) == 2
    assert load(out / "pipeline").transformer.patch_out.in_features == 32
    assert load(out / "pipeline").lifter is not None
    assert load(out / "pipeline").volume is not None
    assert load(out / "pipeline").critic is not None
    with pytest.raises(InputError, match="--resume"):
        run(recipe, out=out, device="cpu")
    before = int(load_file(out / "transformer-falling.safetensors")["steps"])
    shutil.copy(out / "transformer-falling.safetensors", out / "transformer.safetensors")
    run(recipe, out=out, resume=True, device="cpu")
    assert int(load_file(out / "transformer-falling.safetensors")["steps"]) > before > 0
    # Another run goes on from the pipeline: the same autoencoder and lifter, the transformer's own sizes.
    more = recipe.read_text().replace("width: 32, ", "")
    recipe.write_text(f"{more}start_from: {out / 'pipeline'}\nkeep: [lifter]\n")
    run(recipe, out=tmp_path / "continued", device="cpu")
    assert load(tmp_path / "continued" / "pipeline").transformer.patch_out.in_features == 32
    for part in ("autoencoder", "lifter", "transformer"):
        weights = Path("pipeline", part, "diffusion_pytorch_model.safetensors")
        old, new = load_file(out / weights), load_file(tmp_path / "continued" / weights)
        assert all(torch.equal(old[name], new[name]) for name in old) == (part != "transformer")
    # Of an autoencoder that is trained on, latents stay near where they were, and what is kept stays.
    more = more.replace("minutes: 0.05, crop: 32", "minutes: 0.05, crop: 32, latent_drift_weight: 3.0")
    recipe.write_text(f"{more}start_from: {out / 'pipeline'}\nkeep: [critic, transformer]\n")
    run(recipe, out=tmp_path / "pictures", device="cpu")
    assert not (tmp_path / "pictures" / "latents").exists()
    for part in ("autoencoder", "lifter", "volume", "critic", "transformer"):
        weights = Path("pipeline", part, "diffusion_pytorch_model.safetensors")
        old, new = load_file(out / weights), load_file(tmp_path / "pictures" / weights)
        changed = {name for name in old if not torch.equal(old[name], new[name])}
        assert bool(changed) == (part in ("autoencoder", "lifter", "volume"))
        assert not {name for name in changed if name.startswith("latent_norm.")}
    image = torch.rand(4, 10, 32, 32) * 2 - 1
    was, now = (load(folder / "pipeline").autoencoder.float() for folder in (out, tmp_path / "pictures"))
    with torch.no_grad():
        assert 0 < (was.encode(image) - now.encode(image)).square().mean() < 0.3


def test_a_start_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {tmp_path / 'props'}\nstart_from: {tmp_path / 'nothing'}\n")
    with pytest.raises(InputError, match=r"start_from: .*nothing is not a pipeline"):
        run(recipe, out=tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("keep: [lifter]", "nothing to keep without start_from"),
        ("keep: [decoder]", "'decoder' is none of"),
        ("autoencoder: {latent_drift_weight: 3.0}", "no latents to stay near without start_from"),
    ],
)
def test_what_cannot_be_kept_is_named(tmp_path: Path, line: str, said: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {tmp_path / 'props'}\n{line}\n")
    with pytest.raises(InputError, match=said):
        run(recipe, out=tmp_path / "run", device="cpu")


def test_a_well_exposed_picture_is_about_as_bright_as_the_object() -> None:
    image = np.full((10, 32, 32), -1.0, np.float32)
    image[:3, 8:24, 8:24], image[3, 8:24, 8:24] = -0.2, 1.0
    image[4:7], image[6], image[9] = 0.0, 1.0, 1.0

    def brightness(share: float) -> np.ndarray:
        made = [lit_picture(image, 15.0, np.random.default_rng(i), share) for i in range(200)]
        return np.log([srgb_to_linear_np(m[16, 16, :3].astype(np.float32) / 255).mean() for m in made])

    albedo = float(np.log(srgb_to_linear_np(np.float32([0.4]))[0]))
    exposed, by_light = brightness(1.0) - albedo, brightness(0.0) - albedo
    assert exposed.mean() == pytest.approx(-0.12, abs=0.05)
    assert exposed.std() == pytest.approx(0.22, abs=0.04)
    assert by_light.std() > 1.3 * exposed.std()


def test_cropped_latents_are_those_of_the_cropped_pixels() -> None:
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    image = torch.zeros(3, 10, 128, 128)
    image[:, 0], image[:, 1], image[:, 3] = rows, columns, -1.0
    image[:, 3, 90:110, 20:40] = 1.0
    latents = image[:, :2, ::8, ::8]
    cut, pixels, known = cropped(latents, image, image[:, :1], 80, np.random.default_rng(0))
    assert cut.shape == (3, 2, 10, 10)
    assert pixels.shape == (3, 10, 80, 80)
    assert torch.equal(pixels[:, :2, ::8, ::8], cut)
    assert torch.equal(known, pixels[:, :1])
    assert bool((pixels[:, 3] > 0).any((1, 2)).all())  # every window shows some of the object


def test_longer_normals_are_no_better() -> None:
    target = torch.zeros(1, 10, 8, 8)
    target[:, 3], target[:, 6] = 1.0, 1.0
    longer = target.clone()
    longer[:, 6] = 10.0
    known = torch.ones(1, 1, 8, 8)
    assert reconstruction_loss(longer, target, known) > reconstruction_loss(target, target, known) + 1


def test_a_part_that_cannot_be_kept_is_missed(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {tmp_path / 'props'}\nstart_from: {tmp_path / 'start'}\nkeep: [critic]\n")
    with pytest.raises(InputError, match="has no critic"):
        run(recipe, out=tmp_path / "run", device="cpu")
