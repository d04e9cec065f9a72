"""Pirate ships, tanks, locomotives, helicopters, flying saucers."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Maker
from pipeline.training.procedural.solids import (
    Point,
    ball,
    box,
    cylinder,
    disc,
    lathe,
    loft,
    moved,
    prism,
    ring,
    scaled,
    tube,
    turned,
)


def pirate_ship(m: Maker) -> Described:
    hull, deck, mast = m.wood(), m.wood(), m.wood()
    sail = m.color("black", "white", "red", "beige", "white", roughness=0.9)
    length, width = m.between(2.0, 2.4), m.between(0.6, 0.75)

    def section(t: float, low: float, high: float, grow: float) -> list[Point]:
        """Across the ship at `t` from stern (0) to bow (1)."""
        beam = (
            width
            / 2
            * grow
            * float(min(1.0, 0.75 + t) * np.sqrt(max(0.0, 1 - max(0.0, (t - 0.5) / 0.5) ** 2.2)) + 0.03)
        )
        z, keel = (t - 0.5) * length, 0.5 * beam
        return [(beam, high, z), (-beam, high, z), (-keel, low, z), (keel, low, z)]

    steps = [float(t) for t in np.linspace(0, 1, 15)]

    def rail(t: float) -> float:
        return 0.5 + 0.42 * max(0.0, 0.3 - t) / 0.3 + 0.22 * max(0.0, t - 0.7) / 0.3

    m.add(loft([section(t, 0.3 * max(0.0, t - 0.75) / 0.25, rail(t), 1.0) for t in steps]), hull)
    m.add(loft([section(t, rail(t) - 0.1, rail(t) + 0.02, 0.84) for t in steps[1:-1]]), deck)
    stripe = m.color("yellow", "red", "white", "black") if m.chance(0.5) else m.metal("gold")
    m.add(loft([section(t, rail(t) - 0.13, rail(t) - 0.06, 1.04) for t in steps[:-1]]), stripe)
    m.add(moved(box(width * 0.7, 0.42, length * 0.2), 0, 0.62, -length * 0.4), hull, 0.1)
    for s in (-1, 0, 1):
        m.add(moved(box(0.1, 0.13, 0.06), s * 0.17, 0.72, -length * 0.5), m.color("yellow"))
    dark = m.metal("black metal", "iron")
    for s in (-1, 1):
        for z in (-0.2, 0.05, 0.3):
            m.add(tube((s * width * 0.36, 0.3, z), (s * width * 0.62, 0.3, z), 0.05, 0.055), dark)
    m.add(tube((0, 0.62, length * 0.44), (0, 0.95, length * 0.66), 0.045, 0.03), mast)
    masts = 2 if m.chance(0.6) else 1
    for k in range(masts):
        z = (0.32 - 0.72 * k) if masts == 2 else 0.0
        top = 1.75 - 0.2 * k + (0.15 if masts == 1 else 0)
        m.add(tube((0, 0.4, z), (0, top, z), 0.05), mast)
        for y0, y1, w in ((0.72, 1.2, 0.58), (1.25, top - 0.12, 0.44)):
            rows = []
            for y, bulge in ((y0, 0.02), ((y0 + y1) / 2, 0.14), (y1, 0.02)):
                at = z + 0.06 + bulge
                rows.append([(w, y, at), (-w, y, at), (-w, y, at + 0.05), (w, y, at + 0.05)])
            m.add(loft(rows), sail, 0.04)
            m.add(tube((-w - 0.06, y1, z + 0.04), (w + 0.06, y1, z + 0.04), 0.035), mast)
        if k == 0:
            flag = m.color("black", "red") if sail.word != "black" else m.color("red", "black")
            m.add(moved(box(0.05, 0.2, 0.34), 0, top - 0.05, z - 0.17), flag)
    if sail.word in ("black", "red") and m.chance(0.7):
        mark, z = m.color("white"), (0.32 if masts == 2 else 0.0) + 0.26
        m.add(moved(scaled(ball(0.13, segments=12), 1, 1, 0.35), 0, 1.0, z), mark)
        m.add(moved(box(0.14, 0.1, 0.07), 0, 0.83, z), mark)
        for s in (-1, 1):
            m.add(moved(ball(0.04, segments=8), s * 0.055, 1.0, z + 0.045), m.color("black"))
    return ["pirate ship", "sailing ship", "galleon", "ship"], [hull.word], [f"{sail.word} sails", "cannons"]


def tank(m: Maker) -> Described:
    paint = m.color(
        "dark green", "green", "beige", "grey", "dark grey", "brown", "red", "blue", roughness=0.6
    )
    track, wheel = m.rubber(), m.metal("iron", "steel", "black metal")
    length, width, high = m.between(1.7, 2.0), m.between(0.75, 0.9), 0.5
    half = length / 2
    outline = [(-half * 0.78, 0.0), (half * 0.72, 0.0), (half, 0.24), (half * 0.95, 0.42), (half * 0.8, high),
               (-half * 0.85, high), (-half, 0.4), (-half, 0.22)]  # fmt: skip
    for s in (-1, 1):
        m.add(moved(turned(prism(outline, 0.26), "y", -90), x=s * width / 2), track)
        for z in np.linspace(-half * 0.68, half * 0.62, 4):
            m.add(moved(turned(disc(0.16, 0.3, 16), "y", 90), s * width / 2, 0.2, float(z)), wheel)
        m.add(moved(box(0.32, 0.06, length * 0.92), s * width / 2, high), paint)
    body = [
        (-half * 0.95, 0.2),
        (half * 0.75, 0.15),
        (half * 0.98, 0.36),
        (half * 0.6, 0.64),
        (-half * 0.9, 0.64),
    ]
    m.add(turned(prism(body, width * 0.8), "y", -90), paint)
    z = m.between(-0.2, 0.0)
    if m.chance(0.5):
        m.add(moved(box(0.66, 0.32, 0.75, taper=0.78, bevel=0.05), 0, 0.62, z), paint, 0.05)
    else:
        m.add(moved(lathe([(0.4, 0), (0.4, 0.14), (0.3, 0.3), (0, 0.32)], 16), 0, 0.62, z), paint, 0.05)
    m.add(moved(cylinder(0.16, 0.08, segments=14), -0.1, 0.93, z - 0.08), paint, 0.15)
    end = z + m.between(1.1, 1.4)
    m.add(tube((0, 0.78, z + 0.2), (0, 0.84, end), 0.075, 0.06, 12), paint, 0.1)
    m.add(tube((0, 0.834, end - 0.1), (0, 0.845, end + 0.08), 0.095, segments=12), wheel)
    details = ["black tracks", "a cannon"]
    if m.chance(0.25):
        star = m.color("white", "red", "yellow")
        for s in (-1, 1):
            m.add(moved(turned(disc(0.11, 0.05, 5), "y", 90), s * 0.31, 0.76, z - 0.05), star)
    return (
        ["tank", "army tank", "battle tank", "military tank"][: 1 + int(m.rng.integers(4))],
        [paint.word],
        details,
    )


def locomotive(m: Maker) -> Described:
    paint = m.color(roughness=0.4) if m.chance(0.8) else m.metal("black metal", "iron")
    cab, trim = m.color("red", "green", "blue", "brown", "black"), m.metal("gold", "copper", "silver")
    dark, wheels = m.metal("black metal", "iron"), m.color("red", "black", "dark grey", "yellow")
    r, length = m.between(0.28, 0.34), m.between(1.1, 1.35)
    m.add(moved(box(0.62, 0.14, length + 0.75), 0, 0.3, -0.2), dark)
    m.add(moved(turned(cylinder(r, length, segments=22), "x", 90), 0, 0.42 + r, -0.35), paint)
    front = length - 0.35
    for z in (-0.05, length * 0.45, front - 0.06):
        m.add(moved(turned(cylinder(r * 1.05, 0.07, segments=22), "x", 90), 0, 0.42 + r, z), trim)
    m.add(moved(disc(r * 0.7, 0.08), 0, 0.42 + r, front + 0.03), dark)
    top = 0.42 + 2 * r
    m.add(
        moved(
            lathe([(0.11, -0.1), (0.1, 0.2), (0.2, 0.38), (0.2, 0.46), (0.12, 0.46), (0.08, 0.3)], 16),
            0,
            top,
            front - 0.22,
        ),
        dark,
    )
    m.add(moved(ball(0.15, 0.9, 14), 0, top, length * 0.3 - 0.2), trim)
    m.add(moved(disc(0.1, 0.12, 14), 0, top + 0.02, front + 0.02), m.color("yellow", "white", roughness=0.15))
    rear, high = -0.65, 0.95
    m.add(moved(box(0.74, high - 0.1, 0.55), 0, 0.4, rear), cab)
    m.add(
        moved(box(0.88, 0.09, 0.72, taper=0.9), 0, 0.3 + high, rear),
        paint if paint.word != cab.word else dark,
    )
    pane = m.color("light blue", "dark grey", "yellow", roughness=0.1)
    for s in (-1, 1):
        m.add(moved(box(0.06, 0.27, 0.3), s * 0.36, 0.88, rear), pane)
        m.add(moved(box(0.15, 0.22, 0.06), s * 0.25, 0.92, rear + 0.27), pane)
        for z, big in ((-0.72, 0.27), (-0.15, 0.27), (0.32, 0.2), (0.72, 0.2)):
            m.add(moved(turned(disc(big, 0.12, 20), "y", 90), s * 0.36, big, z), wheels)
            m.add(moved(turned(disc(big * 0.4, 0.16, 12), "y", 90), s * 0.36, big, z), trim)
        m.add(tube((s * 0.45, 0.24, -0.75), (s * 0.45, 0.2, 0.35), 0.04), trim)
    m.add(
        moved(
            prism([(-0.36, 0.0), (0.36, 0.0), (0.3, 0.32), (-0.3, 0.32)], 0.14),
            z=length + 0.22 - 0.35,
            y=0.05,
        ),
        wheels,
    )
    names = ["train", "steam train", "locomotive", "steam locomotive", "toy train"]
    details = [f"a {cab.word} cab", f"{wheels.word} wheels", "a chimney"]
    return names[: 1 + int(m.rng.integers(1, 5))], [paint.word], details


def helicopter(m: Maker) -> Described:
    paint, dark = m.color(roughness=0.35), m.metal("black metal", "iron", "steel")
    glass = m.color("light blue", "dark grey", "black", "dark blue", roughness=0.1)
    blade = m.color("dark grey", "black", "light grey")
    w = m.between(0.36, 0.42)
    m.add(moved(scaled(ball(1.0, segments=20), w, 0.42, 0.72), y=0.66), paint)
    m.add(moved(scaled(ball(1.0, segments=18), w * 0.93, 0.36, 0.5), y=0.7, z=0.27), glass)
    m.add(moved(box(0.06, 0.5, 0.5), y=0.74, z=0.4), paint)
    m.add(moved(scaled(ball(1.0, segments=16), w * 1.0, 0.22, 0.66), y=0.47, z=0.14), paint)
    m.add(tube((0, 0.78, -0.45), (0, 0.9, -1.5), 0.17, 0.08, 12), paint)
    fin = [(-1.6, 0.85), (-1.35, 0.85), (-1.5, 1.3), (-1.7, 1.3)]
    m.add(turned(prism(fin, 0.08), "y", -90), paint)
    m.add(moved(box(0.6, 0.06, 0.17), 0, 0.87, -1.38), paint)
    turn = m.between(0, 90)
    for k in range(3):
        m.add(
            moved(turned(moved(box(0.07, 0.3, 0.09), y=-0.02), "x", turn + 120 * k), 0.12, 0.93, -1.5), blade
        )
    m.add(moved(box(0.24, 0.14, 0.4, taper=0.8), y=1.03), paint, 0.1)
    m.add(moved(cylinder(0.06, 0.2), y=1.12), dark)
    m.add(moved(ball(0.1, 0.6, 10), y=1.31), dark)
    blades = 4 if m.chance(0.6) else 2
    for k in range(blades):
        m.add(
            moved(turned(moved(box(0.14, 0.05, 1.15), z=0.55), "y", turn + 360 / blades * k), y=1.27), blade
        )
    for s in (-1, 1):
        m.add(tube((s * 0.36, 0.05, -0.55), (s * 0.36, 0.05, 0.55), 0.05), dark)
        m.add(tube((s * 0.36, 0.05, 0.52), (s * 0.36, 0.16, 0.72), 0.05), dark)
        for z in (-0.28, 0.28):
            m.add(tube((s * 0.36, 0.05, z), (s * 0.18, 0.45, z), 0.04), dark)
    details = [f"{blades} rotor blades", f"{blade.word} rotor", "landing skids"]
    return ["helicopter", "chopper", "rescue helicopter"][: 1 + m.chance(0.4)], [paint.word], details[1:]


def ufo(m: Maker) -> Described:
    body = (
        m.metal("silver", "steel", "metal", "black metal", "gold")
        if m.chance(0.65)
        else m.color(roughness=0.3)
    )
    dome = m.color("light blue", "green", "light green", "purple", "teal", "pink", roughness=0.1)
    light = m.color("yellow", "red", "green", "white", "light blue", "pink", roughness=0.15)
    r, flat = 1.0, m.between(0.8, 1.2)
    hull = [(0.3, 0.0), (0.5, 0.06), (r, 0.28), (r, 0.34), (0.7, 0.46), (0.42, 0.52), (0, 0.52)]
    m.add(lathe([(x, y * flat) for x, y in hull], 30), body)
    m.add(
        moved(ring(r * 0.98, 0.06, segments=30), y=0.31 * flat),
        m.darker(body) if m.chance(0.4) else body,
        0.1,
    )
    m.add(
        moved(lathe([(0.44, 0), (0.42, 0.15), (0.3, 0.33), (0.14, 0.41), (0, 0.43)], 22), y=0.48 * flat), dome
    )
    n = int(m.rng.integers(8, 13))
    for k in range(n):
        m.add(turned(moved(ball(0.085, segments=10), y=0.43 * flat, z=0.8), "y", 360 * k / n), light)
    details = [f"{light.word} lights", f"a {dome.word} dome"]
    if m.chance(0.4):
        for k in range(3):
            leg = tube((0, 0.12, 0.5), (0, -0.35, 0.75), 0.05)
            m.add(turned(leg, "y", 120.0 * k), body)
            m.add(turned(moved(cylinder(0.12, 0.06), y=-0.4, z=0.77), "y", 120.0 * k), body)
        details.append("landing legs")
    else:
        m.add(moved(cylinder(0.2, 0.1, 0.3), y=-0.08), light)
    return (
        ["ufo", "flying saucer", "alien spaceship", "alien ship"][: 1 + int(m.rng.integers(1, 4))],
        [body.word],
        details,
    )
