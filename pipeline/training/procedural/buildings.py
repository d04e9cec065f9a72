"""Houses, towers, wells, fences and what stands beside them."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import Solid, box, cylinder, lathe, loft, moved, prism, tube, turned


def gable(width: float, height: float, depth: float) -> Solid:
    """A roof whose ridge runs along z."""
    return prism([(-width / 2, 0), (width / 2, 0), (0.0, height)], depth)


def hip(width: float, height: float, depth: float) -> Solid:
    """A roof that slopes to all sides."""
    w, d, r = width / 2, depth / 2, max(0.0, (depth - width) / 2)
    base = [(-w, 0.0, -d), (w, 0.0, -d), (w, 0.0, d), (-w, 0.0, d)]
    top = [
        (-0.01, height, -r - 0.01),
        (0.01, height, -r - 0.01),
        (0.01, height, r + 0.01),
        (-0.01, height, r + 0.01),
    ]
    return loft([base, top])


def _window(
    m: Maker, x: float, y: float, z: float, turn: float, size: float, frame: Finish, pane: Finish
) -> None:
    for solid, finish in (
        (box(size * 1.3, size * 1.3, 0.04), frame),
        (moved(box(size, size, 0.07), y=size * 0.15), pane),
    ):
        m.add(moved(turned(moved(solid, z=z), "y", turn), x, y), finish)


def house(m: Maker) -> Described:
    w, d = m.between(1.0, 1.5), m.between(1.0, 1.6)
    floors = 1 if m.chance(0.6) else 2
    h = m.between(0.6, 0.8) * floors
    kind = int(m.rng.integers(4))
    light = m.color("white", "beige", "yellow", "light grey", roughness=0.85)
    wall = (m.wood(), m.stone(), m.color(roughness=0.85), light)[kind]
    roof = m.color("red", "brown", "dark grey", "blue", "green", "orange", "dark red", "teal", roughness=0.85)
    trim = m.wood() if m.chance(0.6) else m.color("white")
    m.add(box(w, h, d), wall)
    if m.chance(0.4):
        m.add(box(w * 1.06, 0.08, d * 1.06), m.stone())
    rise, style = m.between(0.4, 0.8), int(m.rng.integers(3))
    if style == 0:
        m.add(moved(turned(gable(d, rise * 0.97, w), "y", 90), y=h), wall)
        eave, x = d / 2 * 1.18, w * 0.58
        for s in (-1, 1):
            section = [
                (rise, 0.0),
                (rise + 0.09, 0.0),
                (0.09 - rise * 0.18, s * eave),
                (-rise * 0.18, s * eave),
            ]
            m.add(moved(loft([[(end, y, z) for y, z in section] for end in (-x, x)]), y=h), roof, 0.04)
    elif style == 1:
        m.add(moved(gable(w * 1.18, rise, d * 1.12), y=h), roof)
        m.add(moved(gable(w * 0.98, rise * 0.84, d * 1.13), y=h), wall)
    else:
        m.add(moved(hip(w * 1.2, rise, d * 1.2), y=h), roof)
    pane = m.color("light blue", "blue", "yellow", "dark grey", roughness=0.15)
    door = m.wood() if m.chance(0.7) else m.color("red", "blue", "green")
    at = m.between(-0.2, 0.2) * w
    m.add(moved(box(0.34, 0.52, 0.05), at, 0, d / 2), trim)
    m.add(moved(box(0.26, 0.47, 0.08), at, 0, d / 2), door)
    for level in range(floors):
        y = h * (level + 0.4) / floors
        for x in (-0.34 * w, 0.34 * w, *([0.0] if level else [])):
            if level or abs(x - at) > 0.3:
                _window(m, x, y, d / 2, 0, 0.2, trim, pane)
            _window(m, x, y, d / 2, 180, 0.2, trim, pane)
        for turn in (90, 270):
            for z in (-0.25 * d, 0.25 * d):
                solid = moved(box(0.26, 0.26, 0.04), z, 0, w / 2)
                m.add(moved(turned(solid, "y", turn), y=y), trim)
                m.add(moved(turned(moved(box(0.2, 0.2, 0.07), z, 0.03, w / 2), "y", turn), y=y), pane)
    details = [f"a {roof.word} roof"]
    if m.chance(0.6):
        chimney = m.stone() if m.chance(0.5) else m.color("red", "brown")
        m.add(moved(box(0.18, rise * 0.9, 0.18), w * 0.27, h + rise * 0.25, -d * 0.2), chimney)
        details.append("a chimney")
    names = [
        "house",
        "cottage" if floors == 1 else "two-storey house",
        "building",
        "cabin" if kind == 0 else "small house",
    ]
    return names[: 1 + int(m.rng.integers(4))], [wall.word], details


def tower(m: Maker) -> Described:
    wall, h, r = m.stone(), m.between(1.6, 2.6), m.between(0.4, 0.6)
    n = m.one_of(4, 6, 8, 16, 20)
    assert isinstance(n, int)
    m.add(lathe([(r * 1.15, 0), (r * 1.05, 0.2), (r, h * 0.8), (r * 1.2, h * 0.9), (r * 1.2, h)], n), wall)
    dark = m.color("black", "dark grey", "dark brown")
    for k in range(3):
        m.add(
            moved(turned(moved(box(0.12, 0.28, 0.1), z=r * 0.98), "y", k * 90.0), y=h * (0.35 + 0.2 * k)),
            dark,
        )
    m.add(moved(box(0.3, 0.5, 0.12), z=r * 1.05), m.wood())
    if m.chance(0.5):
        roof = m.color("red", "blue", "purple", "green", "brown", "orange", roughness=0.85)
        m.add(moved(cylinder(r * 1.4, m.between(0.7, 1.2), 0.0, n), y=h), roof)
        return (
            ["tower", "castle tower", "wizard tower"][: int(m.rng.integers(1, 4))],
            [wall.word],
            [f"a {roof.word} roof"],
        )
    for k in range(8):
        m.add(turned(moved(box(0.2, 0.22, 0.14), y=h, z=r * 1.12), "y", k * 45.0), wall)
    return ["tower", "castle tower", "watchtower"][: int(m.rng.integers(1, 4))], [wall.word], ["battlements"]


def well(m: Maker) -> Described:
    stone, wood = m.stone(), m.wood()
    roof = m.wood() if m.chance(0.5) else m.color("red", "blue", "brown", "orange")
    m.add(
        lathe([(0.6, 0), (0.58, 0.5), (0.64, 0.5), (0.64, 0.6), (0.45, 0.6), (0.45, 0.2), (0, 0.2)], 18),
        stone,
    )
    m.add(moved(cylinder(0.45, 0.02), y=0.25), m.color("blue"))
    for s in (-1, 1):
        m.add(moved(box(0.1, 1.0, 0.1), s * 0.5, 0.5), wood)
    m.add(tube((-0.5, 1.1, 0), (0.5, 1.1, 0), 0.06), wood)
    m.add(moved(turned(gable(0.95, 0.42, 1.35), "y", 90), y=1.4), roof)
    m.add(moved(cylinder(0.1, 0.18, 0.12), y=0.75), wood)
    return ["well", "water well"], [stone.word], [f"a {roof.word} roof"]


def fence(m: Maker) -> Described:
    wood = m.wood() if m.chance(0.65) else m.color("white", "white", "brown", "dark brown", "light grey")
    kind = int(m.rng.integers(5))
    if kind <= 1:
        n, gap = int(m.rng.integers(4, 7)), m.between(0.3, 0.36)
        w, h, tip = m.between(0.15, 0.19), m.between(0.65, 0.85), m.between(0.06, 0.14)
        for i in range(n):
            x = (i - (n - 1) / 2) * gap
            top = [(w / 2, h), (0.0, h + tip), (-w / 2, h)] if kind == 0 else [(w / 2, h), (-w / 2, h)]
            m.add(moved(prism([(-w / 2, 0), (w / 2, 0), *top], 0.08), x), wood, 0.07)
        for y in (0.25 * h, 0.72 * h):
            m.add(moved(box(n * gap, 0.1, 0.08), y=y, z=-0.07), wood, 0.05)
        gate = m.chance(0.25)
        if gate:
            for s in (-1, 1):
                m.add(moved(box(0.2, h + 0.3, 0.2), s * (n * gap / 2 + 0.08)), wood, 0.1)
            span, rise = n * gap, 0.47 * h
            brace = turned(
                moved(box(float(np.hypot(span, rise)), 0.1, 0.08), y=-0.05),
                "z",
                np.rad2deg(np.arctan2(rise, span)),
            )
            m.add(moved(brace, y=0.55 * h, z=-0.1), wood, 0.05)
            return ["gate", "garden gate", "fence gate"], [wood.word], ["two posts"]
        names = ["fence", "picket fence", "garden fence"] if kind == 0 else ["fence", "garden fence"]
        return (
            names[: 1 + int(m.rng.integers(len(names)))],
            [wood.word],
            [f"{n} pickets"] if kind == 0 else [],
        )
    if kind == 4:
        metal, n = m.metal("black metal", "iron", "metal"), int(m.rng.integers(6, 9))
        for i in range(n):
            x = (i - (n - 1) / 2) * 0.24
            m.add(moved(cylinder(0.04, 0.85, segments=8), x), metal)
            m.add(moved(lathe([(0.03, 0), (0.075, 0.05), (0.0, 0.2)], 6), x, 0.82), metal)
        for y in (0.12, 0.68):
            m.add(moved(box(n * 0.24 + 0.1, 0.08, 0.08), y=y), metal)
        for s in (-1, 1):
            m.add(moved(box(0.14, 0.98, 0.14), s * (n * 0.12 + 0.06)), metal)
        return ["fence", "iron fence", "metal fence"][: 1 + (metal.noun == "iron")], [metal.word], []
    posts, span = int(m.rng.integers(2, 5)), m.between(0.75, 1.0)
    post = m.stone() if m.chance(0.15) else wood
    t, h = (0.24 if post is not wood else m.between(0.12, 0.17)), m.between(0.75, 0.95)
    round_bars = m.chance(0.4)
    for i in range(posts):
        x = (i - (posts - 1) / 2) * span
        m.add(moved(cylinder(t * 0.6, h, segments=10) if round_bars else box(t, h, t), x), post, 0.06)
    half = (posts - 1) / 2 * span + (0.12 if m.chance(0.5) else 0.0)
    rails = 2 + m.chance(0.4)
    heights = (0.28, 0.68) if rails == 2 else (0.18, 0.46, 0.74)
    for y in heights:
        if round_bars:
            m.add(tube((-half, h * y, 0), (half, h * y, 0), 0.055), wood, 0.06)
        else:
            m.add(moved(box(half * 2, 0.12, 0.07), 0, h * y, t / 2), wood, 0.06)
    names = [
        "fence",
        "wooden fence" if wood.word == "wooden" else "farm fence",
        "rail fence",
        "post and rail fence",
    ]
    return names[: 1 + int(m.rng.integers(4))], [wood.word], [f"{rails} rails", f"{post.noun} posts"]


def sign(m: Maker) -> Described:
    wood, board = m.wood(), (m.wood() if m.chance(0.5) else m.color())
    m.add(box(0.1, 1.3, 0.1), wood)
    if m.chance(0.5):
        m.add(
            moved(
                prism([(-0.4, 0), (0.35, 0), (0.55, 0.14), (0.35, 0.28), (-0.4, 0.28)], 0.06), 0.1, 0.9, 0.06
            ),
            board,
        )
        return ["signpost", "wooden sign", "arrow sign"], [board.word], []
    m.add(moved(box(0.9, 0.5, 0.07), 0, 0.85, 0.06), board)
    return ["sign", "signpost"], [board.word], []


def tent(m: Maker) -> Described:
    cloth = m.color(roughness=0.9)
    if m.chance(0.5):
        m.add(gable(1.3, 1.0, 1.7), cloth)
        m.add(moved(prism([(-0.2, 0), (0.2, 0), (0, 0.7)], 0.02), z=0.86), m.color("black", "dark brown"))
        return ["tent", "camping tent"], [cloth.word], []
    m.add(cylinder(0.8, 1.5, 0.05, int(m.rng.integers(6, 13))), cloth)
    m.add(moved(prism([(-0.22, 0), (0.22, 0), (0, 0.75)], 0.02), z=0.68), m.color("black", "dark brown"))
    for a in (0, 120, 240):
        m.add(turned(tube((0.05, 1.4, 0), (-0.1, 1.75, 0.05), 0.03), "y", a), m.wood())
    return ["tent", "teepee"], [cloth.word], []


def gravestone(m: Maker) -> Described:
    stone, w = m.stone(), m.between(0.5, 0.8)
    arch = [(w / 2 * float(np.cos(a)), 0.7 + w / 2 * float(np.sin(a))) for a in np.linspace(0, np.pi, 9)]
    m.add(prism([(w / 2, 0.0), *arch, (-w / 2, 0.0)], 0.18), stone)
    m.add(box(w * 1.3, 0.12, 0.4), stone, 0.1)
    if m.chance(0.4):
        dark = m.darker(stone)
        m.add(moved(box(0.07, 0.4, 0.2), y=0.45), dark)
        m.add(moved(box(0.25, 0.07, 0.2), y=0.66), dark)
        return ["gravestone", "tombstone"], [stone.word], ["a cross"]
    return ["gravestone", "tombstone"], [stone.word], []


def column(m: Maker) -> Described:
    stone, h = m.stone(), m.between(1.4, 2.2)
    m.add(box(0.7, 0.16, 0.7), stone)
    m.add(
        lathe([(0.3, 0.16), (0.3, 0.25), (0.24, 0.32), (0.2, h - 0.2), (0.3, h - 0.08), (0.3, h)], 18), stone
    )
    m.add(moved(box(0.7, 0.14, 0.7), y=h), stone)
    return ["column", "pillar"], [stone.word], []


def windmill(m: Maker) -> Described:
    wall = m.stone() if m.chance(0.5) else m.color("white", "beige")
    roof, sail = m.color("red", "brown", "blue"), m.color("white", "beige", "red")
    n = m.one_of(6, 8, 14)
    assert isinstance(n, int)
    m.add(cylinder(0.6, 1.5, 0.42, n), wall)
    m.add(moved(cylinder(0.5, 0.5, 0.0, n), y=1.5), roof)
    m.add(moved(box(0.3, 0.45, 0.1), z=0.56), m.wood())
    m.add(tube((0, 1.5, 0.3), (0, 1.5, 0.62), 0.07), m.wood())
    start = m.between(0, 90)
    for k in range(4):
        blade = moved(box(0.24, 0.85, 0.03), 0.08, 0.15)
        m.add(moved(turned(blade, "z", start + 90 * k), 0, 1.5, 0.6), sail)
    return ["windmill"], [wall.word], [f"a {roof.word} roof", f"{sail.word} sails"]


def lighthouse(m: Maker) -> Described:
    a, b = m.color("red", "blue", "black"), m.color("white")
    h, r = 2.0, 0.42
    for i in range(5):
        low, high = (r * (1 - 0.35 * t / 5) for t in (i, i + 1))
        m.add(moved(cylinder(low, h / 5, high, 18), y=h * i / 5), (a, b)[i % 2])
    m.add(moved(cylinder(0.36, 0.06), y=h), m.color("dark grey"))
    m.add(moved(cylinder(0.2, 0.3), y=h), m.color("yellow", roughness=0.15))
    m.add(moved(cylinder(0.3, 0.25, 0.0), y=h + 0.3), a)
    return ["lighthouse"], [f"{a.word} and white"], [f"{a.word} and white stripes"]
