"""Trains the lifter (`pipeline.multiview.lifter_network`), in two parts.

First how a picture is framed, from the pictures of the latent cache. Then what it shows, from pictures and
views that are made as they are needed: the targets are latents of the frozen autoencoder, and the picture is
laid over the view's frame by the true framing with errors like those of the estimate, so that the lifter
learns to bear them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.multiview.autoencoder import DOWNSAMPLING, MATERIAL_LATENTS, GBufferAutoencoder
from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.lifter_network import Framing
from pipeline.training.augment import mirrored, recolored, rematerialed, repainted, stretched
from pipeline.training.latents import LatentCache
from pipeline.training.procedural import procedural_props
from pipeline.training.procedural.assemblies import assembly
from pipeline.training.props import Prop, is_asked_for, load_props
from pipeline.training.train_autoencoder import metrics
from pipeline.training.views import (
    Pose,
    cameras_of,
    network_images,
    premultiplied,
    reference_azimuth,
    reference_picture_of,
)
from pipeline.training.weights import MasterWeights, append_row, warmup_cosine, working_dtype

FRAMING = "framing.safetensors"
"""Checkpoint of the first part, in the run's folder."""


@dataclass(frozen=True)
class LifterTraining:
    """Recipe of the lifter."""

    framing_minutes: float = 15.0
    minutes: float = 45.0
    """Planned lengths of the two parts; the learning-rate schedules follow the clock."""
    framing_batch: int = 64
    batch: int = 24
    pictures_per_object: int = 2
    size: int = 128
    procedural_share: float = 0.3
    assembly_share: float = 0.15
    framing_errors: tuple[float, float, float, float] = (0.15, 0.13, 0.03, 0.04)
    """Standard deviations of what is added to the true framing."""
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    seed: int = 0


@dataclass(frozen=True)
class LifterBatch:
    """Training tensors."""

    picture: Float[Tensor, "b 4 s s"]
    framing: Float[Tensor, "b 4"]
    image: Float[Tensor, "b 10 s s"]
    """Network image of the view to predict."""
    known: Float[Tensor, "b s s"]
    """Share of each pixel whose material is known."""


def examples(prop: Prop, count: int, size: int, rng: np.random.Generator) -> LifterBatch:
    """`count` random pictures of an object with the views to predict."""
    pictures, framings, images, knowns = [], [], [], []
    for _ in range(count):
        azimuth = reference_azimuth(rng)
        picture, camera = reference_picture_of(prop, azimuth, size, rng)
        framing = Framing.of(camera)
        elevation = torch.rad2deg(framing.elevation_rad).item()
        pictures.append(premultiplied(picture[None]))
        framings.append(framing.to_tensor())
        image, known = network_images(prop, cameras_of([Pose(azimuth, elevation)], size))
        images.append(torch.from_numpy(image))
        knowns.append(torch.from_numpy(known))
    return LifterBatch(torch.cat(pictures), torch.cat(framings), torch.cat(images), torch.cat(knowns))


def joined(parts: list[LifterBatch]) -> LifterBatch:
    """One batch of several."""
    return LifterBatch(
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
    lifter: PictureLifter,
    batch: LifterBatch,
    framing: Float[Tensor, "b 4"],
    latents: Float[Tensor, "b c h w"],
) -> Tensor:
    """Mean squared error of the latents, where the material is known for those that hold it."""
    predicted = lifter(batch.picture, framing)
    mask = torch.ones_like(latents)
    cells = batch.known.unfold(1, DOWNSAMPLING, DOWNSAMPLING).unfold(2, DOWNSAMPLING, DOWNSAMPLING)
    mask[:, -MATERIAL_LATENTS:] = (cells.amin((3, 4)) > 0.5).float()[:, None]
    return (mask * (predicted - latents).square()).sum() / mask.sum()


def master_weights(network: nn.Module, config: LifterTraining) -> MasterWeights:
    """With Muon for convolutions and the matrices of blocks."""
    return MasterWeights(
        network,
        use_muon=lambda name, p: p.ndim in (2, 4) and not {"from_framing", "out"} & set(name.split(".")[:2]),
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=0.01,
        ema_decay=0.995,
    )


