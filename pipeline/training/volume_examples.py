"""What the volume network learns from: pictures as the finished lifter reads them, and what they show.

Made once, by batches, each a file of its own, by processes beside one another; a run that was stopped goes
on with those that lack. Pictures are made and read as in use: laid over by the lifter's own estimate of their
framing. The targets are the true objects, upright, facing where the pictures were taken from.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import CELLS, Volume
from pipeline.training.props import load_props
from pipeline.training.train_lifter import objects, taken
from pipeline.training.volumes import VolumeTargets, carved, volume_targets
from pipeline.training.weights import working_dtype


@dataclass(frozen=True)
class VolumeExamples:
    """Which pictures the volume network learns from."""

    batches: int = 1800
    objects_per_batch: int = 8
    pictures_per_object: int = 2
    size: int = 128
    well_exposed_share: float = 0.6
    """Of the pictures; see `views.lit_picture`."""
    procedural_share: float = 0.15
    assembly_share: float = 0.05
    stretched_share: float = 0.3
    """Of the objects of the packs. More would take from what is known of things: how deep they are."""
    workers: int = 2
    """Processes that make them; 0: none beside the run's own."""
    seed: int = 0
    """Another seed makes other pictures: what was learned from before teaches little."""


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

    def to(self, device: torch.device) -> Reading:
        """On the device."""
        return Reading(*(getattr(self, field.name).to(device) for field in fields(self)))

    def volume(self, network: PictureVolume) -> Volume:
        """What the network finds."""
        return network(self.tokens, self.latents, (self.seen,), self.framing)


class ExampleMaker:
    """Makes batches, any of them at any time."""

    def __init__(self, data: Path, lifter: Path, config: VolumeExamples) -> None:
        self._config = config
        self._lifter = PictureLifter.from_pretrained(lifter, dtype=working_dtype(torch.device("cpu"))).eval()
        # Modular tiles and parts too: they have shapes, if no names that anybody asks for.
        self._packed = [p for p in load_props(data) if p.split == "train"]

    def batch(self, number: int) -> tuple[Reading, VolumeTargets]:
        """The batch of a number."""
        config, rng = self._config, np.random.default_rng([self._config.seed, number])
        source = objects(
            self._packed, config.procedural_share, config.assembly_share, rng, config.stretched_share
        )
        props = list(itertools.islice(source, config.objects_per_batch))
        count = config.pictures_per_object
        pictures = [
            taken(prop, config.size, rng, config.well_exposed_share) for prop in props for _ in range(count)
        ]
        reading = Reading.of(self._lifter, torch.stack([p.picture for p in pictures]))
        azimuths = [p.azimuth_deg for p in pictures]
        targets = [volume_targets(carved(p), azimuths[i * count :][:count]) for i, p in enumerate(props)]
        return reading, VolumeTargets(
            torch.cat([t.occupied for t in targets]),
            torch.cat([t.surface for t in targets]),
            torch.cat([t.weight for t in targets]),
        )


def save_batch(path: Path, reading: Reading, targets: VolumeTargets) -> None:
    """A third of a megabyte a picture: yes and no in bits, colours in bytes, renamed into place."""
    tensors = {
        "tokens": reading.tokens.bfloat16(),
        "latents": reading.latents.bfloat16(),
        "seen": reading.seen.bfloat16(),
        "framing": reading.framing.float(),
        "occupied": _packed_bits(targets.occupied),
        "surface": ((targets.surface.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8),
        "weight": _packed_bits(targets.weight),
    }
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def load_batch(path: Path) -> tuple[Reading, VolumeTargets]:
    """What `save_batch` wrote."""
    found = load_file(path)
    reading = Reading(found["tokens"], found["latents"].float(), found["seen"], found["framing"])
    surface = found["surface"].float() / 127.5 - 1
    return reading, VolumeTargets(
        _unpacked(found["occupied"], (CELLS,) * 3), surface, _unpacked(found["weight"], surface.shape[1:])
    )


def _packed_bits(values: Float[Tensor, "b ..."]) -> UInt8[Tensor, "b _"]:
    return torch.from_numpy(np.packbits(values.flatten(1).numpy() > 0.5, axis=1))


def _unpacked(bits: UInt8[Tensor, "b _"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1)).float().view(len(bits), *shape)


def _make(data: Path, lifter: Path, folder: Path, config: VolumeExamples, worker: int) -> None:
    torch.set_num_threads(1)
    maker = None
    for number in range(worker, config.batches, max(1, config.workers)):
        path = folder / f"{number:05d}.safetensors"
        if not path.exists():
            maker = maker or ExampleMaker(data, lifter, config)
            save_batch(path, *maker.batch(number))


def make_examples(data: Path, lifter: Path, folder: Path, config: VolumeExamples) -> list[Path]:
    """The files of all batches, in `folder`; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    make = partial(_make, data, lifter, folder, config)
    if config.workers:
        with ProcessPoolExecutor(config.workers, multiprocessing.get_context("spawn")) as processes:
            list(processes.map(make, range(config.workers)))
    else:
        make(0)
    return [folder / f"{number:05d}.safetensors" for number in range(config.batches)]
