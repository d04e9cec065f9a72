"""The multi-view diffusion pipeline: prompt and cameras in, a `ViewSet` out.

A diffusers `DiffusionPipeline` of autoencoder, transformer and flow-matching
scheduler; the text encoder stays outside the saved folder, because it comes as a
package (see `text`). All views are denoised together; any number of them, at any
orthographic camera that looks at the origin.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pipeline.models import HASHES, verified_model
from pipeline.multiview.autoencoder import DOWNSAMPLING, GBufferAutoencoder
from pipeline.multiview.codec import decode_gbuffer, encode_gbuffer
from pipeline.multiview.domain import CONCEPTS, Domain, DomainScore
from pipeline.multiview.text import TextEncoder
from pipeline.multiview.transformer import PATCH, MultiViewTransformer, ray_features
from pipeline.prompt import Prompt
from render.cameras import Cameras
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent

REFERENCE_SIZE = 128


@dataclass(frozen=True)
class Conditioning:
    """What a prompt becomes: context tokens with and without it."""

    conditional: tuple[Tensor, Tensor]
    unconditional: tuple[Tensor, Tensor]


class MultiViewPipeline(DiffusionPipeline):
    """Draws G-buffers of one object from many cameras."""

    autoencoder: GBufferAutoencoder
    transformer: MultiViewTransformer
    scheduler: FlowMatchEulerDiscreteScheduler

    def __init__(
        self,
        autoencoder: GBufferAutoencoder,
        transformer: MultiViewTransformer,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(autoencoder=autoencoder, transformer=transformer, scheduler=scheduler)
        self._text_encoder: TextEncoder | None = None
        self.known: Domain | None = None
        """What the model was trained on; `load` sets it."""

    @property
    def text_encoder(self) -> TextEncoder:
        """MiniLM, loaded at the first use."""
        if self._text_encoder is None:
            self._text_encoder = TextEncoder()
        return self._text_encoder

    @torch.no_grad()
    def condition(self, prompt: Prompt) -> Conditioning:
        """Context tokens of the prompt, and of its absence (or its negative text) for guidance."""
        dtype, device = self.transformer.dtype, self.transformer.device
        text = self.text_encoder.tokens([prompt.text, prompt.negative]).to(device, dtype)
        reference = None
        if prompt.image is not None:
            reference = reference_tensor(prompt.image, REFERENCE_SIZE).to(device, dtype)
        return Conditioning(
            self.transformer.context(text[:1], reference), self.transformer.context(text[1:], None)
        )

    def velocity(
        self,
        noisy: Float[Tensor, "v c h w"],
        sigma: Float[Tensor, " v"],
        rays: Float[Tensor, "v n f"],
        conditioning: Conditioning,
        guidance_scale: float,
    ) -> Float[Tensor, "v c h w"]:
        """Guided velocity `uncond + s * (cond - uncond)` of all views, fp32."""
        dtype = self.transformer.dtype
        x, level, camera = noisy[None].to(dtype), sigma[None], rays[None].to(dtype)
        conditional = self.transformer(x, level, camera, conditioning.conditional).float()[0]
        if guidance_scale == 1:
            return conditional
        unconditional = self.transformer(x, level, camera, conditioning.unconditional).float()[0]
        return unconditional + guidance_scale * (conditional - unconditional)

    def encode_views(self, gbuffer: GBuffer, cameras: Cameras) -> Float[Tensor, "C c h w"]:
        """Latents of views, fp32; differentiable."""
        image = encode_gbuffer(gbuffer, cameras).to(self.autoencoder.dtype)
        return self.autoencoder.encode(image.contiguous(memory_format=torch.channels_last)).float()

    def decode_views(self, latents: Float[Tensor, "C c h w"], cameras: Cameras) -> GBuffer:
        """G-buffers of latents; differentiable."""
        latents = latents.to(self.autoencoder.dtype).contiguous(memory_format=torch.channels_last)
        return decode_gbuffer(self.autoencoder.decode(latents).float(), cameras)

    def rays(self, cameras: Cameras) -> Float[Tensor, "C n f"]:
        """The transformer's camera features."""
        cell = DOWNSAMPLING * PATCH
        return ray_features(cameras, cameras.height // cell, cameras.width // cell)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt,
        cameras: Cameras,
        *,
        num_inference_steps: int = 25,
        guidance_scale: float = 3.0,
        generator: torch.Generator | None = None,
        progress: Progress = silent,
    ) -> ViewSet:
        """Draw the views. `cameras` are orthographic, with sides that are multiples of 16 pixels."""
        if cameras.projection != "orthographic":
            raise ValueError("generated views are orthographic")
        cameras = cameras.to(self.transformer.device)
        conditioning = self.condition(prompt)
        rays = self.rays(cameras)
        shape = (
            len(cameras),
            self.transformer.config["latent_channels"],
            cameras.height // DOWNSAMPLING,
            cameras.width // DOWNSAMPLING,
        )
        # Noise is drawn on the CPU, so that a seed means the same on every device.
        latents = torch.randn(shape, generator=generator).to(self.transformer.device)
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, device=latents.device)
        for step, sigma in enumerate(scheduler.sigmas[:-1]):
            progress(step / num_inference_steps)
            level = sigma.to(latents).expand(len(cameras))
            velocity = self.velocity(latents, level, rays, conditioning, guidance_scale)
            latents = scheduler.step(velocity, scheduler.timesteps[step], latents, return_dict=False)[0]
        views = ViewSet(cameras.to("cpu"), binary_coverage(self.decode_views(latents, cameras).to("cpu")))
        progress(1.0)
        return views

    def domain(self, text: str) -> DomainScore | None:
        """How near the text is to what the model knows; None for a model that does not say what it knows."""
        return None if self.known is None else self.known.score(text, self.text_encoder)

    def denoiser(self, prompt: Prompt, views: ViewSet, guidance_scale: float) -> ViewDenoiser:
        """The denoiser for score distillation: knows the prompt and the generated views."""
        return ViewDenoiser(self, self.condition(prompt), views, guidance_scale)


