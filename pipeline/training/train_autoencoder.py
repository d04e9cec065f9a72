"""Trains the G-buffer autoencoder on views rendered as they are needed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.autoencoder import DOWNSAMPLING, GBufferAutoencoder
from pipeline.multiview.codec import ALPHA, COLOR, HEIGHT, METALLIC, NORMAL, ROUGHNESS
from pipeline.training.augment import recolored, rematerialed, repainted, stretched
from pipeline.training.procedural import procedural_props
from pipeline.training.props import Prop, is_asked_for, load_props
from pipeline.training.views import cameras_of, network_images, training_poses
from pipeline.training.weights import MasterWeights, append_row, warmup_cosine, working_dtype


@dataclass(frozen=True)
class AutoencoderTraining:
    """Recipe of the autoencoder."""

    minutes: float = 25.0
    """Planned length; the learning-rate schedule follows the clock."""
    objects_per_batch: int = 8
    size: int = 128
    crop: int = 80
    """Side in pixels of what is decoded of a view, mostly where the object is; it is encoded whole."""
    whole_views: float = 0.25
    """The last part of the run, in which views are decoded whole too, of half as many objects."""
    procedural_share: float = 0.25
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    latent_noise: float = 0.08
    """Largest standard deviation of the noise on the latents that the decoder learns from."""
    latent_drift_weight: float = 0.0
    """Weight of the latents' squared distance from those of the autoencoder that training goes on from: what
    was trained on them stays valid, and a distance that hardly shows tells the decoder much."""
    former_share: float = 0.25
    """Of the views, where latents stay near, those that are decoded from the former latents, so that drawn
    ones, which lack what the distance tells, are decoded as well as ever."""
    seed: int = 0


def reconstruction_loss(
    image: Float[Tensor, "n 10 H W"], target: Float[Tensor, "n 10 H W"], known: Float[Tensor, "n 1 H W"]
) -> Tensor:
    """L1 on covered pixels, of colour and coverage squares too; weights chosen so that no channel's error
    dwarfs the others'."""
    alpha = target[:, ALPHA] * 0.5 + 0.5
    weight = alpha / alpha.sum().clamp_min(1)
    distance = (image - target).abs()
    # Of unit length: the dot product of longer ones would grow without end.
    normal = F.normalize(image[:, NORMAL], dim=1, eps=1e-3)
    cosine = (normal * target[:, NORMAL]).sum(1, keepdim=True)
    loss = 2.5 * (weight * (distance[:, COLOR] + 10.0 * distance[:, COLOR].square())).sum()
    loss = loss + 0.5 * (weight * distance[:, NORMAL]).sum() + 0.7 * (weight * (1 - cosine)).sum()
    loss = loss + 4.0 * (weight * distance[:, HEIGHT]).sum()
    material = weight * known
    loss = loss + 0.5 * (material * (distance[:, METALLIC] + distance[:, ROUGHNESS])).sum()
    coverage = (4.0 * distance[:, ALPHA] + 1.5 * distance[:, ALPHA].square()).mean()
    return loss + coverage / alpha.mean().clamp_min(0.02)


def metrics(image: Float[Tensor, "n 10 H W"], target: Float[Tensor, "n 10 H W"]) -> dict[str, float]:
    """Base colour PSNR, alpha IoU, mean normal error and mean height error, on covered pixels.

    Pixels exactly half covered count as not covered, and come out on either side of a half by chance:
    `alpha_iou_decided` leaves them out.
    """
    cover, decided = target[:, 3] > 0, target[:, 3] != 0
    predicted = image[:, 3] > 0
    color = ((image[:, COLOR].clamp(-1, 1) - target[:, COLOR]) / 2).square().mean(1)[cover].mean()
    normal = F.normalize(image[:, NORMAL], dim=1)
    cosine = (normal * target[:, NORMAL]).sum(1)[cover].clamp(-1, 1)
    return {
        "base_color_psnr_db": float(-10 * torch.log10(color)),
        "alpha_iou": float((cover & predicted).sum() / (cover | predicted).sum()),
        "alpha_iou_decided": float(
            (cover & predicted & decided).sum() / ((cover | predicted) & decided).sum()
        ),
        "normal_deg": float(torch.rad2deg(torch.acos(cosine)).mean()),
        "height": float((image[:, 7] - target[:, 7]).abs()[cover].mean()),
        "metallic": float((image[:, 8] - target[:, 8]).abs()[cover].mean() / 2),
    }


