"""gsplat behind `rasterize_splats`: what it is given, what it makes of it, and what is said where it is not.

Without a GPU gsplat draws nothing, so its kernel's formulas are written down here (`kernel_alphas`, `blend`)
and compared twice: with our window in them the arguments must give our reference's images; with
gsplat's they stay within a bound that its docstring states. `test_gsplat_installed` has what needs gsplat.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from recon.fields.gaussians import GaussianField
from render.cameras import Cameras, orbit_cameras
from render.errors import InputError
from render.splats import gsplat_backend, rasterize, rasterize_splats
from render.splats.constants import FLOOR, LOW_PASS_PX2, MAX_ALPHA, NEAR
from render.splats.gsplat_backend import ALPHA_THRESHOLD, GsplatArguments, gsplat_arguments, images_of
from render.splats.reference import composite, rasterize_reference
from tests.conftest import barrel_views
from tests.render.test_splats import FOVS, IMAGES, NAMES, cloud

CUDA = torch.device("cuda")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def rig(fov_deg: float | None) -> Cameras:
    """Three cameras; no whole number of tiles, fx other than fy, a principal point off the middle."""
    cameras = orbit_cameras([0.0, 50.0, 200.0], [10.0, -30.0, 90.0], 40, fov_deg=fov_deg, radius=3.0)
    scale = torch.tensor([1.0, 1.15, 1.0, 1.0])
    shift = torch.tensor([0.0, 0.0, 1.7, -2.3])
    return Cameras(cameras.c2w, cameras.intrinsics * scale + shift, 40, 36, cameras.projection)


def leaves(splats: list[Tensor], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [t.to(dtype).clone().requires_grad_() for t in splats]


def weighted_sum(images: tuple[Tensor, ...]) -> Tensor:
    """A loss that gives every output value its own gradient."""
    generator = torch.Generator().manual_seed(7)
    parts = [(p * torch.randn(p.shape, generator=generator).to(p)).sum() for p in images]
    return torch.stack(parts).sum()


def agree_but_for_the_window(
    images: tuple[Tensor, ...], expected: tuple[Tensor, ...], one: list[Tensor], two: list[Tensor]
) -> None:
    """gsplat's images of the leaves `one` and the reference's of `two`, and their gradients.

    Differences of the alphas of splats one behind another add up, most where none is opaque. Found: 0.047
    at most and 0.010 on average, gradients within 0.996 of their direction. Depths are 3 times the rest.
    """
    for name, a, b in zip(IMAGES, images, expected, strict=True):
        difference = (a - b).detach().abs() / (3 if name == "depths" else 1)
        assert float(difference.max()) < 0.06, name
        assert float(difference.mean()) < 0.012, name
    weighted_sum(images).backward()
    weighted_sum(expected).backward()
    for name, a, b in zip(NAMES, one, two, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert float(torch.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0)) > 0.99, name


def gaussians(given: GsplatArguments, camera: int, pixels: Tensor) -> Tensor:
    """exp(-sigma) of every splat at pixels `[P, 2]`, as gsplat's kernel has it: `[P, N]`."""
    dx, dy = (given.means2d[camera] - pixels[:, None]).unbind(-1)
    a, b, c = given.conics[camera].unbind(-1)
    return torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy))


def kernel_alphas(given: GsplatArguments, camera: int, pixels: Tensor) -> Tensor:
    """Alphas of gsplat 1.5.3's `rasterize_to_pixels_3dgs_fwd_kernel`."""
    alphas = (given.opacities[camera] * gaussians(given, camera, pixels)).clamp_max(0.999)
    return torch.where(alphas < ALPHA_THRESHOLD, 0, alphas)


def our_alphas(given: GsplatArguments, camera: int, pixels: Tensor) -> Tensor:
    """Alphas with the window of `render.splats.reference`."""
    window = ((gaussians(given, camera, pixels) - FLOOR) / (1 - FLOOR)).clamp_min(0)
    return (given.opacities[camera] * window).clamp_max(MAX_ALPHA)


def blend(alphas: Tensor) -> Tensor:
    """The kernel's weights: a pixel ends before the splat that would take it to 1e-4."""
    through = torch.cumprod(1 - alphas, 1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], 1)
    return alphas * before * (through > 1e-4)


