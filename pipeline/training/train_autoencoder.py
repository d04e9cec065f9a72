"""Trains the G-buffer autoencoder on views rendered as they are needed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.autoencoder import DOWNSAMPLING, GBufferAutoencoder
from pipeline.multiview.codec import ALPHA, COLOR, HEIGHT, METALLIC, NORMAL, ROUGHNESS
from pipeline.training.augment import recolored, rematerialed
from pipeline.training.props import Prop, is_asked_for, load_props
from pipeline.training.views import cameras_of, network_images, training_poses
from pipeline.training.weights import MasterWeights, append_row, warmup_cosine, working_dtype


@dataclass(frozen=True)
class AutoencoderTraining:
    """Recipe of the autoencoder."""

    minutes: float = 25.0
    """Planned length; the learning-rate schedule follows the clock."""
    objects_per_batch: int = 4
    crops_per_view: int = 3
    size: int = 128
    crop: int = 64
    """Side of the training crops in pixels: the same compute shows more objects than whole views do."""
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 2e-3
    warmup_steps: int = 50
    latent_noise: float = 0.07
    """Standard deviation of the noise on the latents that the decoder learns from."""
    decoder_only: bool = False
    """Leave the encoder as it is, so that what was trained on its latents stays valid."""
    seed: int = 0


def reconstruction_loss(
    image: Float[Tensor, "n 10 H W"], target: Float[Tensor, "n 10 H W"], known: Float[Tensor, "n 1 H W"]
) -> Tensor:
    """L1 on covered pixels; weights chosen so that no channel's error dwarfs the others'."""
    alpha = target[:, ALPHA] * 0.5 + 0.5
    weight = alpha / alpha.sum().clamp_min(1)
    distance = (image - target).abs()
    cosine = (image[:, NORMAL] * target[:, NORMAL]).sum(1, keepdim=True)
    loss = 2.5 * (weight * distance[:, COLOR]).sum()
    loss = loss + 0.5 * (weight * distance[:, NORMAL]).sum() + 0.5 * (weight * (1 - cosine)).sum()
    loss = loss + 4.0 * (weight * distance[:, HEIGHT]).sum()
    material = weight * known
    loss = loss + 0.5 * (material * (distance[:, METALLIC] + distance[:, ROUGHNESS])).sum()
    return loss + 2.0 * distance[:, ALPHA].mean() / alpha.mean().clamp_min(0.02).detach() * 0.25


def metrics(image: Float[Tensor, "n 10 H W"], target: Float[Tensor, "n 10 H W"]) -> dict[str, float]:
    """Base colour PSNR, alpha IoU, mean normal error and mean height error, on covered pixels."""
    cover = target[:, 3] > 0
    predicted = image[:, 3] > 0
    color = ((image[:, COLOR].clamp(-1, 1) - target[:, COLOR]) / 2).square().mean(1)[cover].mean()
    normal = torch.nn.functional.normalize(image[:, NORMAL], dim=1)
    cosine = (normal * target[:, NORMAL]).sum(1)[cover].clamp(-1, 1)
    return {
        "base_color_psnr_db": float(-10 * torch.log10(color)),
        "alpha_iou": float((cover & predicted).sum() / (cover | predicted).sum()),
        "normal_deg": float(torch.rad2deg(torch.acos(cosine)).mean()),
        "height": float((image[:, 7] - target[:, 7]).abs()[cover].mean()),
        "metallic": float((image[:, 8] - target[:, 8]).abs()[cover].mean() / 2),
    }


def _batch(props: list[Prop], config: AutoencoderTraining, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops, most of them on the object, of two views of each of a few objects."""
    images, knowns = [], []
    for index in rng.integers(len(props), size=config.objects_per_batch):
        prop = props[index]
        kind = rng.uniform()
        if kind < 0.25:
            prop = recolored(prop, rng)
        elif kind < 0.4:
            prop = rematerialed(prop, rng)
        poses = training_poses(8, rng)
        chosen = [poses[i] for i in rng.choice(8, 2, replace=False)]
        image, known = network_images(prop, cameras_of(chosen, config.size))
        for view in range(2):
            covered = np.argwhere(image[view, 3] > -1)
            for _ in range(config.crops_per_view):
                middle = covered[rng.integers(len(covered))] if len(covered) else np.array([64, 64])
                corner = np.clip(middle - rng.integers(0, config.crop, 2), 0, config.size - config.crop)
                window = tuple(slice(c, c + config.crop) for c in corner // DOWNSAMPLING * DOWNSAMPLING)
                images.append(image[view][:, *window])
                knowns.append(known[view][window])
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(knowns))[:, None]


