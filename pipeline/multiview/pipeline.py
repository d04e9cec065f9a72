"""The multi-view diffusion model as a diffusers `DiffusionPipeline`: `from_pretrained`, adapters, the hub.

Autoencoder, transformer, flow-matching scheduler, a lifter and a volume for pictures, and a critic of what
is drawn; the text encoder stays outside the saved folder, because it comes as a package (see `text`).
Drawing is `sampler.ViewSampler`'s, which reads the same folder without diffusers; here the steps are those
of the scheduler, which may be any of diffusers' flow-matching ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from pipeline.models import HASHES, verified_model
from pipeline.multiview.autoencoder import GBufferAutoencoder
from pipeline.multiview.critic import ViewCritic
from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.sampler import CRITIC, LIFTER, VOLUME, ViewSampler, prepared, working_dtype
from pipeline.multiview.transformer import MultiViewTransformer
from pipeline.multiview.volume import PictureVolume
from render.progress import Progress


class MultiViewPipeline(ViewSampler, DiffusionPipeline):
    """Draws G-buffers of one object from many cameras."""

    autoencoder: GBufferAutoencoder
    transformer: MultiViewTransformer
    scheduler: FlowMatchEulerDiscreteScheduler
    lifter: PictureLifter | None
    volume: PictureVolume | None
    critic: ViewCritic | None
    _optional_components = [LIFTER, VOLUME, CRITIC]  # noqa: RUF012 - diffusers adds lists to it

    def __init__(
        self,
        autoencoder: GBufferAutoencoder,
        transformer: MultiViewTransformer,
        scheduler: FlowMatchEulerDiscreteScheduler,
        lifter: PictureLifter | None = None,
        volume: PictureVolume | None = None,
        critic: ViewCritic | None = None,
    ) -> None:
        DiffusionPipeline.__init__(self)
        self.register_modules(
            autoencoder=autoencoder,
            transformer=transformer,
            scheduler=scheduler,
            lifter=lifter,
            volume=volume,
            critic=critic,
        )
        self._text_encoder = None
        self.known = None

    def sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """The scheduler's."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        levels: Tensor = scheduler.sigmas
        return levels

    def integrate(
        self,
        noise: Float[Tensor, "v c h w"],
        steps: int,
        velocity: Callable[[Tensor, Tensor], Tensor],
        progress: Progress,
        begin: int = 0,
    ) -> Float[Tensor, "v c h w"]:
        """The scheduler's steps, from step `begin` on, to latents along `velocity(latents, sigma)`."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=noise.device)
        scheduler.set_begin_index(begin)
        latents = noise
        for step in range(begin, steps):
            progress((step - begin) / (steps - begin))
            moved = scheduler.step(
                velocity(latents, scheduler.sigmas[step]),
                scheduler.timesteps[step],
                latents,
                return_dict=False,
            )
            latents = moved[0]
        return latents


def load(
    folder: Path | None = None, device: str = "cpu", dtype: torch.dtype | None = None
) -> MultiViewPipeline:
    """The pipeline in `folder` (by default the shipped one), its hashes checked; see `sampler.load`, which
    is quicker where diffusers is not needed."""
    folder = verified_model(folder).directory
    dtype = dtype or working_dtype(torch.device(device))
    # Part by part: the same as `from_pretrained(folder)`, without its progress bars.
    pipeline = MultiViewPipeline(
        GBufferAutoencoder.from_pretrained(folder / "autoencoder", dtype=dtype),
        MultiViewTransformer.from_pretrained(folder / "transformer", dtype=dtype),
        FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        PictureLifter.from_pretrained(folder / LIFTER, dtype=dtype) if (folder / LIFTER).is_dir() else None,
        PictureVolume.from_pretrained(folder / VOLUME, dtype=dtype) if (folder / VOLUME).is_dir() else None,
        ViewCritic.from_pretrained(folder / CRITIC, dtype=dtype) if (folder / CRITIC).is_dir() else None,
    )
    return prepared(pipeline, folder, device)


def save(pipeline: MultiViewPipeline, folder: Path) -> None:
    """Write the pipeline as fp16 safetensors with its hashes."""
    networks = (
        pipeline.autoencoder, pipeline.transformer, pipeline.lifter, pipeline.volume, pipeline.critic
    )  # fmt: skip
    for model in networks:
        if model is not None:
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
