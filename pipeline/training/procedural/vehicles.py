"""Cars, trucks, boats, carts, rockets, aeroplanes."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import (
    Point,
    Solid,
    ball,
    box,
    cylinder,
    lathe,
    loft,
    moved,
    prism,
    scaled,
    tube,
    turned,
)


def _wheel(
    m: Maker, x: float, y: float, z: float, radius: float, width: float, hub: Finish, tyre: Finish
) -> None:
    for r, w, finish in ((radius, width, tyre), (radius * 0.55, width * 1.08, hub)):
        m.add(moved(turned(moved(cylinder(r, w, segments=16), y=-w / 2), "z", 90), x, y, z), finish)


def _wheels(m: Maker, half_width: float, places: tuple[float, ...], radius: float) -> None:
    hub, tyre = (
        (m.metal("silver", "steel") if m.chance(0.6) else m.color("light grey", "white", "yellow")),
        m.rubber(),
    )
    for z in places:
        for s in (-1, 1):
            _wheel(m, s * half_width, radius, z, radius, 0.2, hub, tyre)


def _body(m: Maker, profile: list[tuple[float, float]], width: float, finish: Finish) -> None:
    """A side outline (z forward, y up) across the car's width."""
    m.add(turned(prism(profile, width), "y", -90), finish)


def _cabin(
    m: Maker,
    foot: tuple[float, float],
    roof: tuple[float, float],
    low: float,
    high: float,
    width: float,
    paint: Finish,
) -> None:
    """Glass between `low` and the roof at `high`; (rear, front) along z at both heights; pillars and roof."""
    glass, narrow = m.color("dark grey", "black", "light blue", "dark blue", roughness=0.1), width * 0.88
    rear0, front0 = foot
    rear1, front1 = roof

    def quad(y: float, rear: float, front: float, w: float) -> list[Point]:
        return [(w / 2, y, front), (-w / 2, y, front), (-w / 2, y, rear), (w / 2, y, rear)]

    m.add(loft([quad(low, rear0, front0, width * 0.96), quad(high, rear1, front1, narrow)]), glass)
    top = quad(high + 0.05, rear1 + 0.04, front1 - 0.04, narrow * 0.94)
    m.add(loft([quad(high - 0.01, rear1, front1, narrow * 1.02), top]), paint)
    for z0, z1 in ((rear0, rear1), (front0, front1), ((rear0 + front0) / 2, (rear1 + front1) / 2)):
        for s in (-1, 1):
            m.add(tube((s * width * 0.47, low, z0), (s * narrow * 0.49, high, z1), 0.035, segments=6), paint)


def _lights(m: Maker, width: float, y: float, front: float, rear: float) -> None:
    for s in (-1, 1):
        m.add(
            moved(box(0.16, 0.1, 0.05), s * width * 0.36, y, front), m.color("yellow", "white", roughness=0.2)
        )
        m.add(moved(box(0.16, 0.09, 0.05), s * width * 0.36, y, rear), m.color("red", roughness=0.2))


