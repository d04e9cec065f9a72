"""Score distillation with fake denoisers whose right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.distillation import Distillation, DistillationConfig
from recon.fields import GaussianField
from recon.fit import FitConfig, fit
from recon.losses import psnr
from render.cameras import Cameras, orbit_cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet

SIZE = 32


def ball(count: int = 600) -> GaussianField:
    """A striped ball of flat Gaussians."""
    index = torch.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, 2.39996323 * index
    ring = (1 - height**2).sqrt()
    normals = torch.stack([ring * angle.cos(), height, ring * angle.sin()], -1)
    quats = torch.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], torch.zeros(count)], -1)
    stripes = (6 * normals[:, :1]).sin() * 0.4 + 0.5
    return GaussianField(
        means=0.7 * normals,
        quats=quats,
        log_scales=torch.full((count, 2), 0.05).log(),
        opacity_logits=torch.full((count,), 3.0),
        base_color_srgb=torch.cat([stripes, 1 - stripes, torch.full_like(stripes, 0.3)], 1),
        metallic=stripes.clone(),
        roughness=torch.full((count, 1), 0.6),
    )


class LinearDenoiser:
    """Latents are shrunk channels; the clean prediction is a fixed affine map of its input."""

    def encode(self, gbuffer: GBuffer, cameras: Cameras) -> Tensor:
        assert gbuffer.base_color_srgb is not None
        image = torch.cat([gbuffer.alpha, gbuffer.base_color_srgb], -1).permute(0, 3, 1, 2)
        return interpolate(image, scale_factor=0.5, mode="area")

    def decode(self, latents: Tensor, cameras: Cameras) -> GBuffer:
        image = interpolate(latents, scale_factor=2.0).permute(0, 2, 3, 1)
        return GBuffer(alpha=image[..., :1], base_color_srgb=image[..., 1:])

    def predict_clean(self, noisy: Tensor, sigma: float, cameras: Cameras) -> Tensor:
        return 0.3 * noisy + 0.1 * sigma


class PerfectDenoiser(LinearDenoiser):
    """Knows the true object: predicts the latents of its renders, whatever the input."""

    names = ("alpha", "base_color_srgb", "normal", "depth", "metallic", "roughness")

    def __init__(self, truth: GaussianField) -> None:
        self.truth = truth

    def encode(self, gbuffer: GBuffer, cameras: Cameras) -> Tensor:
        assert gbuffer.depth is not None
        # Centred as any codec does: a jump from 0 to 2 at silhouettes would drown the rest.
        channels = gbuffer.channels() | {"depth": (gbuffer.depth - 2) * gbuffer.alpha}
        return torch.cat([channels[name] for name in self.names], -1).permute(0, 3, 1, 2)

    def decode(self, latents: Tensor, cameras: Cameras) -> GBuffer:
        parts = latents.permute(0, 2, 3, 1).split([1, 3, 3, 1, 1, 1], -1)
        channels = dict(zip(self.names, parts, strict=True))
        covered = channels["alpha"] > 0
        depth = covered * (channels["depth"] / channels["alpha"].clamp_min(1e-3) + 2)
        return GBuffer(**(channels | {"depth": depth}))

    def predict_clean(self, noisy: Tensor, sigma: float, cameras: Cameras) -> Tensor:
        return self.encode(self.truth.render(cameras), cameras)


def test_sds_gradient_is_the_formula() -> None:
    cameras = orbit_cameras([10.0, 100.0], [0.0, 20.0], SIZE)
    denoiser = LinearDenoiser()
    distillation = Distillation(denoiser, DistillationConfig("sds", sigma_jitter=0.0))
    shown = ball().render(cameras).detach()
    assert shown.base_color_srgb is not None
    color = shown.base_color_srgb.clone().requires_grad_()
    rendered = GBuffer(alpha=shown.alpha, base_color_srgb=color)
    fraction = 0.5
    distillation.loss(rendered, cameras, fraction, torch.Generator().manual_seed(3)).backward()

    generator = torch.Generator().manual_seed(3)
    torch.rand(1, generator=generator)  # the jitter's draw
    sigma = 0.75 + (0.15 - 0.75) * fraction
    latents = denoiser.encode(rendered, cameras)
    noise = torch.randn(latents.shape, generator=generator)
    noisy = ((1 - sigma) * latents + sigma * noise).detach()
    noise_predicted = (noisy - (1 - sigma) * denoiser.predict_clean(noisy, sigma, cameras)) / sigma
    gradient = sigma**2 * (noise_predicted - noise) / latents.numel()
    (expected,) = torch.autograd.grad(latents, color, gradient)
    assert color.grad is not None
    # Both are float32; eps_pred - eps cancels about two digits before the comparison.
    torch.testing.assert_close(color.grad, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_x0_is_zero_at_the_target_and_pulls_towards_it() -> None:
    cameras = orbit_cameras([0.0], [0.0], SIZE)
    truth = ball()
    distillation = Distillation(PerfectDenoiser(truth), DistillationConfig("x0"))
    target = truth.render(cameras)
    objective = distillation.objective(target, cameras, 0.0, torch.Generator().manual_seed(0))
    assert float(objective(target)) == pytest.approx(0.0, abs=1e-5)
    darker = GBuffer(**(target.channels() | {"base_color_srgb": 0.5 * target.base_color_srgb}))
    assert float(objective(darker)) > 1e-2


@pytest.mark.parametrize("strategy", ["x0", "sds"])
def test_a_perfect_denoiser_repairs_a_corrupted_field(strategy: str) -> None:
    truth, field = ball(), ball()
    generator = torch.Generator().manual_seed(1)
    field.base_color_srgb = (field.base_color_srgb + 0.3 * torch.randn(600, 3, generator=generator)).clamp(
        0, 1
    )
    field.means = field.means + 0.02 * torch.randn(600, 3, generator=generator)
    unseen = orbit_cameras([33.0, 211.0], [25.0, -10.0], SIZE)
    before = psnr(field.render(unseen), truth.render(unseen))
    # The only drawn view is itself corrupted: what improves comes from the guidance.
    drawn = orbit_cameras([0.0], [0.0], SIZE)
    views = ViewSet(drawn, field.render(drawn))
    distillation = Distillation(PerfectDenoiser(truth), DistillationConfig(strategy))  # type: ignore[arg-type]
    config = FitConfig(
        steps=0,
        guidance_steps=100,
        guidance_size=SIZE,
        guidance_weight=100.0,
        guidance_elevation_deg=(-60.0, 60.0),
    )
    report = fit(field, views, config, guidance=distillation, generator=generator)
    after = psnr(field.render(unseen), truth.render(unseen))
    assert report.steps == len(report.guidance_losses) == 100
    assert after["base_color_srgb"] > before["base_color_srgb"] + 3
    # SDS's squared latents weigh the jump of depth at silhouettes most; the robust, masked form does not.
    assert after["depth"] > before["depth"] + (1 if strategy == "x0" else -0.5)


def test_noise_falls_and_stays_in_range() -> None:
    distillation = Distillation(LinearDenoiser(), DistillationConfig(sigma_jitter=0.05))
    generator = torch.Generator().manual_seed(0)
    levels = [distillation.sigma(i / 20, generator) for i in range(21)]
    assert abs(levels[0] - 0.75) <= 0.05
    assert abs(levels[-1] - 0.15) <= 0.05
    assert max(levels[10:]) < min(levels[:4])


def test_config_names_the_wrong_field() -> None:
    with pytest.raises(InputError, match=r"distillation\.sigma_end"):
        DistillationConfig(sigma_end=1.5)
    with pytest.raises(InputError, match=r"distillation\.sigma_jitter"):
        DistillationConfig(sigma_jitter=-0.1)