def train_framing(cache: Path, out: Path, config: LifterTraining, device: torch.device) -> None:
    """The first part; writes `framing.safetensors` (resumes from it) and `framing.jsonl`."""
    training, held_out = LatentCache.open(cache, "train"), LatentCache.open(cache, "val")
    fixed = premultiplied(held_out.references[0][:, 0]), torch.tensor(held_out.framings[0][:, 0])
    sizes = np.array([len(items) for items in training.items])
    dtype = working_dtype(device)
    torch.manual_seed(config.seed)
    network = PictureLifter().framing_net
    weights = master_weights(network, config)
    checkpoint = out / FRAMING
    if checkpoint.exists():
        weights.load(checkpoint)
    weights.cast(dtype)
    network.to(device, memory_format=torch.channels_last)
    rng = np.random.default_rng([config.seed, 1, weights.steps])
    start, first = time.monotonic(), weights.steps
    running = 0.0
    while (fraction := (time.monotonic() - start) / (config.framing_minutes * 60)) < 1:
        shard, which = int(rng.choice(len(sizes), p=sizes / sizes.sum())), int(rng.integers(2))
        chosen = np.sort(rng.choice(sizes[shard], min(config.framing_batch, sizes[shard]), replace=False))
        picture = premultiplied(training.references[shard][chosen, which]).to(device)
        true = torch.tensor(training.framings[shard][chosen, which], device=device)
        if rng.uniform() < 0.5:  # the mirrored picture: the origin lies on the other side
            picture, true = picture.flip(-1), true * torch.tensor([1.0, 1.0, -1.0, 1.0], device=device)
        loss = (network((picture * 2 - 1).to(dtype)).float() - true).square().mean()
        loss.backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        running += (float(loss.detach()) - running) * max(0.02, 1 / (weights.steps - first))
        if weights.steps % 100 == 0:
            weights.load_working(weights.ema)
            with torch.no_grad():
                pictures = fixed[0].to(device).split(64)
                found = torch.cat([network((p * 2 - 1).to(dtype)).float().cpu() for p in pictures])
            weights.load_working(weights.masters)
            error = (found - fixed[1]).abs().mean(0)
            row = {"step": weights.steps, "seconds": round(time.monotonic() - start),
                   "loss": round(running, 5),
                   "val_elevation_deg": round(float(torch.rad2deg(error[0])), 2),
                   "val_log2_magnification": round(float(error[1]), 4),
                   "val_center": round(float(error[2:].mean()), 4)}  # fmt: skip
            append_row(out / "framing.jsonl", row)
            weights.save(checkpoint)
    weights.save(checkpoint)


@torch.no_grad()
def validate(lifter: PictureLifter, autoencoder: GBufferAutoencoder, fixed: LifterBatch) -> dict[str, float]:
    """Errors on pictures of objects that are never trained on, laid over by the true framing."""
    framing = fixed.framing
    latents = torch.cat(
        [lifter(p, f) for p, f in zip(fixed.picture.split(16), framing.split(16), strict=True)]
    )
    dtype = autoencoder.dtype
    true = torch.cat([autoencoder.encode(v.to(dtype)).float() for v in fixed.image.split(16)])
    restored = torch.cat([autoencoder.decode(v.to(dtype)).float() for v in latents.split(16)])
    found = {"val_latents": float((latents - true).square().mean())}
    return found | metrics(restored.cpu(), fixed.image.cpu())


def train_lifter(data: Path, out: Path, config: LifterTraining, device: torch.device) -> None:
    """The second part: trains into `out`, beside its autoencoder and `framing.safetensors` (resumes there);
    writes `lifter/` and `lifter.jsonl`."""
    everything = list(load_props(data))
    packed = [p for p in everything if p.split == "train" and is_asked_for(p)]
    rng = np.random.default_rng(17)
    fixed = joined([examples(p, 1, config.size, rng) for p in everything if p.split == "val"][::2])
    dtype = working_dtype(device)
    autoencoder = GBufferAutoencoder.from_pretrained(out / "autoencoder").eval().to(device, dtype)
    autoencoder.requires_grad_(False)
    torch.manual_seed(config.seed)
    lifter = PictureLifter(autoencoder.config["latent_channels"])
    lifter.framing_net.requires_grad_(False)
    weights = master_weights(lifter, config)
    checkpoint = out / "lifter.safetensors"
    if checkpoint.exists():
        weights.load(checkpoint)
    weights.cast(dtype)
    lifter.to(device, memory_format=torch.channels_last)
    rng = np.random.default_rng([config.seed, weights.steps])
    source = objects(packed, config, rng)
    start = last_save = time.monotonic()
    first, running, errors = weights.steps, 0.0, torch.tensor(config.framing_errors, device=device)
    while (fraction := (time.monotonic() - start) / (config.minutes * 60)) < 1:
        count = config.pictures_per_object
        batch = joined(
            [examples(next(source), count, config.size, rng) for _ in range(config.batch // count)]
        )
        batch = LifterBatch(*(t.to(device) for t in (batch.picture, batch.framing, batch.image, batch.known)))
        with torch.no_grad():
            latents = autoencoder.encode(batch.image.to(dtype)).float()
        framing = batch.framing + errors * torch.randn(len(batch.framing), 4, device=device)
        loss = lifting_loss(lifter, batch, framing, latents)
        loss.backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        running += (float(loss.detach()) - running) * max(0.02, 1 / (weights.steps - first))
        if weights.steps % 100 == 0:
            weights.load_working(weights.ema)
            row = {"step": weights.steps, "seconds": round(time.monotonic() - start),
                   "loss": round(running, 4)}  # fmt: skip
            row |= {k: round(v, 4) for k, v in validate(lifter, autoencoder, fixed).items()}
            weights.load_working(weights.masters)
            append_row(out / "lifter.jsonl", row)
        if time.monotonic() - last_save > 120:
            weights.save(checkpoint)
            last_save = time.monotonic()
    weights.save(checkpoint)
    lifter.float()  # before the averages come in, which bf16 would round
    weights.load_working(weights.ema)
    framing_net = master_weights(lifter.framing_net, config)
    framing_net.load(out / FRAMING)
    framing_net.load_working(framing_net.ema)
    lifter.save_pretrained(out / "lifter")