def car(m: Maker) -> Described:
    paint = m.color(roughness=0.35)
    length, width, r = m.between(1.9, 2.3), m.between(0.85, 1.0), m.between(0.19, 0.24)
    low, belt, h = r * 0.75, m.between(0.5, 0.58), m.between(0.85, 1.0)
    f, b = length / 2, -length / 2
    style = int(m.rng.integers(5))
    hood, trunk = belt - m.between(0.0, 0.06), belt - 0.02
    front = [(f, low), (f, hood - 0.1), (f - 0.08, hood), (f - 0.55, belt)]
    rear = [(b + 0.3, belt), (b + 0.04, trunk), (b, trunk - 0.12)]
    _body(m, [(b, low), *front, *rear], width, paint)
    words, details, names = [paint.word], [], ["car"]
    if style == 0:
        _cabin(m, (b + 0.3, f - 0.55), (b + 0.6, f - 0.85), belt, h, width, paint)
        names += ["sedan"]
    elif style == 1:
        _cabin(m, (b + 0.03, f - 0.5), (b + 0.18, f - 0.85), belt, h, width, paint)
        names += ["hatchback", "small car"]
    elif style == 2:
        _cabin(m, (b + 0.35, f - 0.65), (b + 0.75, f - 1.0), belt, h - 0.12, width, paint)
        m.add(moved(box(width, 0.04, 0.2), 0, belt + 0.14, b + 0.08), paint)
        names += ["sports car", "race car"]
    elif style == 3:
        _cabin(m, (b + 0.03, f - 0.45), (b + 0.08, f - 0.65), belt, h + 0.12, width, paint)
        names += ["suv", "van"]
    else:
        _cabin(m, (b + 0.3, f - 0.55), (b + 0.55, f - 0.8), belt, h, width, paint)
        if m.chance(0.5):
            m.add(moved(box(0.4, 0.1, 0.12), 0, h + 0.05, (b + f) / 2), m.color("blue", roughness=0.2))
            names, details = ["police car"], ["a blue light on the roof"]
        else:
            m.add(moved(box(0.3, 0.12, 0.14), 0, h + 0.05, (b + f) / 2), m.color("yellow", "white"))
            names = ["taxi", "car"]
    bumper = m.color("dark grey", "light grey", "black")
    for z in (f, b):
        m.add(moved(box(width * 1.01, 0.11, 0.1), 0, low + 0.02, z), bumper)
    _lights(m, width, belt - 0.16, f, b)
    _wheels(m, width / 2 - 0.04, (f - 0.42, b + 0.42), r)
    return (
        names if names[0] != "car" or m.chance(0.5) else names[:1],
        words,
        details or ["black wheels"][: m.chance(0.2)],
    )


def truck(m: Maker) -> Described:
    paint, r = m.color(roughness=0.4), m.between(0.2, 0.27)
    length, width = m.between(2.2, 2.8), 0.95
    f, b, low, belt = length / 2, -length / 2, r * 0.9, 0.62
    nose = f - (0.05 if m.chance(0.5) else 0.5)
    _body(m, [(f - 0.95, low), (f, low), (f, belt - 0.05), (nose, belt), (f - 0.95, belt)], width, paint)
    _cabin(m, (f - 0.95, nose - 0.02), (f - 0.93, nose - 0.2), belt, 1.05, width, paint)
    m.add(moved(box(width * 0.9, 0.12, length), y=low), m.color("dark grey"))
    kind = int(m.rng.integers(4))
    z, space = (b + f - 0.95) / 2, length - 1.0
    if kind == 0:
        for s in (-1, 1):
            m.add(moved(box(0.06, 0.3, space), s * width * 0.48, low + 0.1, z), paint)
        for end in (b, b + space):
            m.add(moved(box(width, 0.3, 0.06), 0, low + 0.1, end + 0.02), paint)
        names, details = ["pickup truck", "pickup"], []
    elif kind == 1:
        cargo = m.color(roughness=0.6)
        m.add(moved(box(width * 1.05, 1.0, space), 0, low + 0.12, z), cargo)
        names, details = ["truck", "delivery truck"], [f"a {cargo.word} box"]
    elif kind == 2:
        ladder = m.metal("steel")
        m.add(moved(box(width, 0.6, space), 0, low + 0.1, z), paint)
        for s in (-1, 1):
            m.add(moved(box(0.06, 0.06, space * 1.1), s * 0.15, low + 0.85, z), ladder)
        for i in range(6):
            m.add(moved(box(0.3, 0.04, 0.04), 0, low + 0.86, z + (i - 2.5) * space / 6), ladder)
        names, details = (["fire truck"] if paint.word == "red" else ["truck"]), ["a ladder"]
    else:
        wood = m.wood()
        for x in (-0.25, 0.0, 0.25):
            m.add(tube((x, low + 0.3, z - space / 2), (x, low + 0.3, z + space / 2), 0.13), wood)
        names, details = ["truck", "log truck"], ["logs"]
    _lights(m, width, belt - 0.2, f, b)
    _wheels(m, width / 2 - 0.05, (f - 0.45, b + 0.35, *([b + 0.85] if kind == 1 else [])), r)
    return names, [paint.word], details


