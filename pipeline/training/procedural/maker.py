"""Puts solids with finishes together into a `Prop` with captions that are true of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.color_names import COLORS
from pipeline.training.procedural.solids import Solid
from pipeline.training.props import Prop, in_unit_ball, with_article

_AN = re.compile(r"\ba (?=[aeiou])")
_TWICE = re.compile(r"\b(\w+) \1\b")


@dataclass(frozen=True)
class Finish:
    """What a part is made of; `word` goes into the caption ("red", "wooden", "golden")."""

    word: str
    rgb: tuple[float, float, float]
    metallic: float
    roughness: float
    noun: str = ""
    """The material as a noun, as in "with iron bands"."""


_WOODS = (("wooden", (142, 96, 60)), ("wooden", (168, 116, 72)), ("wooden", (120, 80, 52)),
          ("dark wooden", (84, 56, 40)), ("light wooden", (204, 164, 116)))  # fmt: skip
_METALS = (
    ("iron", "iron", (100, 103, 110), 0.5), ("steel", "steel", (165, 170, 178), 0.3),
    ("golden", "gold", (214, 170, 64), 0.3), ("copper", "copper", (190, 115, 80), 0.4),
    ("bronze", "bronze", (160, 118, 70), 0.4), ("silver", "silver", (204, 207, 212), 0.3),
    ("metal", "metal", (128, 132, 140), 0.45), ("black metal", "black metal", (46, 47, 53), 0.45),
)  # fmt: skip
_STONES = (("stone", (140, 140, 136)), ("stone", (118, 120, 124)), ("sandstone", (206, 178, 132)),
           ("marble", (226, 224, 220)), ("dark stone", (78, 80, 86)))  # fmt: skip


@dataclass
class Maker:
    """One object while it is made. `rng` decides everything that is left to chance."""

    rng: np.random.Generator
    parts: list[tuple[Solid, Finish]] = field(default_factory=list)

    # Chance
    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.uniform() < probability)

    def one_of(self, *options: object) -> object:
        return options[int(self.rng.integers(len(options)))]

    def word(self, *options: str) -> str:
        return options[int(self.rng.integers(len(options)))]

    # Finishes
    def _jittered(self, rgb: tuple[int, int, int], amount: float = 0.08) -> tuple[float, float, float]:
        gain = 1 + self.rng.normal() * amount
        r, g, b = np.clip(np.array(rgb) * gain + self.rng.normal(size=3) * 5, 0, 255)
        return float(r), float(g), float(b)

    def wood(self) -> Finish:
        word, rgb = _WOODS[int(self.rng.integers(len(_WOODS)))]
        return Finish(word, self._jittered(rgb), 0.0, 0.8, word.replace("wooden", "wood"))

    def metal(self, *only: str) -> Finish:
        options = [m for m in _METALS if not only or m[1] in only]
        word, noun, rgb, roughness = options[int(self.rng.integers(len(options)))]
        return Finish(word, self._jittered(rgb, 0.05), 1.0, roughness, noun)

    def stone(self) -> Finish:
        word, rgb = _STONES[int(self.rng.integers(len(_STONES)))]
        return Finish(word, self._jittered(rgb), 0.0, 0.3 if word == "marble" else 0.9, word)

    def color(self, *only: str, roughness: float = 0.6) -> Finish:
        """Paint, plastic or cloth of a colour that has a name."""
        names = only or tuple(n for n in COLORS if n != "gold")
        name = names[int(self.rng.integers(len(names)))]
        return Finish(name, self._jittered(COLORS[name], 0.05), 0.0, roughness, name)

    def glass(self) -> Finish:
        return Finish("glass", self._jittered((165, 205, 220), 0.05), 0.0, 0.1, "glass")

    def rubber(self) -> Finish:
        return Finish("black", self._jittered((42, 42, 46), 0.1), 0.0, 0.85, "rubber")

    def leaves(self) -> Finish:
        return self.color("green", "dark green", "green", "light green", roughness=0.75)

    def darker(self, finish: Finish) -> Finish:
        """For grooves and shadows of a part."""
        r, g, b = (0.6 * c for c in finish.rgb)
        return Finish("", (r, g, b), 0.0, 0.9)

    # Parts
    def add(self, solid: Solid, finish: Finish, vary: float = 0.0) -> None:
        """A part; `vary` changes its brightness a little, as planks differ."""
        if vary:
            gain = 1 + self.rng.normal() * vary
            r, g, b = (min(255.0, c * gain) for c in finish.rgb)
            finish = Finish(finish.word, (r, g, b), finish.metallic, finish.roughness, finish.noun)
        self.parts.append((solid, finish))

    def include(
        self, other: Maker, x: float = 0.0, y: float = 0.0, z: float = 0.0, scale: float = 1.0
    ) -> None:
        """All parts of another object, scaled and moved."""
        offset = np.array([x, y, z], np.float32)
        for (vertices, faces), finish in other.parts:
            self.parts.append(((vertices * scale + offset, faces), finish))

    def bounds(self) -> NDArray[np.float32]:
        """Lowest and highest corner, [2, 3]."""
        low = np.min([s[0].min(0) for s, _ in self.parts], 0)
        return np.stack([low, np.max([s[0].max(0) for s, _ in self.parts], 0)])

    def prop(self, captions: list[str], category: str) -> Prop:
        """The object inside the unit ball, every colour and material known."""
        vertices, faces, colors, surfaces, start = [], [], [], [], 0
        for (points, triangles), finish in self.parts:
            vertices.append(points)
            faces.append(triangles + start)
            start += len(points)
            colors.append(np.broadcast_to(np.round(finish.rgb).astype(np.uint8), points.shape))
            surfaces.append(np.broadcast_to([finish.metallic, finish.roughness], (len(triangles), 2)))
        surface = np.concatenate(surfaces).astype(np.float32)
        return Prop(
            vertices=in_unit_ball(np.concatenate(vertices)),
            faces=np.concatenate(faces).astype(np.int32),
            colors=np.ascontiguousarray(np.concatenate(colors)),
            metallic=surface[:, 0],
            roughness=surface[:, 1],
            material_known=np.ones(len(surface), np.float32),
            caption=captions[0],
            pack="procedural",
            category=category,
            split="train",
            materials=(),
            captions=tuple(captions),
        )


def phrases(names: list[str], words: list[str], details: list[str], rng: np.random.Generator) -> list[str]:
    """Captions from names, true adjectives (most telling first) and true details ("iron bands")."""
    out = [names[0]]
    for name in names:
        out += [f"{word} {name}" for word in words[:2]] or [name]
        if len(words) > 1:
            out.append(f"{words[0]} {words[1]} {name}")
        for detail in details:
            out.append(f"{name} with {detail}")
            out += [f"{word} {name} with {detail}" for word in words[:2]]
        if len(details) > 1:
            out.append(f"{words[0] + ' ' if words else ''}{name} with {details[0]} and {details[1]}")
    out = list(dict.fromkeys(_AN.sub("an ", _TWICE.sub(r"\1", text)) for text in out))
    keep = [out[0], *rng.permutation(out[1:])[:9].tolist()]
    return [with_article(text) if rng.uniform() < 0.5 and not _plural(text) else text for text in keep]


def _plural(text: str) -> bool:
    """Whether the thing named is many ("red books", not "a stack of books")."""
    head = text.split(" with ")[0].split(" of ")[0]
    return head.endswith("s") and not head.endswith(("ss", "us"))
