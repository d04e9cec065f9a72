"""The whole training of the shipped model: autoencoder, lifter, volume, latents, critic, transformer.

    maquette train configs/train/props.yaml --out runs/props [--resume]

Each part that is finished is not done again; an unfinished one resumes from its
checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from pipeline.config import build, read_yaml
from pipeline.training.latents import CacheConfig
from pipeline.training.train_autoencoder import AutoencoderTraining
from pipeline.training.train_critic import CriticTraining
from pipeline.training.train_lifter import LifterTraining
from pipeline.training.train_transformer import TransformerTraining
from pipeline.training.train_volume import VolumeTraining
from render.errors import InputError


@dataclass(frozen=True)
class TrainingConfig:
    """A recipe."""

    data: str
    """Path of the pack without its endings, relative to the working directory."""
    start_from: str | None = None
    """Folder of a trained pipeline that a new run goes on from, with optimisers that begin anew. Its
    autoencoder stays, or is trained on where it has a `latent_drift_weight`, so that latents stay near what
    they are; its lifter, its volume network and its transformer are trained on, and a critic is trained, but
    for what is in `keep`."""
    keep: tuple[str, ...] = ()
    """Of `start_from`, what stays as it is: `lifter`, `volume`, `critic`, `transformer`."""
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    lifter: LifterTraining = field(default_factory=LifterTraining)
    volume: VolumeTraining = field(default_factory=VolumeTraining)
    latents: CacheConfig = field(default_factory=CacheConfig)
    critic: CriticTraining = field(default_factory=lambda: CriticTraining(width=40, steps=1800, seed=1))
    """Smaller than the benches' judge, which it must not be like."""
    transformer: TransformerTraining = field(default_factory=TransformerTraining)


def run(config_path: Path, *, out: Path, resume: bool = False, device: str = "auto") -> None:
    """Train by the recipe into `out`; the finished pipeline is `out/pipeline`."""
    from pipeline.training.latents import (
        assembly_items,
        build_shard,
        composed_items,
        pack_items,
        procedural_items,
    )
    from pipeline.training.train_autoencoder import train_autoencoder
    from pipeline.training.train_lifter import train_lifter
    from pipeline.training.train_transformer import train_transformer
    from pipeline.training.train_volume import train_volume

    config = build(TrainingConfig, read_yaml(config_path))
    data = Path(config.data)
    if out.exists() and any(out.iterdir()) and not resume:
        raise InputError(f"{out} is not empty; give --resume to go on from it, or another --out.")
    if wrong := set(config.keep) - {"lifter", "volume", "critic", "transformer"}:
        raise InputError(f"keep: {min(wrong)!r} is none of lifter, volume, critic, transformer.")
    if config.keep and config.start_from is None:
        raise InputError("keep: there is nothing to keep without start_from.")
    if config.autoencoder.latent_drift_weight and config.start_from is None:
        raise InputError(
            "autoencoder.latent_drift_weight: there are no latents to stay near without start_from."
        )
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    start = None if config.start_from is None else Path(config.start_from)
    for part in config.keep:
        if start is not None and not (out / part).is_dir():
            if not (start / part).is_dir():
                raise InputError(f"keep: {start} has no {part}.")
            shutil.copytree(start / part, out / part)
    if start is not None and not (out / "autoencoder").is_dir():
        if not (start / "transformer").is_dir() or not (start / "autoencoder").is_dir():
            raise InputError(f"start_from: {start} is not a pipeline with an autoencoder and a transformer.")
        if config.autoencoder.latent_drift_weight:
            train_autoencoder(data, out, config.autoencoder, where, start_from=start / "autoencoder")
        else:
            shutil.copytree(start / "autoencoder", out / "autoencoder")
    if not (out / "autoencoder").is_dir():
        train_autoencoder(data, out, config.autoencoder, where)
    if not (out / "lifter").is_dir():
        known = start / "lifter" if start is not None and (start / "lifter").is_dir() else None
        train_lifter(data, out, config.lifter, where, start_from=known)
    if not (out / "volume").is_dir():
        known = start / "volume" if start is not None and (start / "volume").is_dir() else None
        train_volume(data, out, config.volume, where, start_from=known)
    if not (out / "critic").is_dir():
        critic(data, out, config)
    if "transformer" in config.keep:
        package(data, out, out / "pipeline", config.latents)
        return
    cache = out / "latents"
    # Generators: nothing of a shard is made before it is asked for.
    shards = {
        "val-0": pack_items(data, "val", config.latents),
        **{
            f"train-{i}": pack_items(data, "train", config.latents, round=i)
            for i in range(config.latents.rounds)
        },
        "train-composed": composed_items(data, config.latents),
        "train-procedural": procedural_items(config.latents),
        "train-assemblies": assembly_items(config.latents),
    }
    for name, items in shards.items():
        if not (cache / f"{name}-items.jsonl").is_file():
            build_shard(items, out / "autoencoder", cache / name, config.latents)
    train_transformer(
        cache,
        out,
        config.transformer,
        where,
        lifter=out / "lifter",
        start_from=start and start / "transformer",
    )
    package(data, out, out / "pipeline", config.latents)


