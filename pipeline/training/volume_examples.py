"""What the volume network learns from: pictures as the finished lifter reads them, and what they show.

Made without end by processes beside the one that learns, and used once: what was seen before teaches little.
Pictures are made and read as in use: laid over by the lifter's own estimate of their framing. The targets are
the true objects, upright, facing where the pictures were taken from.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load, save
from torch import Tensor

from pipeline.multiview.lifter import PictureLifter
from pipeline.multiview.volume import PictureVolume
from pipeline.multiview.volume_network import CELLS, Volume
from pipeline.training.props import load_props
from pipeline.training.train_lifter import objects, taken
from pipeline.training.volumes import VolumeTargets, carved, volume_targets
from pipeline.training.weights import working_dtype

_AHEAD = 8
"""Batches that wait, of each worker."""


@dataclass(frozen=True)
class VolumeExamples:
    """Which pictures the volume network learns from."""

    objects_per_batch: int = 8
    pictures_per_object: int = 2
    size: int = 128
    well_exposed_share: float = 0.6
    """Of the pictures; see `views.lit_picture`."""
    procedural_share: float = 0.15
    assembly_share: float = 0.05
    stretched_share: float = 0.3
    """Of the objects of the packs. More would take from what is known of things: how deep they are."""
    warped_share: float = 0.5
    """Of the objects of the packs (`augment.warped`): shapes that neither network knows by heart."""
    workers: int = 1
    """Processes that make them, each as fast as one core learns; 0: none beside the run's own."""
    seed: int = 0
    """A run that goes on from finished weights needs another one, lest it see their pictures again."""


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
            self._packed,
            config.procedural_share,
            config.assembly_share,
            rng,
            config.stretched_share,
            config.warped_share,
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


def to_bytes(reading: Reading, targets: VolumeTargets) -> bytes:
    """A third of a megabyte a picture: yes and no in bits, colours in bytes."""
    tensors = {
        "tokens": reading.tokens.bfloat16(),
        "latents": reading.latents.bfloat16(),
        "seen": reading.seen.bfloat16(),
        "framing": reading.framing.float(),
        "occupied": _packed_bits(targets.occupied),
        "surface": ((targets.surface.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8),
        "weight": _packed_bits(targets.weight),
    }
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def from_bytes(data: bytes) -> tuple[Reading, VolumeTargets]:
    """The inverse of `to_bytes`."""
    found = load(data)
    reading = Reading(found["tokens"], found["latents"].float(), found["seen"], found["framing"])
    surface = found["surface"].float() / 127.5 - 1
    return reading, VolumeTargets(
        _unpacked(found["occupied"], (CELLS,) * 3), surface, _unpacked(found["weight"], surface.shape[1:])
    )


def _packed_bits(values: Float[Tensor, "b ..."]) -> UInt8[Tensor, "b _"]:
    return torch.from_numpy(np.packbits(values.flatten(1).numpy() > 0.5, axis=1))


def _unpacked(bits: UInt8[Tensor, "b _"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1)).float().view(len(bits), *shape)


_maker: ExampleMaker | None = None
"""Of a worker's process."""


def _begin(data: Path, lifter: Path, config: VolumeExamples) -> None:
    global _maker
    torch.set_num_threads(1)
    _maker = ExampleMaker(data, lifter, config)


def _made(number: int) -> bytes:
    assert _maker is not None
    return to_bytes(*_maker.batch(number))


def examples(
    data: Path, lifter: Path, config: VolumeExamples, first: int = 0
) -> Generator[tuple[Reading, VolumeTargets], None, None]:
    """The batches from number `first` on, without end and in order. Close it to end the workers."""
    if not config.workers:
        maker = ExampleMaker(data, lifter, config)
        for number in itertools.count(first):
            yield from_bytes(to_bytes(*maker.batch(number)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.workers, context, _begin, (data, lifter, config)) as workers:
        coming: deque[Future[bytes]] = deque()
        try:
            for number in itertools.count(first):
                coming.append(workers.submit(_made, number))
                if len(coming) > _AHEAD * config.workers:
                    yield from_bytes(coming.popleft().result())
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
