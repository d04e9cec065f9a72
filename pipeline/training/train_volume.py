"""Trains the volume of a picture (`pipeline.multiview.volume_network`) behind the finished lifter.

Pictures are made and read by the lifter as in use: laid over by its own estimate of their framing. The
targets are the true objects in the frames of the views that the pictures are so taken for. What makes and
reads pictures runs in processes of its own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.lifter_network import Framing
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import Volume, upright
from pipeline.multiview.volume_views import volume_views
from pipeline.training.props import Prop, is_asked_for, load_props
from pipeline.training.train_lifter import objects, taken
from pipeline.training.views import Pose, cameras_of, network_images
from pipeline.training.volumes import VolumeTargets, carved, in_ball, volume_targets
from pipeline.training.weights import MasterWeights, append_row, warmup_cosine, working_dtype
from render.cameras import Cameras

_CHECKED = [Pose(azimuth, elevation) for azimuth, elevation in ((90.0, 0.0), (180.0, 20.0), (225.0, 60.0))]
_LEVELS = (0.15, 0.25, 0.35, 0.5)


@dataclass(frozen=True)
class VolumeTraining:
    """Recipe of the volume network."""

    minutes: float = 60.0
    """Planned length; the learning-rate schedule follows the clock."""
    objects_per_batch: int = 4
    pictures_per_object: int = 4
    size: int = 128
    well_exposed_share: float = 0.6
    """Of the pictures; see `views.lit_picture`."""
    procedural_share: float = 0.15
    assembly_share: float = 0.05
    stretched_share: float = 0.6
    """Of the objects of the packs."""
    occupancy_weight: float = 10.0
    """Of the mean cross-entropy of cells, beside the squared error of their colours and materials."""
    overlap_weight: float = 0.5
    """Of one minus the overlap of what is found and what is there: a thin leg must be somewhere."""
    surface_weight: float = 0.5
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    workers: int = 1
    """Processes that make and read pictures beside the training, which takes about as long; 0: none."""
    seed: int = 0


@dataclass(frozen=True)
class Reading:
    """Pictures as the lifter reads them: the arguments of the network."""

    tokens: Float[Tensor, "b w k k"]
    latents: Float[Tensor, "b c k k"]
    seen: Float[Tensor, "b f m m"]
    framing: Float[Tensor, "b 4"]

    @staticmethod
    @torch.no_grad()
    def of(lifter: PictureLifter, pictures: Float[Tensor, "b 4 s s"]) -> Reading:
        """As in use."""
        features = lifter.features(pictures)
        framing = lifter.framing(pictures, features)
        tokens = lifter.tokens(pictures, features, framing)
        return Reading(tokens, lifter.latents(tokens), features[-1], framing)

    def elevations(self) -> list[float]:
        """Of the lifted views, in radians."""
        elevations: list[float] = Framing.from_tensor(self.framing).elevation_rad.tolist()
        return elevations

    def to(self, device: torch.device) -> Reading:
        """On the device."""
        return Reading(*(getattr(self, field.name).to(device) for field in fields(self)))

    def volume(self, network: PictureVolume) -> Volume:
        """What the network finds, in the frames of the lifted views."""
        return network(self.tokens, self.latents, (self.seen,), self.framing)


class Examples(IterableDataset[tuple[Reading, VolumeTargets]]):
    """Pictures as they are read and what they show, by batches, without end."""

    def __init__(self, data: Path, lifter: Path, config: VolumeTraining, steps: int) -> None:
        """`steps` are those that were taken before: they are not done over."""
        self.data, self.lifter, self.config, self.steps = data, lifter, config, steps

    def __iter__(self) -> Iterator[tuple[Reading, VolumeTargets]]:
        worker, config = get_worker_info(), self.config
        rng = np.random.default_rng([config.seed, self.steps, worker.id if worker else 0])
        lifter = PictureLifter.from_pretrained(self.lifter, dtype=working_dtype(torch.device("cpu"))).eval()
        packed = [p for p in load_props(self.data) if p.split == "train" and is_asked_for(p)]
        source = objects(packed, config.procedural_share, config.assembly_share, rng, config.stretched_share)
        while True:
            props = list(itertools.islice(source, config.objects_per_batch))
            pictures = [
                taken(prop, config.size, rng, config.well_exposed_share)
                for prop in props
                for _ in range(config.pictures_per_object)
            ]
            reading = Reading.of(lifter, torch.stack([p.picture for p in pictures]))
            azimuths = [p.azimuth_deg for p in pictures]
            views = list(zip(azimuths, reading.elevations(), strict=True))
            count = config.pictures_per_object
            targets = [volume_targets(carved(p), views[i * count :][:count]) for i, p in enumerate(props)]
            yield (
                reading,
                VolumeTargets(
                    torch.cat([t.occupied for t in targets]),
                    torch.cat([t.surface for t in targets]),
                    torch.cat([t.weight for t in targets]),
                ),
            )


def occupancy_loss(volume: Volume, targets: VolumeTargets) -> Tensor:
    """Cross-entropy of the cells where objects can be."""
    inside = in_ball().to(volume.occupancy)
    entropy = F.binary_cross_entropy_with_logits(volume.occupancy, targets.occupied, inside, reduction="sum")
    return entropy / (inside.sum() * len(targets.occupied))


def overlap_loss(volume: Volume, targets: VolumeTargets) -> Tensor:
    """One minus the mean overlap of objects and what is likely of them."""
    found = volume.occupancy.sigmoid() * in_ball().to(volume.occupancy)
    both = (found * targets.occupied).sum((1, 2, 3))
    either = found.sum((1, 2, 3)) + targets.occupied.sum((1, 2, 3)) - both
    return 1 - (both / either.clamp_min(1)).mean()


def surface_loss(volume: Volume, targets: VolumeTargets) -> Tensor:
    """Squared error of base colour and of what is known of the material, where there is surface."""
    square = (volume.surface - targets.surface).square() * targets.weight
    return square.sum() / targets.weight.sum().clamp_min(1)


@dataclass(frozen=True)
class Checked:
    """A picture of an object that is never trained on."""

    reading: Reading
    targets: VolumeTargets
    cameras: Cameras
    masks: Float[Tensor, "v s s"]
    """What is seen of the object by cameras that see other sides."""


def checked(lifter: PictureLifter, prop: Prop, size: int, rng: np.random.Generator) -> Checked:
    """A picture of an object and what is right."""
    picture = taken(prop, size, rng)
    reading = Reading.of(lifter, picture.picture[None])
    poses = [Pose(p.azimuth_deg + picture.azimuth_deg, p.elevation_deg) for p in _CHECKED]
    images, _ = network_images(prop, cameras_of(poses, size))
    return Checked(
        reading,
        volume_targets(carved(prop), [(picture.azimuth_deg, reading.elevations()[0])]),
        cameras_of(_CHECKED, size),
        torch.from_numpy(images[:, 3]),
    )


@torch.no_grad()
def validate(network: PictureVolume, fixed: list[Checked]) -> dict[str, float]:
    """Cross-entropy, overlap of cells, and overlap of masks at several levels of probability."""
    entropy, cells, masks = [], [], []
    for one in fixed:
        found = one.reading.to(network.position.device).volume(network)
        found = Volume(found.occupancy.cpu(), found.surface.cpu())
        entropy.append(float(occupancy_loss(found, one.targets)))
        cells.append(1 - float(overlap_loss(Volume(found.occupancy * 100, found.surface), one.targets)))
        whole = upright(found, Framing.from_tensor(one.reading.framing).elevation_rad)
        drawn = torch.stack([volume_views(whole, one.cameras, level)[:, 3] > 0 for level in _LEVELS])
        both, either = drawn & (one.masks > 0), drawn | (one.masks > 0)
        masks.append(both.sum((1, 2, 3)) / either.sum((1, 2, 3)).clamp_min(1))
    at_levels = torch.stack(masks).mean(0).tolist()
    return {
        "val_cross_entropy": float(np.mean(entropy)),
        "val_cells_iou": float(np.mean(cells)),
    } | {f"val_mask_iou_{level}": iou for level, iou in zip(_LEVELS, at_levels, strict=True)}


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
    lifter = PictureLifter.from_pretrained(out / "lifter", dtype=working_dtype(torch.device("cpu"))).eval()
    rng = np.random.default_rng(17)
    fixed = [checked(lifter, p, config.size, rng) for p in load_props(data) if p.split == "val"]
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
    weights.cast(working_dtype(device))
    network.train().to(device)
    examples = iter(
        DataLoader(
            Examples(data, out / "lifter", config, weights.steps),
            batch_size=None,
            num_workers=config.workers,
            multiprocessing_context="spawn" if config.workers else None,
        )
    )
    start = last_save = time.monotonic()
    first, running = weights.steps, np.zeros(3)
    while (fraction := (time.monotonic() - start) / max(config.minutes * 60, 1e-9)) < 1:
        reading, targets = next(examples)
        reading, targets = reading.to(device), targets.to(device)
        found = reading.volume(network)
        parts = (occupancy_loss(found, targets), overlap_loss(found, targets), surface_loss(found, targets))
        shares = (config.occupancy_weight, config.overlap_weight, config.surface_weight)
        sum((share * part for share, part in zip(shares, parts, strict=True)), torch.zeros(())).backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        losses = np.array([float(part.detach()) for part in parts])
        running += (losses - running) * max(0.01, 1 / (weights.steps - first))
        if weights.steps % 400 == 0:
            weights.load_working(weights.ema)
            row = {"step": weights.steps, "seconds": round(time.monotonic() - start),
                   "cross_entropy": round(running[0], 4), "overlap_loss": round(running[1], 4),
                   "surface_loss": round(running[2], 4)}  # fmt: skip
            row |= {k: round(v, 4) for k, v in validate(network.eval(), fixed).items()}
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