class ViewDenoiser:
    """Predicts clean latents of noisy views beside the generated ones, which are given clean."""

    def __init__(
        self, pipeline: MultiViewPipeline, conditioning: Conditioning, views: ViewSet, guidance_scale: float
    ) -> None:
        self._pipeline, self._conditioning, self._scale = pipeline, conditioning, guidance_scale
        device = pipeline.transformer.device
        cameras = views.cameras.to(device)
        self._rays = pipeline.rays(cameras)
        with torch.no_grad():
            self._latents = pipeline.encode_views(views.gbuffer.to(device), cameras)

    def encode(self, gbuffer: GBuffer, cameras: Cameras) -> Float[Tensor, "C c h w"]:
        """Latents of rendered views, differentiable."""
        return self._pipeline.encode_views(gbuffer, cameras)

    def decode(self, latents: Float[Tensor, "C c h w"], cameras: Cameras) -> GBuffer:
        """What latents show."""
        return self._pipeline.decode_views(latents, cameras)

    @torch.no_grad()
    def predict_clean(
        self, noisy: Float[Tensor, "C c h w"], sigma: float, cameras: Cameras
    ) -> Float[Tensor, "C c h w"]:
        """Guided estimate of the clean latents: `x_sigma - sigma * velocity`."""
        count = len(noisy)
        joined = torch.cat([noisy.float(), self._latents])
        rays = torch.cat([self._pipeline.rays(cameras), self._rays])
        level = torch.zeros(len(joined), device=joined.device)
        level[:count] = sigma
        velocity = self._pipeline.velocity(joined, level, rays, self._conditioning, self._scale)
        return noisy.float() - sigma * velocity[:count]


def binary_coverage(gbuffer: GBuffer, threshold: float = 0.5) -> GBuffer:
    """Channels zeroed where coverage is below the threshold: what lies there is not part of the object."""
    keep = (gbuffer.alpha >= threshold).float()
    return GBuffer(**{name: value * keep for name, value in gbuffer.channels().items()})


def reference_tensor(image: Image.Image, size: int) -> Float[Tensor, "1 4 s s"]:
    """A square RGBA picture as the reference encoder reads it: premultiplied, in [0, 1]."""
    pixels = (
        np.asarray(image.convert("RGBa").resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255
    )
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].clone()


def load(
    folder: Path | None = None, device: str = "cpu", dtype: torch.dtype | None = None
) -> MultiViewPipeline:
    """The pipeline in `folder` (by default the shipped one), its hashes checked.

    `dtype` None chooses bf16 where the machine multiplies it natively and fp32
    elsewhere.
    """
    from pipeline.training.weights import working_dtype

    folder = verified_model(folder).directory
    dtype = dtype or working_dtype(torch.device(device))
    # Part by part: the same as `from_pretrained(folder)`, without its progress bars.
    pipeline = MultiViewPipeline(
        GBufferAutoencoder.from_pretrained(folder / "autoencoder", dtype=dtype),
        MultiViewTransformer.from_pretrained(folder / "transformer", dtype=dtype),
        FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
    )
    if (folder / CONCEPTS).is_file():
        pipeline.known = Domain.load(folder)
    pipeline.autoencoder.eval().to(device, memory_format=torch.channels_last)
    pipeline.transformer.eval().to(device)
    return pipeline


def save(pipeline: MultiViewPipeline, folder: Path) -> None:
    """Write the pipeline as fp16 safetensors with its hashes."""
    for model in (pipeline.autoencoder, pipeline.transformer):
        model.half()
    pipeline.save_pretrained(folder)
    for path in sorted(folder.rglob("config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)  # where the weights lay on the machine that trained them
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    hashes = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            hashes[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    (folder / HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