def _batch(
    props: list[Prop], config: AutoencoderTraining, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Two views of each of `count` objects, and where their materials are known."""
    images, knowns = [], []
    for _ in range(count):
        if rng.uniform() < config.procedural_share:
            prop = next(iter(procedural_props(1, rng)))
        else:
            prop, change = props[rng.integers(len(props))], rng.uniform()
            if change < 0.4:
                kinds = (recolored, recolored, rematerialed, repainted)
                prop = kinds[int(change * 10)](prop, rng)
            prop = stretched(prop, rng) if rng.uniform() < 0.2 else prop
        poses = training_poses(8, rng)
        chosen = [poses[i] for i in rng.choice(8, 2, replace=False)]
        image, known = network_images(prop, cameras_of(chosen, config.size))
        images.append(image)
        knowns.append(known)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(knowns))[:, None]


def cropped(
    latents: Tensor, image: Tensor, known: Tensor, crop: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A window of each view, most of them on the object."""
    cells, parts = crop // DOWNSAMPLING, []
    side = latents.shape[-1]
    for view in range(len(image)):
        covered = (image[view, 3] > -1).nonzero().numpy()
        middle = covered[rng.integers(len(covered))] // DOWNSAMPLING if len(covered) else side // 2
        y, x = np.clip(middle - rng.integers(0, cells, 2), 0, side - cells).tolist()
        rows, columns = (slice(DOWNSAMPLING * a, DOWNSAMPLING * a + crop) for a in (y, x))
        parts.append(
            (latents[view, :, y : y + cells, x : x + cells],
             image[view, :, rows, columns], known[view, :, rows, columns])
        )  # fmt: skip
    first, second, third = (torch.stack(part) for part in zip(*parts, strict=True))
    return first, second, third


def validation_images(props: list[Prop], count: int, size: int) -> Tensor:
    """Fixed views of objects that are never trained on."""
    rng = np.random.default_rng(7)
    views = []
    for prop in props[:: max(1, len(props) // count)][:count]:
        image, _ = network_images(prop, cameras_of([training_poses(8, rng)[rng.integers(8)]], size))
        views.append(torch.from_numpy(image))
    return torch.cat(views)


def train_autoencoder(
    data: Path,
    out: Path,
    config: AutoencoderTraining,
    device: torch.device,
    *,
    start_from: Path | None = None,
) -> None:
    """Train into `out` (resumes there); writes `autoencoder/` and `autoencoder.jsonl`.

    Where there is no checkpoint in `out`, goes on from the saved autoencoder `start_from`.
    """
    out.mkdir(parents=True, exist_ok=True)
    everything = list(load_props(data))
    props = [p for p in everything if p.split == "train"]
    props = [p for p in props if is_asked_for(p)]
    validation = validation_images([p for p in everything if p.split == "val"], 64, config.size)
    torch.manual_seed(config.seed)
    dtype = working_dtype(device)
    model = GBufferAutoencoder() if start_from is None else GBufferAutoencoder.from_pretrained(start_from)
    former = None
    if start_from is not None and config.latent_drift_weight:
        former = GBufferAutoencoder.from_pretrained(start_from).to(device, dtype).eval().requires_grad_(False)
    weights = MasterWeights(
        model.float(),
        use_muon=lambda name, p: p.ndim == 4 and not name.endswith(("encoder.1.weight", "decoder.0.weight")),
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=0.01,
        ema_decay=0.998,
    )
    checkpoint = out / "autoencoder.safetensors"
    if checkpoint.exists():
        weights.load(checkpoint)

    def training() -> None:
        model.train()
        if former is not None:
            model.latent_norm.eval()

    training()
    weights.cast(dtype, keep=lambda name: name == "latent_norm")
    model.to(device, memory_format=torch.channels_last)
    rng = np.random.default_rng([config.seed, weights.steps])
    start, first, last_save = time.monotonic(), weights.steps, time.monotonic()
    while (fraction := (time.monotonic() - start) / (config.minutes * 60)) < 1:
        whole = fraction > 1 - config.whole_views
        count = max(1, config.objects_per_batch // 2) if whole else config.objects_per_batch
        image, known = _batch(props, config, count, rng)
        seen = image.to(device, dtype, memory_format=torch.channels_last)
        latents, drift = model.encode(seen), torch.zeros((), device=device)
        if former is not None:
            before = former.encode(seen)
            drift = (latents - before).float().square().mean()
            again = torch.from_numpy(rng.uniform(size=len(image)) < config.former_share).to(device)
            latents = torch.where(again[:, None, None, None], before, latents)
        if not whole:
            latents, image, known = cropped(latents, image, known, config.crop, rng)
        noise = config.latent_noise * torch.rand(len(latents), 1, 1, 1, device=device)
        latents = (latents + noise * torch.randn_like(latents)).to(dtype, memory_format=torch.channels_last)
        loss = reconstruction_loss(model.decode(latents).float(), image.to(device), known.to(device))
        (loss + config.latent_drift_weight * drift).backward()
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000)
        weights.step(rate * min(1.0, (weights.steps - first + 1) / config.warmup_steps))
        if weights.steps % 250 == 0:
            weights.load_working(weights.ema)
            model.eval()
            with torch.no_grad():
                parts = [v.to(device, dtype) for v in validation.split(16)]
                restored = torch.cat([model.decode(model.encode(v)).float() for v in parts])
                drawn = former and torch.cat([model.decode(former.encode(v)).float() for v in parts])
            training()
            weights.load_working(weights.masters)
            elapsed = round(time.monotonic() - start)
            row = {"step": weights.steps, "seconds": elapsed, "loss": round(float(loss.detach()), 4)}
            row |= {k: round(v, 4) for k, v in metrics(restored.cpu(), validation).items()}
            if drawn is not None:
                row["drift"] = round(float(drift.detach()), 4)
                row |= {f"former_{k}": round(v, 4) for k, v in metrics(drawn.cpu(), validation).items()}
            append_row(out / "autoencoder.jsonl", row)
        if time.monotonic() - last_save > 120:
            weights.save(checkpoint)
            last_save = time.monotonic()
    weights.save(checkpoint)
    model.float().eval()  # before the averages come in, which bf16 would round
    weights.load_working(weights.ema)
    model.save_pretrained(out / "autoencoder")
