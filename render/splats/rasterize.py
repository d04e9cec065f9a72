"""Differentiable splat rasterisation: the public function and its autograd node.

On the CPU the numba kernels run, with results that are bit-identical from run to run
and for any number of threads. CUDA tensors are drawn by gsplat where it is installed
(`gsplat_backend` says how its images differ), else, slower, by the torch reference, as
those of other devices are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from render.cameras import Cameras
from render.splats import gsplat_backend
from render.splats.constants import LOW_PASS_PX2, TILE_PX
from render.splats.reference import rasterize_reference

Backend = Literal["auto", "numba", "torch", "gsplat"]


@dataclass(frozen=True)
class SplatImages:
    """What `C` cameras see. All but `alphas` are composited: alpha times the mean over the covered part."""

    alphas: Float[Tensor, "C H W 1"]
    """1 - transmittance, in [0, 1]."""
    channels: Float[Tensor, "C H W K"]
    depths: Float[Tensor, "C H W 1"]
    """Expected z-depth, world units."""
    normals: Float[Tensor, "C H W 3"]
    """Third axes of the Gaussians, world space, turned towards the camera; not normalised."""


def rasterize_splats(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    channels: Float[Tensor, "N K"],
    cameras: Cameras,
    *,
    low_pass_px2: float = LOW_PASS_PX2,
    backend: Backend = "auto",
) -> SplatImages:
    """Composite Gaussians front to back in every camera.

    `quats` are wxyz of any length but 0, `scales` standard deviations along the
    Gaussian's own axes in world units (0 is allowed: a flat Gaussian has
    `scales[:, 2] = 0`), `opacities` in [0, 1]. Sorted by the depth of the centres,
    ties by index. Gaussians nearer than `constants.NEAR` are left out. All five
    tensors are differentiable; cameras are not. `numba` and `gsplat` compute in
    float32, `torch` in the tensors' own type.

    `auto` is `numba` on the CPU, `gsplat` on CUDA, `torch` on other devices and where
    gsplat cannot be used, which a `RuntimeWarning` says once. To ask for `gsplat` where
    it cannot be used is an `InputError`.
    """
    count = len(means)
    shapes = [tuple(t.shape) for t in (means, quats, scales, opacities)]
    if shapes != [(count, 3), (count, 4), (count, 3), (count,)] or len(channels) != count:
        raise ValueError(f"shapes of splats disagree: {shapes}, channels {tuple(channels.shape)}")
    splats = (means, quats, scales, opacities, channels)
    match chosen_backend(backend, means.device):
        case "numba":
            outputs = _Rasterize.apply(*splats, cameras, low_pass_px2)  # type: ignore[no-untyped-call]
        case "torch":
            outputs = rasterize_reference(*splats, cameras, low_pass_px2)
        case "gsplat":
            outputs = gsplat_backend.rasterize_gsplat(*splats, cameras, low_pass_px2)
    alphas, mixed, depths, normals = outputs
    return SplatImages(alphas, mixed, depths, normals)


def chosen_backend(backend: Backend, device: torch.device) -> Literal["numba", "torch", "gsplat"]:
    """What draws tensors on `device`; see `rasterize_splats`."""
    match backend:
        case "numba" | "torch":
            return backend
        case "gsplat":
            gsplat_backend.require_gsplat(device)
            return backend
        case "auto" if device.type == "cuda":
            obstacle = gsplat_backend.gsplat_obstacle()
            if obstacle is None:
                return "gsplat"
            _say_once(f"Splats on {device.type} are drawn by the torch reference, which is slow. {obstacle}")
            return "torch"
        case "auto":
            return "numba" if device.type == "cpu" else "torch"


@cache
def _say_once(text: str) -> None:
    # Python's own filter would say it again after every `catch_warnings` of some other module.
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)


class _Rasterize(torch.autograd.Function):
    """The numba kernels as one autograd node."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        channels: Tensor,
        cameras: Cameras,
        low_pass_px2: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from render.splats import compositing, projection  # compiling or loading takes a second

        gaussians = [_array(t) for t in (means, quats, scales)]
        values = _array(channels)
        count, (n_splats, n_channels) = len(cameras), values.shape
        width, height, perspective = cameras.width, cameras.height, cameras.projection == "perspective"
        views = _array(cameras.w2c[:, :3]) * np.array([[1], [-1], [-1]], np.float32)
        intrinsics = _array(cameras.intrinsics)
        n_features = 4 + n_channels
        splats = np.empty((count, n_splats, projection.COLUMNS), np.float32)
        features = np.zeros((count, n_splats, n_features), np.float32)
        projection.project_forward(
            *gaussians, _array(opacities), values, views, intrinsics, perspective,
            np.float32(low_pass_px2), splats, features,
        )  # fmt: skip
        counts = np.empty((count, n_splats), np.int64)
        projection.count_tiles(splats, width, height, counts)
        slots = np.zeros(count * n_splats + 1, np.int64)
        np.cumsum(counts.reshape(-1), out=slots[1:])
        tiles = -(-width // TILE_PX) * -(-height // TILE_PX)
        tile_starts = np.empty((count, tiles + 1), np.int64)
        entry_splat = np.empty(slots[-1], np.int32)
        entry_slot = np.empty(slots[-1], np.int64)
        projection.fill_tiles(splats, features, slots, width, height, tile_starts, entry_splat, entry_slot)
        image = np.zeros((count, height, width, n_features), np.float32)
        transmittance = np.ones((count, height, width), np.float32)
        compositing.composite_forward(splats, features, tile_starts, entry_splat, image, transmittance)
        ctx.tiles = (splats, features, tile_starts, entry_splat, entry_slot)
        ctx.outputs = (image, transmittance)
        ctx.inputs = (*gaussians, views, intrinsics, perspective)
        ctx.slots, ctx.n_channels = slots, n_channels
        out = torch.from_numpy(image)
        return (
            torch.from_numpy(1 - transmittance)[..., None],
            out[..., 4 : 4 + n_channels].contiguous(),
            out[..., 0:1].contiguous(),
            out[..., 1:4].contiguous(),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from render.splats import compositing, projection

        d_alphas, d_channels, d_depths, d_normals = gradients
        image, transmittance = ctx.outputs
        splats, features = ctx.tiles[:2]
        means, quats, scales, *view = ctx.inputs
        d_image = np.zeros_like(image)
        d_image[..., 0:1] = d_depths.numpy()
        d_image[..., 1:4] = d_normals.numpy()
        d_image[..., 4 : 4 + ctx.n_channels] = d_channels.numpy()
        slot_gradients = np.zeros((ctx.slots[-1], projection.SLOT_FEATURES + image.shape[-1]), np.float32)
        compositing.composite_backward(
            *ctx.tiles, image, transmittance, d_image, _array(d_alphas[..., 0]), slot_gradients
        )
        out = [np.empty_like(a) for a in (means, quats, scales)]
        out += [np.empty(len(means), np.float32), np.empty((len(means), ctx.n_channels), np.float32)]
        projection.project_backward(
            means, quats, scales, *view, splats, features, ctx.slots, slot_gradients, *out
        )
        return *(torch.from_numpy(a) for a in out), None, None
