"""The latent cache: what the transformer trains on, made once per autoencoder.

For every training object: latents of views of the object as it is and of
augmented versions of it, reference pictures, and captions as token embeddings.
Stored as plain NumPy arrays, read by memory mapping. Several processes may each
make a shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.multiview.autoencoder import DOWNSAMPLING, GBufferAutoencoder
from pipeline.training.augment import (
    carried,
    carriers,
    mirrored,
    recolored,
    rematerialed,
    repainted,
    stood_on,
    stretched,
)
from pipeline.training.procedural import procedural_props
from pipeline.training.procedural.assemblies import assembly
from pipeline.training.props import Prop, captions, is_asked_for, load_props
from pipeline.training.views import (
    cameras_of,
    network_images,
    reference_azimuth,
    reference_picture,
    training_poses,
)
from pipeline.training.weights import working_dtype

VIEWS_PER_ITEM = 8
REFERENCES_PER_ITEM = 2
ASSEMBLY = -3


@dataclass(frozen=True)
class CacheConfig:
    """What goes into the latent cache."""

    size: int = 128
    augmented_share: float = 0.6
    """How many objects get, in each round, an item with other colours or another material."""
    rounds: int = 2
    """How often the pack is gone through. Every round has views of its own; from the second on, objects are
    mirrored or stretched."""
    compositions: int = 400
    """How many pairs of pack objects, one standing on the other."""
    procedural: int = 8000
    """How many objects of `pipeline/training/procedural` are added to the packs'."""
    assemblies: int = 3000
    """How many shapes without a name (`procedural.assemblies`), for learning from pictures alone."""
    seed: int = 0


@dataclass(frozen=True)
class Item:
    """What one row of the cache is made of."""

    prop: Prop
    object: int
    """Index in the pack; -1: a procedural object, -2: a composition, `ASSEMBLY`: a shape without a name."""
    augmented: bool


def _of_split(data: Path, split: str) -> list[Prop]:
    return [p for p in load_props(data) if p.split == split and (split == "val" or is_asked_for(p))]


def pack_items(
    data: Path, split: str, config: CacheConfig, *, round: int = 0, shard: int = 0, shards: int = 1
) -> Iterator[Item]:
    """The objects of the pack and augmented versions. Nature and food keep their colours mostly."""
    props = _of_split(data, split)
    rng = np.random.default_rng([config.seed, shard, *([round] if round else [])])
    for index in range(shard, len(props), shards):
        prop, changed_shape = props[index], False
        if round:
            prop = mirrored(prop) if rng.uniform() < 0.5 else prop
            changed_shape = bool(rng.uniform() < 0.6)
            prop = stretched(prop, rng) if changed_shape else prop
        yield Item(prop, index, changed_shape)
        share = config.augmented_share * (0.3 if prop.category in ("nature", "food", "character") else 1.0)
        if rng.uniform() < share:
            kinds = (recolored, rematerialed, repainted) if round else (recolored, rematerialed)
            yield Item(kinds[int(rng.uniform() * len(kinds))](prop, rng), index, True)


def composed_items(data: Path, config: CacheConfig) -> Iterator[Item]:
    """`config.compositions` pairs of training objects, one on the other."""
    props = _of_split(data, "train")
    below, above = carriers(props), carried(props)
    rng = np.random.default_rng([config.seed, 2_000])
    for _ in range(config.compositions if below and above else 0):
        lower, upper = below[rng.integers(len(below))], above[rng.integers(len(above))]
        yield Item(stood_on(upper, lower, rng), -2, False)


def procedural_items(config: CacheConfig) -> Iterator[Item]:
    """`config.procedural` objects of our own making."""
    for prop in procedural_props(config.procedural, np.random.default_rng([config.seed, 1_000])):
        yield Item(prop, -1, False)


def assembly_items(config: CacheConfig) -> Iterator[Item]:
    """`config.assemblies` shapes without a name."""
    rng = np.random.default_rng([config.seed, 3_000])
    for _ in range(config.assemblies):
        yield Item(assembly(rng), ASSEMBLY, False)


def build_shard(items: Iterable[Item], autoencoder: Path, stem: Path, config: CacheConfig) -> None:
    """Write the files `<stem>-*` of one shard; `stem` is such as `latents/train-0`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = working_dtype(device)
    model = (
        GBufferAutoencoder.from_pretrained(autoencoder).eval().to(device, memory_format=torch.channels_last)
    )
    for module in (model.encoder, model.material_encoder):
        module.to(dtype)
    rng = np.random.default_rng([config.seed, *stem.name.encode()])
    cells = config.size // DOWNSAMPLING
    latents, knowns, poses, references, azimuths, rows = [], [], [], [], [], []
    for item in items:
        item_poses = training_poses(VIEWS_PER_ITEM, rng)
        image, known = network_images(item.prop, cameras_of(item_poses, config.size))
        with torch.no_grad():
            encoded = model.encode(
                torch.from_numpy(image).to(device, dtype, memory_format=torch.channels_last)
            )
        latents.append(encoded.half().cpu().numpy())
        blocks = known.reshape(len(known), cells, DOWNSAMPLING, cells, DOWNSAMPLING)
        knowns.append(blocks.min((2, 4)) > 0.5)
        poses.append([[p.azimuth_deg, p.elevation_deg] for p in item_poses])
        item_azimuths = [reference_azimuth(rng) for _ in range(REFERENCES_PER_ITEM)]
        references.append(
            np.stack([reference_picture(item.prop, a, config.size, rng) for a in item_azimuths])
        )
        azimuths.append(item_azimuths)
        rows.append({"captions": captions(item.prop), "category": item.prop.category, "pack": item.prop.pack,
                     "object": item.object, "augmented": item.augmented})  # fmt: skip
    stem.parent.mkdir(parents=True, exist_ok=True)
    np.save(f"{stem}-latents.npy", np.stack(latents))
    np.save(f"{stem}-known.npy", np.stack(knowns))
    np.save(f"{stem}-poses.npy", np.array(poses, np.float32))
    np.save(f"{stem}-references.npy", np.stack(references))
    np.save(f"{stem}-azimuths.npy", np.array(azimuths, np.float32))
    Path(f"{stem}-items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


@dataclass(frozen=True)
class LatentCache:
    """The shards of a split, memory-mapped. An item is (shard, row)."""

    latents: list[NDArray[np.float16]]
    known: list[NDArray[np.bool_]]
    poses: list[NDArray[np.float32]]
    references: list[NDArray[np.uint8]]
    azimuths: list[NDArray[np.float32]]
    items: list[list[dict[str, object]]]

    @staticmethod
    def open(folder: Path, split: str) -> LatentCache:
        stems = sorted(str(p).removesuffix("-items.jsonl") for p in folder.glob(f"{split}-*-items.jsonl"))

        def arrays(name: str) -> list[NDArray]:  # type: ignore[type-arg]
            return [np.load(f"{stem}-{name}.npy", mmap_mode="r") for stem in stems]

        rows = [
            [
                json.loads(line)
                for line in Path(f"{stem}-items.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            for stem in stems
        ]
        return LatentCache(
            arrays("latents"),
            arrays("known"),
            arrays("poses"),
            arrays("references"),
            arrays("azimuths"),
            rows,
        )

    def index(self) -> list[tuple[int, int]]:
        """Every item."""
        return [(s, r) for s, rows in enumerate(self.items) for r in range(len(rows))]
