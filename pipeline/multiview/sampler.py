"""The multi-view diffusion sampler: prompt and cameras in, a `ViewSet` out.

Networks, text encoder and Euler steps in plain torch: what a run needs. `pipeline` makes a diffusers
`DiffusionPipeline` of it, whose saved folder `load` reads; importing diffusers takes longer than
drawing the views of a draft. All views are denoised together; any number of them, at any orthographic
camera that looks at the origin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.models import verified_model
from pipeline.multiview.autoencoder_network import DOWNSAMPLING, AutoencoderNetwork
from pipeline.multiview.codec import decode_gbuffer, encode_gbuffer
from pipeline.multiview.critic_network import CriticNetwork
from pipeline.multiview.domain import CONCEPTS, Domain, DomainScore
from pipeline.multiview.lifter_network import Features, Framing, LifterNetwork, laid_over
from pipeline.multiview.schedule import FlowSchedule
from pipeline.multiview.text import TextEncoder
from pipeline.multiview.transformer_network import PATCH, TransformerNetwork, ray_features
from pipeline.multiview.volume_network import CELLS, VolumeNetwork, together, turned
from pipeline.multiview.volume_outline import as_shown
from pipeline.prompt import Prompt
from render.cameras import Cameras, orbit_cameras
from render.errors import InputError
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent

REFERENCE_SIZE = 128
LIFTER = "lifter"
"""Folder of the lifter in a saved pipeline, which may have none."""
SURE_OF_NAME = 0.45
"""Cosine from which a picture is taken for what it is most like."""
VOLUME = "volume"
"""Folder of the volume network, which may be missing too."""
VOLUME_SHARE = 0.5
"""Of views of the volume of several pictures, in what views begin from; the rest is the transformer's first
prediction, which the lifted views beside it tell much. Of one picture it is the volume alone."""
CRITIC = "critic"
"""Folder of the critic, which may be missing too."""


@dataclass(frozen=True)
class Conditioning:
    """What a prompt becomes: context tokens with and without it."""

    conditional: tuple[Tensor, Tensor]
    unconditional: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Lifted:
    """A picture as a view: what `pipeline.multiview.lifter_network` makes of it."""

    latents: Float[Tensor, "1 c h w"]
    rays: Float[Tensor, "1 n f"]
    tokens: Float[Tensor, "1 d h w"]
    features: Features
    framing: Float[Tensor, "1 4"]
    azimuth_deg: float
    shown: Float[Tensor, "1 k k"]
    """How much of the columns of a volume the picture covers."""


class ViewSampler:
    """Draws G-buffers of one object from many cameras. `load` makes one of a saved pipeline."""

    autoencoder: AutoencoderNetwork
    transformer: TransformerNetwork
    lifter: LifterNetwork | None
    """Without one, nothing reads pictures."""
    volume: VolumeNetwork | None
    """Without one, views of a picture begin from the transformer's first prediction alone."""
    critic: CriticNetwork | None
    """Without one, nothing says how like the prompt drawn views are."""

    def __init__(
        self,
        autoencoder: AutoencoderNetwork,
        transformer: TransformerNetwork,
        schedule: FlowSchedule,
        lifter: LifterNetwork | None = None,
        volume: VolumeNetwork | None = None,
        critic: CriticNetwork | None = None,
    ) -> None:
        self.autoencoder, self.transformer, self._schedule = autoencoder, transformer, schedule
        self.lifter, self.volume, self.critic = lifter, volume, critic
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
    def named(self, prompt: Prompt) -> str | None:
        """What the prompt's picture shows, of all that the model knows, where no text says it; None where the
        model is not sure."""
        if prompt.text or not prompt.pictures or self.lifter is None or self.known is None:
            return None
        picture = reference_tensor(prompt.pictures[0], REFERENCE_SIZE).to(self.transformer.device)
        # One thing, not one on another: of a barrel, that there is a mug on it is soon said.
        single = [i for i, name in enumerate(self.known.names) if " on a" not in name]
        known = self.known.embeddings[single].to(picture)
        likeness = self.lifter.likeness(self.lifter.features(picture), known)[0]
        best = int(likeness.argmax())
        return self.known.names[single[best]] if likeness[best] >= SURE_OF_NAME else None

    def _titled(self, prompt: Prompt) -> Prompt:
        """With what the picture shows as its text, where it has none."""
        name = self.named(prompt)
        return prompt if name is None else replace(prompt, text=name)

    @torch.no_grad()
    def condition(self, prompt: Prompt) -> Conditioning:
        """Context tokens of the prompt, and of its absence (or its negative text) for guidance.

        A picture without a text is said to show what it is recognised as.
        """
        prompt = self._titled(prompt)
        dtype, device = self.transformer.dtype, self.transformer.device
        text = self.text_encoder.tokens([prompt.text, prompt.negative]).to(device, dtype)
        return Conditioning(self.transformer.context(text[:1]), self.transformer.context(text[1:]))

    @torch.no_grad()
    def lifted(self, prompt: Prompt, size_px: int) -> tuple[Lifted, ...]:
        """The views that the prompt's pictures are nearly ones of; none without pictures. `InputError` where
        there is no lifter to read them."""
        if prompt.pictures and self.lifter is None:
            raise InputError("This model reads no pictures: it has no lifter. Give a text alone.")
        taken = zip(prompt.pictures, prompt.azimuths_deg, strict=True)
        return tuple(self._lifted(picture, azimuth, size_px) for picture, azimuth in taken)

    def _lifted(self, image: Image.Image, azimuth_deg: float, size_px: int) -> Lifted:
        assert self.lifter is not None
        picture = reference_tensor(image, size_px).to(self.transformer.device)
        features = self.lifter.features(picture)
        framing = self.lifter.framing(picture, features)
        tokens = self.lifter.tokens(picture, features, framing)
        elevation = torch.rad2deg(Framing.from_tensor(framing).elevation_rad).item()
        rays = self.rays(orbit_cameras([azimuth_deg], [elevation], size_px).to(tokens.device))
        shown = laid_over(picture[:, 3:].float(), Framing.from_tensor(framing), CELLS)[:, 0]
        latents = self.lifter.latents(tokens)
        return Lifted(latents, rays, tokens, features, framing, azimuth_deg, shown)

    def pictured(self, prompt: Prompt, size_px: int) -> ViewSet | None:
        """The prompt's pictures as views (`pipeline.multiview.pictured`)."""
        from pipeline.multiview.pictured import pictured

        return pictured(self, prompt, size_px)

    @torch.no_grad()
    def volume_latents(self, lifted: Sequence[Lifted], cameras: Cameras) -> Float[Tensor, "v c h w"] | None:
        """Latents of views of the volume that pictures are taken for; None without pictures or such a
        network."""
        if not lifted or self.volume is None:
            return None
        from pipeline.multiview.volume_views import volume_views

        found = []
        for view in lifted:
            seen = self.volume(view.tokens, view.latents, view.features, view.framing)
            elevation = Framing.from_tensor(view.framing).elevation_rad
            found.append(turned(as_shown(seen, view.shown, elevation), view.azimuth_deg))
        image = volume_views(together(found, [view.azimuth_deg for view in lifted]), cameras)
        image = image.to(self.autoencoder.device, self.autoencoder.dtype)
        return self.autoencoder.encode(image.contiguous(memory_format=torch.channels_last)).float()

    def velocity(
        self,
        noisy: Float[Tensor, "v c h w"],
        sigma: Float[Tensor, " v"],
        rays: Float[Tensor, "v n f"],
        conditioning: Conditioning,
        guidance_scale: float,
        lifted: Sequence[Lifted] = (),
        guidance_rescale: float = 0.0,
    ) -> Float[Tensor, "v c h w"]:
        """Guided velocity `uncond + s * (cond - uncond)` of all views, fp32.

        Lifted views of pictures are part of the condition: they stand beside the views there, clean.
        Guided latents spread too far, which shows as colours more saturated than asked; `guidance_rescale` 1
        gives their clean prediction the spread that it has without guidance, 0 leaves it (arXiv:2305.08891).
        No view may be clean then.
        """

        def predicted(context: tuple[Tensor, Tensor], beside: Sequence[Lifted]) -> Tensor:
            x = torch.cat([noisy, *(view.latents for view in beside)])
            camera = torch.cat([rays, *(view.rays for view in beside)])
            level = F.pad(sigma, (0, len(beside)))
            dtype = self.transformer.dtype
            found = self.transformer(x[None].to(dtype), level[None], camera[None].to(dtype), context)
            return found.float()[0, : len(noisy)]

        conditional = predicted(conditioning.conditional, lifted)
        if guidance_scale == 1:
            return conditional
        unconditional = predicted(conditioning.unconditional, ())
        guided = unconditional + guidance_scale * (conditional - unconditional)
        if guidance_rescale == 0:
            return guided
        level = sigma.view(-1, 1, 1, 1)
        clean = noisy - level * guided
        spread = (noisy - level * conditional).std() / clean.std().clamp_min(1e-6)
        return (noisy - clean * (1 + guidance_rescale * (spread - 1))) / level

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
        guidance_scale: float = 2.0,
        guidance_rescale: float = 0.0,
        generator: torch.Generator | None = None,
        start: ViewSet | None = None,
        start_level: float = 1.0,
        guess_level: float = 1.0,
        progress: Progress = silent,
    ) -> ViewSet:
        """Draw the views. `cameras` are orthographic, with sides that are multiples of 16 pixels.

        With `start`, views from the same cameras are drawn again: they get noise up to `start_level`, and
        the steps below that level are taken. Errors that steps before have heaped up shrink so (restart
        sampling, arXiv:2306.14878).

        With `guess_level` below 1, a first guess gets noise up to that level, and the steps below it are
        taken: nearer to what is likely, and less different from seed to seed. It is views of a picture's
        volume, which are of one object, and else the first prediction from nothing but noise, the mean of all
        views that fit the prompt; for several pictures it is between the two.
        """
        if cameras.projection != "orthographic":
            raise ValueError("generated views are orthographic")
        if prompt.pictures and cameras.height != cameras.width:
            raise ValueError("views of pictures are square")
        device = self.transformer.device
        cameras = cameras.to(device)
        conditioning = self.condition(prompt)
        rays = self.rays(cameras)
        shape = (
            len(cameras),
            self.transformer.latent_channels,
            cameras.height // DOWNSAMPLING,
            cameras.width // DOWNSAMPLING,
        )
        # Noise is drawn on the CPU, so that a seed means the same on every device.
        noise = torch.randn(shape, generator=generator).to(device)

        lifted = self.lifted(prompt, cameras.height)

        def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
            level = sigma.to(latents).expand(len(cameras))
            return self.velocity(latents, level, rays, conditioning, guidance_scale, lifted, guidance_rescale)

        sigmas = self.sigmas(num_inference_steps).to(device)

        def renoised(clean: Tensor, level: float, noise: Tensor) -> tuple[int, Tensor]:
            begin = int((sigmas[:-1] > level).sum())
            return begin, (1 - sigmas[begin]) * clean + sigmas[begin] * noise

        begin, latents = 0, noise
        if start is not None:
            given = self.encode_views(start.gbuffer.to(device), cameras)
            begin, latents = renoised(given, start_level, noise)
        elif guess_level < 1:
            guess = self.volume_latents(lifted, cameras)
            if guess is None:
                guess = noise - velocity(noise, sigmas[0])
            elif len(lifted) > 1:
                guess = torch.lerp(noise - velocity(noise, sigmas[0]), guess, VOLUME_SHARE)
            begin, latents = renoised(guess, guess_level, torch.randn(shape, generator=generator).to(device))
        latents = self.integrate(latents, num_inference_steps, velocity, progress, begin)
        views = ViewSet(cameras.to("cpu"), binary_coverage(self.decode_views(latents, cameras).to("cpu")))
        progress(1.0)
        return views

    def integrate(
        self,
        noise: Float[Tensor, "v c h w"],
        steps: int,
        velocity: Callable[[Tensor, Tensor], Tensor],
        progress: Progress,
        begin: int = 0,
    ) -> Float[Tensor, "v c h w"]:
        """Euler steps, from step `begin` on, to latents along `velocity(latents, sigma)`."""
        sigmas = self.sigmas(steps).to(noise.device)
        latents = noise
        for step in range(begin, steps):
            progress((step - begin) / (steps - begin))
            latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity(latents, sigmas[step])
        return latents

    def sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """Noise levels of a run of `steps`, from 1 down to 0."""
        return self._schedule.sigmas(steps)

    def domain(self, text: str) -> DomainScore | None:
        """How near the text is to what the model knows; None for a model that does not say what it knows."""
        return None if self.known is None else self.known.score(text, self.text_encoder)

    @torch.no_grad()
    def likeness(self, prompt: Prompt, views: ViewSet) -> float | None:
        """How well views fit the prompt's text, in [-1, 1], as the critic sees it; None without either.

        Compares sets drawn for one prompt; what is good differs from text to text. A picture without a text
        counts as what it is recognised as.
        """
        prompt = self._titled(prompt)
        if self.critic is None or not prompt.text:
            return None
        seen = self._seen(views)
        sentence = self.critic.sentences(self.text_encoder.sentences([prompt.text]).to(seen))
        return float(seen @ sentence[0])

    @torch.no_grad()
    def looks_like(self, views: ViewSet) -> tuple[str, ...]:
        """The known things that views look most like to the critic, the likest first; empty without one."""
        if self.critic is None or self.known is None:
            return ()
        seen = self._seen(views)
        return self.known.nearest(self.critic.sentences(self.known.embeddings.to(seen)) @ seen)

    def _seen(self, views: ViewSet) -> Float[Tensor, " 384"]:
        """The critic's vector of views."""
        assert self.critic is not None
        device = self.transformer.device
        return self.critic.object(encode_gbuffer(views.gbuffer.to(device), views.cameras.to(device)))

    def denoiser(self, prompt: Prompt, views: ViewSet, guidance_scale: float) -> ViewDenoiser:
        """The denoiser for score distillation: knows the prompt and the generated views."""
        lifted = self.lifted(prompt, views.cameras.height)
        return ViewDenoiser(self, self.condition(prompt), views, guidance_scale, lifted)


