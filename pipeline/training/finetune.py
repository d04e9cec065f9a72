"""`maquette finetune`: a LoRA on the multi-view transformer, from a user's own GLBs.

The networks stay as they are; rank-r additions to the linear layers of the transformer's blocks
(arXiv:2106.09685, through peft) learn with the loss of the model's own training. Part of the assets is held
out: the loss on them, before and after, says whether the LoRA learned a style or only these objects. What is
kept is the moving average of the weights.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.checkpoints import file_sha256
from pipeline.loras import (
    CARD,
    FORMAT,
    WEIGHTS,
    LoraAsset,
    LoraCard,
    checked_name,
    loras_directory,
    write_card,
)
from pipeline.models import revision_of, verified_model
from pipeline.training.own_assets import OwnAsset, build_cache, load_assets
from pipeline.training.train_transformer import (
    BatchSource,
    TransformerTraining,
    draw_noise_levels,
    flow_matching_loss,
    to_device,
    validation_loss,
)
from pipeline.training.weights import warmup_cosine
from render.errors import InputError
from render.progress import Progress, silent

if TYPE_CHECKING:
    from pipeline.multiview.pipeline import MultiViewPipeline
    from pipeline.multiview.text import TextEncoder

MIN_ASSETS = 3
CHECKPOINT = "training.safetensors"
_ADAPTER = "default"
_LAYERS = r"blocks\.\d+\.(attention\.(qkv|out|context_kv)|mlp_in|mlp_out|modulation)"
LICENCE = (
    "Made from the user's own assets, whose licences go on to hold; whoever shares this LoRA says what they "
    "allow."
)


@dataclass(frozen=True)
class FinetuneConfig:
    """Recipe of a LoRA."""

    minutes: float = 10.0
    """Of training, after rendering."""
    steps: int | None = None
    """Train this many steps instead, so that the same assets give the same LoRA."""
    rank: int = 16
    learning_rate: float = 1e-3
    views: int = 4
    """Per sample."""
    views_per_batch: int = 32
    held_out: float = 0.15
    """Share of the assets that are not trained on (at least one)."""
    ema_decay: float = 0.98
    size: int = 128
    seed: int = 0
    objective: TransformerTraining = field(default_factory=TransformerTraining)
    """Noise levels, dropout and reference share are the model's own; the rest of it is not used."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= 24 * 60:
            raise InputError(f"minutes must be between 0 and 1440, not {self.minutes:g}.")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps must be at least 1, not {self.steps}.")
        if not 1 <= self.rank <= 128:
            raise InputError(f"rank must be between 1 and 128, not {self.rank}.")
        if not 0 < self.learning_rate <= 0.1:
            raise InputError(f"learning_rate must be between 0 and 0.1, not {self.learning_rate:g}.")
        if not 0 < self.held_out < 0.9:
            raise InputError(f"held_out must be between 0 and 0.9, not {self.held_out:g}.")
        if not 1 <= self.views <= 8 or self.views_per_batch < self.views:
            raise InputError("views must be between 1 and 8, and views_per_batch at least as many.")


def finetune(
    files: Sequence[Path],
    name: str,
    *,
    captions: Path | None = None,
    out: Path | None = None,
    config: FinetuneConfig = FinetuneConfig(),
    resume: bool = False,
    model: Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> LoraCard:
    """Make the LoRA `name` of GLB `files` in the folder `out` (by default the user's own).

    `InputError` for assets that cannot be used, captions without a file, and a folder that is taken.
    """
    folder = (loras_directory() / checked_name(name)) if out is None else out
    check_folder(folder, resume)
    checked_name(name)
    require_peft()
    from pipeline.multiview.pipeline import load

    info = verified_model(model)
    assets = load_assets(files, captions, progress=_part(progress, 0.0, 0.05))
    if len(assets) < MIN_ASSETS:
        raise InputError(
            f"{len(assets)} asset{' is' if len(assets) == 1 else 's are'} too few to learn a style from; "
            f"give at least {MIN_ASSETS}, better 20."
        )
    pipeline = load(info.directory, device=device)
    return train_lora(
        assets, name, folder, pipeline, pipeline.text_encoder, info.name, revision_of(info.hashes), config,
        progress=progress,
    )  # fmt: skip


def require_peft() -> None:
    """`InputError` with the line that installs peft, when it is missing."""
    import importlib.util

    if importlib.util.find_spec("peft") is None:
        raise InputError("Fine-tuning needs peft. Install it with: pip install 'maquette[train]'")


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds something else than a LoRA to go on with."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder.")
    if (folder / CARD).is_file():
        raise InputError(f"{folder} holds a finished LoRA; choose another --name, or delete it.")
    begun = (folder / CHECKPOINT).is_file()
    if resume and not begun:
        raise InputError(f"There is nothing to resume in {folder}.")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        reason = (
            "an unfinished LoRA; give --resume to go on" if begun else "other files; choose another --out"
        )
        raise InputError(f"{folder} holds {reason}.")


