"""The splat kernels against their torch twin, and what both must obey."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from render.cameras import Cameras, orbit_cameras
from render.splats import SplatImages, rasterize_splats
from render.splats.constants import FLOOR, MAX_ALPHA
from render.splats.reference import composite, project

NAMES = ("means", "quats", "scales", "opacities", "channels")
IMAGES = ("alphas", "channels", "depths", "normals")
FOVS = pytest.mark.parametrize("fov_deg", [None, 40.0], ids=["orthographic", "perspective"])


def cloud(count: int, *, flat: bool = True, channels: int = 5, seed: int = 0) -> list[Tensor]:
    """Random Gaussians around the origin, float64."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    means = 1.2 * rand(count, 3) - 0.6
    quats = 2 * rand(count, 4) - 1
    scales = 0.02 + 0.15 * rand(count, 3)
    if flat:
        scales[:, 2] = 0
    return [means, quats, scales, 0.05 + 0.9 * rand(count), rand(count, channels)]


def rig(fov_deg: float | None, size: int = 40) -> Cameras:
    # A width that is no multiple of a tile, a pole, and a camera from below.
    return orbit_cameras([0.0, 50.0, 200.0], [10.0, -30.0, 90.0], size, fov_deg=fov_deg, radius=3.0)


def leaves(splats: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [t.to(dtype).clone().requires_grad_() for t in splats]


def weighted_sum(images: SplatImages) -> Tensor:
    """A loss that gives every output value its own gradient."""
    generator = torch.Generator().manual_seed(7)
    parts = [getattr(images, name) for name in IMAGES]
    return sum((p * torch.randn(p.shape, generator=generator)).sum() for p in parts)  # type: ignore[return-value]


@FOVS
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "solid"])
@pytest.mark.parametrize("n_channels", [1, 5])
def test_kernels_equal_the_reference(fov_deg: float | None, flat: bool, n_channels: int) -> None:
    splats = cloud(80, flat=flat, channels=n_channels)
    exact, fast = leaves(splats, torch.float64), leaves(splats, torch.float32)
    cameras = rig(fov_deg)
    theirs = rasterize_splats(*exact, cameras, backend="torch")
    ours = rasterize_splats(*fast, cameras, backend="numba")
    for name in IMAGES:
        a, b = getattr(ours, name).double(), getattr(theirs, name)
        # float32 against float64: rounding of positions (1e-7 of 40 px) times slopes of the
        # windows, and splats that end a pixel (transmittance 1e-4) in one but not the other.
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    weighted_sum(ours).backward()
    weighted_sum(theirs).backward()
    for name, a, b in zip(NAMES, fast, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        # Sums over hundreds of pixels of terms that cancel: errors scale with the largest gradient.
        bound = 2e-4 * float(b.grad.abs().max())
        torch.testing.assert_close(
            a.grad.double(), b.grad, rtol=0, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
        )


@FOVS
def test_reference_gradients_equal_finite_differences(fov_deg: float | None) -> None:
    splats = leaves(cloud(4, flat=False, channels=1), torch.float64)
    cameras = rig(fov_deg, 12)[[1]]

    def images(*inputs: Tensor) -> tuple[Tensor, ...]:
        shown = rasterize_splats(*inputs, cameras, backend="torch")
        return tuple(getattr(shown, name) for name in IMAGES)

    assert torch.autograd.gradcheck(images, splats, eps=1e-7, atol=1e-4, rtol=1e-3)


@FOVS
def test_centres_are_where_the_camera_projects_them(fov_deg: float | None) -> None:
    means, quats, scales, _, _ = cloud(20, flat=True)
    cameras = rig(fov_deg)
    seen = project(means.float(), quats.float(), scales.float(), cameras, 0.3)
    pixels, depths = cameras.project(means.float())
    torch.testing.assert_close(seen.centers, pixels, atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.depths, depths, atol=1e-5, rtol=0)


def test_weights_and_transmittance_sum_to_one() -> None:
    alphas = torch.rand(50, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * MAX_ALPHA
    weights, left_over = composite(alphas)
    torch.testing.assert_close(weights.sum(1) + left_over, torch.ones(50, dtype=torch.float64))
    # The kernels: a channel of ones composites to the sum of the weights, alpha is 1 - transmittance.
    means, quats, scales, opacities, _ = (t.float() for t in cloud(300, flat=True))
    shown = rasterize_splats(means, quats, scales, opacities, torch.ones(300, 1), rig(None))
    torch.testing.assert_close(shown.channels, shown.alphas, atol=3e-6, rtol=0)
    assert float(shown.alphas.max()) > 0.9
    assert float(shown.alphas.min()) == 0


def test_one_splat_has_the_analytic_footprint() -> None:
    # 32 px for 2 units: 0.25 units are 4 px. At the centre of pixel (16, 16), half a pixel off.
    cameras = orbit_cameras([0.0], [0.0], 32)
    shown = rasterize_splats(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.25, 0.25, 0.0]]),
        torch.tensor([0.8]), torch.tensor([[0.4]]), cameras,
    )  # fmt: skip
    x = np.arange(32) + 0.5 - 16
    q = (x[None] ** 2 + x[:, None] ** 2) / (4.0**2 + 0.3)
    window = np.maximum(np.exp(-q / 2) - FLOOR, 0) / (1 - FLOOR)
    np.testing.assert_allclose(shown.alphas[0, ..., 0], 0.8 * window, atol=1e-6)
    np.testing.assert_allclose(shown.channels[0, ..., 0], 0.4 * 0.8 * window, atol=1e-6)
    np.testing.assert_allclose(shown.depths[0, ..., 0], 2.0 * 0.8 * window, atol=3e-6)
    np.testing.assert_allclose(shown.normals[0, ..., 2], 0.8 * window, atol=1e-6)