def drawn(given: GsplatArguments, cameras: Cameras, *, ours: bool = False) -> tuple[Tensor, ...]:
    """Images from gsplat's arguments by the formulas above: its own, or with our window and our end."""
    pixels = cameras.pixel_centers().to(given.means2d).reshape(-1, 2)
    colors, alphas = [], []
    for camera in range(len(cameras)):
        order = torch.argsort(given.depths[camera], stable=True)
        order = order[(given.radii[camera, order] > 0).all(-1)]
        if ours:
            weights = composite(our_alphas(given, camera, pixels)[:, order])[0]
        else:
            weights = blend(kernel_alphas(given, camera, pixels)[:, order])
        colors.append(weights @ given.colors[camera, order])
        alphas.append(weights.sum(1, keepdim=True))
    shape = (len(cameras), cameras.height, cameras.width, -1)
    return images_of(torch.stack(colors).reshape(shape), torch.stack(alphas).reshape(shape), cameras)


def close(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], bound: float) -> None:
    for name, a, b in zip(IMAGES, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=bound, msg=lambda m, n=name: f"{n}: {m}")


# The arguments


@FOVS
def test_centres_and_depths_are_those_of_the_cameras(fov_deg: float | None) -> None:
    splats, cameras = cloud(30), rig(fov_deg)
    given = gsplat_arguments(*splats, cameras, LOW_PASS_PX2)
    pixels, depths = cameras.project(splats[0].float())
    torch.testing.assert_close(given.means2d, pixels.double(), atol=2e-5, rtol=0)
    torch.testing.assert_close(given.depths, depths.double(), atol=1e-6, rtol=0)


@FOVS
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "solid"])
def test_conics_are_those_of_the_cameras_jacobian(fov_deg: float | None, flat: bool) -> None:
    splats, cameras = cloud(12, flat=flat), rig(fov_deg)
    means, quats, scales = splats[:3]
    exact = Cameras(
        cameras.c2w.double(), cameras.intrinsics.double(), cameras.width, cameras.height, cameras.projection
    )
    w, vector = torch.nn.functional.normalize(quats, dim=1).split([1, 3], 1)
    # v' = v + 2 w (q x v) + 2 q x (q x v): not the matrix that the code under test has.
    axes = torch.eye(3).double()[:, None] * scales.T[:, :, None]
    turned = torch.linalg.cross(vector.expand_as(axes), axes)
    axes = axes + 2 * w * turned + 2 * torch.linalg.cross(vector.expand_as(axes), turned)
    step = 1e-6
    tips = [
        (exact.project(means + s * step * axes.reshape(3, -1, 3)[k])[0]) for k in range(3) for s in (1, -1)
    ]
    factors = torch.stack([(tips[2 * k] - tips[2 * k + 1]) / (2 * step) for k in range(3)], -1)  # C N 2 3
    covariances = factors @ factors.transpose(-1, -2) + LOW_PASS_PX2 * torch.eye(2).double()
    conics = torch.linalg.inv(covariances)
    expected = torch.stack([conics[..., 0, 0], conics[..., 0, 1], conics[..., 1, 1]], -1)
    given = gsplat_arguments(*splats, exact, LOW_PASS_PX2)
    torch.testing.assert_close(given.conics, expected, atol=1e-6, rtol=1e-5)


@FOVS
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "solid"])
def test_with_our_window_the_arguments_give_our_images_and_gradients(
    fov_deg: float | None, flat: bool
) -> None:
    cameras, splats = rig(fov_deg), cloud(60, flat=flat)
    one, two = leaves(splats), leaves(splats)
    images = drawn(gsplat_arguments(*one, cameras, LOW_PASS_PX2), cameras, ours=True)
    expected = rasterize_reference(*two, cameras, LOW_PASS_PX2)
    # The same sums in another order, in float64: only depth is put together otherwise.
    close(images, expected, 1e-10)
    weighted_sum(images).backward()
    weighted_sum(expected).backward()
    for name, a, b in zip(NAMES, one, two, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        bound = 1e-9 * float(b.grad.abs().max())
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=bound, msg=lambda m, n=name: f"{n}: {m}")


