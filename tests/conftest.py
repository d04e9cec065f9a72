"""Objects and models that more than one test needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from pipeline.prompt import Prompt
from render.cameras import Cameras
from render.gbuffer import GBuffer, ViewSet
from render.kernel_cache import forget_stale
from render.progress import Progress, silent
from render.rasterize import rasterize

if TYPE_CHECKING:
    from pipeline.multiview.pipeline import MultiViewPipeline


def pytest_configure(config: pytest.Config) -> None:
    """Kernels that were compiled with sources that have changed since must not be tested."""
    if not hasattr(config, "workerinput"):  # once, not in every process of pytest-xdist
        forget_stale(Path(__file__).resolve().parent.parent, ("render", "recon", "pipeline"))


def barrel() -> trimesh.Trimesh:
    """A watertight barrel of 1.5 units: 48 staves around, bulging."""
    heights = np.linspace(-0.75, 0.75, 25)
    radii = 0.42 + 0.12 * np.cos(heights / 0.75 * np.pi / 2)
    profile = np.concatenate([[[0.0, heights[0]]], np.stack([radii, heights], 1), [[0.0, heights[-1]]]])
    mesh = trimesh.creation.revolve(profile, sections=48)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    assert mesh.is_watertight
    return mesh


def barrel_views(cameras: Cameras, jitter: float = 0.0, generator: torch.Generator | None = None) -> ViewSet:
    """Exact G-buffers of the barrel, wood with iron bands; `jitter` shifts views by as many pixels."""
    mesh = barrel()
    found = rasterize(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), cameras)
    seen = found.face >= 0
    alpha = torch.from_numpy(seen.astype(np.float32))[..., None]
    corners = mesh.vertices[mesh.faces[found.face]]
    points = (corners * found.barycentric[..., None]).sum(-2)
    vertex_normals = mesh.vertex_normals[mesh.faces[found.face]]
    normals = (vertex_normals * found.barycentric[..., None]).sum(-2)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    band = (np.abs(np.abs(points[..., 1]) - 0.45) < 0.07)[..., None].astype(np.float32)
    color = band * np.array([0.35, 0.35, 0.38]) + (1 - band) * np.array([0.55, 0.34, 0.16])

    def channel(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)) * alpha

    channels = {
        "alpha": alpha,
        "base_color_srgb": channel(color),
        "normal": channel(normals),
        "depth": torch.from_numpy(found.depth)[..., None],
        "metallic": channel(band * 0.9),
        "roughness": channel(0.8 - 0.4 * band),
    }
    if jitter > 0:
        shifts = (torch.randn(len(cameras), 2, generator=generator) * jitter).round().long().tolist()
        channels = {
            name: torch.stack(
                [view.roll((dy, dx), (0, 1)) for view, (dy, dx) in zip(value, shifts, strict=True)]
            )
            for name, value in channels.items()
        }
    return ViewSet(cameras, GBuffer(**channels))


class BarrelDenoiser:
    """Knows one object: every noisy view cleans up to the barrel. Latents are the channels themselves."""

    def encode(self, gbuffer: GBuffer, cameras: Cameras) -> Tensor:
        return torch.cat([value for _, value in sorted(gbuffer.channels().items())], -1).permute(0, 3, 1, 2)

    def decode(self, latents: Tensor, cameras: Cameras) -> GBuffer:
        names = {"alpha": 1, "base_color_srgb": 3, "depth": 1, "metallic": 1, "normal": 3, "roughness": 1}
        parts = latents.permute(0, 2, 3, 1).split(list(names.values()), -1)
        return GBuffer(**dict(zip(names, parts, strict=True)))

    def predict_clean(self, noisy: Tensor, sigma: float, cameras: Cameras) -> Tensor:
        return self.encode(barrel_views(cameras).gbuffer, cameras)


class BarrelPipeline:
    """Stands in for the multi-view model: draws a barrel whatever the prompt, shifted by its seed."""

    def __init__(self, jitter: float = 0.0) -> None:
        self.jitter = jitter
        self.calls = 0
        self.started: list[bool] = []
        """Of every call: whether views were drawn again."""
        self.start_levels: list[float] = []
        self.guidance: list[float] = []
        self.rescales: list[float] = []
        self.guess_levels: list[float] = []
        self.likes: Callable[[ViewSet], float] | None = None
        self.takes_pictures_for: str | None = None

    def __call__(
        self,
        prompt: Prompt,
        cameras: Cameras,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        guidance_rescale: float,
        generator: torch.Generator,
        start: ViewSet | None = None,
        start_level: float = 1.0,
        guess_level: float = 1.0,
        progress: Progress = silent,
    ) -> ViewSet:
        self.calls += 1
        self.started.append(start is not None)
        self.start_levels.append(start_level)
        self.guidance.append(guidance_scale)
        self.rescales.append(guidance_rescale)
        self.guess_levels.append(guess_level)
        for step in range(num_inference_steps):
            progress(step / num_inference_steps)
        return barrel_views(cameras, self.jitter, generator)

    def domain(self, text: str) -> None:
        return None

    def likeness(self, prompt: Prompt, views: ViewSet) -> float | None:
        return self.likes(views) if self.likes is not None else None

    def named(self, prompt: Prompt) -> str | None:
        return self.takes_pictures_for if prompt.pictures and not prompt.text else None

    def pictured(self, prompt: Prompt, size_px: int) -> ViewSet | None:
        return None

    def looks_like(self, views: ViewSet) -> tuple[str, ...]:
        return ("barrel",)

    def denoiser(self, prompt: Prompt, views: ViewSet, guidance_scale: float) -> BarrelDenoiser:
        return BarrelDenoiser()


@pytest.fixture
def barrel_pipeline() -> BarrelPipeline:
    return BarrelPipeline()


@pytest.fixture
def wobbly_pipeline() -> BarrelPipeline:
    """Views that are shifted by two pixels on average, differently for every seed."""
    return BarrelPipeline(jitter=2.0)


@pytest.fixture(scope="session")
def tiny_multiview_pipeline() -> MultiViewPipeline:
    """The real pipeline with small networks and random weights."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from pipeline.multiview.autoencoder import GBufferAutoencoder
    from pipeline.multiview.lifter import PictureLifter
    from pipeline.multiview.pipeline import MultiViewPipeline
    from pipeline.multiview.transformer import MultiViewTransformer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = MultiViewTransformer(width=32, depth=2, heads=2)
        for name, parameter in transformer.named_parameters():
            if "modulation" in name or "patch_out" in name:  # zero at the start of training
                torch.nn.init.normal_(parameter, std=0.05)
        autoencoder = GBufferAutoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
        lifter = PictureLifter(width=32, heads=2, depth=1)
    pipeline = MultiViewPipeline(
        autoencoder, transformer, FlowMatchEulerDiscreteScheduler(shift=2.0), lifter=lifter
    )
    for network in (autoencoder, transformer, lifter):
        network.eval()
    return pipeline
