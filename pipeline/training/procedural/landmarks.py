"""Bridges, igloos, barns, churches, castles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.training.procedural.buildings import gable
from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import (
    Point,
    Solid,
    arc,
    box,
    cylinder,
    lathe,
    loft,
    moved,
    prism,
    tube,
    turned,
)


def bridge(m: Maker) -> Described:
    length, width, rise = m.between(2.0, 2.6), m.between(0.6, 0.85), m.between(0.15, 0.4)
    half = length / 2
    if m.chance(0.5):
        stone, span = m.stone(), m.between(0.5, 0.68) * length / 2

        def section(x: float, grow: float, low: float, high: float) -> list[Point]:
            w = width / 2 + grow
            return [(x, low, w), (x, high, w), (x, high, -w), (x, low, -w)]

        def deck(x: float) -> float:
            return 0.62 + rise * (1 - (x / half) ** 2)

        below = [*np.linspace(-half, -span, 3), *(-span * np.cos(np.linspace(0.12, np.pi - 0.12, 13))),
                 *np.linspace(span, half, 3)]  # fmt: skip
        rings = []
        for x in map(float, below):
            under = (
                0.0
                if abs(x) >= span
                else 0.56 * float(np.sqrt(1 - (x / span) ** 2)) + rise * 0.8 * (1 - abs(x) / span)
            )
            rings.append(section(x, 0.0, under, deck(x)))
        m.add(loft(rings), stone)
        walk = m.stone() if m.chance(0.5) else m.color("grey", "beige", "brown")
        m.add(loft([section(float(x), -0.1, deck(float(x)) - 0.05, deck(float(x)) + 0.02)
                    for x in np.linspace(-half, half, 9)]), walk)  # fmt: skip
        for s in (-1, 1):
            wall = [
                [(float(x), deck(float(x)) + y, s * width / 2 + z)
                 for y, z in ((-0.05, -0.06), (-0.05, 0.06), (0.18, 0.06), (0.18, -0.06))]
                for x in np.linspace(-half, half, 13)
            ]  # fmt: skip
            m.add(loft(wall), stone, 0.08)
            for x in (-half, half):
                m.add(moved(box(0.2, deck(x) + 0.32, 0.2), x * 0.97, 0, s * width / 2), stone, 0.08)
        return ["bridge", "stone bridge", "arch bridge"][: 1 + 2 * m.chance(0.4)], [stone.word], ["an arch"]
    wood = m.wood() if m.chance(0.8) else m.color("red")
    rail = wood if m.chance(0.7) else m.wood()
    n = int(m.rng.integers(9, 13))

    def height(x: float) -> float:
        return 0.25 + rise * (1 - (x / half) ** 2)

    xs = [(i + 0.5) / n * length - half for i in range(n)]
    for x in xs:
        slope = float(np.rad2deg(np.arctan(-2 * rise * x / half**2)))
        plank = turned(moved(box(length / n * 0.86, 0.07, width), y=0), "z", slope)
        m.add(moved(plank, x, height(x)), wood, 0.1)
    ends = [float(x) for x in np.linspace(-half * 0.96, half * 0.96, 5)]
    for s in (-1, 1):
        z = s * width * 0.46
        for x in ends:
            m.add(moved(box(0.1, height(x) + 0.45 if abs(x) > half * 0.9 else 0.55, 0.1), x,
                        0 if abs(x) > half * 0.9 else height(x) - 0.1, z), rail)  # fmt: skip
        for a, b in pairwise(ends):
            m.add(tube((a, height(a) + 0.4, z), (b, height(b) + 0.4, z), 0.045), rail)
            m.add(tube((a, height(a) - 0.03, z), (b, height(b) - 0.03, z), 0.05), rail)
    return (
        ["bridge", "footbridge", "wooden bridge" if wood.word == "wooden" else "small bridge"],
        [wood.word],
        ["railings"],
    )


def igloo(m: Maker) -> Described:
    snow, joint = m.color("white", roughness=0.8), m.color("light grey", "light blue", roughness=0.9)
    rows, around, r = int(m.rng.integers(4, 6)), int(m.rng.integers(11, 15)), 0.9
    high = m.between(0.85, 1.0)

    def shell(radius: float, up: float, a: float) -> Point:
        flat = radius * float(np.cos(up))
        return flat * float(np.sin(a)), radius * high * float(np.sin(up)), flat * float(np.cos(a))

    m.add(
        lathe(
            [
                (r * 0.95 * float(np.cos(t)), r * 0.95 * high * float(np.sin(t)))
                for t in np.linspace(0, 1.57, 9)
            ],
            24,
        ),
        joint,
    )
    for i in range(rows):
        low, up = (np.pi / 2 * 0.93 * t / rows for t in (i + 0.04, i + 0.95))
        for j in range(around):
            a, b = (2 * np.pi * (j + t + 0.5 * (i % 2)) / around for t in (0.04, 0.96))
            block = [
                [shell(q, low, a), shell(q, low, b), shell(q, up, b), shell(q, up, a)] for q in (r * 0.9, r)
            ]
            m.add(loft(block), snow, 0.025)
    m.add(moved(cylinder(r * 0.2, 0.06, segments=14), y=r * high * 0.97), snow)
    w, deep = 0.34, m.between(0.4, 0.55)
    outline = [(w, 0.0), *[(x, y + 0.18) for x, y in arc(w, 0, 180, 11)], (-w, 0.0)]
    m.add(moved(prism(outline, deep), z=r * 0.9 + deep / 2 - 0.1), snow)
    m.add(moved(prism([(x * 1.12, y * 1.1) for x, y in outline], 0.14), z=r * 0.9 + deep - 0.15), snow, 0.05)
    hole = [(x * 0.68, y * 0.75) for x, y in outline]
    m.add(moved(prism(hole, 0.1), z=r * 0.9 + deep - 0.1), m.color("dark blue", "black", "dark grey"))
    return ["igloo", "snow house", "ice house"][: 1 + int(m.rng.integers(3))], [snow.word], ["snow blocks"]


def barn(m: Maker) -> Described:
    wall = m.color("red", "dark red", "red", roughness=0.85) if m.chance(0.75) else m.wood()
    trim, roof = m.color("white"), m.color("dark grey", "grey", "brown", "dark brown", roughness=0.85)
    w, d, h = m.between(1.2, 1.5), m.between(1.3, 1.8), m.between(0.7, 0.9)
    knee = (w * 0.36, h + 0.42)
    peak = h + m.between(0.62, 0.75)
    outline = [(w / 2, 0.0), (w / 2, h), knee, (0.0, peak), (-knee[0], knee[1]), (-w / 2, h), (-w / 2, 0.0)]
    m.add(prism(outline, d), wall)

    def slab(
        a: tuple[float, float], b: tuple[float, float], finish: Finish, z: float, depth: float, t: float
    ) -> None:
        """A board in the plane of the front from `a` to `b`."""
        length = float(np.hypot(b[0] - a[0], b[1] - a[1]))
        board = moved(box(length + t * 0.7, t, depth), y=-t / 2)
        turn = float(np.rad2deg(np.arctan2(b[1] - a[1], b[0] - a[0])))
        m.add(moved(turned(board, "z", turn), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, z), finish)

    for s in (-1, 1):
        eave = (s * w * 0.56, h - 0.12)
        slab(eave, (s * knee[0], knee[1] + 0.03), roof, 0.0, d * 1.1, 0.1)
        slab((s * knee[0], knee[1] + 0.03), (0.0, peak + 0.04), roof, 0.0, d * 1.1, 0.1)
        for z in (-0.28, 0.28):
            m.add(moved(box(0.06, 0.28, 0.28), s * w / 2, h * 0.4, z * d), trim)
            m.add(
                moved(box(0.1, 0.2, 0.2), s * w / 2, h * 0.4 + 0.04, z * d),
                m.color("dark grey", "light blue"),
            )
    dw, dh, front = w * 0.3, h * 0.85, d / 2
    door = wall if m.chance(0.6) else m.wood()
    m.add(moved(box(dw * 2, dh, 0.06), 0, 0, front), door, 0.1)
    for x in (-dw, 0.0, dw):
        m.add(moved(box(0.07, dh, 0.12), x, 0, front), trim)
    for s in (-1, 1):
        for y in (0.03, dh):
            slab((min(0.0, s * dw), y), (max(0.0, s * dw), y), trim, front, 0.12, 0.07)
        slab((0.0, 0.04), (s * dw, dh), trim, front, 0.1, 0.055)
        slab((s * dw, 0.04), (0.0, dh), trim, front, 0.1, 0.055)
    m.add(moved(box(0.34, 0.3, 0.06), 0, h + 0.14, front), trim)
    m.add(moved(box(0.24, 0.2, 0.1), 0, h + 0.19, front), m.color("dark grey", "black"))
    return ["barn", "farm barn", "farm building"][: 1 + int(m.rng.integers(3))], [wall.word], [
        f"a {roof.word} roof", f"{trim.word} trim", "big doors"]  # fmt: skip


def _arched(width: float, height: float, depth: float) -> Solid:
    """A window or door with a round top, standing on y = 0."""
    r = width / 2
    return prism([(r, 0.0), *[(x, y + height - r) for x, y in arc(r, 0, 180, 9)], (-r, 0.0)], depth)


def church(m: Maker) -> Described:
    wall = m.color("white", "beige", "light grey", roughness=0.85) if m.chance(0.6) else m.stone()
    roof = m.color("red", "brown", "dark grey", "blue", "teal", "dark red", roughness=0.85)
    pane = m.color("light blue", "yellow", "blue", "dark grey", roughness=0.15)
    w, d, h, t = m.between(0.8, 1.0), m.between(1.3, 1.6), m.between(0.6, 0.8), m.between(0.42, 0.5)
    m.add(box(w, h, d), wall)
    m.add(moved(gable(w, 0.5, d * 0.99), y=h), wall)
    m.add(moved(gable(w * 1.14, 0.58, d * 0.94), y=h), roof)
    front, high = d / 2 + t * 0.3, h + m.between(0.5, 0.75)
    m.add(moved(box(t, high, t), z=front), wall)
    m.add(moved(box(t * 1.15, 0.07, t * 1.15), y=high, z=front), wall, 0.1)
    n = m.one_of(4, 8)
    assert isinstance(n, int)
    spire = turned(cylinder(t * (0.78 if n == 4 else 0.62), m.between(0.6, 0.95), 0.0, n), "y", 45.0)
    m.add(moved(spire, y=high + 0.07, z=front), roof)
    top, gold = (
        high + float(spire[0][:, 1].max()),
        m.metal("gold") if m.chance(0.6) else m.color("white", "black"),
    )
    m.add(moved(box(0.06, 0.34, 0.06), y=top, z=front), gold)
    m.add(moved(box(0.22, 0.06, 0.06), y=top + 0.18, z=front), gold)
    m.add(moved(_arched(0.26, 0.4, 0.1), z=front + t / 2), m.wood())
    m.add(moved(_arched(0.18, 0.28, 0.08), y=high - 0.38, z=front + t / 2), pane)
    for s in (-1, 1):
        m.add(moved(turned(_arched(0.18, 0.28, 0.08), "y", 90), s * t / 2, high - 0.38, front), pane)
        for z in (-0.32, 0.0, 0.28):
            m.add(moved(turned(_arched(0.2, 0.4, 0.08), "y", 90), s * w / 2, h * 0.25, z * d), pane)
    return ["church", "chapel", "small church"][: 1 + int(m.rng.integers(3))], [wall.word], [
        f"a {roof.word} roof", "a steeple", "a cross"]  # fmt: skip


def castle(m: Maker) -> Described:
    stone = m.stone()
    roof = (
        m.color("red", "blue", "purple", "dark grey", "teal", "green", roughness=0.85)
        if m.chance(0.65)
        else None
    )
    w, d, h = m.between(0.8, 1.0), m.between(0.7, 0.95), m.between(0.6, 0.8)
    r, high = m.between(0.22, 0.28), h + m.between(0.25, 0.5)
    dark = m.color("black", "dark grey", "dark brown")

    def battlements(x: float, y: float, z: float, radius: float) -> None:
        for k in range(6):
            m.add(moved(turned(moved(box(0.13, 0.13, 0.1), z=radius), "y", 60.0 * k), x, y, z), stone)

    def tower(x: float, z: float, radius: float, top: float) -> None:
        m.add(
            moved(
                lathe(
                    [
                        (radius, 0),
                        (radius * 0.94, top - 0.14),
                        (radius * 1.15, top - 0.06),
                        (radius * 1.15, top),
                    ],
                    16,
                ),
                x,
                0,
                z,
            ),
            stone,
            0.03,
        )
        if roof:
            m.add(moved(cylinder(radius * 1.3, radius * 2.1, 0.0, 16), x, top, z), roof)
        else:
            battlements(x, top - 0.01, z, radius * 1.03)
        m.add(moved(box(0.08, 0.2, 0.1), x, top * 0.65, z + radius * 0.92), dark)

    for s in (-1, 1):
        for end in (-1, 1):
            tower(s * w, end * d, r, high)
        m.add(moved(box(0.16, h, d * 2), s * w), stone, 0.03)
        m.add(moved(box(w * 2, h, 0.16), z=s * d), stone, 0.03)
        for i in range(4):
            m.add(moved(box(0.2, 0.13, 0.16), (i - 1.5) * w * 0.42, h, s * d), stone)
            m.add(moved(box(0.16, 0.13, 0.2), s * w, h, (i - 1.5) * d * 0.42), stone)
    m.add(box(w * 0.95, h + 0.45, d * 0.9), stone, 0.05)
    tower(0.0, -d * 0.1, r * 1.25, high + m.between(0.45, 0.7))
    m.add(moved(box(0.62, h * 1.12, 0.28), z=d), stone, 0.05)
    m.add(moved(_arched(0.4, h * 0.75, 0.1), z=d + 0.13), m.wood())
    m.add(box(w * 2, 0.05, d * 2), m.color("green", "grey", "beige", "brown"))
    details = ["towers", f"{roof.word} roofs"] if roof else ["towers", "battlements"]
    if m.chance(0.5):
        flag, top = m.color("red", "blue", "yellow", "green"), m.bounds()[1, 1]
        m.add(moved(cylinder(0.03, 0.4), y=float(top) - 0.05, z=-d * 0.1), m.wood())
        m.add(moved(box(0.26, 0.17, 0.04), 0.14, float(top) + 0.16, -d * 0.1), flag)
        details.append(f"a {flag.word} flag")
    return (
        ["castle", "medieval castle", "small castle", "fortress"][: 1 + int(m.rng.integers(4))],
        [stone.word],
        details,
    )