def critic(data: Path, out: Path, config: TrainingConfig) -> None:
    """Train the critic on the objects that the model learns, into `out/critic`."""
    from pipeline.multiview.critic import ViewCritic
    from pipeline.multiview.text import TextEncoder
    from pipeline.training.latents import procedural_items
    from pipeline.training.props import is_asked_for, load_props
    from pipeline.training.train_critic import train_critic

    packed = [p for p in load_props(data) if p.split == "train" and is_asked_for(p)]
    made = [item.prop for item in procedural_items(replace(config.latents, procedural=len(packed)))]
    trained = train_critic([*packed, *made], TextEncoder(), config.critic)
    model = ViewCritic(config.critic.width)
    model.load_state_dict(trained.state_dict())
    model.save_pretrained(out / "critic")


def package(data: Path, run_folder: Path, folder: Path, latents: CacheConfig) -> None:
    """Put the trained networks together as a pipeline in fp16, with the names that it knows."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from pipeline.multiview.autoencoder import GBufferAutoencoder
    from pipeline.multiview.critic import ViewCritic
    from pipeline.multiview.domain import Domain
    from pipeline.multiview.lifter import PictureLifter
    from pipeline.multiview.pipeline import MultiViewPipeline, save
    from pipeline.multiview.text import TextEncoder
    from pipeline.multiview.transformer import MultiViewTransformer
    from pipeline.multiview.volume import PictureVolume
    from pipeline.training.latents import procedural_items
    from pipeline.training.props import captions, is_asked_for, load_props

    packed = [p for p in load_props(data) if p.split == "train" and is_asked_for(p)]
    names = [captions(p)[0] for p in packed] + [captions(item.prop)[0] for item in procedural_items(latents)]
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    Domain.build(names, TextEncoder()).save(partial)
    pipeline = MultiViewPipeline(
        GBufferAutoencoder.from_pretrained(run_folder / "autoencoder"),
        MultiViewTransformer.from_pretrained(run_folder / "transformer"),
        FlowMatchEulerDiscreteScheduler(shift=SAMPLING_SHIFT),
        PictureLifter.from_pretrained(run_folder / "lifter"),
        PictureVolume.from_pretrained(run_folder / "volume"),
        ViewCritic.from_pretrained(run_folder / "critic"),
    )
    save(pipeline, partial)
    for file in partial.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
    # File by file: a model card that is already in the folder stays.
    shutil.copytree(partial, folder, dirs_exist_ok=True)
    shutil.rmtree(partial)


SAMPLING_SHIFT = 2.0
"""Noise-level shift of the sampling schedule, as in training."""
