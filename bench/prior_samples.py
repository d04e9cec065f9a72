"""Drawn views on disk: a sample that was drawn once is not drawn again.

A sample's name is a hash of all that it depends on: the model's weights (for a text without those that
read pictures), prompt, picture, cameras, steps, guidance and seed, and for a set that was chosen of
several, of how. Channels are kept as 8-bit (depth 16-bit) numbers, so that a sample is some hundred
kilobytes; measures are always taken of what was read back, so that a resumed run gives the same numbers.
Views are those that `maquette generate --seed` would draw at these cameras.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.best_views import best_views, stage_generator, view_cameras
from pipeline.models import revision_of
from pipeline.multiview.codec import encode_gbuffer
from pipeline.multiview.sampler import LIFTER, VOLUME
from pipeline.preset import ViewsConfig
from pipeline.prompt import Prompt
from render.cameras import Cameras
from render.gbuffer import GBuffer, ViewSet

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pipeline.source import ViewModel

_DEPTH_STEPS = 65535 / 8.0
"""Depth is stored in 8/65535 of a world unit."""
_UNIT = ("alpha", "base_color_srgb", "metallic", "roughness")


@dataclass(frozen=True)
class Sampling:
    """How views are drawn."""

    hashes: dict[str, str]
    """Of the model's weight files, by their paths."""
    num_inference_steps: int
    guidance_scale: float
    guess_level: float = 1.0

    def revision_for(self, prompt: Prompt) -> str:
        """Of the weights that a prompt's views are drawn with."""
        idle = () if prompt.pictures else (f"{LIFTER}/", f"{VOLUME}/")
        return revision_of(
            {name: digest for name, digest in self.hashes.items() if not name.startswith(idle)}
        )


@dataclass
class Sampler:
    """Draws views, or reads those that were drawn before."""

    model: ViewModel
    sampling: Sampling
    folder: Path
    drawn: int = 0
    """How many were drawn now."""

    def views(self, prompt: Prompt, cameras: Cameras, seed: int) -> ViewSet:
        """The views of one prompt and seed, a single set."""
        sampling = self.sampling

        def draw() -> ViewSet:
            return self.model(
                prompt,
                cameras,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                guidance_rescale=0.0,
                guess_level=sampling.guess_level,
                generator=stage_generator(seed, "views"),
            )

        how = [sampling.num_inference_steps, sampling.guidance_scale, sampling.guess_level]
        return self._kept(self._key(prompt, cameras, seed, how), cameras, draw)

    def best(self, prompt: Prompt, config: ViewsConfig, seed: int) -> ViewSet:
        """The set that a run with `config` would keep."""
        cameras = view_cameras(config)
        how = [
            config.num_inference_steps, config.guidance_for(prompt), config.rescale_for(prompt),
            config.candidates, config.redraws,
            config.redraw_level, config.likeness_weight, config.metal_weight, config.color_weight,
            config.guess_level_for(prompt),
        ]  # fmt: skip
        return self._kept(
            self._key(prompt, cameras, seed, how),
            cameras,
            lambda: best_views(self.model, prompt, config, seed).views,
        )

    def _kept(self, key: str, cameras: Cameras, draw: Callable[[], ViewSet]) -> ViewSet:
        path = self.folder / f"{key}.npz"
        if not path.is_file():
            views = draw()
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez_compressed(file, **packed(views.gbuffer))
            partial.replace(path)
            self.drawn += 1
        with np.load(path) as stored:
            return ViewSet(cameras, unpacked(dict(stored)))

    def _key(self, prompt: Prompt, cameras: Cameras, seed: int, how: list[float]) -> str:
        picture = None
        if prompt.image is not None:
            picture = hashlib.sha256(prompt.image.tobytes()).hexdigest()
        rig = torch.cat([cameras.c2w.flatten(1), cameras.intrinsics], 1).double().numpy().round(5) + 0.0
        what = [
            self.sampling.revision_for(prompt), *how, prompt.text, prompt.negative, picture, rig.tolist(),
            cameras.width, cameras.height, seed,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


def packed(gbuffer: GBuffer) -> dict[str, np.ndarray]:
    """Channels as whole numbers."""
    out: dict[str, np.ndarray] = {}
    for name, value in gbuffer.channels().items():
        array = value.numpy()
        if name in _UNIT:
            out[name] = np.round(array * 255).astype(np.uint8)
        elif name == "normal":
            out[name] = np.round(array * 127).astype(np.int8)
        else:
            out[name] = np.round(array * _DEPTH_STEPS).clip(0, 65535).astype(np.uint16)
    return out


def unpacked(stored: dict[str, np.ndarray]) -> GBuffer:
    """What `packed` stored."""
    channels = {}
    for name, array in stored.items():
        if name in _UNIT:
            channels[name] = array.astype(np.float32) / 255
        elif name == "normal":
            normal = array.astype(np.float32)
            channels[name] = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
        else:
            channels[name] = (array / _DEPTH_STEPS).astype(np.float32)
    return GBuffer(**{name: torch.from_numpy(value) for name, value in channels.items()})


def network_image(views: ViewSet) -> Float[Tensor, "C 10 H W"]:
    """A sample in the form that training objects are rendered in."""
    return encode_gbuffer(views.gbuffer, views.cameras)
