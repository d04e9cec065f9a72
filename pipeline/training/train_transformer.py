"""Trains the multi-view transformer on the latent cache: flow matching with classifier-free dropout.

Some batches carry a reference picture; the world is then turned so that the
picture was taken from azimuth 0, and what the lifter makes of the picture
stands beside the views as a clean one, with its errors, as in use. In some samples
part of the views is given clean, which teaches to draw further views of a finished
object. The learning rate stays constant and falls at the end of a planned run; a later run resumes
from before the fall.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.multiview.autoencoder import MATERIAL_LATENTS
from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.lifter_network import Framing, LifterNetwork
from pipeline.multiview.text import TextEncoder
from pipeline.multiview.transformer import PATCH, MultiViewTransformer, ray_features
from pipeline.training.latents import ASSEMBLY, LatentCache
from pipeline.training.views import premultiplied
from pipeline.training.weights import MasterWeights, append_row, working_dtype
from render.cameras import Cameras, orbit_pose

VALIDATION_SHIFT = 2.0
VALIDATION_CLEAN = 0.4
"""Part of the samples in which some views have no noise; they count like the others."""


@dataclass(frozen=True)
class TransformerTraining:
    """Recipe of the diffusion transformer."""

    minutes: float = 110.0
    """Planned length; curriculum and final fall of the learning rate follow the clock."""
    curriculum: tuple[tuple[float, tuple[int, ...]], ...] = ((0.4, (2, 4)), (0.75, (4, 8)), (1.0, (8,)))
    """(until this fraction of the run, numbers of views per sample that batches are drawn with).

    Eight views cost a tenth more time than four, as a batch has the same number of views, and teach that all
    ten of a rig agree.
    """
    views_per_batch: int = 64
    learning_rate: float = 8e-4
    muon_learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    fall: float = 0.25
    """The last part of the run in which the learning rate falls to zero."""
    ema_decay: float = 0.998
    reference_share: float = 0.35
    text_dropout: float = 0.1
    text_dropout_beside_reference: float = 0.5
    clean_views_share: float = 0.4
    noise_shift: float = 3.0
    """Shifts the logit-normal noise levels upwards (arXiv:2403.03206, Eq. 23): views are redundant."""
    common: tuple[str, ...] = ()
    """Words whose objects are drawn more often."""
    common_weight: float = 2.5
    augmented_weight: float = 0.5
    procedural_weight: float = 1.5
    """Of procedural objects: the things that are asked for most, and named the way they are asked for."""
    assembly_weight: float = 2.5
    """Of shapes without a name, in batches with a reference picture."""
    width: int = 256
    depth: int = 12
    heads: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Training tensors; `b` samples of `v` views."""

    latents: Tensor
    loss_mask: Tensor
    """[b, v, c, h, w]: 0 for material latents where the material is unknown."""
    rays: Tensor
    """[b, v, n, f]; of v + 1 views with a lifted one, which is the last."""
    text: Tensor
    lifted: Tensor | None = None
    """[b, 1, c, h, w]: a reference picture as a view, clean, which takes no part in the loss."""


