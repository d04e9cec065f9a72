"""The transformer treats views as a set, and each view by its own noise level and camera."""

from __future__ import annotations

import pytest
import torch

from pipeline.multiview.transformer import MultiViewTransformer, attend, ray_features
from pipeline.multiview.transformer_network import Rays, Sight
from render.cameras import orbit_cameras


@pytest.fixture(scope="module")
def model() -> MultiViewTransformer:
    torch.manual_seed(0)
    transformer = MultiViewTransformer(width=32, depth=4, heads=2, text_width=16)
    for name, parameter in transformer.named_parameters():
        if (
            "modulation" in name or "patch_out" in name or "choice.weight" in name
        ):  # zero at the start of training
            torch.nn.init.normal_(parameter, std=0.2)
    return transformer.eval()


def run(model: MultiViewTransformer, order: list[int], sigma: list[float]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    cameras = orbit_cameras([0.0, 90.0, 200.0], [15.0, 15.0, 60.0], 128)[order]
    latents = torch.randn(3, 16, 16, 16, generator=generator)[order]
    text = torch.randn(1, 5, 16, generator=generator)
    rays = ray_features(cameras, 8, 8)
    with torch.no_grad():
        context = model.context(text)
        return model(latents[None], torch.tensor(sigma)[order][None], rays[None], context)[0]


def test_views_are_a_set(model: MultiViewTransformer) -> None:
    straight = run(model, [0, 1, 2], [0.1, 0.5, 0.9])
    turned = run(model, [2, 0, 1], [0.1, 0.5, 0.9])
    torch.testing.assert_close(turned, straight[[2, 0, 1]], atol=1e-4, rtol=1e-4)


def test_views_see_each_other(model: MultiViewTransformer) -> None:
    one = run(model, [0, 1, 2], [0.5, 0.5, 0.5])
    other = run(model, [0, 1, 2], [0.5, 0.5, 0.0])
    assert (one[0] - other[0]).abs().max() > 1e-4


def test_zero_initialised_model_predicts_zero() -> None:
    fresh = MultiViewTransformer(width=32, depth=2, heads=2, text_width=16)
    assert run(fresh, [0, 1, 2], [0.5, 0.5, 0.5]).abs().max() == 0


def test_ray_features_know_the_point_and_the_axes() -> None:
    cameras = orbit_cameras([90.0], [0.0], 128)
    features = ray_features(cameras, 8, 8)[0]
    # A camera on +X: right is -Z, up +Y, back +X; the first patch is left of and above the centre.
    expected = torch.tensor([0.0, 0, -1, 0, 1, 0, 1, 0, 0])
    torch.testing.assert_close(features[0, :9], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(features[0, 9:12], torch.tensor([0.0, 0.875, 0.875]), atol=1e-6, rtol=0)


def test_plain_attention_is_torchs() -> None:
    q, k, v = torch.randn(3, 2, 4, 10, 8).unbind()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend(q * 8**-0.5, k, v), expected, atol=1e-5, rtol=1e-5)


def test_a_head_looks_where_each_view_sees_its_point() -> None:
    """The term is minus the sharpness times the squared distance of the point from the key's ray."""
    cameras = orbit_cameras([0.0, 70.0, 200.0], [15.0, -20.0, 89.0], 128)
    rays = Rays.of(ray_features(cameras, 8, 8).flatten(0, 1)[None])
    sight = Sight(16, 2)
    with torch.no_grad():
        sight.choice.weight.normal_()
    x = torch.randn(1, 3 * 64, 16)
    term = torch.einsum("bnhd,bmd->bnhm", sight(x, rays), rays.key)
    choice = sight.choice(x).view(1, 192, 2, 4)
    point = rays.point[:, :, None] + choice[..., :3]
    offset = point[..., None, :] - rays.point[:, None, None]
    back = ray_features(cameras, 8, 8).flatten(0, 1)[:, 6:9]
    across = offset - (offset * back).sum(-1, keepdim=True) * back
    expected = -Sight.SHARPEST * choice[..., 3:] * across.square().sum(-1)
    torch.testing.assert_close(term, expected, atol=1e-3, rtol=1e-3)
