"""gsplat itself behind `rasterize_splats`: its torch functions, and on CUDA (marker `gpu`) its kernels."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from render.cameras import Cameras
from render.splats import SplatImages, rasterize_splats
from render.splats.constants import LOW_PASS_PX2, NEAR, TILE_PX
from render.splats.gsplat_backend import gsplat_arguments, images_of
from tests.render.test_gsplat import (
    CUDA,
    NEEDS_CUDA,
    STAGES,
    agree_but_for_the_window,
    blend,
    close,
    drawn,
    isect_offset_encode,
    isect_tiles,
    kernel_alphas,
    leaves,
    rig,
    weighted_sum,
)
from tests.render.test_splats import FOVS, IMAGES, NAMES, cloud


def installed() -> ModuleType:
    """gsplat's torch twins of its kernels (1.5.3: private, and the only ones that run on a CPU)."""
    reason = "gsplat is not installed: pip install 'maquette[gpu]'"
    pytest.importorskip("gsplat", reason=reason)
    return pytest.importorskip("gsplat.cuda._torch_impl", reason=reason)


def gsplat_cameras(cameras: Cameras) -> tuple[Tensor, Tensor, str]:
    """`viewmats`, `Ks` and `camera_model` as gsplat's projection takes them; OpenGL to OpenCV here."""
    viewmats = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ cameras.w2c
    Ks = torch.zeros(len(cameras), 3, 3)
    Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2] = cameras.intrinsics.unbind(1)
    Ks[:, 2, 2] = 1
    return viewmats, Ks, "pinhole" if cameras.projection == "perspective" else "ortho"


def test_gsplat_has_the_stages_that_are_called() -> None:
    installed()
    import gsplat

    for stage in STAGES:
        theirs = list(inspect.signature(getattr(gsplat, stage.__name__)).parameters.values())
        ours = list(inspect.signature(stage).parameters)
        assert [p.name for p in theirs[: len(ours)]] == ours
        assert all(p.default is not inspect.Parameter.empty for p in theirs[len(ours) :])


@FOVS
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "solid"])
def test_gsplats_projection_is_ours(fov_deg: float | None, flat: bool) -> None:
    theirs = installed()
    splats, cameras = cloud(40, flat=flat), rig(fov_deg)
    means, quats, scales = splats[:3]
    viewmats, Ks, model = gsplat_cameras(cameras)
    covars, _ = theirs._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    radii, means2d, depths, conics, _ = theirs._fully_fused_projection(
        means, covars, viewmats.double(), Ks.double(), cameras.width, cameras.height,
        eps2d=LOW_PASS_PX2, near_plane=NEAR, camera_model=model,
    )  # fmt: skip
    given = gsplat_arguments(*splats, cameras, LOW_PASS_PX2)
    # Both in float64 from the same float32 cameras.
    torch.testing.assert_close(given.means2d, means2d, atol=1e-9, rtol=0)
    torch.testing.assert_close(given.depths, depths, atol=1e-9, rtol=0)
    torch.testing.assert_close(given.conics, conics, atol=1e-9, rtol=1e-9)
    assert bool((radii > 0).all())
    assert bool((given.radii <= radii).all())  # theirs know nothing of opacity here: 3.33 deviations