@FOVS
def test_outside_its_box_a_splat_is_below_the_threshold(fov_deg: float | None) -> None:
    cameras, splats = rig(fov_deg), cloud(60)
    splats[0][:20] *= 2.5  # some beyond the edges
    splats[3][0], splats[3][1], splats[3][2] = 1 / 256, 0.0, 1.0
    given = gsplat_arguments(*splats, cameras, LOW_PASS_PX2)
    pixels = cameras.pixel_centers().double().reshape(-1, 2)
    assert not given.radii[:, :2].any()
    for camera in range(len(cameras)):
        away = (pixels[:, None] - given.means2d[camera]).abs()
        outside = (away > given.radii[camera]).any(-1)
        alphas = kernel_alphas(given, camera, pixels)
        assert float(alphas[outside].max()) == 0
        # No box is wider than it must be by more than the pixel to which it is rounded up.
        edge = given.radii[camera].double() - 1
        variances = torch.linalg.inv(
            torch.stack([given.conics[camera, :, :2], given.conics[camera, :, 1:]], 1)
        ).diagonal(dim1=1, dim2=2)
        shown = (given.radii[camera] > 0).all(-1)
        at_edge = given.opacities[camera, :, None] * torch.exp(-0.5 * edge.square() / variances)
        assert float(at_edge[shown].min()) >= ALPHA_THRESHOLD * (1 - 1e-9)


def test_opacities_are_bounded_in_value_but_keep_their_gradient() -> None:
    splats = leaves(cloud(3))
    with torch.no_grad():
        splats[3].copy_(torch.tensor([0.5, 0.995, 1.0]))
    given = gsplat_arguments(*splats, rig(None), LOW_PASS_PX2)
    assert given.opacities[0].tolist() == pytest.approx([0.5, MAX_ALPHA, MAX_ALPHA])
    given.opacities.sum().backward()
    assert splats[3].grad is not None
    assert splats[3].grad.tolist() == [3, 3, 3]


def test_what_cannot_be_seen_has_no_box_and_poisons_no_gradient() -> None:
    cameras = rig(40.0)[[0]]
    eye, forward = cameras.c2w[0, :3, 3], -cameras.c2w[0, :3, 2]
    side = cameras.c2w[0, :3, 0]
    places = [eye, eye + 1e-9 * forward + side, eye - forward, eye + 0.5 * NEAR * forward, 1e4 * side]
    splats = leaves(cloud(5 + len(places)), torch.float32)
    with torch.no_grad():
        splats[0][5:] = torch.stack(places)
    given = gsplat_arguments(*splats, cameras, LOW_PASS_PX2)
    assert not given.radii[0, 5:].any()
    assert bool((given.radii[0, :5] > 0).all())
    weighted_sum(drawn(given, cameras)).backward()
    for tensor in splats:
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())
        assert not tensor.grad[5:].any()


# What gsplat makes of them


@FOVS
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "solid"])
def test_gsplat_departs_from_the_reference_by_its_window_only(fov_deg: float | None, flat: bool) -> None:
    cameras, splats = rig(fov_deg), cloud(60, flat=flat)
    given = gsplat_arguments(*splats, cameras, LOW_PASS_PX2)
    pixels = cameras.pixel_centers().double().reshape(-1, 2)
    for camera in range(len(cameras)):
        more = kernel_alphas(given, camera, pixels) - our_alphas(given, camera, pixels)
        assert float(more.max()) <= FLOOR / (1 - FLOOR)
        assert float(more.min()) >= -ALPHA_THRESHOLD  # where its threshold cuts and ours has not ended
    one, two = leaves(splats), leaves(splats)
    images = drawn(gsplat_arguments(*one, cameras, LOW_PASS_PX2), cameras)
    expected = rasterize_reference(*two, cameras, LOW_PASS_PX2)
    agree_but_for_the_window(images, expected, one, two)


