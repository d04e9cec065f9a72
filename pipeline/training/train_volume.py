"""Trains the volume of a picture (`pipeline.multiview.volume_network`) behind the finished lifter.

What it learns from is made beside it, for one use (`volume_examples`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import Volume
from pipeline.multiview.volume_views import volume_views
from pipeline.training.props import Prop, load_props
from pipeline.training.train_lifter import taken
from pipeline.training.views import Pose, cameras_of, network_images
from pipeline.training.volume_examples import Reading, VolumeExamples, examples
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
    examples: VolumeExamples = field(default_factory=VolumeExamples)
    occupancy_weight: float = 10.0
    """Of the mean cross-entropy of cells, beside the squared error of their colours and materials."""
    overlap_weight: float = 0.5
    """Of one minus the overlap of what is found and what is there: a thin leg must be somewhere."""
    f_score_weight: float = 1.0
    """Of one minus the F-score of the surface that is found: near is as good as there."""
    surface_weight: float = 0.5
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    seed: int = 0


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


def _surface(occupied: Float[Tensor, "b n n n"]) -> Float[Tensor, "b 1 m m m"]:
    """How much surface lies in windows of 4 cells, every other: what is not a cell deep inside."""
    deep = occupied
    for axis in (1, 2, 3):
        along = deep.unfold(axis, 3, 1).unbind(-1)
        padding = [0, 0, 0, 0, 0, 0]
        padding[2 * (3 - axis)] = padding[2 * (3 - axis) + 1] = 1
        deep = F.pad(torch.minimum(torch.minimum(along[0], along[1]), along[2]), padding)
    return F.avg_pool3d((occupied - deep)[:, None], 4, 2)


def surface_f_score_loss(volume: Volume, targets: VolumeTargets) -> Tensor:
    """One minus the mean F-score of surfaces, of which near is as good as there.

    Of doubtful cells the likely ones count for more. How much of both surfaces lies in the same windows is
    what counts: if it were how far apart they are, as benchmarks have it, scattered cells, near to
    everything, would be best.
    """
    likely = (2 * volume.occupancy).sigmoid() * in_ball().to(volume.occupancy)
    found, true = _surface(likely), _surface(targets.occupied)

    def total(grid: Tensor) -> Tensor:
        return grid.sum((1, 2, 3, 4))

    score = 2 * total(torch.minimum(found, true)) / (total(found) + total(true)).clamp_min(1e-3)
    return 1 - score.mean()


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
        volume_targets(carved(prop), [picture.azimuth_deg]),
        cameras_of(_CHECKED, size),
        torch.from_numpy(images[:, 3]),
    )


@torch.no_grad()
def validate(network: PictureVolume, fixed: list[Checked]) -> dict[str, float]:
    """Cross-entropy, overlap and F-score of cells, and overlap of masks at several levels of probability."""
    entropy, cells, f_scores, masks = [], [], [], []
    for one in fixed:
        found = one.reading.to(network.position.device).volume(network)
        found = Volume(found.occupancy.cpu(), found.surface.cpu())
        sure = Volume(found.occupancy * 100, found.surface)
        entropy.append(float(occupancy_loss(found, one.targets)))
        cells.append(1 - float(overlap_loss(sure, one.targets)))
        f_scores.append(1 - float(surface_f_score_loss(sure, one.targets)))
        drawn = torch.stack([volume_views(found, one.cameras, level)[:, 3] > 0 for level in _LEVELS])
        both, either = drawn & (one.masks > 0), drawn | (one.masks > 0)
        masks.append(both.sum((1, 2, 3)) / either.sum((1, 2, 3)).clamp_min(1))
    at_levels = torch.stack(masks).mean(0).tolist()
    return {
        "val_cross_entropy": float(np.mean(entropy)),
        "val_cells_iou": float(np.mean(cells)),
        "val_f_score": float(np.mean(f_scores)),
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
    fixed = [checked(lifter, p, config.examples.size, rng) for p in load_props(data) if p.split == "val"]
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
    # Threads that wait for a core which makes examples are five times slower than fewer that do not.
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - config.examples.workers))
    coming = examples(data, out / "lifter", config.examples, weights.steps)
    kinds = {"cross_entropy": (occupancy_loss, config.occupancy_weight),
             "overlap_loss": (overlap_loss, config.overlap_weight),
             "f_score_loss": (surface_f_score_loss, config.f_score_weight),
             "surface_loss": (surface_loss, config.surface_weight)}  # fmt: skip
    start = last_save = time.monotonic()
    first, running = weights.steps, np.zeros(len(kinds))
    while (fraction := (time.monotonic() - start) / max(config.minutes * 60, 1e-9)) < 1:
        reading, targets = next(coming)
        reading, targets = reading.to(device), targets.to(device)
        found = reading.volume(network)
        losses = torch.stack([loss(found, targets) for loss, _ in kinds.values()])
        (losses * losses.new_tensor([weight for _, weight in kinds.values()])).sum().backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        running += (losses.detach().cpu().numpy() - running) * max(0.01, 1 / (weights.steps - first))
        if weights.steps % 800 == 0:
            weights.load_working(weights.ema)
            row: dict[str, float | int] = {"step": weights.steps, "seconds": round(time.monotonic() - start)}
            row |= {name: round(loss, 4) for name, loss in zip(kinds, running.tolist(), strict=True)}
            row |= {k: round(v, 4) for k, v in validate(network.eval(), fixed).items()}
            network.train()
            weights.load_working(weights.masters)
            append_row(out / "volume.jsonl", row)
        if time.monotonic() - last_save > 120:
            weights.save(checkpoint)
            last_save = time.monotonic()
    coming.close()
    torch.set_num_threads(threads)
    weights.save(checkpoint)
    network.float().eval()  # before the averages come in, which bf16 would round
    weights.load_working(weights.ema)
    network.save_pretrained(out / "volume")
