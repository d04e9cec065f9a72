"""Trains the lifter (`pipeline.multiview.lifter_network`).

Pictures and views are made as they are needed; the targets are latents of the frozen autoencoder. All
parts learn from the same pictures: how each is framed, and what it shows. For the second, the picture is laid
over by what the first thinks of it, or by the truth with errors, so that the lifter learns to bear
both; the view to predict is the one from the height that it is told, as generation takes it to be. A third
part learns what the pictures show (`naming`).
"""

from __future__ import annotations

import itertools
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
from pipeline.multiview.lifter_network import SPREAD, Framing
from pipeline.multiview.text import TextEncoder
from pipeline.training.augment import mirrored, recolored, rematerialed, repainted, stretched, warped
from pipeline.training.naming import Names, naming_loss
from pipeline.training.procedural import procedural_props
from pipeline.training.procedural.assemblies import assembly
from pipeline.training.props import Prop, captions, is_asked_for, load_props
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


@dataclass(frozen=True)
class LifterTraining:
    """Recipe of the lifter."""

    minutes: float = 60.0
    """Planned length; the learning-rate schedule follows the clock."""
    batch: int = 24
    pictures_per_object: int = 2
    size: int = 128
    well_exposed_share: float = 0.6
    """Of the pictures; see `views.lit_picture`. Those that validation is done with are as the lights are."""
    procedural_share: float = 0.3
    assembly_share: float = 0.15
    framing_errors: tuple[float, float, float, float] = (0.15, 0.13, 0.03, 0.04)
    """Standard deviations of what is added to the true framing, where that is what the lifter is told."""
    own_framing_share: float = 0.5
    """How many pictures are laid over by the lifter's own estimate."""
    framing_weight: float = 0.3
    """Of the framing's squared error, over its variance, beside that of the latents: both about as large."""
    naming_weight: float = 0.05
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Picture:
    """A picture of an object, and how it was taken."""

    prop: Prop
    azimuth_deg: float
    picture: Float[Tensor, "4 s s"]
    framing: Float[Tensor, "4"]


@dataclass(frozen=True)
class Targets:
    """What pictures show, as the views to predict."""

    image: Float[Tensor, "b 10 s s"]
    known: Float[Tensor, "b s s"]
    """Share of each pixel whose material is known."""


def taken(prop: Prop, size: int, rng: np.random.Generator, well_exposed_share: float = 0.0) -> Picture:
    """A random picture of an object."""
    azimuth = reference_azimuth(rng)
    picture, camera = reference_picture_of(prop, azimuth, size, rng, well_exposed_share)
    return Picture(prop, azimuth, premultiplied(picture[None])[0], Framing.of(camera).to_tensor()[0])


def targets(pictures: list[Picture], framing: Float[Tensor, "b 4"]) -> Targets:
    """The views from the pictures' azimuths and the heights of `framing`."""
    size = pictures[0].picture.shape[-1]
    heights = torch.rad2deg(Framing.from_tensor(framing.cpu()).elevation_rad).tolist()
    made = [
        network_images(p.prop, cameras_of([Pose(p.azimuth_deg, height)], size))
        for p, height in zip(pictures, heights, strict=True)
    ]
    return Targets(
        torch.from_numpy(np.concatenate([image for image, _ in made])),
        torch.from_numpy(np.concatenate([known for _, known in made])),
    )


def objects(
    packed: list[Prop],
    procedural_share: float,
    assembly_share: float,
    rng: np.random.Generator,
    stretched_share: float = 0.3,
    warped_share: float = 0.0,
) -> Iterator[Prop]:
    """Objects of the packs, augmented, and of our own making, without end."""
    while True:
        kind = rng.uniform()
        if kind < assembly_share:
            yield assembly(rng)
        elif kind < assembly_share + procedural_share or not packed:
            yield from procedural_props(1, rng)
        else:
            prop = packed[int(rng.integers(len(packed)))]
            prop = mirrored(prop) if rng.uniform() < 0.5 else prop
            prop = stretched(prop, rng) if rng.uniform() < stretched_share else prop
            prop = warped(prop, rng) if rng.uniform() < warped_share else prop
            change = rng.uniform()
            if change < 0.45:
                kinds = (recolored, rematerialed, repainted)
                prop = kinds[int(change / 0.15)](prop, rng)
            yield prop


def lifting_loss(
    predicted: Float[Tensor, "b c h w"], latents: Float[Tensor, "b c h w"], known: Float[Tensor, "b s s"]
) -> Tensor:
    """Mean squared error of the latents, where the material is known for those that hold it."""
    mask = torch.ones_like(latents)
    cells = known.unfold(1, DOWNSAMPLING, DOWNSAMPLING).unfold(2, DOWNSAMPLING, DOWNSAMPLING)
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


