"""Trees, mushrooms, rocks, flowers, food."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import (
    Solid,
    ball,
    box,
    cylinder,
    lathe,
    lump,
    moved,
    ring,
    scaled,
    tube,
    turned,
)


def mushroom(m: Maker) -> Described:
    cap, stem = m.color(roughness=0.6), m.color("white", "beige", "light grey", roughness=0.8)
    h, r, dome = m.between(0.4, 0.9), m.between(0.4, 0.65), m.between(0.25, 0.55)
    m.add(lathe([(0.16, 0), (0.12, h * 0.5), (0.13, h)], 14), stem)
    angle = np.linspace(0, np.pi / 2, 8)
    skin = [(r * 0.4, h - 0.02), (r, h - 0.08)] + [
        (r * float(np.cos(a)), h + dome * float(np.sin(a))) for a in angle
    ]
    m.add(lathe(skin, 22), cap)
    details = [f"a {stem.word} stem"]
    if m.chance(0.5):
        dot = m.color("white", "yellow", "beige")
        for i in range(11):
            a, b = i * 2.4 + m.between(-0.3, 0.3), (0.25, 0.75, 1.3)[i % 3] if i else 1.57
            x, y, z = r * np.cos(b) * np.sin(a), h + dome * np.sin(b), r * np.cos(b) * np.cos(a)
            m.add(moved(scaled(ball(r * 0.16, segments=8), 1, 0.6, 1), float(x), float(y), float(z)), dot)
        details.insert(0, f"{dot.word} spots")
    return ["mushroom", "toadstool"][: 1 + m.chance(0.3)], [cap.word], details


def tree(m: Maker) -> Described:
    trunk, leaf = m.wood(), m.leaves()
    kind = int(m.rng.integers(4))
    if kind == 0:
        h, r, n = m.between(1.4, 2.2), m.between(0.5, 0.7), int(m.rng.integers(2, 5))
        m.add(cylinder(0.12, h * 0.3), trunk)
        for i in range(n):
            y = h * (0.2 + 0.65 * i / n)
            m.add(moved(cylinder(r * (1 - 0.7 * i / n), h * 0.75 / n + 0.25, 0.0, 12), y=y), leaf, 0.05)
        snow = m.chance(0.2)
        if snow:
            m.add(moved(cylinder(r * 0.25, 0.25, 0.0, 12), y=h * 0.95), m.color("white"))
        return (
            ["pine tree", "fir tree", "tree"],
            [leaf.word] if m.chance(0.5) else [],
            ["snow"] if snow else [],
        )
    if m.chance(0.3):
        leaf = m.color("orange", "red", "yellow", "pink", "purple", roughness=0.75)
    if kind == 3:
        h = m.between(1.3, 1.9)
        m.add(tube((0, 0, 0), (0.15, h * 0.5, 0), 0.12, 0.09), trunk)
        m.add(tube((0.15, h * 0.5, 0), (0.18, h, 0), 0.09, 0.07), trunk)
        green = m.leaves()
        for k in range(7):
            a = 2 * np.pi * k / 7
            for r0, r1, y0, y1 in ((0.0, 0.4, 0.0, 0.12), (0.4, 0.75, 0.12, -0.12)):
                p, q = (
                    (0.18 + r * float(np.sin(a)), h + y, r * float(np.cos(a)))
                    for r, y in ((r0, y0), (r1, y1))
                )
                m.add(tube(p, q, 0.11 if r0 == 0 else 0.13, 0.13 if r0 == 0 else 0.01, 4), green, 0.06)
        return ["palm tree", "palm"], [], ["green leaves"]
    h = m.between(0.6, 1.0)
    m.add(cylinder(0.14, h, 0.09, 10), trunk)
    if kind == 1:
        m.add(moved(lump(m.between(0.5, 0.7), 0.3, m.rng, m.between(0.8, 1.2)), y=h + 0.35), leaf)
    else:
        for _ in range(5):
            x, z = m.rng.normal(size=2) * 0.25
            m.add(
                moved(
                    lump(m.between(0.3, 0.45), 0.3, m.rng, 0.85), float(x), h + m.between(0.0, 0.55), float(z)
                ),
                leaf,
                0.06,
            )
    return (
        ["tree", "oak tree", "round tree"][: 1 + int(m.rng.integers(3))],
        [leaf.word],
        [f"{leaf.word} leaves", f"a {trunk.word} trunk"],
    )


def _boulder(m: Maker, radius: float, squash: float) -> Solid:
    """A lump with flat broken faces that stands on y = 0."""
    vertices, faces = lump(radius, 0.45, m.rng, squash)
    for _ in range(int(m.rng.integers(7, 13))):
        normal = m.rng.normal(size=3)
        normal[1] = 0.8 * abs(normal[1]) - 0.15
        normal /= np.linalg.norm(normal)
        over = np.maximum(vertices @ normal - m.between(0.55, 0.8) * float((vertices @ normal).max()), 0)
        vertices = (vertices - over[:, None] * normal).astype(np.float32)
    vertices[:, 1] -= vertices[:, 1].min() * 0.5
    vertices[:, 1] = np.maximum(vertices[:, 1], 0)
    return vertices, faces


def rock(m: Maker) -> Described:
    stone = m.stone() if m.chance(0.8) else m.color("brown", "dark brown", "beige", roughness=0.9)
    moss = m.leaves() if m.chance(0.3) else None
    single = m.chance(0.55)
    sizes = [1.0] if single else [1.0, *(m.between(0.35, 0.75) for _ in range(int(m.rng.integers(2, 6))))]
    start, turn = m.between(0, 360), m.between(65, 140)
    for k, size in enumerate(sizes):
        solid = _boulder(m, 0.55 * size, m.between(0.6, 1.3 if single else 1.0))
        solid = scaled(solid, m.between(0.8, 1.4), 1, m.between(0.8, 1.2))
        away = 0.0 if k == 0 else 0.4 + 0.3 * size
        a = np.deg2rad(start + turn * k)
        at = (away * float(np.sin(a)), 0.0, away * float(np.cos(a)))
        m.add(moved(solid, *at), stone, 0.08 if k else 0.0)
        if moss and (k == 0 or m.chance(0.5)):
            vertices = solid[0] * np.array([1.04, 1.05, 1.04], np.float32)
            vertices[:, 1] = np.maximum(vertices[:, 1], vertices[:, 1].max() * m.between(0.5, 0.7))
            m.add(moved((vertices, solid[1]), *at), moss)
    names = ["rock", "boulder", "big rock"] if single else ["rocks", "pile of rocks", "boulders"]
    if moss:
        return names[: 1 + int(m.rng.integers(3))], ["mossy"], [f"{moss.word} moss"]
    word = "grey" if stone.word == "stone" else stone.word
    return names[: 1 + int(m.rng.integers(3))], [word], []


def crystal(m: Maker) -> Described:
    gem = m.color("blue", "purple", "green", "red", "pink", "teal", "light blue", "yellow", roughness=0.15)
    for i in range(int(m.rng.integers(1, 7))):
        h, r = m.between(0.6, 1.2) * (1.0 if i == 0 else 0.6), m.between(0.12, 0.22)
        shard = lathe([(r * 0.6, 0), (r, h * 0.3), (r, h * 0.75), (0, h)], 6)
        tilt = 0.0 if i == 0 else m.between(15, 45)
        m.add(turned(turned(shard, "x", tilt), "y", m.between(0, 360)), gem, 0.08)
    if m.chance(0.4):
        m.add(moved(lump(0.45, 0.5, m.rng, 0.3), y=0), m.stone())
    return (
        ["crystal", "gem" if len(m.parts) == 1 else "crystals", "crystal cluster"][
            : 1 + (len(m.parts) > 1) * 2
        ],
        [gem.word],
        [],
    )


def cactus(m: Maker) -> Described:
    green, h = m.color("green", "dark green", "light green"), m.between(1.0, 1.6)
    m.add(cylinder(0.2, h, segments=10), green)
    m.add(moved(ball(0.2, segments=10), y=h), green)
    for s in (-1, 1)[: 1 + m.chance(0.7)]:
        y = m.between(0.35, 0.6) * h
        m.add(tube((0, y, 0), (s * 0.45, y, 0), 0.11), green)
        m.add(tube((s * 0.45, y - 0.05, 0), (s * 0.45, y + 0.4, 0), 0.12), green)
        m.add(moved(ball(0.12, segments=10), s * 0.45, y + 0.4), green)
    details = []
    if m.chance(0.4):
        pot = m.color("orange", "brown", "red", "white")
        m.add(moved(cylinder(0.3, 0.4, 0.4), y=-0.35), pot)
        details = [f"a {pot.word} pot"]
    return ["cactus"], [green.word], details


def flower(m: Maker) -> Described:
    petal, heart, stem = m.color(roughness=0.75), m.color("yellow", "orange", "brown"), m.leaves()
    h, n = m.between(0.8, 1.2), int(m.rng.integers(5, 9))
    m.add(cylinder(0.04, h), stem)
    for i in range(n):
        leaf = moved(scaled(ball(0.17, segments=8), 0.75, 0.25, 1.3), z=0.27)
        m.add(moved(turned(turned(leaf, "y", 360 * i / n), "x", 35), y=h), petal)
    m.add(moved(turned(scaled(ball(0.14), 1, 0.5, 1), "x", 35), y=h + 0.02), heart)
    for s in (-1, 1):
        m.add(
            moved(turned(scaled(ball(0.18, segments=8), 1.2, 0.25, 0.5), "z", 25 * s), s * 0.18, h * 0.35),
            stem,
        )
    return ["flower"], [petal.word], [f"{petal.word} petals"]


def pumpkin(m: Maker) -> Described:
    skin = m.color("orange") if m.chance(0.7) else m.color("green", "white", "yellow")
    for k in range(8):
        m.add(
            moved(turned(moved(scaled(ball(0.36, segments=12), 1, 1.05, 1), z=0.25), "y", k * 45.0), y=0.36),
            skin,
            0.03,
        )
    m.add(moved(cylinder(0.08, 0.25, 0.05, 8), y=0.66), m.color("green", "brown"))
    if m.chance(0.5):
        dark = m.color("black", "yellow")
        for x, y in ((-0.18, 0.45), (0.18, 0.45)):
            m.add(moved(box(0.14, 0.14, 0.2, taper=0.1), x, y, 0.55), dark)
        m.add(moved(box(0.4, 0.09, 0.2), 0, 0.22, 0.55), dark)
        return ["pumpkin", "jack-o-lantern", "halloween pumpkin"], [skin.word], ["a face", "a carved face"]
    return ["pumpkin"], [skin.word], ["a stem"]


def cake(m: Maker) -> Described:
    icing, sponge = (
        m.color("white", "pink", "brown", "light blue", "yellow"),
        m.color("beige", "brown", "dark brown"),
    )
    r, tiers = 0.5, int(m.rng.integers(1, 4))
    y = 0.0
    for i in range(tiers):
        s = r * (1 - 0.25 * i)
        m.add(moved(cylinder(s, 0.28, segments=24), y=y), sponge)
        m.add(
            moved(lathe([(s * 1.03, 0), (s * 1.03, 0.1), (s * 0.95, 0.13), (0, 0.13)], 24), y=y + 0.2), icing
        )
        y += 0.33
    if m.chance(0.5):
        top = m.color("red")
        m.add(moved(ball(0.1), y=y + 0.06), top)
        return ["cake", "birthday cake"], [icing.word], [f"{icing.word} icing", "a cherry on top"]
    for k in range(4):
        m.add(
            moved(cylinder(0.025, 0.2), 0.2 * float(np.sin(k * 1.57)), y, 0.2 * float(np.cos(k * 1.57))),
            m.color(),
        )
    return ["cake", "birthday cake"], [icing.word], [f"{icing.word} icing", "candles"]


def burger(m: Maker) -> Described:
    bun = m.color("orange", "beige", "gold", roughness=0.7)
    y = 0.0
    layers: list[tuple[float, float, Finish]] = [
        (0.5, 0.16, bun),
        (0.54, 0.13, m.color("brown", "dark brown")),
    ]
    extras = [(0.56, 0.05, m.color("yellow")), (0.58, 0.05, m.color("green")), (0.5, 0.07, m.color("red"))]
    layers += [extras[i] for i in m.rng.permutation(3)[: int(m.rng.integers(1, 4))]]
    for r, h, finish in layers:
        m.add(moved(lathe([(r * 0.96, 0), (r, h * 0.5), (r * 0.96, h)], 22), y=y), finish)
        y += h
    m.add(moved(lathe([(0.5, 0), (0.52, 0.08), (0.42, 0.25), (0.22, 0.34), (0, 0.36)], 22), y=y), bun)
    return ["burger", "hamburger", "cheeseburger"], [], []


def donut(m: Maker) -> Described:
    icing, dough = (
        m.color("pink", "brown", "white", "light blue", "yellow"),
        m.color("beige", "orange", "brown"),
    )
    m.add(ring(0.42, 0.22, 0.85), dough)
    m.add(moved(ring(0.42, 0.215, 0.6), y=0.07), icing)
    return ["donut", "doughnut"], [icing.word], [f"{icing.word} icing"]


def ice_cream(m: Maker) -> Described:
    scoop, cone = (
        m.color("pink", "white", "brown", "light green", "yellow", "light blue"),
        m.color("beige", "orange"),
    )
    m.add(cylinder(0.03, 0.9, 0.32, 14), cone)
    m.add(moved(ball(0.36), y=1.0), scoop)
    if m.chance(0.5):
        other = m.color("pink", "white", "brown", "light green", "yellow")
        m.add(moved(ball(0.3), y=1.42), other)
        return ["ice cream", "ice cream cone"], [], [f"{scoop.word} and {other.word} scoops", "two scoops"]
    return ["ice cream", "ice cream cone"], [scoop.word], ["one scoop"]


def apple(m: Maker) -> Described:
    skin = m.color("red", "green", "yellow")
    shape = [(0.0, 0.08), (0.2, 0.0), (0.42, 0.25), (0.5, 0.55), (0.38, 0.82), (0.15, 0.86), (0.0, 0.76)]
    m.add(lathe(shape, 20), skin)
    m.add(tube((0, 0.75, 0), (0.06, 1.0, 0), 0.025), m.color("brown"))
    if m.chance(0.6):
        m.add(moved(turned(scaled(ball(0.14, segments=8), 1.3, 0.2, 0.6), "z", 20), 0.2, 0.96), m.leaves())
    return ["apple"], [skin.word], ["a leaf"]


def snowman(m: Maker) -> Described:
    snow, scarf, hat = (
        m.color("white"),
        m.color("red", "blue", "green"),
        m.color("black", "dark grey", "brown"),
    )
    for r, y in ((0.5, 0.42), (0.37, 1.08), (0.26, 1.58)):
        m.add(moved(ball(r), y=y), snow)
    m.add(tube((0, 1.58, 0.22), (0, 1.56, 0.5), 0.06, 0.01), m.color("orange"))
    for x in (-0.1, 0.1):
        m.add(moved(ball(0.035), x, 1.66, 0.23), m.color("black"))
    m.add(moved(ring(0.27, 0.07), y=1.36), scarf)
    m.add(moved(cylinder(0.34, 0.05), y=1.76), hat)
    m.add(moved(cylinder(0.21, 0.35), y=1.8), hat)
    for s in (-1, 1):
        m.add(tube((s * 0.33, 1.15, 0), (s * 0.8, 1.35, 0), 0.03), m.color("brown"))
    return ["snowman"], [], [f"a {scarf.word} scarf", f"a {hat.word} hat"]


def campfire(m: Maker) -> Described:
    wood, hot = m.wood(), m.color("orange", "orange", "red", roughness=0.5)
    flame = m.color("yellow", roughness=0.5)
    details = ["logs"]
    if m.chance(0.55):
        n = int(m.rng.integers(5, 8))
        for k in range(n):
            low, high = m.between(0.46, 0.54), m.between(0.5, 0.68)
            m.add(turned(tube((0, 0.03, low), (0, high, -0.06), 0.085), "y", 360 / n * k), wood, 0.12)
        lift, grow = 0.12, 1.0
    else:
        for level in range(int(m.rng.integers(2, 4))):
            for s in (-1, 1):
                log = tube((-0.5, 0.0, s * 0.27), (0.5, 0.0, s * 0.27), 0.085)
                m.add(moved(turned(log, "y", 20.0 + 90.0 * level), y=0.09 + 0.14 * level), wood, 0.12)
        lift, grow = 0.1, 1.15
        details = ["crossed logs", "logs"]
    if m.chance(0.8):
        n = int(m.rng.integers(9, 13))
        stone = m.stone() if m.chance(0.4) else m.color("grey", "dark grey", "light grey", roughness=0.9)
        for k in range(n):
            a, size = 2 * np.pi * k / n, m.between(0.14, 0.19)
            m.add(
                moved(_boulder(m, size, 0.9), 0.72 * float(np.sin(a)), 0, 0.72 * float(np.cos(a))), stone, 0.1
            )
        details = ["a ring of stones", "stones around it", *details]
    outline = [(0.12, 0), (0.27, 0.16), (0.22, 0.36), (0.09, 0.62), (0.0, 0.95)]
    m.add(moved(lathe([(r * grow, y * grow) for r, y in outline], 9), y=lift), hot)
    start = m.between(0, 90)
    for k in range(4):
        size = m.between(0.75, 1.15) * grow
        lick = lathe(
            [(0.05 * size, 0), (0.13 * size, 0.14 * size), (0.06 * size, 0.4 * size), (0.0, 0.6 * size)], 8
        )
        m.add(
            turned(moved(turned(lick, "x", 8), y=lift, z=0.2 * grow), "y", start + 90.0 * k),
            flame if k % 2 else hot,
            0.05,
        )
        inner = moved(scaled(lick, 0.8, 0.75, 0.8), y=lift, z=0.24 * grow)
        m.add(turned(inner, "y", start + 45 + 90.0 * k), flame)
    return ["campfire", "bonfire", "camp fire", "fire"][: 1 + int(m.rng.integers(4))], [], details