@FOVS
def test_a_seeded_surface_looks_the_same(fov_deg: float | None) -> None:
    views = barrel_views(orbit_cameras([60.0 * k for k in range(6)], [10.0] * 6, 48))
    field = GaussianField.from_views(views)
    cameras = orbit_cameras([30.0, 200.0], [25.0, -15.0], 48, fov_deg=fov_deg, radius=3.0)
    scales = torch.nn.functional.pad(field.log_scales.exp(), (0, 1))
    splats = (field.means, field.quats, scales, field.opacities, field.base_color_srgb)
    theirs = drawn(gsplat_arguments(*splats, cameras, LOW_PASS_PX2), cameras)
    shown = rasterize_splats(*splats, cameras)
    ours = tuple(getattr(shown, name) for name in IMAGES)
    off = (theirs[0] - ours[0]).abs()
    assert float(off.max()) < 0.2  # at the rim, where many discs are seen edge-on: tails of all of them
    assert float(off.mean()) < 0.005
    covered = ours[0][..., 0] > 0.5
    for name, a, b in zip(IMAGES[1:], theirs[1:], ours[1:], strict=True):
        off = (a[covered] / theirs[0][covered] - b[covered] / ours[0][covered]).abs()
        assert float(off.mean()) < 0.006, name


def isect_tiles(
    means2d: Tensor, radii: Tensor, depths: Tensor, tile_size: int, tile_width: int, tile_height: int
) -> tuple[Tensor, Tensor, Tensor]:
    """gsplat's stage of that name, for the CPU."""
    assert means2d.dtype == depths.dtype == torch.float32
    assert radii.dtype == torch.int32
    bits = (tile_width * tile_height).bit_length()
    counts, keys, entries = torch.zeros(radii.shape[:2], dtype=torch.int32), [], []
    for camera, splat in torch.nonzero((radii > 0).all(-1)).tolist():
        center, radius = means2d[camera, splat], radii[camera, splat]
        x0, y0 = torch.floor((center - radius) / tile_size).int().clamp_min(0).tolist()
        x1, y1 = torch.ceil((center + radius) / tile_size).int().tolist()
        depth = int(depths[camera, splat].view(torch.int32))
        for row in range(y0, min(y1, tile_height)):
            for column in range(x0, min(x1, tile_width)):
                tile = row * tile_width + column
                keys.append((((camera << bits) | tile) << 32) | depth)
                entries.append(camera * radii.shape[1] + splat)
                counts[camera, splat] += 1
    sorted_keys, order = torch.sort(torch.tensor(keys, dtype=torch.int64), stable=True)
    return counts, sorted_keys, torch.tensor(entries, dtype=torch.int32)[order]


