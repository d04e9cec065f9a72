"""What the critic (and the benches' judge) sees and is told: renders of training objects with true captions.

Each object is shown as it is and once changed: recoloured, made of another material
(`pipeline.training.augment`), or painted in one colour and material of the palette, so that it learns
what colours and materials are on every object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.color_names import COLORS
from pipeline.multiview.codec import ALPHA, COLOR, METALLIC, ROUGHNESS
from pipeline.multiview.critic_network import SIZE
from pipeline.training.augment import recolored, rematerialed
from pipeline.training.props import Prop, captions, clean_caption
from pipeline.training.views import Pose, cameras_of, network_images
from render.progress import Progress, silent

RING = tuple(Pose(azimuth, 15.0) for azimuth in (0.0, 90.0, 180.0, 270.0))
SURFACES: tuple[tuple[str, float, float], ...] = (
    ("", 0.0, 0.75), ("metal", 1.0, 0.40), ("plastic", 0.0, 0.40), ("wooden", 0.0, 0.80),
    ("stone", 0.0, 0.90),
)  # fmt: skip
"""Words, metallic and roughness of painted objects."""


def greyed(image: Float[Tensor, "v 10 H W"]) -> Float[Tensor, "v 10 H W"]:
    """Views in one grey of unknown material: what is left is the shape."""
    out = image.clone()
    cover = image[:, ALPHA] > -1
    grey = torch.tensor(COLORS["grey"], dtype=image.dtype).view(1, 3, 1, 1) / 127.5 - 1
    out[:, COLOR] = grey * cover
    out[:, METALLIC] = 0
    out[:, ROUGHNESS] = 0
    return out


def painted(prop: Prop, generator: np.random.Generator) -> tuple[Prop, list[str]]:
    """The object in one colour and material, and captions of it in others (which are false)."""
    names = list(COLORS)
    name = " ".join(w for w in clean_caption(prop.caption).split() if w not in " ".join(names).split())
    color, surface = names[generator.integers(len(names))], SURFACES[generator.integers(len(SURFACES))]
    light = prop.colors.astype(np.float32).mean(1, keepdims=True) / 255
    gain = 1 + 0.5 * (light - light.mean())
    ones = np.ones_like(prop.metallic)
    made = replace(
        prop,
        colors=np.clip(np.array(COLORS[color], np.float32) * gain, 0, 255).astype(np.uint8),
        metallic=ones * surface[1],
        roughness=ones * surface[2],
        material_known=ones,
        pack="",
        materials=(),
        caption=_worded(color, surface[0], name),
    )
    foils: list[str] = []
    while len(foils) < 6:
        other, material = names[generator.integers(len(names))], SURFACES[generator.integers(len(SURFACES))]
        if (other.split()[-1], material[1]) != (color.split()[-1], surface[1]):
            foils.append(_worded(other, material[0], name))
    return made, foils


def _worded(*words: str) -> str:
    return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Gallery:
    """Views of objects in memory with what may be said of them."""

    views: np.ndarray
    """int8 [n, 10, 64, 64]: network images * 127."""
    item: np.ndarray
    """[n] to which item a view belongs."""
    true: list[list[str]]
    """Captions of each item."""
    false: list[list[str]]
    """Captions of the same object in other colours and materials; may be empty."""


def render_item(prop: Prop, poses: list[Pose], size: int = SIZE) -> Float[np.ndarray, "v 10 s s"]:
    """Network images in which materials that nobody knows are 0."""
    image, known = network_images(prop, cameras_of(poses, size))
    for channel in (METALLIC, ROUGHNESS):
        image[:, channel] *= (known > 0.5)[:, None]
    return image


def build_gallery(props: list[Prop], free_views: int, seed: int, progress: Progress = silent) -> Gallery:
    """Each object as it is, and once recoloured, made of another material, or painted."""
    rng = np.random.default_rng(seed)
    views: list[np.ndarray] = []
    item: list[int] = []
    true: list[list[str]] = []
    false: list[list[str]] = []
    for index, prop in enumerate(props):
        progress(index / len(props), "rendering")
        kind = rng.uniform()
        foils: list[str] = []
        if kind < 0.3:
            other = recolored(replace(prop, captions=()), rng)
        elif kind < 0.55:
            other = rematerialed(replace(prop, captions=()), rng)
        else:
            other, foils = painted(replace(prop, captions=()), rng)
        free = [
            Pose(float(rng.uniform(0, 360)), float(np.clip(rng.normal(15, 30), -85, 89)))
            for _ in range(free_views)
        ]
        ring = list(RING)
        turned = [RING[i] for i in rng.choice(len(RING), 2, replace=False)]
        for made, poses, wrong in ((prop, ring + free, []), (other, turned + free[:1], foils)):
            image = render_item(made, poses)
            views.append(np.round(image.clip(-1, 1) * 127).astype(np.int8))
            item += [len(true)] * len(image)
            words = captions(made) if made is prop else [made.caption]
            true.append(words)
            false.append(wrong)
    return Gallery(np.concatenate(views), np.array(item), true, false)


def augmented(views: Tensor, rng: np.random.Generator) -> Float[Tensor, "b 10 64 64"]:
    """Mirrored, shifted and noisy views, some without their material."""
    image = views.float() / 127
    count = len(image)
    flip = torch.from_numpy(rng.uniform(size=count) < 0.5)
    image[flip] = image[flip].flip(-1)
    image[flip, 4] *= -1  # normals' x
    dx, dy = rng.integers(-3, 4, 2)
    image = image.roll((int(dy), int(dx)), (2, 3))
    image[torch.from_numpy(rng.uniform(size=count) < 0.25), 8:] = 0
    noise = torch.from_numpy(rng.standard_normal(image.shape, np.float32))
    level = torch.from_numpy(rng.uniform(0, 0.15, (count, 1, 1, 1)).astype(np.float32))
    return image + noise * level