@torch.no_grad()
def validate(
    lifter: PictureLifter, autoencoder: GBufferAutoencoder, fixed: list[Picture], names: Names
) -> dict[str, float]:
    """Errors on pictures of objects that are never trained on: of the framing, and of the views, laid over by
    the lifter's own estimate; and how many pictures are more like their own caption than like any other."""
    dtype, device = autoencoder.dtype, lifter.position.device
    pictures = torch.stack([p.picture for p in fixed]).to(device).split(16)
    features = [lifter.features(p) for p in pictures]
    framing = torch.cat([lifter.framing(p, seen) for p, seen in zip(pictures, features, strict=True)])
    parts = zip(pictures, features, framing.split(16), strict=True)
    latents = torch.cat([lifter(*part) for part in parts])
    own = names.embeddings([captions(p.prop)[0] for p in fixed]).to(device)
    likeness = torch.cat([lifter.likeness(seen, own) for seen in features])
    image = targets(fixed, framing).image
    true = torch.cat([autoencoder.encode(v.to(device, dtype)).float() for v in image.split(16)])
    restored = torch.cat([autoencoder.decode(v.to(dtype)).float() for v in latents.split(16)])
    error = (framing.cpu() - torch.stack([p.framing for p in fixed])).abs().mean(0)
    found = {
        "val_elevation_deg": float(torch.rad2deg(error[0])),
        "val_log2_magnification": float(error[1]),
        "val_center": float(error[2:].mean()),
        "val_named": float((likeness.argmax(1).cpu() == torch.arange(len(fixed))).float().mean()),
        "val_latents": float((latents - true).square().mean()),
    }
    return found | metrics(restored.cpu(), image)


def train_lifter(
    data: Path,
    out: Path,
    config: LifterTraining,
    device: torch.device,
    *,
    start_from: Path | None = None,
) -> None:
    """Train into `out`, beside its autoencoder; writes `lifter/` (EMA weights) and `lifter.jsonl`.

    Resumes from the checkpoint in `out`; where there is none, goes on from the saved lifter `start_from`.
    """
    everything = list(load_props(data))
    packed = [p for p in everything if p.split == "train" and is_asked_for(p)]
    rng = np.random.default_rng(17)
    fixed = [taken(p, config.size, rng) for p in everything if p.split == "val"]
    dtype = working_dtype(device)
    autoencoder = GBufferAutoencoder.from_pretrained(out / "autoencoder").eval().to(device, dtype)
    autoencoder.requires_grad_(False)
    torch.manual_seed(config.seed)
    if start_from is None:
        lifter = PictureLifter(autoencoder.config["latent_channels"])
    else:
        lifter = PictureLifter.from_pretrained(start_from).float()
    weights = master_weights(lifter, config)
    checkpoint = out / "lifter.safetensors"
    if checkpoint.exists():
        weights.load(checkpoint)
    weights.cast(dtype, keep=lambda name: name.startswith("feature_norms"))
    lifter.train().to(device).to(memory_format=torch.channels_last)
    rng = np.random.default_rng([config.seed, weights.steps])
    source = objects(packed, config.procedural_share, config.assembly_share, rng)
    start = last_save = time.monotonic()
    first, running, errors = weights.steps, np.zeros(3), torch.tensor(config.framing_errors)
    names = Names(packed, TextEncoder())
    while (fraction := (time.monotonic() - start) / max(config.minutes * 60, 1e-9)) < 1:
        pictures = [
            taken(prop, config.size, rng, config.well_exposed_share)
            for prop in itertools.islice(source, config.batch // config.pictures_per_object)
            for _ in range(config.pictures_per_object)
        ]
        picture = torch.stack([p.picture for p in pictures]).to(device)
        true = torch.stack([p.framing for p in pictures])
        features = lifter.features(picture)
        estimate = lifter.framing(picture, features)
        own = torch.rand(len(true), 1) < config.own_framing_share
        framing = torch.where(own, estimate.detach().cpu(), true + errors * torch.randn(true.shape))
        target = targets(pictures, framing)
        with torch.no_grad():
            latents = autoencoder.encode(target.image.to(device, dtype)).float()
        lifting = lifting_loss(
            lifter(picture, features, framing.to(device)), latents, target.known.to(device)
        )
        one_each = range(0, len(pictures), config.pictures_per_object)
        named = [i for i in one_each if pictures[i].prop.captions or pictures[i].prop.caption]
        shown = lifter.naming_net(tuple(level[named] for level in features))
        said = names.of([pictures[i].prop for i in named], rng)
        naming = naming_loss(lifter.naming_net, shown, said.to(device), names.bank.to(device))
        framing_loss = ((estimate - true.to(device)) / estimate.new_tensor(SPREAD)).square().mean()
        loss = lifting + config.framing_weight * framing_loss + config.naming_weight * naming
        loss.backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        losses = np.array([float(part.detach()) for part in (lifting, framing_loss, naming)])
        running += (losses - running) * max(0.02, 1 / (weights.steps - first))
        if weights.steps % 100 == 0:
            weights.load_working(weights.ema)
            row = {"step": weights.steps, "seconds": round(time.monotonic() - start),
                   "loss": round(running[0], 4), "framing_loss": round(running[1], 5),
                   "naming_loss": round(running[2], 4)}  # fmt: skip
            row |= {k: round(v, 4) for k, v in validate(lifter.eval(), autoencoder, fixed, names).items()}
            lifter.train()
            weights.load_working(weights.masters)
            append_row(out / "lifter.jsonl", row)
        if time.monotonic() - last_save > 120:
            weights.save(checkpoint)
            last_save = time.monotonic()
    weights.save(checkpoint)
    lifter.float().eval()  # before the averages come in, which bf16 would round
    weights.load_working(weights.ema)
    lifter.save_pretrained(out / "lifter")
