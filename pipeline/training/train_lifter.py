"""Trains the lifter (`pipeline.multiview.lifter_network`): pictures and views are made as they are needed.

The targets are latents of the frozen autoencoder. The picture is laid over the view's frame by the true
framing in half of the samples, by the estimate in the others, so that the lifter learns to bear its
own errors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pipeline.multiview.autoencoder import DOWNSAMPLING, MATERIAL_LATENTS, GBufferAutoencoder
from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.lifter_network import Framing
from pipeline.multiview.sampler import reference_tensor
from pipeline.training.augment import mirrored, recolored, rematerialed, repainted, stretched
from pipeline.training.procedural import procedural_props
from pipeline.training.procedural.assemblies import assembly
from pipeline.training.props import Prop, is_asked_for, load_props
from pipeline.training.train_autoencoder import metrics
from pipeline.training.views import (
    Pose,
    cameras_of,
    lit_picture,
    network_images,
    reference_azimuth,
    reference_camera,
)
from pipeline.training.weights import MasterWeights, append_row, warmup_cosine, working_dtype


@dataclass(frozen=True)
class LifterTraining:
    """Recipe of the lifter."""

    minutes: float = 40.0
    """Planned length; the learning-rate schedule follows the clock."""
    batch: int = 24
    pictures_per_object: int = 2
    size: int = 128
    procedural_share: float = 0.3
    assembly_share: float = 0.15
    framing_weight: float = 0.5
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Lifted:
    """Training tensors."""

    picture: Float[Tensor, "b 4 s s"]
    framing: Float[Tensor, "b 4"]
    image: Float[Tensor, "b 10 s s"]
    """Network image of the view to predict."""
    known: Float[Tensor, "b s s"]
    """Share of each pixel whose material is known."""


def examples(prop: Prop, count: int, size: int, rng: np.random.Generator) -> Lifted:
    """`count` random pictures of an object with the views to predict."""
    pictures, framings, images, knowns = [], [], [], []
    for _ in range(count):
        azimuth = reference_azimuth(rng)
        camera, elevation = reference_camera(prop.vertices, azimuth, size, rng)
        lit = lit_picture(network_images(prop, camera)[0][0], elevation, rng)
        pictures.append(reference_tensor(Image.fromarray(lit, "RGBA"), size))
        framings.append(Framing.of(camera).to_tensor())
        image, known = network_images(prop, cameras_of([Pose(azimuth, elevation)], size))
        images.append(torch.from_numpy(image))
        knowns.append(torch.from_numpy(known))
    return Lifted(torch.cat(pictures), torch.cat(framings), torch.cat(images), torch.cat(knowns))


def joined(parts: list[Lifted]) -> Lifted:
    """One batch of several."""
    return Lifted(
        torch.cat([p.picture for p in parts]),
        torch.cat([p.framing for p in parts]),
        torch.cat([p.image for p in parts]),
        torch.cat([p.known for p in parts]),
    )


def objects(packed: list[Prop], config: LifterTraining, rng: np.random.Generator) -> Iterator[Prop]:
    """Objects of the packs, augmented, and of our own making, without end."""
    while True:
        kind = rng.uniform()
        if kind < config.assembly_share:
            yield assembly(rng)
        elif kind < config.assembly_share + config.procedural_share or not packed:
            yield from procedural_props(1, rng)
        else:
            prop = packed[int(rng.integers(len(packed)))]
            prop = mirrored(prop) if rng.uniform() < 0.5 else prop
            prop = stretched(prop, rng) if rng.uniform() < 0.3 else prop
            change = rng.uniform()
            if change < 0.45:
                kinds = (recolored, rematerialed, repainted)
                prop = kinds[int(change / 0.15)](prop, rng)
            yield prop


def lifting_loss(
    lifter: PictureLifter, batch: Lifted, latents: Float[Tensor, "b c h w"], config: LifterTraining
) -> tuple[Tensor, Tensor]:
    """Mean squared error of the latents, where the material is known for those that hold it, and of the
    framing."""
    estimate = lifter.framing(batch.picture)
    use = torch.where(torch.arange(len(estimate), device=estimate.device)[:, None] % 2 == 0,
                      batch.framing, estimate.detach())  # fmt: skip
    predicted = lifter(batch.picture, use)
    mask = torch.ones_like(latents)
    cells = batch.known.unfold(1, DOWNSAMPLING, DOWNSAMPLING).unfold(2, DOWNSAMPLING, DOWNSAMPLING)
    mask[:, -MATERIAL_LATENTS:] = (cells.amin((3, 4)) > 0.5).float()[:, None]
    error = (mask * (predicted - latents).square()).sum() / mask.sum()
    return error, (estimate - batch.framing).square().mean()


@torch.no_grad()
def validate(lifter: PictureLifter, autoencoder: GBufferAutoencoder, fixed: Lifted) -> dict[str, float]:
    """Errors on pictures of objects that are never trained on, with the lifter's own framing."""
    framing = torch.cat([lifter.framing(p) for p in fixed.picture.split(16)])
    latents = torch.cat(
        [lifter(p, f) for p, f in zip(fixed.picture.split(16), framing.split(16), strict=True)]
    )
    dtype = autoencoder.dtype
    true = torch.cat([autoencoder.encode(v.to(dtype)).float() for v in fixed.image.split(16)])
    restored = torch.cat([autoencoder.decode(v.to(dtype)).float() for v in latents.split(16)])
    elevation = torch.rad2deg((framing - fixed.framing)[:, 0].abs()).mean()
    found = {"val_latents": float((latents - true).square().mean()), "val_elevation_deg": float(elevation)}
    found["val_framing"] = float((framing - fixed.framing)[:, 1:].abs().mean())
    return found | metrics(restored.cpu(), fixed.image.cpu())


