"""Chairs, tables, beds, shelves, lamps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import ball, box, cylinder, lathe, moved, ring, tube, turned


def _frame(m: Maker) -> Finish:
    kind = m.rng.uniform()
    return m.wood() if kind < 0.6 else m.color(roughness=0.5) if kind < 0.85 else m.metal()


def _legs(
    m: Maker, w: float, d: float, h: float, thickness: float, finish: Finish, splay: float = 0.0
) -> None:
    round_legs = m.chance(0.4)
    for x in (-1, 1):
        for z in (-1, 1):
            a, b = x * (w - thickness) / 2, z * (d - thickness) / 2
            if round_legs or splay:
                m.add(tube((a * (1 + splay), 0, b * (1 + splay)), (a, h, b), thickness / 2), finish)
            else:
                m.add(moved(box(thickness, h, thickness), a, 0, b), finish)


def chair(m: Maker) -> Described:
    w, d, seat, back = m.between(0.8, 1.0), m.between(0.8, 1.0), m.between(0.75, 1.0), m.between(0.8, 1.3)
    t = m.between(0.07, 0.13)
    frame = _frame(m)
    cushion = m.color(roughness=0.9) if m.chance(0.4) else None
    _legs(m, w, d, seat, t, frame, m.between(0.05, 0.2) if m.chance(0.3) else 0.0)
    m.add(moved(box(w, t, d), y=seat), frame)
    if cushion:
        m.add(moved(box(w * 0.92, 0.12, d * 0.92, bevel=0.05), y=seat + t), cushion)
    z, style = -(d - t) / 2, int(m.rng.integers(4))
    if style == 0:
        m.add(moved(turned(box(w, back, t), "x", -6), y=seat + t, z=z), frame)
    else:
        for x in (-1, 1):
            m.add(moved(box(t, back, t), x * (w - t) / 2, seat, z), frame)
        m.add(moved(box(w, 0.2, t), 0, seat + back - 0.2, z), frame)
        if style == 1:
            for i in range(4):
                m.add(moved(box(t * 0.7, back - 0.2, t * 0.6), (i - 1.5) * w / 5, seat, z), frame)
        elif style == 2:
            for i in range(2):
                m.add(moved(box(w, 0.14, t * 0.7), 0, seat + 0.2 + 0.3 * i, z), frame)
        else:
            m.add(moved(box(w * 0.9, back * 0.7, t * 1.1), 0, seat + back * 0.2, z), cushion or frame)
    names = ["chair"]
    if m.chance(0.2):
        for x in (-1, 1):
            m.add(moved(box(t, t, d), x * (w - t) / 2, seat + 0.4, 0), frame)
            m.add(moved(box(t, 0.4, t), x * (w - t) / 2, seat, (d - t) / 2), frame)
        names.append("chair with armrests")
    details = [f"a {cushion.word} seat", f"a {cushion.word} cushion"] if cushion else []
    return names if m.chance(0.7) else [*names, "dining chair", "kitchen chair"], [frame.word], details


def stool(m: Maker) -> Described:
    frame, h, r = _frame(m), m.between(0.6, 1.2), m.between(0.35, 0.5)
    top = m.color(roughness=0.9) if m.chance(0.5) else frame
    legs = 3 + m.chance(0.5)
    for i in range(legs):
        m.add(turned(tube((0, 0, r * 1.1), (0, h, r * 0.6), 0.06), "y", 360 * i / legs), frame)
    m.add(moved(cylinder(r, 0.12, segments=22), y=h), top)
    return (
        ["stool", "bar stool" if h > 1 else "round stool"],
        [frame.word],
        [] if top is frame else [f"a {top.word} seat"],
    )


def table(m: Maker) -> Described:
    frame, h, t = _frame(m), m.between(0.6, 0.9), m.between(0.08, 0.13)
    top = frame if m.chance(0.6) else (m.glass() if m.chance(0.3) else m.color(roughness=0.5))
    details = [] if top is frame else [f"a {top.word} top"]
    if m.chance(0.35):
        r = m.between(0.55, 0.8)
        m.add(moved(cylinder(r, t, segments=28), y=h), top)
        kind = int(m.rng.integers(3))
        if kind == 0:
            m.add(lathe([(r * 0.55, 0), (r * 0.5, 0.07), (0.12, 0.14), (0.1, h * 0.6), (0.16, h)], 18), frame)
            details.append("one leg")
        elif kind == 1:
            m.add(
                moved(lathe([(0.1, 0), (0.13, h * 0.4), (0.09, h * 0.6), (0.14, h - 0.14)], 14), y=0.14),
                frame,
            )
            for k in range(3):
                m.add(turned(tube((0, 0.26, 0.04), (0, 0.05, r * 0.7), 0.075, 0.06), "y", 120.0 * k), frame)
            details.append("three feet")
        else:
            _legs(m, r * 1.3, r * 1.3, h, t * 1.15, frame)
            details.append("four legs")
        return ["table", "round table"], [frame.word], details
    square = m.chance(0.3)
    w, d = (m.between(0.9, 1.1), 0.0) if square else (m.between(1.15, 1.8), m.between(0.7, 1.0))
    d = d or w
    low = m.chance(0.15) and not square
    h = h * 0.55 if low else h
    m.add(moved(box(w, t, d, bevel=0.03 if m.chance(0.3) else 0.0), y=h), top)
    if m.chance(0.2) and not low and not square:
        for s in (-1, 1):
            m.add(moved(box(w * 0.28, h, d * 0.92), s * w * 0.34), frame)
            for i in range(3):
                m.add(
                    moved(box(w * 0.24, h * 0.26, 0.03), s * w * 0.34, h * (0.06 + 0.31 * i), d * 0.47),
                    frame,
                    0.2,
                )
                m.add(
                    moved(ball(0.035), s * w * 0.34, h * (0.19 + 0.31 * i), d * 0.49),
                    m.metal("gold", "steel"),
                )
        return ["desk", "writing desk"], [frame.word], ["drawers", *details]
    leg = m.between(0.09, 0.15)
    _legs(m, w * 0.96, d * 0.94, h, leg, frame, m.between(0.03, 0.1) if m.chance(0.2) else 0.0)
    if m.chance(0.35):
        apron = 0.2 if not low else 0.12
        m.add(moved(box(w * 0.88, apron, d * 0.86), y=h - apron), frame, 0.04)
        if m.chance(0.7):
            count, knob = (1 if square else 2), m.metal("gold", "steel", "black metal")
            for i in range(count):
                x = (i - (count - 1) / 2) * w * 0.42
                m.add(
                    moved(
                        box(w * (0.36 if count == 2 else 0.5), apron * 0.75, 0.05),
                        x,
                        h - apron * 0.9,
                        d * 0.44,
                    ),
                    frame,
                    0.25,
                )
                m.add(moved(ball(0.045, segments=10), x, h - apron * 0.55, d * 0.485), knob)
            details.insert(0, "a drawer" if count == 1 else "two drawers")
    elif m.chance(0.25):
        for s in (-1, 1):
            m.add(moved(box(0.07, 0.08, d * 0.85), s * (w * 0.96 - leg) / 2, h * 0.22), frame)
        m.add(moved(box(w * 0.9, 0.08, 0.09), 0, h * 0.22), frame)
    details.append("four legs")
    if low:
        return ["coffee table", "low table", "table"], [frame.word], details
    names = (
        ["table", "square table"]
        if square
        else ["table", "dining table", "kitchen table", "rectangular table"]
    )
    return names[: 1 + int(m.rng.integers(len(names)))], [frame.word], details


def bench(m: Maker) -> Described:
    frame, planks = (m.metal() if m.chance(0.6) else m.stone()), m.wood()
    w = m.between(1.4, 2.0)
    for x in (-1, 1):
        m.add(moved(box(0.12, 0.5, 0.6), x * w * 0.4), frame)
    for i in range(3):
        m.add(moved(box(w, 0.06, 0.17), 0, 0.5, (i - 1) * 0.21), planks, 0.08)
    if m.chance(0.7):
        for x in (-1, 1):
            m.add(moved(box(0.08, 0.55, 0.08), x * w * 0.4, 0.5, -0.3), frame)
        for i in range(2):
            m.add(moved(box(w, 0.17, 0.06), 0, 0.62 + 0.22 * i, -0.26), planks, 0.08)
        return ["bench", "park bench"], [planks.word], [f"{frame.noun} legs", "a backrest"]
    return ["bench"], [planks.word], [f"{frame.noun} legs"]


def sofa(m: Maker) -> Described:
    cloth, seats = m.color(roughness=0.9), int(m.rng.choice([1, 2, 3], p=[0.3, 0.35, 0.35]))
    corner = seats > 1 and m.chance(0.2)
    shade = m.between(0.74, 0.9)
    body = replace(cloth, rgb=(cloth.rgb[0] * shade, cloth.rgb[1] * shade, cloth.rgb[2] * shade))
    cushion = cloth if m.chance(0.75) else m.color(roughness=0.9)
    feet = m.wood() if m.chance(0.7) else m.metal("black metal", "steel", "gold")
    seat, arm, d, b = m.between(0.58, 0.75), m.between(0.18, 0.26), m.between(0.85, 0.95), 0.07
    leg, high, back = m.between(0.1, 0.22), m.between(0.5, 0.62), m.between(0.85, 1.05)
    inner = seats * seat
    w, deep = inner + 2 * arm, d + seat * 1.1
    base = leg + 0.2
    for x in (-1, 1):
        for z in (-1, 1):
            front = deep - d / 2 if corner and x > 0 and z > 0 else z * d / 2
            m.add(
                tube(
                    (x * (w / 2 - 0.1), 0, front - z * 0.1),
                    (x * (w / 2 - 0.13), leg + 0.04, front - z * 0.13),
                    0.05,
                    0.065,
                ),
                feet,
            )
    m.add(moved(box(w, 0.22, d, bevel=0.05), y=leg), body)
    for i in range(seats):
        at = (i - (seats - 1) / 2) * seat
        m.add(moved(box(seat * 0.95, 0.2, d * 0.82, bevel=b), at, base - 0.02, d * 0.13), cushion, 0.06)
        pad = turned(box(seat * 0.95, back - base - 0.1, 0.2, bevel=b), "x", -9)
        m.add(moved(pad, at, base + 0.14, -d / 2 + 0.29), cushion, 0.06)
    m.add(moved(box(w, back - leg, 0.2, bevel=b), y=leg, z=-d / 2 + 0.1), body)
    rolled = m.chance(0.35)
    for x in (-1, 1) if not corner else (-1,):
        at = x * (w / 2 - arm / 2)
        m.add(moved(box(arm, high - leg, d, bevel=0.05), at, leg), cloth, 0.03)
        if rolled:
            m.add(tube((at, high, -d / 2), (at, high, d / 2 + 0.02), arm * 0.62, segments=14), cloth, 0.03)
    details = ["wooden legs"] if not feet.metallic else [f"{feet.noun} legs"]
    if corner:
        across, run = seat + arm * 0.4, deep - d / 2
        middle = w / 2 - across / 2
        m.add(moved(box(across, 0.22, run, bevel=0.05), middle, leg, run / 2), body)
        m.add(moved(box(across * 0.93, 0.2, run, bevel=b), middle, base - 0.02, run / 2), cushion, 0.06)
        m.add(moved(box(arm, back - leg, d, bevel=b), w / 2 - arm / 2, leg), cloth)
        return ["corner sofa", "l-shaped sofa", "corner couch", "sofa"], [cloth.word], details
    if cushion is not cloth:
        details.insert(0, f"{cushion.word} cushions")
    elif seats > 1 and m.chance(0.35):
        pillow = m.color(roughness=0.95)
        for s in (-1, 1):
            throw = turned(turned(moved(box(0.34, 0.34, 0.14, bevel=0.06), y=-0.17), "z", 12.0 * s), "x", -16)
            m.add(moved(throw, s * (inner / 2 - 0.2), base + 0.36, 0.02), pillow)
        details.insert(0, f"{pillow.word} pillows")
    if seats == 1:
        return ["armchair", "comfy chair", "sofa chair"], [cloth.word], details
    return ["sofa", "couch", f"{'two' if seats == 2 else 'three'}-seat sofa"], [cloth.word], details


def bed(m: Maker) -> Described:
    frame, sheet, pillow = (
        _frame(m),
        m.color(roughness=0.9),
        m.color("white", "beige", "light grey", roughness=0.9),
    )
    w, d = m.between(1.0, 1.7), 2.0
    m.add(moved(box(w, 0.2, d), y=0.2), frame)
    _legs(m, w, d, 0.25, 0.12, frame)
    m.add(moved(box(w * 0.96, 0.2, d * 0.96, bevel=0.06), y=0.4), pillow)
    m.add(moved(box(w, 0.22, d * 0.66, bevel=0.05), y=0.41, z=d * 0.16), sheet)
    m.add(moved(box(w, m.between(0.6, 1.0), 0.1), y=0.2, z=-d / 2), frame)
    n = 2 if w > 1.3 else 1
    for i in range(n):
        m.add(
            moved(box(w / n * 0.75, 0.14, 0.4, bevel=0.06), (i - (n - 1) / 2) * w / n, 0.58, -d * 0.36),
            pillow,
            0.03,
        )
    return ["bed", "double bed" if n == 2 else "single bed"], [frame.word], [f"a {sheet.word} blanket"]


def shelf(m: Maker) -> Described:
    frame, w, h, d, t = _frame(m), m.between(0.8, 1.3), m.between(1.2, 2.0), 0.4, 0.06
    levels = int(m.rng.integers(3, 6))
    for x in (-1, 1):
        m.add(moved(box(t, h, d), x * (w - t) / 2), frame)
    m.add(moved(box(w, h, t / 2), z=-d / 2), frame, 0.05)
    for i in range(levels + 1):
        m.add(moved(box(w, t, d), y=(h - t) * i / levels), frame)
    if m.chance(0.3):
        for s in (-1, 1):
            m.add(moved(box(w * 0.47, h * 0.96, t), s * w * 0.24, h * 0.02, d / 2), frame, 0.06)
            m.add(moved(ball(0.04), s * 0.07, h / 2, d / 2 + 0.05), m.metal("gold", "steel"))
        return ["cupboard", "wardrobe", "cabinet"], [frame.word], ["two doors"]
    books = m.chance(0.7)
    for i in range(levels if books else 0):
        at = -w / 2 + t * 1.5
        while at < w / 2 - t * 2 and not m.chance(0.06):
            thick, tall = m.between(0.05, 0.1), (h / levels) * m.between(0.55, 0.85)
            m.add(
                moved(box(thick * 0.92, tall, d * 0.7), at + thick / 2, (h - t) * i / levels + t),
                m.color(),
                0.05,
            )
            at += thick
    return (["bookshelf", "bookcase", "shelf with books"] if books else ["shelf"]), [frame.word], []


def lamp(m: Maker) -> Described:
    foot, shade = _frame(m), m.color("white", "yellow", "red", "beige", "blue", "green", "pink")
    kind = int(m.rng.integers(3))
    if kind < 2:
        h = m.between(1.5, 2.0) if kind else m.between(0.7, 1.0)
        stem = [(0.3, 0), (0.28, 0.06), (0.05, 0.1), (0.05, h)] if kind or m.chance(0.5) else [
            (0.22, 0), (0.25, 0.1), (0.16, 0.3), (0.2, 0.45), (0.05, 0.6), (0.04, h)]  # fmt: skip
        m.add(lathe(stem, 18), foot)
        m.add(moved(cylinder(m.between(0.35, 0.5), 0.45, m.between(0.2, 0.32), 22), y=h - 0.15), shade)
        return ["lamp", "floor lamp" if kind else "table lamp"], [], [f"a {shade.word} shade"]
    metal = m.metal("black metal", "iron", "metal")
    m.add(lathe([(0.22, 0), (0.2, 0.15), (0.07, 0.22), (0.06, 2.2)], 12), metal)
    m.add(moved(cylinder(0.14, 0.32, 0.22, 6), y=2.2), m.color("yellow", "white", roughness=0.2))
    m.add(moved(cylinder(0.28, 0.16, 0.02, 6), y=2.52), metal)
    return ["street lamp", "lamp post", "lamp"], [metal.word], []


def lantern(m: Maker) -> Described:
    metal, light = m.metal(), m.color("yellow", "orange", "white", roughness=0.15)
    n = m.one_of(4, 6)
    assert isinstance(n, int)
    m.add(cylinder(0.36, 0.1, 0.32, n), metal)
    m.add(moved(cylinder(0.24, 0.6, segments=n), y=0.1), light)
    for i in range(n):
        a = 2 * np.pi * i / n
        x, z = 0.29 * float(np.sin(a)), 0.29 * float(np.cos(a))
        m.add(tube((x, 0.1, z), (x, 0.7, z), 0.035, segments=6), metal)
    m.add(moved(cylinder(0.38, 0.22, 0.1, n), y=0.7), metal)
    m.add(moved(turned(ring(0.13, 0.03), "x", 90), y=1.04), metal)
    return ["lantern"], [metal.word], [f"{light.word} light"]


def candle(m: Maker) -> Described:
    wax, h = m.color("white", "red", "beige", "yellow", "green"), m.between(0.5, 1.0)
    m.add(lathe([(0.2, 0), (0.19, h), (0.0, h - 0.03)], 16), wax)
    m.add(moved(cylinder(0.015, 0.1), y=h - 0.02), m.color("black"))
    m.add(moved(lathe([(0.0, 0), (0.07, 0.09), (0.0, 0.3)], 10), y=h + 0.05), m.color("orange", "yellow"))
    if m.chance(0.5):
        plate = m.metal("gold", "iron", "copper")
        m.add(moved(lathe([(0.15, 0), (0.4, 0.05), (0.36, 0.06), (0, 0.03)], 18), y=-0.04), plate)
        return ["candle"], [wax.word], [f"a {plate.noun} holder", "a flame"]
    return ["candle"], [wax.word], ["a flame"]