@FOVS
def test_gsplats_tiles_and_compositing_are_those_of_the_formulas(
    fov_deg: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = installed()
    cameras = rig(fov_deg)
    splats = [t.float() for t in cloud(30)]
    given = gsplat_arguments(*splats, cameras, LOW_PASS_PX2)
    tiles = (-(-cameras.width // TILE_PX), -(-cameras.height // TILE_PX))
    counts, keys, entries = isect_tiles(given.means2d, given.radii, given.depths, TILE_PX, *tiles)
    found = theirs._isect_tiles(given.means2d, given.radii, given.depths, TILE_PX, *tiles)
    for a, b in zip((counts, keys, entries), found, strict=True):
        assert torch.equal(a, b)
    starts = isect_offset_encode(keys, len(cameras), *tiles)
    assert torch.equal(starts, theirs._isect_offset_encode(keys, len(cameras), *tiles))

    # gsplat's `accumulate` has the alphas; which splats reach a pixel is for the kernel, so for `blend`.
    pixels = cameras.pixel_centers().reshape(-1, 2)
    weights, hits = [], []
    for camera in range(len(cameras)):
        order = torch.argsort(given.depths[camera], stable=True)
        reached = blend(kernel_alphas(given, camera, pixels)[:, order])
        pixel, place = torch.nonzero(reached, as_tuple=True)
        weights.append(reached[pixel, place])
        hits.append((order[place], pixel, torch.full_like(pixel, camera)))
    rays = len(cameras) * len(pixels)

    def render_weight_from_alpha(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, None]:
        table = torch.zeros(n_rays, len(splats[0]))
        column = torch.arange(len(alphas)) - torch.searchsorted(ray_indices, ray_indices)
        table[ray_indices, column] = alphas
        through = torch.cumprod(torch.cat([torch.ones(n_rays, 1), 1 - table[:, :-1]], 1), 1)
        return alphas * through[ray_indices, column], None

    def accumulate_along_rays(
        weights: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int
    ) -> Tensor:
        values = weights[:, None] if values is None else weights[:, None] * values
        return torch.zeros(n_rays, values.shape[1]).index_add(0, ray_indices, values)

    nerfacc = SimpleNamespace(
        render_weight_from_alpha=render_weight_from_alpha, accumulate_along_rays=accumulate_along_rays
    )
    monkeypatch.setitem(sys.modules, "nerfacc", nerfacc)  # type: ignore[arg-type]
    splat_ids, pixel_ids, image_ids = (torch.cat(parts) for parts in zip(*hits, strict=True))
    colors, alphas = theirs.accumulate(
        given.means2d, given.conics, given.opacities, given.colors,
        splat_ids, pixel_ids, image_ids, cameras.width, cameras.height,
    )  # fmt: skip
    assert colors.shape[0] * colors.shape[1] * colors.shape[2] == rays
    close(images_of(colors, alphas, cameras), drawn(given, cameras), 2e-5)  # float32 sums in other orders


# On a GPU


def on_cuda(splats: list[Tensor]) -> list[Tensor]:
    return [t.detach().float().to(CUDA).requires_grad_() for t in splats]


def taken(images: SplatImages) -> tuple[Tensor, ...]:
    return tuple(getattr(images, name).cpu() for name in IMAGES)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # building the kernels may warn of whatever it likes
@NEEDS_CUDA
@FOVS
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "solid"])
@pytest.mark.parametrize("n_channels", [1, 5, 40])
def test_gsplat_on_cuda_draws_what_its_formulas_say(
    fov_deg: float | None, flat: bool, n_channels: int
) -> None:
    pytest.importorskip("gsplat", reason="gsplat is not installed: pip install 'maquette[gpu]'")
    cameras, splats = rig(fov_deg), cloud(80, flat=flat, channels=n_channels)
    fast, exact = on_cuda(splats), leaves([t.float() for t in splats])
    images = taken(rasterize_splats(*fast, cameras.to(CUDA), backend="gsplat"))
    expected = drawn(gsplat_arguments(*exact, cameras, LOW_PASS_PX2), cameras)
    for name, a, b in zip(IMAGES, images, expected, strict=True):
        # float32 (3e-6 on the CPU, above) with a fast exp: 1e-4. A contribution that rounding takes over the
        # threshold of 1/255 or the end of a pixel: 0.004 in few pixels; depth is 3 times that.
        off = (a.double() - b).detach().abs() / (3 if name == "depths" else 1)
        assert float(off.max()) < 0.006, name
        assert float((off > 1e-4).double().mean()) < 2e-3, name
    weighted_sum(images).backward()
    weighted_sum(expected).backward()
    for name, a, b in zip(NAMES, fast, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        # The kernel recovers transmittance from 1 - alpha in float32 (6e-8 of at least 1e-4: 6e-4) and adds
        # in any order; a contribution at the threshold that falls to the other side is worth about as much.
        error = (a.grad.cpu().double() - b.grad).norm() / b.grad.norm()
        assert float(error) < 5e-3, name


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # building the kernels may warn of whatever it likes
@NEEDS_CUDA
@FOVS
def test_gsplat_on_cuda_against_the_torch_reference(fov_deg: float | None) -> None:
    pytest.importorskip("gsplat", reason="gsplat is not installed: pip install 'maquette[gpu]'")
    cameras, splats = rig(fov_deg).to(CUDA), cloud(60)
    fast, plain = on_cuda(splats), on_cuda(splats)
    images = taken(rasterize_splats(*fast, cameras))  # auto
    expected = taken(rasterize_splats(*plain, cameras, backend="torch"))
    agree_but_for_the_window(images, expected, fast, plain)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # building the kernels may warn of whatever it likes
@NEEDS_CUDA
def test_gsplat_on_cuda_leaves_out_what_cannot_be_seen() -> None:
    pytest.importorskip("gsplat", reason="gsplat is not installed: pip install 'maquette[gpu]'")
    cameras = rig(40.0).to(CUDA)
    good = on_cuda(cloud(10))
    behind = torch.tensor([[0.0, 0.0, 900.0], [900.0, 0.0, 0.0], [0.0, 900.0, 0.0]], device=CUDA)
    more = [torch.cat([t, t[:3]]).detach() for t in good]
    more[0] = torch.cat([good[0], behind]).detach()
    more = [t.requires_grad_() for t in more]
    shown, alone = (rasterize_splats(*splats, cameras[[1]], backend="gsplat") for splats in (more, good))
    # Matrix products of other sizes may take other kernels, which round otherwise.
    torch.testing.assert_close(shown.channels, alone.channels, rtol=0, atol=1e-5)
    shown.channels.sum().backward()
    assert all(t.grad is not None and not t.grad[-3:].any() for t in more)
    empty = [t[:0] for t in good]
    assert not rasterize_splats(*empty, cameras, backend="gsplat").alphas.any()