def validation_images(props: list[Prop], count: int, size: int) -> Tensor:
    """Fixed views of objects that are never trained on."""
    rng = np.random.default_rng(7)
    views = []
    for prop in props[:: max(1, len(props) // count)][:count]:
        image, _ = network_images(prop, cameras_of([training_poses(8, rng)[rng.integers(8)]], size))
        views.append(torch.from_numpy(image))
    return torch.cat(views)


def train_autoencoder(data: Path, out: Path, config: AutoencoderTraining, device: torch.device) -> None:
    """Train into `out` (resumes there); writes `autoencoder/` and `autoencoder.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    everything = list(load_props(data))
    props = [p for p in everything if p.split == "train"]
    props = [p for p in props if is_asked_for(p)]
    validation = validation_images([p for p in everything if p.split == "val"], 64, config.size)
    torch.manual_seed(config.seed)
    dtype = working_dtype(device)
    model = GBufferAutoencoder()
    weights = MasterWeights(
        model,
        use_muon=lambda name, p: p.ndim == 4 and not name.endswith(("encoder.1.weight", "decoder.0.weight")),
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=0.01,
        ema_decay=0.995,
    )
    checkpoint = out / "autoencoder.safetensors"
    if checkpoint.exists():
        weights.load(checkpoint)
    if config.decoder_only:
        for name, p in model.named_parameters():
            p.requires_grad_(name.startswith("decoder."))
        model.latent_norm.eval()
    weights.cast(dtype, keep=lambda name: name == "latent_norm")
    model.to(device, memory_format=torch.channels_last)
    rng = np.random.default_rng([config.seed, weights.steps])
    start, first, last_save = time.monotonic(), weights.steps, time.monotonic()
    while (elapsed := time.monotonic() - start) < config.minutes * 60:
        image, known = _batch(props, config, rng)
        image = image.to(device, memory_format=torch.channels_last)
        latents = model.encode(image.to(dtype))
        latents = latents + config.latent_noise * torch.randn_like(latents)
        loss = reconstruction_loss(model.decode(latents).float(), image, known.to(device))
        loss.backward()
        fraction = elapsed / (config.minutes * 60)
        rate = warmup_cosine(int(fraction * 10_000), 0, 10_000) * min(
            1.0, (weights.steps - first + 1) / config.warmup_steps
        )
        weights.step(rate)
        if weights.steps % 200 == 0:
            weights.load_working(weights.ema)
            model.eval()
            with torch.no_grad():
                restored = torch.cat(
                    [model.decode(model.encode(v.to(device, dtype))).float() for v in validation.split(16)]
                )
            model.train()
            if config.decoder_only:
                model.latent_norm.eval()
            weights.load_working(weights.masters)
            row = {"step": weights.steps, "seconds": round(elapsed), "loss": round(float(loss.detach()), 4)}
            row |= {k: round(v, 4) for k, v in metrics(restored.cpu(), validation).items()}
            append_row(out / "autoencoder.jsonl", row)
        if time.monotonic() - last_save > 120:
            weights.save(checkpoint)
            last_save = time.monotonic()
    weights.save(checkpoint)
    model.float().eval()  # before the averages come in, which bf16 would round
    weights.load_working(weights.ema)
    model.save_pretrained(out / "autoencoder")
