"""What stands and rolls on a street: cones, lamps, mailboxes, wheelbarrows, wheels, skateboards."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Maker
from pipeline.training.procedural.solids import (
    arc,
    ball,
    box,
    cylinder,
    disc,
    lathe,
    loft,
    moved,
    pipe,
    prism,
    ring,
    scaled,
    tube,
    turned,
)


def traffic_cone(m: Maker) -> Described:
    body = (
        m.color("orange", roughness=0.5)
        if m.chance(0.75)
        else m.color("red", "yellow", "blue", "light green")
    )
    stripe = m.color("white", roughness=0.4)
    h, r, top = m.between(1.0, 1.4), m.between(0.34, 0.42), 0.08
    base = body if m.chance(0.6) else m.color("black", "dark grey")
    if m.chance(0.75):
        m.add(box(r * 2.6, 0.1, r * 2.6, bevel=0.04), base)
    else:
        m.add(cylinder(r * 1.45, 0.1, r * 1.4, segments=8), base)

    def part(low: float, high: float, grow: float) -> list[tuple[float, float]]:
        return [(r + (top - r) * t + grow, 0.1 + h * t) for t in (low, high)]

    m.add(lathe([*part(0, 1, 0), (top - 0.03, 0.1 + h), (top - 0.04, h)], 24), body)
    stripes = 1 + m.chance(0.6)
    for low, high in ((0.3, 0.5), (0.63, 0.8))[:stripes] if stripes == 2 else ((0.4, 0.65),):
        m.add(lathe(part(low, high, 0.012), 24), stripe)
    details = ["white stripes" if stripes == 2 else "a white stripe"]
    if base is not body:
        details.append(f"a {base.word} base")
    return ["traffic cone", "road cone", "safety cone"][: 1 + int(m.rng.integers(3))], [body.word], details


def street_lamp(m: Maker) -> Described:
    metal = (
        m.metal("black metal", "iron", "metal", "bronze")
        if m.chance(0.75)
        else m.color("green", "black", "dark blue")
    )
    light = m.color("yellow", "white", "orange", roughness=0.15)
    h = m.between(1.7, 2.2)
    m.add(lathe([(0.24, 0), (0.22, 0.14), (0.1, 0.24), (0.065, 0.35), (0.06, h)], 14), metal)
    m.add(moved(ring(0.08, 0.04, segments=14), y=h * 0.62), metal)

    def head(x: float, y: float) -> None:
        m.add(moved(cylinder(0.1, 0.08, 0.15, 8), x, y), metal)
        m.add(moved(cylinder(0.14, 0.36, 0.23, 6), x, y + 0.07), light)
        m.add(moved(cylinder(0.3, 0.18, 0.05, 6), x, y + 0.42), metal)
        m.add(moved(ball(0.06, segments=8), x, y + 0.62), metal)

    kind = int(m.rng.integers(3))
    if kind == 0:
        head(0, h)
    elif kind == 1:
        for s in (-1, 1):
            points = [(s * (0.25 - x), h - 0.25 + y, 0.0) for x, y in arc(0.25, 0, 90, 6)]
            m.add(pipe([(0.0, h - 0.4, 0.0), *points[:-1], (s * 0.42, h, 0.0)], 0.045), metal)
            head(s * 0.42, h)
        m.add(moved(ball(0.09, segments=10), y=h), metal)
    else:
        m.add(pipe([(x - 0.3, h + y, 0.0) for x, y in arc(0.3, 0, 180, 9)], 0.06), metal)
        m.add(moved(lathe([(0.26, -0.28), (0.18, -0.08), (0.07, 0.02)], 14), x=-0.6, y=h), metal)
        m.add(moved(ball(0.17, segments=14), -0.6, h - 0.27), light)
    names = ["street lamp", "streetlight", "lamp post", "street light"]
    details = [f"{light.word} light", *(["two lamps"] if kind == 1 else [])]
    return names[: 1 + int(m.rng.integers(4))], [metal.word], details


def mailbox(m: Maker) -> Described:
    body = (
        m.color("red", "blue", "green", "white", "yellow", "dark green", roughness=0.4)
        if m.chance(0.8)
        else m.metal()
    )
    if m.chance(0.35):
        n, dark = 22, m.color("black", "dark grey")
        m.add(cylinder(0.42, 0.16, segments=n), dark)
        m.add(moved(cylinder(0.36, 1.15, segments=n), y=0.16), body)
        m.add(moved(lathe([(0.43, 0), (0.43, 0.08), (0.32, 0.2), (0, 0.28)], n), y=1.28), body)
        m.add(moved(box(0.42, 0.08, 0.1), 0, 1.1, 0.33), dark)
        m.add(moved(box(0.3, 0.36, 0.06), 0, 0.55, 0.35), m.color("white", "beige"))
        return ["post box", "mailbox", "pillar box"], [body.word], ["a slot"]
    post = m.wood() if m.chance(0.7) else m.metal("iron", "black metal")
    flag = m.color("red", "yellow", "orange") if body.word != "red" else m.color("white", "yellow")
    w, d, low = 0.5, m.between(0.75, 0.95), m.between(0.7, 1.0)
    m.add(box(0.14, low + 0.05, 0.14), post)
    m.add(moved(box(0.4, 0.08, 0.5), y=low - 0.05), post)
    outline = [(w / 2, 0.0), *[(x, y + 0.25) for x, y in arc(w / 2, 0, 180, 11)], (-w / 2, 0.0)]
    m.add(moved(prism(outline, d), y=low), body)
    door = [(x * 0.88, 0.25 + (y - 0.25) * 0.88) for x, y in outline]
    m.add(moved(prism(door, 0.05), y=low, z=d / 2), m.darker(body) if m.chance(0.3) else body, 0.12)
    m.add(moved(box(0.12, 0.06, 0.08), 0, low + 0.36, d / 2 + 0.03), flag)
    m.add(moved(box(0.06, 0.4, 0.07), w / 2 + 0.03, low + 0.2, 0.1), flag)
    m.add(moved(box(0.06, 0.15, 0.26), w / 2 + 0.03, low + 0.5, 0.2), flag)
    return ["mailbox", "letter box", "post box"][: 1 + int(m.rng.integers(3))], [body.word], [
        f"a {flag.word} flag", f"a {post.noun} post"]  # fmt: skip


def wheelbarrow(m: Maker) -> Described:
    tub = m.color(roughness=0.5) if m.chance(0.7) else m.metal("iron", "steel") if m.chance(0.5) else m.wood()
    frame = m.wood() if m.chance(0.6) else m.metal("iron", "black metal", "steel")
    w = m.between(0.75, 0.9)

    def quad(y: float, half: float, rear: float, front: float) -> list[tuple[float, float, float]]:
        return [(half, y, front), (-half, y, front), (-half, y, rear), (half, y, rear)]

    low, high = quad(0.45, w * 0.28, -0.4, 0.3), quad(0.88, w * 0.5, -0.55, 0.7)
    m.add(loft([low, high, quad(0.88, w * 0.44, -0.48, 0.62), quad(0.55, w * 0.25, -0.35, 0.3)]), tub)
    for s in (-1, 1):
        m.add(tube((s * 0.1, 0.24, 0.72), (s * 0.36, 0.62, -1.15), 0.05), frame)
        m.add(tube((s * 0.35, 0.62, -1.1), (s * 0.37, 0.64, -1.3), 0.07), m.rubber())
        m.add(tube((s * 0.29, 0.0, -0.45), (s * 0.29, 0.55, -0.4), 0.05), frame)
    m.add(tube((-0.29, 0.1, -0.44), (0.29, 0.1, -0.44), 0.04), frame)
    m.add(moved(turned(disc(0.27, 0.13, 18), "y", 90), 0, 0.27, 0.72), m.rubber())
    m.add(moved(turned(disc(0.14, 0.16, 14), "y", 90), 0, 0.27, 0.72), m.metal("silver", "steel"))
    details = [f"{frame.noun} handles", "one wheel"]
    if m.chance(0.35):
        heap = scaled(ball(1.0, segments=14), w * 0.42, 0.24, 0.5)
        m.add(moved(heap, y=0.82, z=0.07), m.color("brown", "dark brown", roughness=0.95))
        details.append("dirt")
    return ["wheelbarrow", "garden wheelbarrow"][: 1 + m.chance(0.3)], [tub.word], details


def wheel(m: Maker) -> Described:
    r, wood = 0.8, m.chance(0.5)
    if wood:
        body, hub = m.wood(), m.metal("iron", "black metal")
        spokes, thick, rim = int(m.rng.integers(6, 11)), 0.075, 0.11
        if m.chance(0.5):
            m.add(turned(ring(r + rim * 0.7, 0.06, segments=32), "x", 90), hub)
        names, details = ["cart wheel", "wagon wheel", "wooden wheel"], [f"{spokes} spokes", "spokes"]
    else:
        body, hub = m.rubber(), m.metal("silver", "steel")
        spokes, thick, rim = 12, 0.04, 0.09
        m.add(turned(ring(r - rim * 0.8, 0.05, segments=36), "x", 90), hub)
        names, details = ["bicycle wheel", "bike wheel", "wheel"], [f"{hub.noun} spokes"]
    m.add(turned(ring(r, rim, segments=36), "x", 90), body)
    for k in range(spokes):
        a = 2 * np.pi * k / spokes
        end = (r * float(np.sin(a)), r * float(np.cos(a)), 0.0)
        m.add(tube((0, 0, 0), end, thick, thick * 0.8, 8), body if wood else hub)
    m.add(disc(0.17 if wood else 0.12, 0.3, 18), body if wood else hub)
    m.add(disc(0.09, 0.38, 14), hub)
    return names, [body.word], details


def skateboard(m: Maker) -> Described:
    deck, wheels = m.color(roughness=0.5) if m.chance(0.8) else m.wood(), m.color(roughness=0.5)
    metal, length, w = m.metal("silver", "steel", "iron"), m.between(1.7, 2.0), m.between(0.5, 0.6)
    half, rings = length / 2, []
    for t in np.linspace(-1, 1, 17):
        x = half * float(t)
        width = w / 2 * float(np.sqrt(max(0.04, 1 - max(0.0, (abs(t) - 0.72) / 0.28) ** 2)))
        y = 0.3 + 0.22 * max(0.0, abs(float(t)) - 0.66) / 0.34
        rings.append([(x, y, width), (x, y + 0.08, width), (x, y + 0.08, -width), (x, y, -width)])
    m.add(loft(rings), deck)
    m.add(
        moved(loft([[(x * 0.97, y, z * 0.93) for x, y, z in r] for r in rings]), y=0.025),
        m.color("black", "dark grey"),
    )
    for s in (-1, 1):
        m.add(moved(box(0.2, 0.14, 0.2), s * half * 0.58, 0.18), metal)
        m.add(tube((s * half * 0.58, 0.15, -0.22), (s * half * 0.58, 0.15, 0.22), 0.05), metal)
        for z in (-1, 1):
            m.add(moved(disc(0.15, 0.14, 18), s * half * 0.58, 0.15, z * w * 0.42), wheels)
    return ["skateboard", "skate board"][: 1 + m.chance(0.2)], [deck.word], [f"{wheels.word} wheels"]