@FOVS
def test_depth_of_a_slanted_disc_is_that_of_its_plane(fov_deg: float | None) -> None:
    cameras = orbit_cameras([40.0], [0.0], 64, fov_deg=fov_deg, radius=3.0)
    shown = rasterize_splats(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.1, 0.1, 0.0]]),
        torch.tensor([0.9]), torch.ones(1, 1), cameras, low_pass_px2=1e-4,
    )  # fmt: skip
    origins, directions = cameras.rays()
    travelled = -origins[..., 2] / directions[..., 2]  # to the plane z = 0
    depth = travelled * (directions * -cameras.c2w[:, None, None, :3, 2]).sum(-1)
    covered = shown.alphas[..., 0] > 0.05
    ours = (shown.depths / shown.alphas.clamp_min(1e-6))[..., 0]
    assert int(covered.sum()) > 20
    # Perspective: EWA takes the plane's projection as affine, an error of second order in 0.1 / 3.
    torch.testing.assert_close(ours[covered], depth[covered], atol=1e-3 if fov_deg is None else 2e-2, rtol=0)


def test_nearer_splats_hide_farther_ones_and_ties_go_by_index() -> None:
    cameras = orbit_cameras([0.0], [0.0], 16)
    means = torch.tensor([[0.0, 0, -0.5], [0.0, 0, 0.5], [0.0, 0, 0.5]])
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1)
    channels = torch.eye(3)
    shown = rasterize_splats(means, quats, torch.full((3, 3), 0.4), torch.full((3,), 0.9), channels, cameras)
    first, second, third = (float(shown.channels[0, 8, 8, k]) for k in (1, 2, 0))
    assert first > 5 * second > 5 * third > 0


def test_normals_face_the_camera() -> None:
    means, quats, scales, opacities, channels = (t.float() for t in cloud(50, flat=True))
    for fov_deg in (None, 40.0):
        cameras = rig(fov_deg)
        shown = rasterize_splats(means, quats, scales, opacities, channels, cameras)
        facing = (shown.normals * -cameras.rays()[1]).sum(-1)
        # Perspective: a disc is turned by the ray to its centre, which differs from the pixel's by its size.
        assert float(facing.min()) >= (-1e-6 if fov_deg is None else -0.05)


def test_bits_do_not_depend_on_the_run_or_the_threads() -> None:
    def run(threads: int) -> list[Tensor]:
        numba.set_num_threads(threads)
        splats = leaves(cloud(400, flat=True), torch.float32)
        shown = rasterize_splats(*splats, rig(None, 64))
        weighted_sum(shown).backward()
        return [getattr(shown, name).detach() for name in IMAGES] + [
            t.grad for t in splats if t.grad is not None
        ]

    most = numba.config.NUMBA_NUM_THREADS
    try:
        first = run(1)
        for threads in {1, most}:
            for a, b in zip(first, run(threads), strict=True):
                assert torch.equal(a, b)
    finally:
        numba.set_num_threads(most)


def test_splats_that_cannot_be_seen_leave_no_trace() -> None:
    good = [t.float() for t in cloud(10, flat=True)]
    cameras = rig(40.0)
    alone = rasterize_splats(*good, cameras)
    behind = torch.tensor([[0.0, 0.0, 900.0], [900.0, 0.0, 0.0], [float("nan"), 0, 0]])
    more = [torch.cat([t, t[:3]]) for t in good]
    more[0] = torch.cat([good[0], behind])
    more = [t.requires_grad_() for t in more]
    shown = rasterize_splats(*more, cameras)
    assert torch.equal(shown.channels[1:2], alone.channels[1:2])
    shown.channels[1:2].sum().backward()
    assert all(bool((t.grad[-3:] == 0).all()) for t in more if t.grad is not None)


def test_no_splats_make_empty_images() -> None:
    shown = rasterize_splats(
        torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 2), rig(None)
    )
    assert shown.channels.shape == (3, 40, 40, 2)
    assert float(shown.alphas.max()) == 0


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises((ValueError, TypeError)):  # the tests' type checker is the first to see it
        rasterize_splats(*(t.float() for t in cloud(5, flat=True)[:4]), torch.zeros(4, 1), rig(None))
