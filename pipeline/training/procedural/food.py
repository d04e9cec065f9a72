"""Cheese, watermelon, carrots, pizza."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Maker
from pipeline.training.procedural.solids import (
    Solid,
    arc,
    ball,
    box,
    cylinder,
    lathe,
    loft,
    moved,
    prism,
    ring,
    scaled,
    tube,
    turned,
)


def _sector(radius: float, half_deg: float, height: float) -> Solid:
    """A slice of a round cake: its tip at the origin, its round side to -z, lying on y = 0."""
    outline = [(0.0, 0.0), *[(x, -y) for x, y in arc(radius, 90 - half_deg, 90 + half_deg, 9)][::-1]]
    return moved(turned(prism([(x, -y) for x, y in outline], height), "x", -90), y=height / 2)


def cheese(m: Maker) -> Described:
    body = m.color("yellow", "yellow", "orange", roughness=0.5)
    rind = m.color("orange", "red", "gold", "brown", "beige", roughness=0.5)
    hole = m.darker(body)
    h, r = m.between(0.45, 0.6), 1.1
    if m.chance(0.2):
        m.add(cylinder(0.7, h, segments=28), rind)
        m.add(moved(cylinder(0.6, h + 0.04, segments=28), y=-0.02), body)
        for k in range(6):
            a = 1.05 * k
            m.add(
                moved(
                    scaled(ball(0.09, segments=10), 1, 0.3, 1),
                    0.35 * float(np.sin(a)),
                    h + 0.02,
                    0.35 * float(np.cos(a)),
                ),
                hole,
            )
        return ["cheese wheel", "wheel of cheese", "cheese"], [body.word], [f"a {rind.word} rind"]
    half = m.between(22, 32)
    turn = m.word("left", "right", "front")
    degrees = {"left": 60.0, "right": -60.0, "front": 0.0}[turn]

    def put(solid: Solid) -> Solid:
        return turned(moved(solid, z=0.6), "y", degrees)

    m.add(put(_sector(r, half, h)), body)
    profile = ((-0.03, -0.01), (0.07, -0.01), (0.07, h + 0.01), (-0.03, h + 0.01))
    band = [
        [((r + d) * x, y, -(r + d) * z) for d, y in profile] for x, z in arc(1.0, 90 - half, 90 + half, 9)
    ]
    m.add(put(loft(band)), rind)
    for s in (-1, 1):
        for k in range(4):
            along, y = (0.3, 0.5, 0.7, 0.9)[k] * r, h * (0.3, 0.68, 0.35, 0.65)[(k + (s > 0)) % 4]
            size = m.between(0.07, 0.12)
            at = (s * along * float(np.sin(np.deg2rad(half))), y, -along * float(np.cos(np.deg2rad(half))))
            pit = turned(scaled(ball(size, segments=12), 0.3, 1, 1), "y", -half * s)
            m.add(put(moved(pit, *at)), hole)
    for k in range(4):
        at = (0.14 * (-1) ** k * (k > 0), h, -(0.4 + 0.18 * k))
        m.add(put(moved(scaled(ball(m.between(0.06, 0.1), segments=12), 1, 0.3, 1), *at)), hole)
    return ["cheese", "piece of cheese", "cheese wedge", "slice of cheese"], [body.word], ["holes"]


def watermelon(m: Maker) -> Described:
    rind, flesh = m.color("green", "dark green"), m.color("red", roughness=0.5)
    white, seed = m.color("white", "light green"), m.color("black", roughness=0.3)
    if m.chance(0.2):
        m.add(scaled(ball(0.7, segments=24), 1.2), rind)
        stripe = m.color("light green") if rind.word == "dark green" else m.color("dark green")
        for k in range(4):
            m.add(scaled(turned(ring(0.67, 0.05, 1.6, 24), "x", 90 + 45.0 * k), 1.2), stripe)
        return ["watermelon", "whole watermelon"], [rind.word], [f"{stripe.word} stripes"]
    thick = m.between(0.28, 0.4)
    if m.chance(0.35):
        low, high = -0.8, 0.75
        for y0, y1, deep, finish in (
            (low, -0.66, 1.0, rind),
            (-0.68, -0.58, 1.02, white),
            (-0.6, high, 1.04, flesh),
        ):
            wide = [0.62 * (high - y) / (high - low) + 0.02 for y in (y0, y1)]
            m.add(prism([(-wide[0], y0), (wide[0], y0), (wide[1], y1), (-wide[1], y1)], thick * deep), finish)
        places = [(-0.25, -0.38), (0.0, -0.3), (0.25, -0.38), (-0.12, -0.05), (0.12, -0.05), (0.0, 0.2)]
    else:
        for k, (radius, finish) in enumerate(((0.8, rind), (0.72, white), (0.66, flesh))):
            half = prism(arc(radius, 180, 360, 21), thick * (1 + 0.03 * k))
            m.add(moved(half, y=0.006 * k), finish)
        places = [(x * r, y * r) for r, n in ((0.5, 5), (0.27, 3)) for x, y in arc(1.0, 205, 335, n)]
    for x, y in places:
        for s in (-1, 1):
            m.add(moved(scaled(ball(0.055, segments=8), 0.75, 1.2, 0.5), x, y, s * thick * 0.53), seed)
    return (
        ["watermelon slice", "slice of watermelon", "watermelon"],
        ["red"],
        ["black seeds", f"a {rind.word} rind"],
    )


def carrot(m: Maker) -> Described:
    body, leaf = m.color("orange", roughness=0.6), m.leaves()
    h, r = m.between(1.0, 1.3), m.between(0.2, 0.28)
    m.add(
        lathe([(0.02, 0), (r * 0.45, h * 0.3), (r * 0.85, h * 0.75), (r, h * 0.93), (r * 0.6, h)], 16), body
    )
    for t in (0.3, 0.5, 0.68, 0.85):
        width = r * (0.45 + 0.4 * (t - 0.3) / 0.45)
        m.add(moved(ring(width, 0.018, segments=16), y=h * t), m.darker(body))
    for k in range(6):
        tilt = 0.0 if k == 0 else m.between(12, 32)
        stem = tube((0, h - 0.05, 0), (0, h + m.between(0.4, 0.6), 0), 0.05, 0.02, 6)
        tuft = moved(scaled(ball(0.11, segments=8), 0.8, 2.0, 0.8), y=h + 0.42)
        for part in (stem, tuft):
            m.add(moved(turned(turned(moved(part, y=-h), "x", tilt), "y", 72.0 * k), y=h), leaf, 0.08)
    return ["carrot"], [body.word], [f"{leaf.word} leaves", "a leafy top"]


def pizza(m: Maker) -> Described:
    crust, sauce = (
        m.color("beige", "brown", "gold", roughness=0.8),
        m.color("yellow", "yellow", "gold", roughness=0.5),
    )
    salami, extra = (
        m.color("red", "dark red", roughness=0.5),
        m.color("green", "black", "white", "dark green"),
    )
    with_extra = m.chance(0.6)
    details = ["pepperoni", *([f"{extra.word} toppings"] if with_extra else [])]
    parts = []
    if m.chance(0.3):
        parts += [
            (cylinder(0.9, 0.1, segments=30), crust),
            (moved(ring(0.85, 0.09, segments=30), y=0.1), crust),
        ]
        parts.append((moved(cylinder(0.8, 0.05, segments=30), y=0.1), sauce))
        for k in range(9):
            a, r = (0.9 * k, 0.58) if k < 7 else (3.0 * k, 0.2)
            x, z = r * float(np.sin(a)), r * float(np.cos(a))
            parts.append((moved(cylinder(0.13, 0.05, segments=14), x, 0.13, z), salami))
            if with_extra:
                parts.append((moved(box(0.12, 0.06, 0.07), x * 0.7 + 0.2, 0.13, z * 0.7 - 0.12), extra))
        names, degrees = ["pizza", "whole pizza"], (0.0 if m.chance(0.5) else 60.0)
    else:
        parts += [(_sector(1.3, 23, 0.12), crust), (moved(_sector(1.24, 21, 0.08), y=0.09, z=-0.03), sauce)]
        edge = [(x, y) for x, y in arc(1.3, 67, 113, 9)]
        for (x0, z0), (x1, z1) in pairwise(edge):
            parts.append((tube((x0, 0.1, -z0), (x1, 0.1, -z1), 0.12), crust))
        for x, z in (edge[0], edge[-1]):
            parts.append((moved(ball(0.12, segments=10), x, 0.1, -z), crust))
        for x, z in ((0.0, -0.45), (-0.16, -0.78), (0.2, -0.85), (0.0, -1.08)):
            parts.append((moved(cylinder(0.12, 0.06, segments=14), x, 0.14, z), salami))
        if with_extra:
            for x, z in ((0.12, -0.62), (-0.25, -1.02), (0.06, -0.25), (0.28, -1.08)):
                parts.append((moved(box(0.12, 0.07, 0.07), x, 0.14, z), extra))
        names, degrees = ["pizza slice", "slice of pizza", "piece of pizza"], (0.0 if m.chance(0.3) else 80.0)
    for solid, finish in parts:
        m.add(turned(solid, "x", degrees), finish)
    return names, [], details