def isect_offset_encode(isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
    """gsplat's stage of that name, for the CPU: where each tile's entries begin."""
    bits = (tile_width * tile_height).bit_length()
    image = torch.arange(n_images)[:, None] << bits
    tiles = image | torch.arange(tile_width * tile_height)
    starts = torch.searchsorted(isect_ids >> 32, tiles.reshape(-1))
    return starts.reshape(n_images, tile_height, tile_width).int()


def rasterize_to_pixels(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    """gsplat's stage of that name, for the CPU, by `kernel_alphas` and `blend`."""
    assert colors.shape[-1] in (8, 16, 32)  # compiled in 1.5.3 and in 1.6, which pads no longer
    count, splats = means2d.shape[:2]
    given = GsplatArguments(means2d, conics, means2d[..., 0], means2d.int(), opacities, colors)
    offsets = [*isect_offsets.reshape(-1).tolist(), len(flatten_ids)]
    tile_height, tile_width = isect_offsets.shape[1:]
    color = means2d.new_zeros(count, image_height, image_width, colors.shape[-1])
    alpha = means2d.new_zeros(count, image_height, image_width, 1)
    for tile in range(isect_offsets.numel()):
        camera, rest = divmod(tile, tile_height * tile_width)
        top, left = (tile_size * k for k in divmod(rest, tile_width))
        rows = torch.arange(top, min(top + tile_size, image_height))
        columns = torch.arange(left, min(left + tile_size, image_width))
        pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).reshape(-1, 2) + 0.5
        chosen = flatten_ids[offsets[tile] : offsets[tile + 1]].long()
        assert bool((chosen // splats == camera).all())
        weights = blend(kernel_alphas(given, camera, pixels)[:, chosen % splats])
        shape = (len(rows), len(columns), -1)
        block = (slice(top, top + len(rows)), slice(left, left + len(columns)))
        color[camera][block] = (weights @ colors[camera, chosen % splats]).reshape(shape)
        alpha[camera][block] = weights.sum(1).reshape(shape)
    return color, alpha


STAGES = (isect_tiles, isect_offset_encode, rasterize_to_pixels)


@pytest.fixture
def stages_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gsplat")
    for stage in STAGES:
        setattr(module, stage.__name__, stage)
    monkeypatch.setitem(sys.modules, "gsplat", module)


@FOVS
@pytest.mark.parametrize("n_channels", [1, 5, 40])
@pytest.mark.usefixtures("stages_on_the_cpu")
def test_its_stages_are_called_as_they_must_be(fov_deg: float | None, n_channels: int) -> None:
    cameras, splats = rig(fov_deg), cloud(30, channels=n_channels)
    one, two = leaves(splats, torch.float32), leaves(splats)
    images = gsplat_backend.rasterize_gsplat(*one, cameras, LOW_PASS_PX2)
    expected = drawn(gsplat_arguments(*two, cameras, LOW_PASS_PX2), cameras)
    # float32 against float64: 3e-6 found, gradients 2e-6. The rest is room for a contribution at the
    # threshold of 1/255 that rounding takes to the other side.
    for name, a, b in zip(IMAGES, images, expected, strict=True):
        assert a.dtype == torch.float32
        assert a.shape == b.shape, name
        off = (a.double() - b).detach().abs()
        assert float(off.max()) < (0.012 if name == "depths" else 0.004), name
        assert float((off > 1e-5).double().mean()) < 2e-3, name
    weighted_sum(images).backward()
    weighted_sum(expected).backward()
    for name, a, b in zip(NAMES, one, two, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert float((a.grad.double() - b.grad).norm() / b.grad.norm()) < 1e-3, name


@pytest.mark.usefixtures("stages_on_the_cpu")
def test_no_splats_make_empty_images() -> None:
    empty = [torch.zeros(0, n) for n in (3, 4, 3, 1, 2)]
    empty[3] = torch.zeros(0)
    alphas, channels, _, _ = gsplat_backend.rasterize_gsplat(*empty, rig(None), LOW_PASS_PX2)
    assert channels.shape == (3, 36, 40, 2)
    assert not alphas.any()


# Choosing


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing said yet, and nothing known of this machine's gsplat."""
    rasterize._say_once.cache_clear()
    gsplat_backend.gsplat_obstacle.cache_clear()


@pytest.mark.usefixtures("said")
def test_auto_takes_gsplat_on_cuda_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_backend, "gsplat_obstacle", lambda: None)
    assert rasterize.chosen_backend("auto", CUDA) == "gsplat"
    assert rasterize.chosen_backend("auto", torch.device("cpu")) == "numba"
    assert rasterize.chosen_backend("auto", torch.device("meta")) == "torch"
    assert rasterize.chosen_backend("torch", CUDA) == "torch"
    monkeypatch.setattr(gsplat_backend, "find_spec", lambda name: object())
    assert rasterize.chosen_backend("gsplat", CUDA) == "gsplat"


@pytest.mark.usefixtures("said")
def test_auto_says_once_that_gsplat_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_backend, "find_spec", lambda name: None)
    with pytest.warns(RuntimeWarning, match=r"torch reference, which is slow.*pip install 'maquette\[gpu\]'"):
        assert rasterize.chosen_backend("auto", CUDA) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rasterize.chosen_backend("auto", CUDA) == "torch"


@pytest.mark.usefixtures("said")
def test_kernels_that_cannot_be_built_are_an_obstacle_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gsplat_backend, "find_spec", lambda name: object())
    for name in ("gsplat", "gsplat.cuda"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=None))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="found no CUDA toolkit"):
        rasterize.chosen_backend("gsplat", CUDA)
    gsplat_backend.gsplat_obstacle.cache_clear()
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"could not be built or loaded \(ImportError"):
        rasterize.chosen_backend("gsplat", CUDA)


@pytest.mark.usefixtures("said")
def test_asking_for_gsplat_where_it_cannot_draw_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    splats = [t.float() for t in cloud(3)]
    monkeypatch.setattr(gsplat_backend, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'maquette\[gpu\]'"):
        rasterize_splats(*splats, rig(None), backend="gsplat")
    monkeypatch.setattr(gsplat_backend, "find_spec", lambda name: object())
    with pytest.raises(InputError, match="these splats are on cpu"):
        rasterize_splats(*splats, rig(None), backend="gsplat")