def train_lifter(data: Path, out: Path, config: LifterTraining, device: torch.device) -> None:
    """Train into `out`, beside its autoencoder (resumes there); writes `lifter/` and `lifter.jsonl`."""
    everything = list(load_props(data))
    packed = [p for p in everything if p.split == "train" and is_asked_for(p)]
    rng = np.random.default_rng(17)
    fixed = joined([examples(p, 1, config.size, rng) for p in everything if p.split == "val"][::2])
    dtype = working_dtype(device)
    autoencoder = GBufferAutoencoder.from_pretrained(out / "autoencoder").eval().to(device, dtype)
    autoencoder.requires_grad_(False)
    torch.manual_seed(config.seed)
    lifter = PictureLifter(autoencoder.config["latent_channels"])
    weights = MasterWeights(
        lifter,
        use_muon=lambda name, p: p.ndim in (2, 4) and name.split(".")[0] in ("stem", "near", "far", "head"),
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=0.01,
        ema_decay=0.995,
    )
    checkpoint = out / "lifter.safetensors"
    if checkpoint.exists():
        weights.load(checkpoint)
    weights.cast(dtype)
    lifter.to(device, memory_format=torch.channels_last)
    rng = np.random.default_rng([config.seed, weights.steps])
    source = objects(packed, config, rng)
    start = last_save = time.monotonic()
    first, running = weights.steps, np.zeros(2)
    while (fraction := (time.monotonic() - start) / (config.minutes * 60)) < 1:
        count = config.pictures_per_object
        batch = joined(
            [examples(next(source), count, config.size, rng) for _ in range(config.batch // count)]
        )
        batch = Lifted(*(t.to(device) for t in (batch.picture, batch.framing, batch.image, batch.known)))
        with torch.no_grad():
            latents = autoencoder.encode(batch.image.to(dtype)).float()
        error, framing = lifting_loss(lifter, batch, latents, config)
        (error + config.framing_weight * framing).backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        now = np.array([float(error.detach()), float(framing.detach())])
        running += (now - running) * max(0.02, 1 / (weights.steps - first))
        if weights.steps % 100 == 0:
            weights.load_working(weights.ema)
            row = {"step": weights.steps, "seconds": round(time.monotonic() - start),
                   "loss": round(float(running[0]), 4), "framing": round(float(running[1]), 4)}  # fmt: skip
            row |= {k: round(v, 4) for k, v in validate(lifter, autoencoder, fixed).items()}
            weights.load_working(weights.masters)
            append_row(out / "lifter.jsonl", row)
        if time.monotonic() - last_save > 120:
            weights.save(checkpoint)
            last_save = time.monotonic()
    weights.save(checkpoint)
    weights.load_working(weights.ema)
    lifter.float().save_pretrained(out / "lifter")
