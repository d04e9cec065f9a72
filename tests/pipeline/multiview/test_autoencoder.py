"""Latents: their shape, their spread, and that material latents see the material only."""

from __future__ import annotations

import torch

from pipeline.multiview.autoencoder import MATERIAL_LATENTS, GBufferAutoencoder
from pipeline.multiview.codec import CHANNELS, COLOR, METALLIC


def tiny() -> GBufferAutoencoder:
    torch.manual_seed(0)
    return GBufferAutoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))


def test_eight_times_smaller_and_back() -> None:
    image = torch.randn(2, CHANNELS, 64, 48)
    model = tiny()
    latents = model.encode(image)
    assert latents.shape == (2, 16, 8, 6)
    assert model.decode(latents).shape == image.shape


def test_latents_have_unit_variance_in_training() -> None:
    latents = tiny().train().encode(torch.randn(8, CHANNELS, 64, 64))
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(16), atol=0.01, rtol=0)


def test_material_latents_depend_on_material_and_coverage_alone() -> None:
    model = tiny().eval()
    image = torch.randn(1, CHANNELS, 32, 32)
    recolored, remade = image.clone(), image.clone()
    recolored[:, COLOR] += 1
    remade[:, METALLIC] += 1
    base = model.encode(image)
    material = slice(-MATERIAL_LATENTS, None)
    assert torch.equal(model.encode(recolored)[:, material], base[:, material])
    assert not torch.equal(model.encode(remade)[:, material], base[:, material])
    assert torch.equal(model.encode(remade)[:, :-MATERIAL_LATENTS], base[:, :-MATERIAL_LATENTS])
