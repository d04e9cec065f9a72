"""Barrels, crates, chests, bottles, pots and other things that hold something."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.maker import Maker
from pipeline.training.procedural.solids import (
    Solid,
    ball,
    box,
    cylinder,
    lathe,
    moved,
    prism,
    ring,
    scaled,
    tube,
    turned,
)

Described = tuple[list[str], list[str], list[str]]
"""Names, true adjectives, true details."""


def barrel(m: Maker) -> Described:
    h, r, bulge = m.between(0.9, 1.5), 0.4, m.between(1.08, 1.35)
    n = int(m.rng.integers(12, 25))
    if m.chance(0.25):
        body = m.color(roughness=0.5) if m.chance(0.7) else m.metal()
        m.add(cylinder(r, h, segments=n), body)
        m.add(moved(lathe([(r, 0), (r, 0.05), (r - 0.04, 0.05), (r - 0.04, 0.0)], n), y=h - 0.02), body)
        for y in (0.0, 0.33, 0.66, 0.97):
            m.add(moved(cylinder(r * 1.05, 0.04, segments=n), y=y * h), body)
        metal = ["metal"] if body.metallic < 0.5 and m.chance(0.5) else []
        return ["barrel", "oil drum", "metal drum"][: int(m.rng.integers(1, 4))], [body.word, *metal], []
    body, band = (m.wood() if m.chance(0.85) else m.color()), m.metal()
    curve = [(r * (1 + (bulge - 1) * (1 - (2 * t - 1) ** 2)), h * t) for t in np.linspace(0, 1, 8)]
    staves = [*curve, (curve[-1][0] * 0.9, h), (curve[-1][0] * 0.9, h - 0.06), (0.0, h - 0.06)]
    m.add(lathe(staves, n), body)
    m.add(moved(cylinder(curve[-1][0] * 0.9, 0.01, segments=n), y=h - 0.07), body, 0.15)
    places = (0.12, 0.88) if m.chance(0.4) else (0.08, 0.34, 0.66, 0.92)
    for t in places:
        width = 0.05
        low, high = (r * (1 + (bulge - 1) * (1 - (2 * s - 1) ** 2)) * 1.03 for s in (t - width, t + width))
        m.add(lathe([(low, h * (t - width)), (high, h * (t + width))], n), band)
    return ["barrel", "cask"][: 1 + m.chance(0.2)], [body.word], [f"{band.noun} bands", f"{band.noun} hoops"]


def crate(m: Maker) -> Described:
    w, h, d = m.between(0.8, 1.2), m.between(0.6, 1.1), m.between(0.8, 1.2)
    if m.chance(0.5):
        w = h = d = 1.0
    kind = m.rng.uniform()
    body = m.wood() if kind < 0.7 else m.metal() if kind < 0.85 else m.color(roughness=0.5)
    frame = body if m.chance(0.5) else (m.metal() if m.chance(0.5) else m.wood())
    t = m.between(0.07, 0.13)
    m.add(moved(box(w - t, h - t, d - t), y=t / 2), body, 0.12)
    if m.chance(0.6):
        for i in range(1, 4):
            for a, b in ((w, d - t / 2), (w - t / 2, d)):
                y = h * i / 4
                m.add(moved(box(a - t / 2, 0.02, b - t / 2), y=y), m.darker(body))
    for x in (-1, 1):
        for z in (-1, 1):
            m.add(moved(box(t, h, t), x * (w - t) / 2, 0, z * (d - t) / 2), frame, 0.05)
    for y in (0.0, h - t):
        for s in (-1, 1):
            m.add(moved(box(w, t, t), 0, y, s * (d - t) / 2), frame, 0.05)
            m.add(moved(box(t, t, d), s * (w - t) / 2, y, 0), frame, 0.05)
    if m.chance(0.5):
        angle = np.rad2deg(np.arctan2(h - t, w - t))
        bar = moved(box(np.hypot(w - t, h - t), t * 0.9, t * 0.5), y=-t / 2)
        for s in (-1, 1):
            m.add(moved(turned(bar, "z", angle * s), 0, h / 2, s * (d - t * 0.8) / 2), frame, 0.08)
            m.add(
                moved(turned(turned(bar, "z", angle), "y", 90), s * (w - t * 0.8) / 2, h / 2, 0), frame, 0.08
            )
    details = [] if frame.word == body.word else [f"{frame.noun} edges", f"{frame.noun} frame"]
    return ["crate", "box", f"{body.noun} box"][: 1 + m.chance(0.6) + m.chance(0.2)], [body.word], details


def chest(m: Maker) -> Described:
    w, h, d = m.between(1.0, 1.4), m.between(0.4, 0.6), m.between(0.65, 0.85)
    body = m.wood() if m.chance(0.8) else m.color()
    band = m.metal()
    m.add(box(w, h, d), body)
    half = [(d / 2 * float(np.cos(a)), d / 2 * 0.8 * float(np.sin(a))) for a in np.linspace(0, np.pi, 9)]

    def lid(width: float, grow: float) -> Solid:
        return turned(prism([(x * grow, y * grow) for x, y in half], width), "y", 90)

    opened = m.chance(0.2)
    parts = [(lid(w, 1.0), body)] + [
        (moved(lid(0.1, 1.05), x), band) for x in (-w * 0.46, 0.0, w * 0.46)[:: 1 if m.chance(0.5) else 2]
    ]
    for solid, finish in parts:
        if opened:
            solid = moved(turned(moved(solid, z=d / 2), "x", 60), z=-d / 2)
        m.add(moved(solid, y=h), finish, 0.05)
    for x in (-w * 0.46, w * 0.46):
        m.add(moved(box(0.1, h, d * 1.05), x), band)
    m.add(moved(box(0.16, 0.2, 0.08), 0, h - 0.14, d / 2), m.metal("gold", "iron"))
    details = [f"{band.noun} bands", f"{band.noun} fittings"]
    if opened:
        m.add(moved(scaled(ball(0.5), w * 0.85, 0.25, d * 0.85), y=h), m.metal("gold"))
        details = ["an open lid", "gold inside"]
    return ["chest", "treasure chest"], [body.word], details


def bottle(m: Maker) -> Described:
    liquid = m.color(roughness=0.15)
    h, r = m.between(0.9, 1.4), m.between(0.22, 0.4)
    cork = m.wood()
    if m.chance(0.5):
        m.add(moved(ball(r * 1.3, segments=18), y=r * 1.2), liquid)
        m.add(moved(cylinder(r * 0.4, r * 1.1, r * 0.35, 12), y=r * 2.2), m.glass())
        m.add(moved(ring(r * 0.4, 0.05), y=r * 3.25), m.glass())
        m.add(moved(cylinder(r * 0.3, 0.2, r * 0.36, 12), y=r * 3.25), cork)
        return ["potion", "potion bottle", "round flask"][: 1 + m.chance(0.5) * 2], [liquid.word], ["a cork"]
    neck = m.between(0.25, 0.4) * r
    outline = [(r, 0), (r, h * 0.5), (r * 0.9, h * 0.6), (neck, h * 0.75), (neck, h), (neck * 1.3, h)]
    m.add(lathe([*outline, (neck * 1.3, h * 1.05), (0.0, h * 1.05)], 18), liquid)
    details = []
    if m.chance(0.5):
        label = m.color("white", "yellow", "red", "beige", "black")
        m.add(moved(cylinder(r * 1.02, h * 0.25, segments=18), y=h * 0.15), label)
        details = [f"a {label.word} label"]
    else:
        m.add(moved(cylinder(neck * 0.8, 0.12, segments=10), y=h * 1.04), cork)
        details = ["a cork"]
    return ["bottle", "glass bottle"][: 1 + m.chance(0.4)], [liquid.word], details


def pot(m: Maker) -> Described:
    body = m.stone() if m.chance(0.2) else m.color(roughness=0.4)
    r, h = 0.4, m.between(0.5, 1.3)
    which = int(m.rng.integers(5))
    if which == 0:
        neck = m.between(0.15, 0.3)
        waist = [(0.25, 0), (r, h * 0.35), (r * 0.95, h * 0.5), (neck, h * 0.82), (neck * 1.4, h)]
        m.add(lathe([*waist, (neck * 1.2, h), (neck * 0.8, h * 0.85), (0, h * 0.8)], 24), body)
        return ["vase"], [body.word, "ceramic"], []
    if which == 1:
        m.add(
            lathe([(r * 0.7, 0), (r, 0.6), (r * 1.1, 0.6), (r * 1.1, 0.72), (r * 0.9, 0.72), (0, 0.62)], 20),
            body,
        )
        leaf = m.leaves()
        for _ in range(7):
            a, tilt = m.between(0, 360), m.between(15, 50)
            blade = moved(scaled(ball(0.12, segments=8), 1, m.between(2.5, 4), 0.35), y=0.4)
            m.add(moved(turned(turned(blade, "x", -tilt), "y", a), y=0.6), leaf, 0.1)
        return ["potted plant", "plant pot"], [body.word], ["green leaves"]
    if which == 2:
        m.add(lathe([(r * 0.85, 0), (r * 0.85, 0.8), (r * 0.75, 0.8), (r * 0.75, 0.1), (0, 0.1)], 22), body)
        m.add(moved(scaled(turned(ring(0.25, 0.05, segments=16), "x", 90), 0.9, 1.1), r + 0.02, 0.4), body)
        return (
            ["mug", "cup", "coffee mug"][: 1 + int(m.rng.integers(3))],
            [body.word, "ceramic"],
            ["a handle"],
        )
    if which == 3:
        wood = m.wood() if m.chance(0.6) else m.metal()
        m.add(lathe([(r * 0.75, 0), (r, 0.75), (r * 0.92, 0.75), (r * 0.7, 0.08), (0, 0.08)], 18), wood)
        band = m.metal()
        m.add(moved(lathe([(r * 0.82, 0), (r * 0.88, 0.08)], 18), y=0.15), band)
        for i in range(8):
            a, b = (np.pi * k / 8 for k in (i, i + 1))
            points = [(r * float(np.cos(t)), 0.72 + 0.45 * float(np.sin(t)), 0.0) for t in (a, b)]
            m.add(tube(points[0], points[1], 0.03), band)
        return ["bucket", "pail"][: 1 + m.chance(0.3)], [wood.word], [f"a {band.noun} handle"]
    metal = m.metal("iron", "copper", "black metal")
    m.add(lathe([(0.3, 0), (r, 0.3), (r * 1.05, 0.6), (r * 0.8, 0.8), (r * 0.8, 0.7), (0, 0.65)], 22), metal)
    for a in (30, 150, 270):
        m.add(turned(tube((0, 0.1, 0.3), (0, -0.12, 0.38), 0.05), "y", a), metal)
    brew = m.color("green", "purple", "brown", "orange")
    m.add(moved(cylinder(r * 0.85, 0.02, segments=20), y=0.68), brew)
    return (
        ["cauldron", "cooking pot"],
        [metal.word],
        [f"{brew.word} soup" if m.chance(0.5) else f"{brew.word} brew"],
    )


def gift(m: Maker) -> Described:
    paper, ribbon = m.color(), m.color()
    w, h = m.between(0.8, 1.1), m.between(0.5, 1.0)
    m.add(box(w, h, w), paper)
    for a in (0, 90):
        m.add(turned(box(0.14, h * 1.02, w * 1.03), "y", a), ribbon)
    for s in (-1, 1):
        m.add(moved(scaled(turned(ring(0.15, 0.045), "x", 90), 1.2, 0.8), s * 0.17, h + 0.12), ribbon)
    return ["gift box", "present", "gift"], [paper.word], [f"a {ribbon.word} ribbon", f"a {ribbon.word} bow"]
