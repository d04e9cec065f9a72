"""Procedural objects: common props where the packs are thin, with captions that say what is there.

A pack has a dozen cars, none of which is called "red car with black wheels"; a
small model needs the word and the thing many times over. Every object here is made of a few solids
with named colours and materials, so colour, metallic and roughness are known and
the captions are true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.training.procedural import (
    buildings,
    containers,
    food,
    furniture,
    household,
    landmarks,
    machines,
    nature,
    street,
    toys,
    treasure,
    vehicles,
    weapons,
)
from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Maker, phrases
from pipeline.training.props import Prop, with_article

# (weight, maker, category). The most asked-for props come most often.
_OBJECTS: tuple[tuple[float, Callable[[Maker], Described], str], ...] = (
    (4, containers.barrel, "prop"), (4, containers.crate, "prop"), (2, containers.chest, "prop"),
    (2, containers.bottle, "prop"), (3, containers.pot, "prop"), (1, containers.gift, "prop"),
    (5, furniture.chair, "furniture"), (1, furniture.stool, "furniture"), (4, furniture.table, "furniture"),
    (1, furniture.bench, "furniture"), (3, furniture.sofa, "furniture"), (1.5, furniture.bed, "furniture"),
    (1.5, furniture.shelf, "furniture"), (1.5, furniture.lamp, "furniture"), (1, furniture.lantern, "prop"),
    (0.7, furniture.candle, "prop"),
    (6, buildings.house, "building"), (2, buildings.tower, "building"), (1, buildings.well, "building"),
    (1.2, buildings.fence, "prop"), (0.7, buildings.sign, "prop"), (1, buildings.tent, "prop"),
    (0.7, buildings.gravestone, "prop"), (0.6, buildings.column, "building"),
    (0.8, buildings.windmill, "building"), (0.7, buildings.lighthouse, "building"),
    (6, vehicles.car, "vehicle"), (3, vehicles.truck, "vehicle"), (1, vehicles.bus, "vehicle"),
    (2, vehicles.boat, "vehicle"), (1, vehicles.cart, "vehicle"), (1, vehicles.rocket, "vehicle"),
    (1, vehicles.aeroplane, "vehicle"),
    (3, weapons.sword, "weapon"), (1.5, weapons.axe, "weapon"), (1.5, weapons.hammer, "weapon"),
    (2, weapons.shield, "weapon"), (0.6, weapons.bow, "weapon"), (0.8, weapons.staff, "weapon"),
    (1, weapons.pickaxe, "weapon"), (0.7, weapons.cannon, "weapon"), (0.5, weapons.anvil, "prop"),
    (3, nature.mushroom, "nature"), (2.5, nature.tree, "nature"), (1.2, nature.rock, "nature"),
    (1, nature.crystal, "nature"), (1, nature.cactus, "nature"), (1, nature.flower, "nature"),
    (1, nature.pumpkin, "nature"), (0.8, nature.cake, "food"), (0.7, nature.burger, "food"),
    (0.5, nature.donut, "food"), (0.6, nature.ice_cream, "food"), (0.5, nature.apple, "food"),
    (0.6, nature.snowman, "character"), (1, nature.campfire, "prop"),
    (0.8, household.bucket, "prop"), (0.8, household.book, "prop"), (0.5, household.book_stack, "prop"),
    (0.8, household.clock, "prop"), (0.8, household.key, "prop"), (0.7, household.television, "furniture"),
    (0.8, household.teapot, "prop"), (0.8, household.mug, "prop"), (0.7, household.ladder, "prop"),
    (1, street.traffic_cone, "prop"), (0.8, street.street_lamp, "prop"), (0.7, street.mailbox, "prop"),
    (0.7, street.wheelbarrow, "prop"), (0.6, street.wheel, "prop"), (0.6, street.skateboard, "prop"),
    (1, toys.robot, "character"), (0.7, toys.duck, "character"), (0.7, toys.drum, "prop"),
    (0.8, toys.guitar, "prop"),
    (1, treasure.helmet, "prop"), (0.7, treasure.wizard_hat, "prop"), (0.6, treasure.top_hat, "prop"),
    (0.8, treasure.crown, "prop"), (0.7, treasure.finger_ring, "prop"), (0.8, treasure.coins, "prop"),
    (0.8, treasure.bomb, "weapon"), (0.8, treasure.torch, "prop"), (0.8, treasure.potion, "prop"),
    (0.8, treasure.spear, "weapon"),
    (0.6, food.cheese, "food"), (0.7, food.watermelon, "food"), (0.6, food.carrot, "food"),
    (0.7, food.pizza, "food"),
    (0.8, landmarks.bridge, "building"), (0.7, landmarks.igloo, "building"),
    (0.8, landmarks.barn, "building"), (0.8, landmarks.church, "building"),
    (1, landmarks.castle, "building"), (0.8, machines.pirate_ship, "vehicle"),
    (0.8, machines.tank, "vehicle"), (1, machines.locomotive, "vehicle"),
    (0.8, machines.helicopter, "vehicle"), (0.7, machines.ufo, "vehicle"),
)  # fmt: skip
_STACKABLE = (containers.barrel, containers.crate, containers.chest, furniture.table)
_STACKED = (containers.bottle, containers.pot, containers.crate, furniture.candle, nature.pumpkin,
            nature.mushroom, nature.cake, furniture.lantern)  # fmt: skip
_COMPOSITIONS = 0.05


def procedural_props(count: int, rng: np.random.Generator) -> Iterator[Prop]:
    """`count` random objects, a few of them standing on another."""
    weights = np.array([weight for weight, _, _ in _OBJECTS])
    for _ in range(count):
        if rng.uniform() < _COMPOSITIONS:
            yield _composition(rng)
            continue
        _, make, category = _OBJECTS[int(rng.choice(len(_OBJECTS), p=weights / weights.sum()))]
        maker = Maker(rng)
        names, words, details = make(maker)
        yield maker.prop(phrases(names, words, details, rng), category)


def _composition(rng: np.random.Generator) -> Prop:
    """ "a red mushroom on a wooden crate"."""
    lower, upper = Maker(rng), Maker(rng)
    below = _STACKABLE[int(rng.integers(len(_STACKABLE)))](lower)
    above = _STACKED[int(rng.integers(len(_STACKED)))](upper)
    low, top = lower.bounds(), upper.bounds()
    scale = float(rng.uniform(0.5, 0.8) * (low[1, 1] - low[0, 1]) / (top[1, 1] - top[0, 1]))
    lower.include(upper, y=float(low[1, 1] - top[0, 1] * scale), scale=scale)

    def said(described: Described) -> tuple[str, str]:
        names, words, _ = described
        return with_article(names[0]), with_article(" ".join([*words[:1], names[0]]))

    (a, long_a), (b, long_b) = said(above), said(below)
    return lower.prop([f"{a} on {b}", f"{long_a} on {long_b}", f"{long_a} on {b}"], "prop")
