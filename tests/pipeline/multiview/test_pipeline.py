"""The diffusers pipeline: reproducible, savable, guided, and a denoiser for distillation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from pipeline.multiview.autoencoder import GBufferAutoencoder
from pipeline.multiview.domain import Domain
from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.lifter_network import Framing
from pipeline.multiview.pipeline import MultiViewPipeline, save
from pipeline.multiview.sampler import ViewSampler, load, reference_tensor
from pipeline.multiview.schedule import FlowSchedule
from pipeline.multiview.transformer import MultiViewTransformer
from pipeline.prompt import Prompt
from render.cameras import orbit_cameras
from render.errors import InputError
from render.gbuffer import ViewSet


def tiny_pipeline() -> MultiViewPipeline:
    torch.manual_seed(0)
    transformer = MultiViewTransformer(width=32, depth=2, heads=2)
    for name, parameter in transformer.named_parameters():
        if "modulation" in name or "patch_out" in name:  # zero at the start of training
            torch.nn.init.normal_(parameter, std=0.05)
    autoencoder = GBufferAutoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    pipeline = MultiViewPipeline(autoencoder, transformer, FlowMatchEulerDiscreteScheduler(shift=2.0))
    pipeline.autoencoder.eval()
    pipeline.transformer.eval()
    return pipeline


@pytest.fixture(scope="module")
def pipeline() -> MultiViewPipeline:
    made = tiny_pipeline()
    torch.manual_seed(0)
    made.register_modules(lifter=PictureLifter(width=32, heads=2, depth=1).eval())
    return made


CAMERAS = orbit_cameras([0.0, 120.0, 240.0], [15.0] * 3, 64)


def draw(pipeline: ViewSampler, prompt: Prompt, seed: int, scale: float = 3.0) -> ViewSet:
    generator = torch.Generator().manual_seed(seed)
    return pipeline(prompt, CAMERAS, num_inference_steps=3, guidance_scale=scale, generator=generator)


def test_same_seed_same_views_and_other_seed_other_views(pipeline: MultiViewPipeline) -> None:
    first, again, other = (draw(pipeline, Prompt("a barrel"), seed) for seed in (1, 1, 2))
    for name, value in first.gbuffer.channels().items():
        assert torch.equal(value, again.gbuffer.channels()[name]), name
    assert not torch.equal(first.gbuffer.normal, other.gbuffer.normal)  # type: ignore[arg-type]


def test_views_have_all_unlit_channels_and_nothing_where_uncovered(pipeline: MultiViewPipeline) -> None:
    channels = draw(pipeline, Prompt("a barrel"), 1).gbuffer.channels()
    assert set(channels) == {"alpha", "base_color_srgb", "normal", "depth", "metallic", "roughness"}
    empty = channels["alpha"][..., 0] == 0
    for value in channels.values():
        assert value.dtype == torch.float32
        assert value[empty].abs().sum() == 0


def test_text_and_image_both_steer(pipeline: MultiViewPipeline) -> None:
    image = Image.new("RGBA", (40, 40), (200, 30, 30, 255))
    plain = draw(pipeline, Prompt("a barrel"), 1)
    text = draw(pipeline, Prompt("a sword"), 1)
    both = draw(pipeline, Prompt("a barrel", image=image), 1)
    picture = draw(pipeline, Prompt(image=image), 1)
    for other in (text, both, picture):
        assert not torch.equal(plain.gbuffer.alpha, other.gbuffer.alpha) or not torch.equal(
            plain.gbuffer.normal,  # type: ignore[arg-type]
            other.gbuffer.normal,  # type: ignore[arg-type]
        )


def test_pictures_of_one_object_go_round_it(pipeline: MultiViewPipeline) -> None:
    row = Image.new("RGBA", (160, 40))
    for i, color in enumerate(((200, 30, 30, 255), (30, 200, 30, 255), (30, 30, 200, 255), (9, 9, 9, 255))):
        row.paste(Image.new("RGBA", (40, 40), color), (40 * i, 0))
    for count in (1, 2, 4):
        prompt = Prompt(image=row.crop((0, 0, 40 * count, 40)))
        lifted = pipeline.lifted(prompt, 64)
        assert [view.azimuth_deg for view in lifted] == [360 / count * i for i in range(count)]
        for view, picture in zip(lifted, prompt.pictures, strict=True):
            (alone,) = pipeline.lifted(Prompt(image=picture), 64)
            torch.testing.assert_close(view.latents, alone.latents)
            elevation = torch.rad2deg(Framing.from_tensor(view.framing).elevation_rad).item()
            seen_from = pipeline.rays(orbit_cameras([view.azimuth_deg], [elevation], 64))
            torch.testing.assert_close(view.rays, seen_from, atol=1e-3, rtol=0)
    both, red = (Prompt(image=row.crop((0, 0, width, 40))) for width in (80, 40))
    assert not torch.equal(draw(pipeline, both, 1).gbuffer.alpha, draw(pipeline, red, 1).gbuffer.alpha)


def test_guidance_is_linear_in_the_scale(pipeline: MultiViewPipeline) -> None:
    conditioning = pipeline.condition(Prompt("a barrel", negative="a sword"))
    noisy = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    rays, sigma = pipeline.rays(CAMERAS), torch.full((3,), 0.5)
    with torch.no_grad():
        at = [pipeline.velocity(noisy, sigma, rays, conditioning, s) for s in (0.0, 1.0, 3.0)]
    torch.testing.assert_close(at[2], at[0] + 3 * (at[1] - at[0]), atol=1e-5, rtol=1e-4)


def test_rescaled_guidance_spreads_no_further_than_the_condition(pipeline: MultiViewPipeline) -> None:
    conditioning = pipeline.condition(Prompt("a barrel", negative="a sword"))
    noisy = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    rays, sigma = pipeline.rays(CAMERAS), torch.full((3,), 0.8)

    def clean(scale: float, rescale: float) -> torch.Tensor:
        with torch.no_grad():
            found = pipeline.velocity(noisy, sigma, rays, conditioning, scale, (), rescale)
        return noisy - 0.8 * found

    alone, guided, rescaled = clean(1.0, 1.0), clean(9.0, 0.0), clean(9.0, 1.0)
    assert not torch.allclose(guided.std(), alone.std(), rtol=1e-3)
    torch.testing.assert_close(rescaled.std(), alone.std(), rtol=1e-4, atol=0)
    torch.testing.assert_close(rescaled / rescaled.std(), guided / guided.std(), rtol=1e-3, atol=1e-4)
    half = clean(9.0, 0.5)
    torch.testing.assert_close(half, (guided + rescaled) / 2, rtol=1e-3, atol=1e-4)


def test_denoiser_estimates_the_clean_latents(pipeline: MultiViewPipeline) -> None:
    prompt = Prompt("a barrel")
    views = draw(pipeline, prompt, 1)
    denoiser = pipeline.denoiser(prompt, views, guidance_scale=2.0)
    camera = orbit_cameras([33.0], [5.0], 64)
    latents = denoiser.encode(views.gbuffer[0], camera)
    assert latents.shape == (1, 16, 8, 8)
    # Without noise the estimate is the input itself, whatever the network says.
    assert torch.equal(denoiser.predict_clean(latents, 0.0, camera), latents)
    assert not torch.equal(denoiser.predict_clean(latents, 0.5, camera), latents)
    assert denoiser.decode(latents, camera).alpha.shape == (1, 64, 64, 1)


def test_the_denoiser_reads_the_picture(pipeline: MultiViewPipeline) -> None:
    views = draw(pipeline, Prompt("a barrel"), 1)
    camera = orbit_cameras([33.0], [5.0], 64)
    found = []
    for color in ((200, 30, 30, 255), (30, 30, 200, 255)):
        denoiser = pipeline.denoiser(Prompt("a barrel", Image.new("RGBA", (40, 40), color)), views, 1.0)
        latents = denoiser.encode(views.gbuffer[0], camera)
        found.append(denoiser.predict_clean(latents, 0.5, camera))
    assert not torch.equal(*found)


def test_encoding_is_differentiable(pipeline: MultiViewPipeline) -> None:
    views = draw(pipeline, Prompt("a barrel"), 1)
    channels = views.gbuffer.channels()
    channels["base_color_srgb"] = channels["base_color_srgb"].clone().requires_grad_()
    pipeline.encode_views(type(views.gbuffer)(**channels), CAMERAS).sum().backward()
    gradient = channels["base_color_srgb"].grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_saved_pipeline_is_the_same_and_checked(tmp_path: Path) -> None:
    original = tiny_pipeline()
    folder = tmp_path / "model"
    save(original, folder)
    Domain.build(["barrel", "sword"], original.text_encoder).save(folder)
    loaded = load(folder, dtype=torch.float32)
    save(MultiViewPipeline.from_pretrained(folder), tmp_path / "again")
    assert str(folder) not in (tmp_path / "again" / "transformer" / "config.json").read_text()
    for name, value in loaded.transformer.state_dict().items():
        assert torch.equal(value, original.transformer.state_dict()[name].float()), name
    score = loaded.domain("a barrel")
    assert score is not None
    assert score.nearest[0] == "barrel"
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(InputError, match="sha256"):
        load(folder)
    weights.unlink()
    with pytest.raises(InputError, match="missing"):
        load(folder)


def test_networks_without_diffusers_draw_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(tiny_pipeline(), folder)
    with_diffusers = MultiViewPipeline.from_pretrained(folder, dtype=torch.float32)
    without = load(folder, dtype=torch.float32)
    assert not isinstance(without, MultiViewPipeline)
    drawn = [draw(each, Prompt("a barrel"), 1).gbuffer for each in (with_diffusers, without)]
    for name, value in drawn[0].channels().items():
        assert torch.equal(value, drawn[1].channels()[name]), name
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"depth": 2', '"depth": 3'))
    with pytest.raises(InputError, match="not a saved TransformerNetwork"):
        load(folder)


@pytest.mark.parametrize("steps", [1, 12, 25, 50])
@pytest.mark.parametrize("shift", [1.0, 2.0, 3.3])
def test_schedule_is_that_of_diffusers(tmp_path: Path, steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.save_pretrained(tmp_path)
    scheduler.set_timesteps(steps)
    schedule = FlowSchedule.read(tmp_path / "scheduler_config.json")
    assert schedule is not None
    assert torch.equal(schedule.sigmas(steps), scheduler.sigmas)


def test_schedule_leaves_to_diffusers_what_it_cannot_be(tmp_path: Path) -> None:
    FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True).save_pretrained(tmp_path)
    assert FlowSchedule.read(tmp_path / "scheduler_config.json") is None
    folder = tmp_path / "model"
    save(tiny_pipeline(), folder)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0, use_karras_sigmas=True)
    scheduler.save_pretrained(folder / "scheduler")
    assert isinstance(load(folder), MultiViewPipeline)


def test_a_run_needs_neither_diffusers_nor_transformers() -> None:
    code = (
        "import sys, pipeline.run, pipeline.multiview.sampler as s; s.load().condition(s.Prompt('a barrel'));"
        "print([n for n in ('diffusers', 'transformers', 'peft', 'torch._dynamo') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_reference_is_premultiplied() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert reference_tensor(image, 16).abs().max() == 0
    opaque = reference_tensor(Image.new("RGBA", (8, 8), (255, 0, 0, 255)), 16)
    assert opaque[0, :, 3, 3].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_views_are_drawn_again_from_the_level_that_is_asked_for(pipeline: MultiViewPipeline) -> None:
    first = draw(pipeline, Prompt("a barrel"), 1)

    def again(level: float) -> ViewSet:
        return pipeline(
            Prompt("a barrel"), CAMERAS, num_inference_steps=8, guidance_scale=1.0,
            generator=torch.Generator().manual_seed(2), start=first, start_level=level,
        )  # fmt: skip

    fresh = pipeline(Prompt("a barrel"), CAMERAS, num_inference_steps=8, guidance_scale=1.0,
                 generator=torch.Generator().manual_seed(2))  # fmt: skip
    assert torch.equal(again(1.0).gbuffer.alpha, fresh.gbuffer.alpha)
    levels = pipeline.sigmas(8)
    calls = []
    velocity = pipeline.velocity
    pipeline.velocity = lambda x, sigma, *rest: calls.append(float(sigma[0])) or velocity(x, sigma, *rest)  # type: ignore[method-assign, assignment, func-returns-value]
    try:
        again(0.7)
    finally:
        del pipeline.velocity
    assert calls == pytest.approx([float(level) for level in levels[:-1] if level <= 0.7])
    assert len(calls) < 8


def test_begun_from_the_mean_only_the_steps_below_its_level_follow(pipeline: MultiViewPipeline) -> None:
    seen: list[tuple[float, torch.Tensor]] = []

    def velocity(noisy: torch.Tensor, sigma: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append((float(sigma[0]), noisy))
        return noisy - 0.25 if len(seen) == 1 else torch.zeros_like(noisy)

    pipeline.velocity = velocity  # type: ignore[method-assign, assignment]
    try:
        pipeline(Prompt("a barrel"), CAMERAS, num_inference_steps=8, guidance_scale=1.0,
                 generator=torch.Generator().manual_seed(2), guess_level=0.7)  # fmt: skip
    finally:
        del pipeline.velocity
    below = [float(level) for level in pipeline.sigmas(8)[:-1] if level <= 0.7]
    assert [level for level, _ in seen] == pytest.approx([1.0, *below])
    # What was predicted first, 0.25 everywhere, with that much noise.
    begun = seen[1][1]
    assert float(begun.mean()) == pytest.approx((1 - below[0]) * 0.25, abs=0.03)
    assert float(begun.std()) == pytest.approx(below[0], rel=0.05)
    assert not torch.allclose(begun, (1 - below[0]) * 0.25 + below[0] * seen[0][1])
