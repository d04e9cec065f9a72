"""Changed versions of training objects whose captions stay true.

Other colours, another material, the main colour replaced, mirrored, other
proportions, one object on another. Whatever is left to chance comes from the
generator that is given.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.color_names import COLOR_WORDS, COLORS, nearest_colors
from pipeline.training.props import Prop, captions, clean_caption, color_words, in_unit_ball, with_article

_COLOR_PARTS = frozenset(" ".join(COLOR_WORDS).split())


def _name_without(prop: Prop, words: frozenset[str]) -> str:
    return " ".join(w for w in clean_caption(prop.caption).split() if w not in words)


def recolored(prop: Prop, generator: np.random.Generator) -> Prop:
    """The object with its hues turned and its caption naming the new dominant colour."""
    turn = generator.uniform(0.12, 0.88)
    gain = generator.uniform(0.7, 1.3)
    unique, inverse = np.unique(prop.colors, axis=0, return_inverse=True)
    table = np.empty_like(unique)
    for i, rgb in enumerate(unique / 255.0):
        hue, lightness, saturation = colorsys.rgb_to_hls(*rgb)
        lightness = lightness ** (1 / gain)
        table[i] = np.round(255 * np.array(colorsys.hls_to_rgb((hue + turn) % 1, lightness, saturation)))
    turned = replace(prop, colors=table[inverse.reshape(-1)])
    words = color_words(turned)
    base = _name_without(prop, _COLOR_PARTS)
    return replace(
        turned,
        caption=f"{words[0]} {base}" if words else base,
        captions=(),
        pack="",
        materials=(),
        material_known=_known_of_new_color(prop),
    )


def _known_of_new_color(prop: Prop) -> NDArray[np.float32]:
    """A metal of another colour is perhaps no metal any more; wood in blue is still rough."""
    return np.where(prop.metallic > 0.5, 0.0, prop.material_known).astype(np.float32)


def repainted(prop: Prop, generator: np.random.Generator) -> Prop:
    """The object with its main colour replaced by one that has a name, light and dark kept."""
    nearest = nearest_colors(prop.colors.astype(np.float32))
    old = COLOR_WORDS.index(color_words(prop, 0.0)[0])
    choices = [word for i, word in enumerate(COLOR_WORDS) if i != old and word != "gold"]
    word = choices[generator.integers(len(choices))]
    colors = prop.colors.copy()
    main = nearest == old
    if not main.any():  # faces mix colours of which no vertex has any
        main[:] = True
    light = colors[main].astype(np.float32).mean(1, keepdims=True) / 255
    colors[main] = np.clip(np.array(COLORS[word], np.float32) * (1 + light - light.mean()), 0, 255)
    return replace(
        prop,
        colors=colors,
        caption=f"{word} {_name_without(prop, _COLOR_PARTS)}",
        captions=(),
        pack="",
        materials=(),
        material_known=_known_of_new_color(prop),
    )


_REMATERIALS: tuple[tuple[str, tuple[int, int, int], float, float, float], ...] = (
    # word, colour, metallic, roughness, how much of the old light-dark contrast stays
    ("golden", (212, 168, 62), 1.0, 0.30, 0.5), ("silver", (200, 203, 208), 1.0, 0.30, 0.5),
    ("iron", (105, 108, 114), 1.0, 0.50, 0.5), ("copper", (190, 115, 80), 1.0, 0.40, 0.5),
    ("stone", (140, 140, 136), 0.0, 0.90, 0.6), ("marble", (228, 226, 222), 0.0, 0.30, 0.3),
    ("wooden", (142, 96, 60), 0.0, 0.80, 0.8), ("jade", (70, 160, 120), 0.0, 0.25, 0.5),
    ("red plastic", (205, 50, 45), 0.0, 0.40, 0.6), ("blue plastic", (55, 105, 205), 0.0, 0.40, 0.6),
    ("yellow plastic", (240, 200, 60), 0.0, 0.40, 0.6), ("green plastic", (70, 165, 75), 0.0, 0.40, 0.6),
    ("black metal", (45, 46, 52), 1.0, 0.45, 0.6), ("steel", (160, 165, 172), 1.0, 0.30, 0.6),
)  # fmt: skip


_MATERIAL_PARTS = frozenset({"wood", "wooden", "stone", "metal", "golden", "iron", "silver"})


def rematerialed(prop: Prop, generator: np.random.Generator) -> Prop:
    """The object made of one other material: colour, metallic, roughness and the caption follow."""
    word, color, metallic, roughness, contrast = _REMATERIALS[generator.integers(len(_REMATERIALS))]
    light = prop.colors.astype(np.float32).mean(1, keepdims=True) / 255
    gain = 1 + contrast * (light - light.mean())
    colors = np.clip(np.array(color, np.float32) * gain, 0, 255).astype(np.uint8)
    base = _name_without(prop, _COLOR_PARTS | _MATERIAL_PARTS) or "object"
    constant = np.ones_like(prop.metallic)
    return replace(
        prop,
        colors=colors,
        metallic=constant * metallic,
        roughness=constant * roughness,
        material_known=constant,
        caption=f"{word} {base}",
        captions=(),
        pack="",
        materials=(),
    )


def mirrored(prop: Prop) -> Prop:
    """The object with left and right exchanged; what it is called stays true."""
    return replace(
        prop,
        vertices=prop.vertices * np.array([-1, 1, 1], np.float32),
        faces=np.ascontiguousarray(prop.faces[:, ::-1]),
    )


_STIFF = {"vehicle": 0.4, "character": 0.4}
_TALL, _LOW = 1.28, 0.78


def stretched(prop: Prop, generator: np.random.Generator) -> Prop:
    """The object with other proportions, up to 1.4 times as high and 1.16 times as wide or as deep.

    What got upright is called tall, what got flat low. Vehicles and people change less:
    wheels and heads would tell.
    """
    amount = _STIFF.get(prop.category, 1.0)
    x, y, z = np.exp(generator.uniform(-1, 1, 3) * amount * np.log([1.16, 1.4, 1.16]))
    height = y / np.sqrt(x * z)
    made = replace(prop, vertices=in_unit_ball(prop.vertices * np.array([x, y, z], np.float32)))
    width, tallness, depth = np.ptp(made.vertices, axis=0)
    upright = tallness >= max(width, depth)
    word = "tall" if height >= _TALL and upright else "low" if height <= _LOW and not upright else ""
    if not word:
        return made
    names = captions(prop)
    said = [f"{word} {_without_article(name)}" for name in names]
    return replace(made, captions=(names[0], *(with_article(t) if i % 2 else t for i, t in enumerate(said))))


def warped(prop: Prop, generator: np.random.Generator) -> Prop:
    """The object bent out of shape, by as much as leaves it what it is: narrower or wider towards the top,
    the middle or one side, turned by up to 20 degrees from bottom to top, leaning by up to 6.
    """
    amount = _STIFF.get(prop.category, 1.0)
    taper, belly, sideways, deep = amount * generator.uniform(-1, 1, 4) * [0.3, 0.25, 0.2, 0.2]
    twist, *lean = amount * generator.uniform(-1, 1, 3) * [0.17, 0.1, 0.1]
    x, y, z = prop.vertices.astype(np.float64).T
    wider = np.exp(taper * y + belly * (1 - 2 * y**2))
    cosine, sine = np.cos(twist * y), np.sin(twist * y)
    wide, far = wider * x * np.exp(sideways * z), wider * z * np.exp(deep * x)
    bent = np.stack(
        [cosine * wide - sine * far + lean[0] * y, y, sine * wide + cosine * far + lean[1] * y], 1
    )
    return replace(prop, vertices=in_unit_ball(bent.astype(np.float32)))


def _without_article(text: str) -> str:
    return text.removeprefix("a ").removeprefix("an ")


_CARRIES = frozenset({
    "table", "crate", "box", "barrel", "chest", "desk", "stump", "cart", "bench", "stool", "bed",
    "nightstand", "rock", "pedestal", "shelf",
})  # fmt: skip
_CARRIED = frozenset({
    "apple", "banana", "bread", "burger", "cake", "cheese", "donut", "pizza", "pumpkin", "watermelon",
    "mushroom", "cactus", "flower", "plant", "skull", "lantern", "lamp", "candle", "torch", "bottle",
    "potion", "vase", "pot", "jar", "mug", "cup", "bucket", "bowl", "plate", "book", "chest", "crate", "box",
    "barrel", "gift", "present", "helmet", "crown", "hat", "clock", "television", "radio", "laptop", "bear",
    "duck", "ball", "axe", "hammer", "knife", "coin", "coins", "gem", "crystal", "bag", "sack", "rock",
    "cannon", "bomb",
})  # fmt: skip


def flat_top(prop: Prop) -> float:
    """How much of its box's ground plan the top of an object fills, 0 to 1."""
    corners = prop.vertices[prop.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    low, high = prop.vertices.min(0), prop.vertices.max(0)
    on_top = corners[:, :, 1].min(1) > high[1] - 0.03 * (high[1] - low[1])
    plan = float(np.prod((high - low)[[0, 2]]))
    return min(1.0, float(np.abs(cross[on_top, 1]).sum()) / max(plan, 1e-9))


def _called(prop: Prop, names: frozenset[str]) -> bool:
    """Whether the object's plain name is one of `names`, with at most one word before it."""
    words = clean_caption(prop.caption).split()
    return 0 < len(words) <= 2 and words[-1] in names


def carriers(props: Sequence[Prop]) -> list[Prop]:
    """Objects on which another may stand: called so, and flat on top."""
    return [p for p in props if _called(p, _CARRIES) and flat_top(p) > 0.55]


def carried(props: Sequence[Prop]) -> list[Prop]:
    """Objects that people put on others."""
    return [p for p in props if _called(p, _CARRIED)]


def stood_on(upper: Prop, lower: Prop, generator: np.random.Generator) -> Prop:
    """`upper`, smaller, in the middle of the top of `lower`: "a mushroom on a wooden crate"."""
    size, ground = np.ptp(upper.vertices, axis=0), np.ptp(lower.vertices, axis=0)
    scale = generator.uniform(0.45, 0.85) * ground[[0, 2]].min() / size[[0, 2]].max()
    scale = min(scale, 1.3 * ground[1] / size[1])
    top = upper.vertices * np.float32(scale)
    top[:, 1] += lower.vertices[:, 1].max() - top[:, 1].min()
    vertices = in_unit_ball(np.concatenate([lower.vertices, top]))
    above, below = captions(upper), captions(lower)
    pick = [int(generator.integers(len(texts))) for texts in (above, below)]
    return Prop(
        vertices=vertices,
        faces=np.concatenate([lower.faces, upper.faces + len(lower.vertices)]),
        colors=np.concatenate([lower.colors, upper.colors]),
        metallic=np.concatenate([lower.metallic, upper.metallic]),
        roughness=np.concatenate([lower.roughness, upper.roughness]),
        material_known=np.concatenate([lower.material_known, upper.material_known]),
        caption=f"{above[0]} on {below[0]}",
        pack="",
        category="prop",
        split=lower.split,
        materials=(),
        captions=tuple(
            f"{with_article(_without_article(a))} on {with_article(_without_article(b))}"
            for a, b in ((above[0], below[0]), (above[pick[0]], below[pick[1]]))
        ),
    )