class ViewDenoiser:
    """Predicts clean latents of noisy views beside the generated ones, which are given clean."""

    def __init__(
        self,
        pipeline: ViewSampler,
        conditioning: Conditioning,
        views: ViewSet,
        guidance_scale: float,
        lifted: Sequence[Lifted],
    ) -> None:
        self._pipeline, self._conditioning, self._scale = pipeline, conditioning, guidance_scale
        self._lifted = lifted
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
        velocity = self._pipeline.velocity(joined, level, rays, self._conditioning, self._scale, self._lifted)
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


Network = TypeVar("Network", bound=nn.Module)
Sampler = TypeVar("Sampler", bound=ViewSampler)


def working_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the machine multiplies it natively."""
    if device.type == "cuda":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def load(folder: Path | None = None, device: str = "cpu", dtype: torch.dtype | None = None) -> ViewSampler:
    """The pipeline in `folder` (by default the shipped one), its hashes checked, without diffusers.

    `dtype` None chooses bf16 where the machine multiplies it natively and fp32
    elsewhere. A scheduler that `FlowSchedule` cannot be comes with diffusers: `MultiViewPipeline`.
    """
    directory = verified_model(folder).directory
    schedule = FlowSchedule.read(directory / "scheduler" / "scheduler_config.json")
    if schedule is None:
        from pipeline.multiview import pipeline

        return pipeline.load(folder, device, dtype)
    dtype = dtype or working_dtype(torch.device(device))
    sampler = ViewSampler(
        _network(AutoencoderNetwork, directory / "autoencoder", dtype),
        _network(TransformerNetwork, directory / "transformer", dtype),
        schedule,
        _network(LifterNetwork, directory / LIFTER, dtype) if (directory / LIFTER).is_dir() else None,
        _network(VolumeNetwork, directory / VOLUME, dtype) if (directory / VOLUME).is_dir() else None,
        _network(CriticNetwork, directory / CRITIC, dtype) if (directory / CRITIC).is_dir() else None,
    )
    return prepared(sampler, directory, device)


def prepared(sampler: Sampler, folder: Path, device: str) -> Sampler:
    """The sampler ready to draw: on the device, with the list of what it knows."""
    if (folder / CONCEPTS).is_file():
        sampler.known = Domain.load(folder)
    sampler.autoencoder.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sampler.transformer.eval().to(device)
    if sampler.volume is not None:
        sampler.volume.eval().to(device)
    for network in (sampler.lifter, sampler.critic):
        if network is not None:
            network.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return sampler


def _network(kind: type[Network], folder: Path, dtype: torch.dtype) -> Network:
    """A network as diffusers saved it; `InputError` when its configuration and weights do not fit."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with torch.random.fork_rng(devices=[]):
            network = kind(**{name: value for name, value in config.items() if not name.startswith("_")})
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        cast = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()
        }
        network.load_state_dict(cast, assign=True)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} is not a saved {kind.__name__}: {str(error).splitlines()[0]}") from None
    return network.requires_grad_(True)
