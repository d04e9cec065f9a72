"""Network images carry all that a G-buffer holds, in camera space."""

from __future__ import annotations

import pytest
import torch

from pipeline.multiview.codec import ALPHA, CHANNELS, NORMAL, decode_gbuffer, encode_gbuffer
from render.cameras import Cameras, orbit_cameras
from render.gbuffer import GBuffer


def random_gbuffer(cameras: Cameras, seed: int = 0) -> GBuffer:
    """Valid random channels, half of the pixels covered."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(cameras), cameras.height, cameras.width)

    def rand(k: int) -> torch.Tensor:
        return torch.rand(*shape, k, generator=generator)

    alpha = (rand(1) > 0.5).float()
    normal = torch.nn.functional.normalize(rand(3) - 0.5, dim=-1)
    return GBuffer(
        alpha=alpha,
        base_color_srgb=rand(3) * alpha,
        normal=normal * alpha,
        depth=(1 + 2 * rand(1)) * alpha,
        metallic=rand(1) * alpha,
        roughness=rand(1) * alpha,
    )


def test_decode_is_the_inverse_of_encode() -> None:
    cameras = orbit_cameras([0.0, 70.0, 0.0], [15.0, -30.0, 89.0], 32)
    gbuffer = random_gbuffer(cameras)
    restored = decode_gbuffer(encode_gbuffer(gbuffer, cameras), cameras)
    for name, value in gbuffer.channels().items():
        # fp32 rotations there and back.
        torch.testing.assert_close(restored.channels()[name], value, atol=2e-6, rtol=0, msg=name)


def test_uncovered_pixels_are_zero_but_for_alpha() -> None:
    cameras = orbit_cameras([0.0], [0.0], 16)
    image = encode_gbuffer(random_gbuffer(cameras), cameras).permute(0, 2, 3, 1)
    empty = image[image[..., 3] < 0]
    others = [c for c in range(CHANNELS) if c != ALPHA.start]
    assert empty[:, others].abs().max() == 0
    assert (empty[:, ALPHA] == -1).all()


def test_a_surface_that_faces_the_camera_has_normal_z() -> None:
    cameras = orbit_cameras([130.0], [40.0], 16)
    toward = cameras.c2w[0, :3, 2].expand(1, 16, 16, 3)
    ones = torch.ones(1, 16, 16, 1)
    gbuffer = GBuffer(ones, toward * 0, normal=toward, depth=2 * ones, metallic=ones, roughness=ones)
    image = encode_gbuffer(gbuffer, cameras)
    expected = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(image[:, NORMAL], expected, atol=1e-6, rtol=0)
    # The plane through the origin that faces the camera is at height 0.
    assert image[:, 7].abs().max() < 1e-6


def test_missing_channels_are_named() -> None:
    cameras = orbit_cameras([0.0], [0.0], 16)
    with pytest.raises(ValueError, match="depth, metallic, normal, roughness"):
        encode_gbuffer(GBuffer(torch.ones(1, 16, 16, 1), torch.ones(1, 16, 16, 3)), cameras)
