"""Trains the volume of a picture (`pipeline.multiview.volume_network`) behind the finished lifter.

Pictures are made and read by the lifter as in use: laid over by its own estimate of their framing. The
targets are the true objects, turned as the pictures see them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import Volume
from pipeline.multiview.volume_views import volume_views
from pipeline.training.props import is_asked_for, load_props
from pipeline.training.train_lifter import Picture, objects, taken
from pipeline.training.views import Pose, cameras_of, network_images
from pipeline.training.volumes import VolumeTargets, carved, in_ball, turned, volume_targets
from pipeline.training.weights import MasterWeights, append_row, warmup_cosine, working_dtype

_CHECKED = [Pose(azimuth, elevation) for azimuth, elevation in ((90.0, 0.0), (180.0, 20.0), (225.0, 60.0))]


@dataclass(frozen=True)
class VolumeTraining:
    """Recipe of the volume network."""

    minutes: float = 60.0
    """Planned length; the learning-rate schedule follows the clock."""
    objects_per_batch: int = 5
    pictures_per_object: int = 3
    size: int = 128
    well_exposed_share: float = 0.6
    """Of the pictures; see `views.lit_picture`."""
    procedural_share: float = 0.2
    assembly_share: float = 0.07
    occupancy_weight: float = 10.0
    """Of the mean cross-entropy of cells, beside the squared error of their colours and materials."""
    surface_weight: float = 0.5
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    workers: int = 1
    """Processes that make pictures and volumes beside the training, which takes about as long; 0: none."""
    seed: int = 0


class Examples(IterableDataset[tuple[Tensor, Tensor]]):
    """Pictures and the volumes that they show, by batches, without end."""

    def __init__(self, data: Path, config: VolumeTraining, steps: int) -> None:
        """`steps` are those that were taken before: they are not done over."""
        self.data, self.config, self.steps = data, config, steps

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "b 4 s s"], Float[Tensor, "b 8 n n n"]]]:
        worker, config = get_worker_info(), self.config
        rng = np.random.default_rng([config.seed, self.steps, worker.id if worker else 0])
        packed = [p for p in load_props(self.data) if p.split == "train" and is_asked_for(p)]
        source = objects(packed, config.procedural_share, config.assembly_share, rng)
        while True:
            pictures, volumes = [], []
            for prop in itertools.islice(source, config.objects_per_batch):
                volume = carved(prop)
                for _ in range(config.pictures_per_object):
                    picture = taken(prop, config.size, rng, config.well_exposed_share)
                    pictures.append(picture.picture)
                    volumes.append(turned(volume, picture.azimuth_deg))
            yield torch.stack(pictures), torch.stack(volumes)


def guessed(network: PictureVolume, lifter: PictureLifter, pictures: Tensor) -> Volume:
    """The volumes of pictures, as in use."""
    with torch.no_grad():
        features = lifter.features(pictures)
        framing = lifter.framing(pictures, features)
        tokens = lifter.tokens(pictures, features, framing)
        latents = lifter.latents(tokens)
    return network(tokens, latents, features, framing)


def occupancy_loss(volume: Volume, targets: VolumeTargets) -> Tensor:
    """Cross-entropy of the cells where objects can be."""
    inside = in_ball().to(targets.occupied.device)
    return F.binary_cross_entropy_with_logits(volume.occupancy[:, inside], targets.occupied[:, inside])


def surface_loss(volume: Volume, targets: VolumeTargets) -> Tensor:
    """Squared error of base colour and of what is known of the material, where there is surface."""
    square = (volume.surface - targets.surface).square() * targets.weight
    return square.sum() / targets.weight.sum().clamp_min(1)


@torch.no_grad()
def validate(network: PictureVolume, lifter: PictureLifter, fixed: list[Picture]) -> dict[str, float]:
    """Of pictures of objects that are never trained on: cross-entropy, overlap of cells, and of masks from
    cameras that see other sides."""
    device = lifter.position.device
    cameras = cameras_of(_CHECKED, fixed[0].picture.shape[-1])
    entropy, cells, masks = [], [], []
    for picture in fixed:
        volume = guessed(network, lifter, picture.picture[None].to(device))
        target = volume_targets(turned(carved(picture.prop), picture.azimuth_deg)[None].to(device))
        entropy.append(float(occupancy_loss(volume, target)))
        here, there = volume.occupancy > 0, target.occupied > 0.5
        cells.append(float((here & there).sum() / (here | there).sum().clamp_min(1)))
        poses = [Pose(p.azimuth_deg + picture.azimuth_deg, p.elevation_deg) for p in _CHECKED]
        true, _ = network_images(picture.prop, cameras_of(poses, cameras.width))
        drawn, seen = volume_views(volume, cameras)[:, 3] > 0, torch.from_numpy(true[:, 3] > 0)
        masks.append(float((drawn & seen).sum() / (drawn | seen).sum().clamp_min(1)))
    return {
        "val_cross_entropy": float(np.mean(entropy)),
        "val_cells_iou": float(np.mean(cells)),
        "val_mask_iou": float(np.mean(masks)),
    }


def train_volume(
    data: Path,
    out: Path,
    config: VolumeTraining,
    device: torch.device,
    *,
    start_from: Path | None = None,
) -> None:
    """Train into `out`, beside its lifter; writes `volume/` (EMA weights) and `volume.jsonl`.

    Resumes from the checkpoint in `out`; where there is none, goes on from the saved network `start_from`.
    """
    rng = np.random.default_rng(17)
    fixed = [taken(p, config.size, rng) for p in load_props(data) if p.split == "val"]
    dtype = working_dtype(device)
    lifter = PictureLifter.from_pretrained(out / "lifter", dtype=dtype).eval().to(device)
    lifter.requires_grad_(False)
    torch.manual_seed(config.seed)
    if start_from is None:
        network = PictureVolume(lifter.config["width"] + lifter.config["latent_channels"])
    else:
        network = PictureVolume.from_pretrained(start_from).float()
    weights = MasterWeights(
        network,
        use_muon=lambda name, p: name.startswith("blocks.") and p.ndim == 2,
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=0.01,
        ema_decay=0.997,
    )
    checkpoint = out / "volume.safetensors"
    if checkpoint.exists():
        weights.load(checkpoint)
    weights.cast(dtype)
    network.train().to(device)
    context = "spawn" if config.workers else None
    examples = iter(
        DataLoader(
            Examples(data, config, weights.steps),
            batch_size=None,
            num_workers=config.workers,
            multiprocessing_context=context,
        )
    )
    start = last_save = time.monotonic()
    first, running = weights.steps, np.zeros(2)
    while (fraction := (time.monotonic() - start) / max(config.minutes * 60, 1e-9)) < 1:
        pictures, volumes = next(examples)
        targets = volume_targets(volumes.to(device))
        found = guessed(network, lifter, pictures.to(device))
        occupancy, surface = occupancy_loss(found, targets), surface_loss(found, targets)
        (config.occupancy_weight * occupancy + config.surface_weight * surface).backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        losses = np.array([float(part.detach()) for part in (occupancy, surface)])
        running += (losses - running) * max(0.01, 1 / (weights.steps - first))
        if weights.steps % 400 == 0:
            weights.load_working(weights.ema)
            row = {"step": weights.steps, "seconds": round(time.monotonic() - start),
                   "cross_entropy": round(running[0], 4), "surface_loss": round(running[1], 4)}  # fmt: skip
            row |= {k: round(v, 4) for k, v in validate(network.eval(), lifter, fixed).items()}
            network.train()
            weights.load_working(weights.masters)
            append_row(out / "volume.jsonl", row)
        if time.monotonic() - last_save > 120:
            weights.save(checkpoint)
            last_save = time.monotonic()
    weights.save(checkpoint)
    network.float().eval()  # before the averages come in, which bf16 would round
    weights.load_working(weights.ema)
    network.save_pretrained(out / "volume")
