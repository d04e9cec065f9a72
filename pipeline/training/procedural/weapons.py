"""Swords, axes, hammers, shields, bows, staffs, tools."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Maker
from pipeline.training.procedural.solids import (
    ball,
    box,
    cylinder,
    lathe,
    loft,
    lump,
    moved,
    prism,
    ring,
    scaled,
    tube,
    turned,
)


def sword(m: Maker) -> Described:
    blade = (
        m.metal("steel", "iron", "silver", "gold", "black metal", "steel")
        if m.chance(0.85)
        else m.color(roughness=0.3)
    )
    guard, grip = m.metal(), (m.wood() if m.chance(0.5) else m.color(roughness=0.8))
    length, w, t = m.between(1.0, 1.9), m.between(0.1, 0.22), 0.06
    shape = ((0.0, 1.0), (length * m.between(0.7, 0.88), m.between(0.8, 1.15)), (length, 0.03))
    rings = [
        [(w / 2 * s, y, 0.0), (0.0, y, t / 2 * s), (-w / 2 * s, y, 0.0), (0.0, y, -t / 2 * s)]
        for y, s in shape
    ]
    m.add(moved(loft(rings), y=0.55), blade)
    wide = m.between(0.35, 0.6)
    if m.chance(0.6):
        m.add(moved(box(wide, 0.09, 0.13), y=0.48), guard)
    else:
        for s in (-1, 1):
            m.add(tube((0, 0.52, 0), (s * wide / 2, 0.52 + m.between(-0.12, 0.15), 0), 0.06, 0.035), guard)
    m.add(moved(cylinder(0.055, 0.42, segments=10), y=0.08), grip)
    m.add(moved(ball(0.09, segments=10), y=0.05), guard)
    short = length < 1.15
    names = (
        ["dagger", "short sword", "knife"][: 1 + m.chance(0.5)]
        if short
        else ["sword", "longsword"][: 1 + m.chance(0.3)]
    )
    return names, [blade.word], [f"a {guard.noun} guard", f"a {grip.noun} grip"]


def axe(m: Maker) -> Described:
    head, shaft, double = m.metal(), m.wood(), m.chance(0.35)
    m.add(cylinder(0.06, 1.6, 0.05, 10), shaft)
    edge = [(0.05, -0.12), (0.42, -0.32), (0.5, 0.0), (0.42, 0.32), (0.05, 0.12)]
    for s in (1, -1) if double else (1,):
        m.add(moved(prism([(x * s, y) for x, y in edge], 0.07, inset=0.85), y=1.35), head)
    m.add(moved(box(0.17, 0.28, 0.16), y=1.21), head)
    return ["axe", "double-bladed axe" if double else "battle axe"], [head.word], [f"a {shaft.noun} handle"]


def hammer(m: Maker) -> Described:
    head = m.metal() if m.chance(0.7) else m.stone()
    shaft, h = m.wood(), m.between(0.9, 1.6)
    w = m.between(0.5, 0.8)
    m.add(cylinder(0.06, h, 0.055, 10), shaft)
    if m.chance(0.5):
        m.add(moved(box(w, 0.34, 0.34, bevel=0.05), y=h - 0.2), head)
    else:
        m.add(moved(turned(moved(cylinder(0.18, w, segments=14), y=-w / 2), "z", 90), y=h - 0.05), head)
    return ["hammer", "war hammer"][: 1 + m.chance(0.5)], [head.word], [f"a {shaft.noun} handle"]


def shield(m: Maker) -> Described:
    body = m.wood() if m.chance(0.4) else m.color(roughness=0.6) if m.chance(0.7) else m.metal()
    rim = m.metal()
    if m.chance(0.5):
        m.add(turned(moved(cylinder(0.6, 0.07, 0.58, 26), y=-0.03), "x", 90), body)
        m.add(turned(ring(0.6, 0.05, segments=28), "x", 90), rim)
        m.add(moved(scaled(ball(0.2), 1, 1, 0.6), z=0.05), rim)
        return ["shield", "round shield"], [body.word], [f"a {rim.noun} rim", f"a {rim.noun} boss"]
    outline = [(-0.5, 0.9), (0.5, 0.9), (0.5, 0.4), (0.34, 0.0), (0.0, -0.35), (-0.34, 0.0), (-0.5, 0.4)]
    m.add(prism([(x * 1.1, (y - 0.4) * 1.1 + 0.4) for x, y in outline], 0.08), rim)
    m.add(prism(outline, 0.14), body)
    if m.chance(0.6):
        mark = m.color()
        m.add(moved(box(0.12, 0.9, 0.18), y=-0.08), mark)
        m.add(moved(box(0.75, 0.12, 0.18), y=0.45), mark)
        return ["shield", "kite shield"], [body.word], [f"a {mark.word} cross", f"a {rim.noun} rim"]
    return ["shield", "kite shield"], [body.word], [f"a {rim.noun} rim"]


def bow(m: Maker) -> Described:
    wood = m.wood()
    points = [
        (0.35 * float(np.cos(t)) - 0.35, 0.9 * float(np.sin(t)), 0.0) for t in np.linspace(-1.35, 1.35, 9)
    ]
    for a, b in pairwise(points):
        m.add(tube(a, b, 0.045), wood)
    m.add(tube(points[0], points[-1], 0.012), m.color("white", "beige"))
    return ["bow"], [wood.word], []


def staff(m: Maker) -> Described:
    wood, gem = m.wood(), m.color("blue", "red", "green", "purple", "teal", "pink", roughness=0.15)
    m.add(cylinder(0.05, 1.7, 0.06, 10), wood)
    for a in (0, 120, 240):
        m.add(
            turned(tube((0.03, 1.65, 0), (0.16, 1.9, 0), 0.035), "y", a),
            wood if m.chance(0.5) else m.metal("gold"),
        )
    m.add(moved(lump(0.15, 0.2, m.rng), y=1.87), gem)
    return (
        ["staff", "magic staff", "wizard staff"],
        [wood.word],
        [f"a {gem.word} gem", f"a {gem.word} crystal"],
    )


def pickaxe(m: Maker) -> Described:
    head, wood = m.metal(), m.wood()
    m.add(cylinder(0.06, 1.4, 0.055, 10), wood)
    if m.chance(0.6):
        for s in (-1, 1):
            m.add(tube((0, 1.35, 0), (s * 0.55, 1.2, 0), 0.09, 0.01, 6), head)
        return ["pickaxe"], [head.word], [f"a {wood.noun} handle"]
    m.add(moved(prism([(-0.2, 0.0), (0.2, 0.0), (0.2, 0.3), (0.0, 0.5), (-0.2, 0.3)], 0.05), y=1.35), head)
    m.add(moved(box(0.3, 0.07, 0.07), y=0.0), wood)
    return ["shovel", "spade"], [head.word], [f"a {wood.noun} handle"]


def cannon(m: Maker) -> Described:
    metal, wood = m.metal("iron", "bronze", "black metal"), m.wood()
    breech = [(0.0, -0.1), (0.24, 0.0), (0.24, 0.3), (0.18, 0.4)]
    muzzle = [(0.15, 1.2), (0.2, 1.25), (0.2, 1.35), (0.12, 1.35), (0.12, 1.0)]
    m.add(moved(turned(lathe([*breech, *muzzle], 18), "x", 75), 0, 0.55, -0.4), metal)
    for s in (-1, 1):
        m.add(moved(box(0.1, 0.4, 0.9), s * 0.26, 0.2, -0.1), wood)
        for z in (-0.4, 0.25):
            m.add(
                moved(turned(moved(cylinder(0.2, 0.09, segments=14), y=-0.045), "z", 90), s * 0.36, 0.2, z),
                wood,
                0.15,
            )
    return ["cannon"], [metal.word], [f"{wood.noun} wheels"]


def anvil(m: Maker) -> Described:
    metal = m.metal("iron", "steel", "black metal")
    m.add(box(0.7, 0.18, 0.5, taper=0.8), metal)
    m.add(moved(box(0.35, 0.3, 0.3), y=0.15), metal)
    m.add(moved(box(0.9, 0.25, 0.4), y=0.42), metal)
    m.add(tube((0.4, 0.56, 0), (0.95, 0.62, 0), 0.12, 0.01), metal)
    details = []
    if m.chance(0.4):
        wood = m.wood()
        m.add(moved(cylinder(0.45, 0.4, segments=14), y=-0.4), wood)
        details = ["a wooden stump"]
    return ["anvil"], [metal.word], details