def bus(m: Maker) -> Described:
    paint, w, length, h = m.color(roughness=0.4), 0.9, m.between(2.0, 2.8), m.between(0.8, 1.1)
    glass = m.color("dark grey", "light blue", "black", roughness=0.1)
    m.add(moved(box(w, h, length, bevel=0.06), y=0.16), paint)
    n = int(length / 0.4)
    for i in range(n):
        z = (i - (n - 1) / 2) * length * 0.9 / n
        m.add(moved(box(w * 1.02, h * 0.36, 0.27), 0, 0.16 + h * 0.5, z), glass)
    m.add(moved(box(w * 0.85, h * 0.42, 0.05), 0, 0.16 + h * 0.45, length / 2), glass)
    m.add(moved(box(w * 0.8, h * 0.3, 0.05), 0, 0.16 + h * 0.52, -length / 2), glass)
    _lights(m, w, 0.3, length / 2, -length / 2)
    _wheels(m, w / 2 - 0.05, (length * 0.3, -length * 0.3), 0.2)
    names = (
        ["school bus", "bus"]
        if paint.word == "yellow"
        else ["bus", "city bus", "van"][: 1 + (length < 2.2) * 2]
    )
    return names, [paint.word], []


def _hull(length: float, width: float, height: float) -> Solid:
    rings = []
    for y, grow in ((0.0, 0.6), (height * 0.5, 0.9), (height, 1.0)):
        points: list[Point] = []
        for t in np.linspace(0, 2 * np.pi, 20, endpoint=False):
            x, z = np.cos(t), np.sin(t)
            pointed = abs(x) ** (1.4 if z > 0 else 0.8) * np.sign(x)
            points.append(
                (width / 2 * grow * float(pointed), y, length / 2 * (0.85 + 0.15 * grow) * float(z))
            )
        rings.append(points)
    return loft(rings)


def boat(m: Maker) -> Described:
    body = m.wood() if m.chance(0.6) else m.color(roughness=0.5)
    length, width = m.between(1.6, 2.2), m.between(0.6, 0.85)
    m.add(_hull(length, width, 0.42), body)
    m.add(moved(_hull(length * 0.9, width * 0.84, 0.02), y=0.42), m.wood())
    if m.chance(0.35):
        for z in (-0.35, 0.3):
            m.add(moved(box(width * 0.95, 0.05, 0.16), 0, 0.44, z), m.wood())
        for s in (-1, 1):
            m.add(tube((s * 0.25, 0.5, 0), (s * 0.9, 0.2, -0.3), 0.03), m.wood())
        return ["rowing boat", "boat", "rowboat"], [body.word], ["oars"]
    if m.chance(0.7):
        sail, mast = m.color("white", "red", "beige", "blue", "black", "yellow", roughness=0.9), m.wood()
        m.add(tube((0, 0.3, 0.05), (0, 1.9, 0.05), 0.045), mast)
        lateen, square = (
            [(0.0, 0.0), (0.0, 1.2), (-0.75, 0.0)],
            [(-0.45, 0.1), (-0.35, 1.1), (0.35, 1.1), (0.45, 0.1)],
        )
        shape = lateen if m.chance(0.5) else square
        panel = prism(shape, 0.03)
        m.add(
            moved(
                turned(panel, "y", -90) if len(shape) == 3 else panel, 0, 0.6, 0.0 if len(shape) == 3 else 0.1
            ),
            sail,
        )
        return ["sailing boat", "boat", "ship", "sailboat"], [body.word], [f"a {sail.word} sail"]
    cabin = m.color("white", "red", "blue", "yellow")
    m.add(moved(box(width * 0.6, 0.4, length * 0.3), 0, 0.42, -0.1), cabin)
    m.add(
        moved(box(width * 0.62, 0.14, length * 0.31), 0, 0.58, -0.1),
        m.color("dark grey", "light blue", roughness=0.1),
    )
    m.add(moved(cylinder(0.1, 0.4), 0, 0.8, -0.2), m.color("red", "black", "orange"))
    return ["boat", "ship", "fishing boat"], [body.word], [f"a {cabin.word} cabin"]


