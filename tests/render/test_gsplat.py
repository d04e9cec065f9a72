"""gsplat behind `rasterize_splats`: what it is given, what it makes of it, and what is said where it is not.

Without a GPU gsplat draws nothing, so its kernel's formulas are written down here (`kernel_alphas`, `blend`)
and compared three ways: with our window in them the arguments must give our reference's images; with
gsplat's they stay within a bound that its docstring states; and where gsplat is installed, its own torch
functions must agree with them. On CUDA (marker `gpu`) the kernels themselves are compared.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from recon.fields.gaussians import GaussianField
from render.cameras import Cameras, orbit_cameras
from render.errors import InputError
from render.splats import SplatImages, gsplat_backend, rasterize, rasterize_splats
from render.splats.constants import FLOOR, LOW_PASS_PX2, MAX_ALPHA, NEAR, TILE_PX
from render.splats.gsplat_backend import ALPHA_THRESHOLD, GsplatArguments, gsplat_arguments, images_of
from render.splats.reference import composite, rasterize_reference
from tests.conftest import barrel_views

NAMES = ("means", "quats", "scales", "opacities", "channels")
IMAGES = ("alphas", "channels", "depths", "normals")
FOVS = pytest.mark.parametrize("fov_deg", [None, 40.0], ids=["orthographic", "perspective"])
CUDA = torch.device("cuda")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def cloud(count: int, *, flat: bool = True, channels: int = 5, seed: int = 0) -> list[Tensor]:
    """Random Gaussians around the origin, float64, with quaternions of any length."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    means = 1.2 * rand(count, 3) - 0.6
    quats = 4 * rand(count, 4) - 2
    scales = 0.02 + 0.15 * rand(count, 3)
    if flat:
        scales[:, 2] = 0
    return [means, quats, scales, 0.05 + 0.9 * rand(count), rand(count, channels)]


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
    # Differences of the alphas of splats one behind another add up, most where none is opaque. Found: 0.047
    # at most and 0.010 on average, gradients within 0.997 of their direction. Depths are 3 times the rest.
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


# gsplat's own functions, where it is installed


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
    for name, a, b in zip(IMAGES, images, expected, strict=True):
        # The bounds of the same comparison on the CPU, above: the windows differ.
        difference = (a - b).detach().abs() / (3 if name == "depths" else 1)
        assert float(difference.max()) < 0.06, name
        assert float(difference.mean()) < 0.012, name
    weighted_sum(images).backward()
    weighted_sum(expected).backward()
    for name, a, b in zip(NAMES, fast, plain, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert float(torch.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0)) > 0.99, name


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