def split_assets(
    assets: Sequence[OwnAsset], share: float, seed: int
) -> tuple[list[OwnAsset], list[OwnAsset]]:
    """Assets to train on, and held-out ones; by the seed, at least one each."""
    order = np.random.default_rng(seed).permutation(len(assets))
    count = min(len(assets) - 1, max(1, round(share * len(assets))))
    held = set(order[:count].tolist())
    return [a for i, a in enumerate(assets) if i not in held], [assets[i] for i in sorted(held)]


def add_lora(transformer: nn.Module, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Put a LoRA that changes nothing yet into the blocks; its parameters by name, fp32. Freezes the rest."""
    from peft import inject_adapter_in_model

    transformer.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(_peft_config(rank), transformer, adapter_name=_ADAPTER)
    parameters = {n: p for n, p in transformer.named_parameters() if "lora_" in n}
    assert parameters
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return parameters


def _peft_config(rank: int) -> object:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, target_modules=_LAYERS, bias="none")


@dataclass
class LoraState:
    """All that a stopped training goes on from."""

    parameters: dict[str, nn.Parameter]
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    steps: int = 0
    seconds: float = 0.0
    loss_before: float = float("nan")

    def save(self, path: Path, fingerprint: str) -> None:
        """Write safetensors, renamed into place."""
        tensors = {f"now.{n}": p.detach() for n, p in self.parameters.items()}
        tensors |= {f"ema.{n}": p for n, p in self.ema.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
        tensors["progress"] = torch.tensor([self.steps, self.seconds, self.loss_before], dtype=torch.float64)
        partial = path.with_suffix(".partial")
        save_file({n: t.contiguous() for n, t in tensors.items()}, partial, metadata={"of": fingerprint})
        partial.replace(path)

    def load(self, path: Path, fingerprint: str) -> None:
        """Go on from what `save` wrote; `InputError` when it was for other assets or another model."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("of") != fingerprint:
                raise InputError(
                    f"{path.parent} was begun with other assets, captions, settings or model; give those, "
                    "or another --name."
                )
        tensors = load_file(path)
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"now.{name}"])
            self.ema[name].copy_(tensors[f"ema.{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            if f"adam.step.{name}" in tensors:
                self.optimizer.state[parameter] = {k: tensors[f"adam.{k}.{name}"] for k in keys}
        steps, self.seconds, self.loss_before = tensors["progress"].tolist()
        self.steps = int(steps)

    def average(self) -> None:
        """Put the moving average into the network."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.ema[name])


def train_lora(
    assets: Sequence[OwnAsset],
    name: str,
    folder: Path,
    pipeline: MultiViewPipeline,
    encoder: TextEncoder,
    model_name: str,
    revision: str,
    config: FinetuneConfig,
    *,
    progress: Progress = silent,
) -> LoraCard:
    """Train on `assets` into `folder`, going on from a checkpoint that is there. Changes the pipeline's
    transformer."""
    training, held_out = split_assets(assets, config.held_out, config.seed)
    sources = []
    for part, (chosen, low, high) in enumerate(((training, 0.05, 0.2), (held_out, 0.2, 0.25))):
        cache = build_cache(
            chosen, pipeline, config.size, config.seed + part, progress=_part(progress, low, high)
        )
        sources.append(BatchSource(cache, encoder, config.objective, pipeline.lifter))
    source, validation = sources
    transformer = pipeline.transformer
    device, dtype = transformer.device, transformer.dtype
    parameters = add_lora(transformer, config.rank, config.seed)
    state = LoraState(
        parameters,
        {n: p.detach().clone() for n, p in parameters.items()},
        torch.optim.AdamW(list(parameters.values()), lr=config.learning_rate, weight_decay=0.01),
    )
    fingerprint = _fingerprint(assets, revision, config)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    if checkpoint.is_file():
        state.load(checkpoint, fingerprint)
    else:
        state.loss_before = _held_out_loss(transformer, validation, config, dtype)
    rng = np.random.default_rng([config.seed, state.steps])
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.steps)
    began, last_save = time.monotonic() - state.seconds, time.monotonic()
    count = config.views_per_batch // config.views
    while (fraction := _done(state, config)) < 1:
        progress(0.25 + 0.7 * fraction, f"training, step {state.steps}")
        batch = to_device(source.draw(count, config.views, source.draws_with_reference(rng), rng), device)
        sigma, clean = draw_noise_levels(count, config.views, config.objective, generator)
        noise = torch.randn(batch.latents.shape, generator=generator).to(device)
        loss = flow_matching_loss(transformer, batch, sigma.to(device), clean.to(device), noise, dtype)
        loss.backward()
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        warmup = min(1.0, (state.steps + 1) / 20)
        state.optimizer.param_groups[0]["lr"] = (
            config.learning_rate * warmup * warmup_cosine(int(fraction * 1000), 0, 1000)
        )
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.steps += 1
        state.seconds = time.monotonic() - began
        decay = min(config.ema_decay, (1 + state.steps) / (10 + state.steps))
        for key, parameter in parameters.items():
            state.ema[key].lerp_(parameter.detach(), 1 - decay)
        if time.monotonic() - last_save > 30:
            state.save(checkpoint, fingerprint)
            last_save = time.monotonic()
    state.save(checkpoint, fingerprint)
    state.average()
    progress(0.95, "measuring on held-out assets")
    after = _held_out_loss(transformer, validation, config, dtype)
    card = _written(folder, name, model_name, revision, config, state, training, held_out, after)
    checkpoint.unlink()
    progress(1.0)
    return card


def _done(state: LoraState, config: FinetuneConfig) -> float:
    if config.steps is not None:
        return state.steps / config.steps
    return state.seconds / (60 * config.minutes)


@torch.no_grad()
def _held_out_loss(
    transformer: nn.Module, source: BatchSource, config: FinetuneConfig, dtype: torch.dtype
) -> float:
    losses = validation_loss(transformer, source, config.objective, dtype)  # type: ignore[arg-type]
    return round(float(np.mean(list(losses.values()))), 4)


def _written(
    folder: Path,
    name: str,
    model_name: str,
    revision: str,
    config: FinetuneConfig,
    state: LoraState,
    training: Sequence[OwnAsset],
    held_out: Sequence[OwnAsset],
    loss_after: float,
) -> LoraCard:
    """Write the LoRA's files; the card last, since a folder without it is unfinished."""
    tensors = {
        "base_model.model." + key.replace(f".{_ADAPTER}.", "."): value.detach().cpu().contiguous()
        for key, value in state.parameters.items()
    }
    partial = folder / f"{WEIGHTS}.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / WEIGHTS)
    _peft_config(config.rank).save_pretrained(folder)  # type: ignore[attr-defined]
    card = LoraCard(
        format=FORMAT,
        name=name,
        model=model_name,
        revision=revision,
        rank=config.rank,
        alpha=float(config.rank),
        steps=state.steps,
        seed=config.seed,
        objects=tuple(LoraAsset(asset.name, asset.captions) for asset in (*training, *held_out)),
        held_out=tuple(asset.name for asset in held_out),
        loss_before=state.loss_before,
        loss_after=loss_after,
        weights_sha256=file_sha256(folder / WEIGHTS),
        licence=LICENCE,
    )
    staging = folder / ".card"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    write_card(card, staging)
    (staging / CARD).replace(folder / CARD)
    staging.rmdir()
    return card


def _fingerprint(assets: Sequence[OwnAsset], revision: str, config: FinetuneConfig) -> str:
    """Hash of what must be the same when a training goes on; its length may change."""
    import hashlib

    what = [
        revision, config.rank, config.learning_rate, config.views, config.views_per_batch, config.held_out,
        config.size, config.seed, [[a.name, *a.captions, len(a.scene.parts)] for a in assets],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _part(progress: Progress, low: float, high: float) -> Progress:
    """A part of a longer progress."""

    def scaled(fraction: float, message: str = "") -> None:
        progress(low + (high - low) * fraction, message)

    return scaled