def cart(m: Maker) -> Described:
    wood, w, d = m.wood(), m.between(0.8, 1.0), m.between(1.1, 1.5)
    m.add(moved(box(w, 0.08, d), y=0.4), wood)
    for s in (-1, 1):
        m.add(moved(box(0.06, 0.35, d), s * w / 2, 0.42), wood, 0.1)
        m.add(moved(box(w, 0.35, 0.06), 0, 0.42, s * d / 2), wood, 0.1)
    hub, tyre = m.metal("iron"), m.wood()
    for z in (0.0,) if m.chance(0.5) else (-d * 0.33, d * 0.33):
        for s in (-1, 1):
            _wheel(m, s * (w / 2 + 0.1), 0.33, z, 0.33, 0.08, hub, tyre)
    for s in (-1, 1):
        m.add(tube((s * w * 0.35, 0.45, d / 2), (s * w * 0.3, 0.35, d / 2 + 0.7), 0.04), wood)
    details = []
    if m.chance(0.4):
        load = m.color("yellow", "green", "orange", "brown")
        m.add(moved(scaled(ball(0.5), w * 0.9, 0.5, d * 0.9), y=0.6), load)
        details = ["hay" if load.word == "yellow" else f"a {load.word} load"]
    return ["cart", "wagon", "wooden cart"], [wood.word], details


def rocket(m: Maker) -> Described:
    body, tip = m.color("white", "light grey", "red", "yellow"), m.color("red", "blue", "orange")
    m.add(lathe([(0.25, 0), (0.4, 0.5), (0.4, 1.2), (0.3, 1.6)], 20), body)
    m.add(lathe([(0.3, 1.6), (0.17, 1.9), (0.0, 2.1)], 20), tip)
    for a in (0, 90, 180, 270) if m.chance(0.5) else (0, 120, 240):
        m.add(
            turned(
                moved(prism([(0, 0.0), (0.45, -0.25), (0.45, 0.1), (0.05, 0.6)], 0.06), 0.28, 0.1), "y", a
            ),
            tip,
        )
    m.add(moved(turned(moved(cylinder(0.14, 0.1), y=-0.05), "x", 90), 0, 1.15, 0.38), m.glass())
    m.add(moved(cylinder(0.2, 0.15, 0.12), y=-0.12), m.metal("iron"))
    return ["rocket", "space rocket"], [body.word], [f"{tip.word} fins"]


def aeroplane(m: Maker) -> Described:
    body, wing = m.color(roughness=0.4), m.color(roughness=0.4)
    same = m.chance(0.6)
    wing = body if same else wing
    m.add(scaled(turned(ball(0.3, segments=18), "x", 90), 1, 1, 3.4), body)
    m.add(moved(box(2.2, 0.06, 0.5, taper=0.96), 0, -0.05, 0.1), wing)
    m.add(moved(box(0.9, 0.05, 0.28), 0, 0.05, -0.9), wing)
    m.add(
        moved(turned(prism([(0, 0), (0.35, 0), (0.1, 0.5), (-0.05, 0.5)], 0.06), "y", 90), 0, 0.1, -0.75),
        wing,
    )
    m.add(moved(scaled(ball(0.2), 0.8, 0.9, 1.4), 0, 0.24, 0.2), m.glass())
    if m.chance(0.7):
        m.add(moved(box(0.9, 0.09, 0.03), 0, -0.04, 1.06), m.color("dark grey", "yellow"))
        m.add(moved(ball(0.09), 0, 0, 1.04), m.color("red", "dark grey"))
    return ["aeroplane", "airplane", "plane"], [body.word], [] if same else [f"{wing.word} wings"]