class BatchSource:
    """Draws batches from a latent cache."""

    def __init__(
        self,
        cache: LatentCache,
        encoder: TextEncoder,
        config: TransformerTraining,
        lifter: LifterNetwork | None,
    ) -> None:
        """Without a `lifter` there are no batches with reference pictures."""
        self.cache, self.config, self.lifter = cache, config, lifter
        self.index = cache.index()
        rows = [cache.items[s][r] for s, r in self.index]
        texts = sorted({str(c) for row in rows for c in row["captions"]})  # type: ignore[attr-defined]
        self.embeddings = encoder.tokens(texts).half()
        place = {text: i for i, text in enumerate(texts)}
        self.captions = [[place[str(c)] for c in row["captions"]] for row in rows]  # type: ignore[attr-defined]
        weight = np.array([self._weight(row) for row in rows])
        named = weight * np.array([row["object"] != ASSEMBLY for row in rows])
        # What has no name can only be told by a picture.
        self.probability = {True: weight / weight.sum(), False: named / named.sum()}

    def _weight(self, row: dict[str, object]) -> float:
        if row["object"] == -1:
            return self.config.procedural_weight
        if row["object"] == ASSEMBLY:
            return self.config.assembly_weight
        words = set(str(row["captions"][0]).split())  # type: ignore[index]
        weight = self.config.common_weight if words & set(self.config.common) else 1.0
        return weight * (self.config.augmented_weight if row["augmented"] else 1.0)

    def draw(self, count: int, views: int, with_reference: bool, rng: np.random.Generator) -> Batch:
        """`count` random samples; `with_reference` with what the lifter makes of pictures beside them."""
        config = self.config
        latents, known, poses, text, pictures = [], [], [], [], []
        for chosen in rng.choice(len(self.index), count, p=self.probability[with_reference]):
            shard, row = self.index[chosen]
            pick = rng.choice(self.cache.latents[shard].shape[1], views, replace=False)
            latents.append(self.cache.latents[shard][row][pick])
            known.append(self.cache.known[shard][row][pick])
            pose = self.cache.poses[shard][row][pick].copy()
            if with_reference:
                which = rng.integers(self.cache.references[shard].shape[1])
                pose[:, 0] -= self.cache.azimuths[shard][row][which]
                pictures.append(self.cache.references[shard][row][which])
            poses.append(pose)
            drop = config.text_dropout_beside_reference if with_reference else config.text_dropout
            caption = self.captions[chosen][rng.integers(len(self.captions[chosen]))]
            embedding = self.embeddings[caption].float()
            text.append(torch.zeros_like(embedding) if rng.uniform() < drop else embedding)
        x = torch.from_numpy(np.stack(latents)).float()
        mask = torch.ones_like(x)
        mask[:, :, -MATERIAL_LATENTS:] = torch.from_numpy(np.stack(known))[:, :, None].float()
        all_poses = np.stack(poses)
        lifted = None
        if with_reference:
            assert self.lifter is not None
            lifted, heights = lifted_views(self.lifter, premultiplied(np.stack(pictures)))
            front = np.stack([np.zeros_like(heights), heights], -1)[:, None]
            all_poses = np.concatenate([all_poses, front], 1)
        rays = rays_of(all_poses, x.shape[-1] // PATCH)
        return Batch(x, mask, rays, torch.stack(text), lifted)

    def draws_with_reference(self, rng: np.random.Generator) -> bool:
        """Whether the next batch has reference pictures."""
        return bool(rng.uniform() < self.config.reference_share) and self.lifter is not None


@torch.no_grad()
def lifted_views(
    lifter: LifterNetwork, pictures: Float[Tensor, "b 4 s s"]
) -> tuple[Float[Tensor, "b 1 c h w"], np.ndarray]:
    """Pictures as views from azimuth 0, and the elevations in degrees [b] that the lifter believes."""
    pictures = pictures.to(next(lifter.parameters()).device)
    features = lifter.features(pictures)
    framing = lifter.framing(pictures, features)
    heights = torch.rad2deg(Framing.from_tensor(framing).elevation_rad)
    return lifter(pictures, features, framing)[:, None].cpu(), heights.cpu().numpy()


def rays_of(poses: np.ndarray, cells: int) -> Tensor:
    """Ray features [b, v, cells^2, f] of generated views at (azimuth, elevation) degrees [b, v, 2]."""
    flat = torch.from_numpy(poses.reshape(-1, 2)).float()
    intrinsics = torch.tensor([[cells / 2.0] * 4]).expand(len(flat), -1)
    cameras = Cameras(orbit_pose(flat[:, 0], flat[:, 1]), intrinsics, cells, cells)
    features = ray_features(cameras, cells, cells)
    return features.view(*poses.shape[:2], *features.shape[1:])


def flow_matching_loss(
    model: MultiViewTransformer, batch: Batch, sigma: Tensor, clean: Tensor, noise: Tensor, dtype: torch.dtype
) -> Tensor:
    """Mean squared error of the velocity on the views that are not clean; `sigma` is [b, v]."""
    level = sigma[:, :, None, None, None]
    noisy = (1 - level) * batch.latents + level * noise
    context = model.context(batch.text.to(dtype))
    if batch.lifted is not None:
        noisy = torch.cat([noisy, batch.lifted], 1)
        sigma = torch.cat([sigma, sigma.new_zeros(len(sigma), 1)], 1)
    velocity = model(noisy.to(dtype), sigma, batch.rays.to(dtype), context).float()
    velocity = velocity[:, : batch.latents.shape[1]]
    weight = batch.loss_mask * (1 - clean)[:, :, None, None, None]
    error = (velocity - (noise - batch.latents)).square()
    return (weight * error).sum() / weight.sum().clamp_min(1)


def draw_noise_levels(
    count: int, views: int, config: TransformerTraining, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noise level of each view and which views are clean, both [b, v]."""
    normal = torch.randn(count, 1, generator=generator)
    level = torch.sigmoid(normal)
    level = config.noise_shift * level / (1 + (config.noise_shift - 1) * level)
    sigma = level.expand(count, views)
    given = torch.rand(count, 1, generator=generator) < config.clean_views_share
    order = torch.rand(count, views, generator=generator).argsort(1)
    how_many = torch.randint(1, max(2, views), (count, 1), generator=generator)
    clean = (given & (order < how_many)).float()
    return sigma * (1 - clean), clean


@torch.no_grad()
def validation_loss(
    model: MultiViewTransformer, source: BatchSource, config: TransformerTraining, dtype: torch.dtype
) -> dict[str, float]:
    """Loss on objects that are never trained on, at fixed noise: without a reference picture, and beside the
    lifter's view of one.

    The noise levels are the same whatever the recipe, so that runs can be compared.
    """
    config = replace(config, noise_shift=VALIDATION_SHIFT, clean_views_share=VALIDATION_CLEAN)
    out = {}
    arms = {"val_text": False} if source.lifter is None else {"val_text": False, "val_lifted": True}
    for name, with_reference in arms.items():
        rng, generator = np.random.default_rng(11), torch.Generator().manual_seed(11)
        losses = []
        for _ in range(3):
            batch = to_device(source.draw(16, 4, with_reference, rng), model.device)
            sigma, clean = draw_noise_levels(16, 4, config, generator)
            noise = torch.randn(batch.latents.shape, generator=generator)
            sigma, counted, noise = (x.to(model.device) for x in (sigma, 0 * clean, noise))
            loss = flow_matching_loss(model, batch, sigma, counted, noise, dtype)
            losses.append(float(loss))
        out[name] = round(float(np.mean(losses)), 4)
    return out


def to_device(batch: Batch, device: torch.device) -> Batch:
    moved = {name: x.to(device) for name, x in vars(batch).items() if x is not None}
    return replace(batch, **moved)


def uses_muon(name: str, parameter: Tensor) -> bool:
    """The matrices inside the blocks; embeddings, modulation and output keep AdamW."""
    parts = set(name.split("."))
    return parameter.ndim == 2 and "blocks" in parts and not {"modulation", "sight"} & parts


def train_transformer(
    cache: Path,
    out: Path,
    config: TransformerTraining,
    device: torch.device,
    *,
    lifter: Path | None = None,
    start_from: Path | None = None,
) -> None:
    """Train into `out`, beside views of the saved `lifter`; writes `transformer/` (EMA weights) and
    `transformer.jsonl`.

    Resumes from the checkpoint in `out`; where there is none, goes on from the saved model
    `start_from`, whose sizes then count instead of the recipe's.
    """
    out.mkdir(parents=True, exist_ok=True)
    encoder = TextEncoder()
    dtype = working_dtype(device)
    lifting = None
    if lifter is not None:
        lifting = PictureLifter.from_pretrained(lifter, dtype=dtype).eval().to(device)
        lifting.to(memory_format=torch.channels_last)
    source = BatchSource(LatentCache.open(cache, "train"), encoder, config, lifting)
    validation = BatchSource(LatentCache.open(cache, "val"), encoder, config, lifting)
    del encoder
    torch.manual_seed(config.seed)
    if start_from is None:
        model = MultiViewTransformer(width=config.width, depth=config.depth, heads=config.heads).to(device)
    else:
        model = MultiViewTransformer.from_pretrained(start_from).float().to(device)
    weights = MasterWeights(
        model,
        use_muon=uses_muon,
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=config.weight_decay,
        ema_decay=config.ema_decay,
    )
    checkpoint = out / "transformer.safetensors"
    if checkpoint.exists():
        weights.load(checkpoint)
    weights.cast(dtype)
    rng = np.random.default_rng([config.seed, weights.steps])
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + weights.steps)
    start = last_save = time.monotonic()
    first, samples, running = weights.steps, 0, 0.0
    while (fraction := (time.monotonic() - start) / max(config.minutes * 60, 1e-9)) < 1:
        views = int(rng.choice(next(v for until, v in config.curriculum if fraction <= until)))
        count = config.views_per_batch // views
        batch = to_device(source.draw(count, views, source.draws_with_reference(rng), rng), device)
        sigma, clean = draw_noise_levels(count, views, config, generator)
        noise = torch.randn(batch.latents.shape, generator=generator).to(device)
        loss = flow_matching_loss(model, batch, sigma.to(device), clean.to(device), noise, dtype)
        loss.backward()
        warmup = min(1.0, (weights.steps - first + 1) / config.warmup_steps)
        weights.step(warmup * min(1.0, (1 - fraction) / config.fall))
        samples += count
        running += (float(loss.detach()) - running) * max(0.02, 1 / (weights.steps - first))
        if weights.steps % 250 == 0:
            weights.load_working(weights.ema)
            row = {"step": weights.steps, "seconds": round(time.monotonic() - start), "samples": samples,
                   "views": views, "loss": round(running, 4)}  # fmt: skip
            row |= validation_loss(model, validation, config, dtype)
            weights.load_working(weights.masters)
            append_row(out / "transformer.jsonl", row)
        if time.monotonic() - last_save > 300:
            # Once the rate falls, the checkpoint to resume from stays as it was, at full rate.
            falling = 1 - fraction < config.fall
            weights.save(out / "transformer-falling.safetensors" if falling else checkpoint)
            save_ema(model, weights, out)
            last_save = time.monotonic()
    weights.save(out / "transformer-falling.safetensors")
    save_ema(model, weights, out)


def save_ema(model: MultiViewTransformer, weights: MasterWeights, out: Path) -> None:
    """Write the EMA weights as a diffusers model, fp32."""
    twin = MultiViewTransformer.from_config(model.config)
    twin.load_state_dict(
        {n: p.reshape(dict(twin.named_parameters())[n].shape) for n, p in weights.ema.items()}
    )
    twin.save_pretrained(out / "transformer")
