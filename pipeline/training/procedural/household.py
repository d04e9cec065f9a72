"""Things of a household: buckets, books, clocks, keys, televisions, teapots, mugs, ladders."""

from __future__ import annotations

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import (
    Solid,
    arc,
    ball,
    box,
    cylinder,
    disc,
    lathe,
    moved,
    pipe,
    ring,
    scaled,
    tube,
    turned,
)


def bucket(m: Maker) -> Described:
    kind = m.rng.uniform()
    body = (
        m.wood() if kind < 0.35 else m.metal("iron", "steel", "metal", "copper") if kind < 0.65 else m.color()
    )
    band, h = m.metal("iron", "steel", "black metal"), m.between(0.7, 0.95)
    low, high = m.between(0.3, 0.36), m.between(0.42, 0.5)
    m.add(lathe([(low, 0), (high, h), (high - 0.06, h), (low - 0.06, 0.12), (0, 0.12)], 22), body)
    m.add(moved(ring(high - 0.01, 0.045, segments=22), y=h), band if kind < 0.35 else body)
    for t in (0.18, 0.62) if kind < 0.35 else ():
        at, up = low + (high - low) * t, (high - low) * 0.1
        m.add(moved(lathe([(at + 0.015, 0), (at + 0.015 + up, 0.1 * h)], 22), y=t * h), band)
    raised = m.chance(0.65)
    points = [(x, y * 1.15, 0.0) for x, y in arc(high, 0, 180, 13)]
    bail = pipe(points, 0.035, segments=8)
    m.add(moved(bail if raised else turned(bail, "x", 105), y=h - 0.06), band)
    for s in (-1, 1):
        m.add(moved(box(0.06, 0.14, 0.14), s * high, h - 0.13), band)
    details = [f"a {band.noun} handle"]
    if m.chance(0.35):
        full = m.color("blue", "light blue", roughness=0.1)
        m.add(moved(cylinder(high - 0.09, 0.02, segments=22), y=h * 0.86), full)
        details.append("water")
    names = ["bucket", "pail", "water bucket" if len(details) > 1 else "bucket with a handle"]
    return names[: 1 + int(m.rng.integers(3))], [body.word], details


def _closed_book(m: Maker, w: float, h: float, t: float) -> tuple[list[tuple[Solid, Finish]], Finish]:
    """Parts of a book that stands upright, its cover to the front and its spine to the left."""
    cover, pages = m.color(roughness=0.7), m.color("white", "beige", roughness=0.9)
    board = 0.055
    parts = [(moved(box(w, h, board), z=s * (t - board) / 2), cover) for s in (-1, 1)]
    parts.append((moved(box(0.07, h, t), x=-w / 2), cover))
    parts.append((moved(box(w - 0.08, h - 0.1, t - board), 0.0, 0.05), pages))
    return parts, cover


def book(m: Maker) -> Described:
    w, h, t = m.between(0.75, 0.9), m.between(1.0, 1.25), m.between(0.22, 0.36)
    if m.chance(0.25):
        cover, pages = m.color(roughness=0.7), m.color("white", "beige", roughness=0.9)
        for s in (-1, 1):
            for solid, finish, up in (
                (box(w, 0.06, h), cover, 0.0),
                (box(w * 0.94, 0.12, h * 0.92), pages, 0.05),
            ):
                leaf = moved(solid, s * w / 2, up)
                m.add(moved(turned(turned(leaf, "z", 9.0 * s), "x", 22), y=0.1), finish)
        return ["open book", "book"], [cover.word], ["white pages" if pages.word == "white" else "open pages"]
    parts, cover = _closed_book(m, w, h, t)
    details = ["white pages"] if parts[-1][1].word == "white" else []
    names = ["book"]
    style = int(m.rng.integers(3))
    mark = m.metal("gold", "silver") if style else m.color("white", "yellow", "black", "red")
    if style == 0:
        parts += [(moved(box(w * 0.6, 0.1, t + 0.03), 0.03, h * 0.72), mark),
                  (moved(box(w * 0.4, 0.07, t + 0.03), 0.03, h * 0.58), mark)]  # fmt: skip
    elif style == 1:
        names += ["spell book", "magic book"]
        gem = m.color("red", "blue", "green", "purple", roughness=0.15)
        parts += [
            (moved(disc(0.2, t + 0.05), 0.03, h / 2), mark),
            (moved(disc(0.12, t + 0.1, 12), 0.03, h / 2), gem),
        ]
        for x in (-1, 1):
            for y in (0.0, h - 0.17):
                parts.append((moved(box(0.17, 0.18, t + 0.04), x * (w / 2 - 0.06), y - 0.005), mark))
        details += [f"{mark.noun} corners", f"a {gem.word} gem"]
    else:
        names += ["old book", "tome"]
        for y in (0.15, 0.75):
            parts.append((moved(box(w + 0.06, 0.1, t + 0.04), 0.0, h * y), mark))
        details.append(f"{mark.noun} clasps")
    lying = m.chance(0.35)
    for solid, finish in parts:
        m.add(turned(solid, "x", -90) if lying else turned(solid, "y", 0), finish)
    return names, [cover.word], details


def book_stack(m: Maker) -> Described:
    y, n = 0.0, int(m.rng.integers(3, 6))
    for _ in range(n):
        t, w = m.between(0.18, 0.28), m.between(0.7, 0.95)
        turn = m.between(-22, 22)
        for solid, finish in _closed_book(m, w, m.between(0.95, 1.15), t)[0]:
            flat = moved(turned(moved(solid, y=-0.5), "x", -90), y=t / 2)
            m.add(moved(turned(turned(flat, "y", 90), "y", turn), y=y), finish)
        y += t
    return ["stack of books", "pile of books", "books"], [], [f"{n} books"] if m.chance(0.3) else []


def clock(m: Maker) -> Described:
    rim = m.wood() if m.chance(0.35) else m.metal("gold", "silver", "copper") if m.chance(0.4) else m.color()
    face, dark = m.color("white", "beige"), m.color("black", "dark blue", "dark red")
    kind = int(m.rng.integers(4))
    r, y, z = (0.34, 1.55, 0.26) if kind == 3 else (0.6, 0.0, 0.08)

    def hand(length: float, width: float, degrees: float) -> Solid:
        return moved(turned(moved(box(width, length, 0.05), y=-0.04), "z", -degrees), 0, y, z + 0.05)

    if kind == 3:
        m.add(box(0.95, 0.3, 0.55), rim)
        m.add(moved(box(0.65, 1.0, 0.42), y=0.3), rim, 0.05)
        m.add(moved(box(0.9, 0.65, 0.52), y=1.25), rim)
        m.add(moved(box(1.0, 0.1, 0.6), y=1.87), rim)
        m.add(moved(box(0.42, 0.8, 0.08), 0, 0.38, 0.19), m.darker(rim))
        brass = m.metal("gold")
        m.add(tube((0, 1.2, 0.25), (0, 0.65, 0.25), 0.03), brass)
        m.add(moved(disc(0.13, 0.06, 16), 0, 0.62, 0.25), brass)
    else:
        m.add(moved(disc(0.68, 0.24, 30), z=-0.04), rim)
        m.add(turned(moved(ring(0.64, 0.08, segments=30), y=0.06), "x", 90), rim)
    m.add(moved(disc(r, 0.05, 30), 0, y, z), face)
    for k in range(12):
        tick = moved(box(0.05, r * (0.24 if k % 3 == 0 else 0.13), 0.04), 0, r * 0.68, 0.03)
        m.add(moved(turned(tick, "z", 30.0 * k), 0, y, z), dark)
    hour = m.between(0, 12)
    m.add(hand(r * 0.5, 0.09, hour * 30), dark)
    m.add(hand(r * 0.72, 0.06, hour % 1 * 360), dark)
    m.add(moved(disc(0.06, 0.14, 10), 0, y, z), rim if kind == 0 else dark)
    details = [] if kind == 3 else [f"a {face.word} face"]
    if kind == 3:
        return ["grandfather clock", "clock", "tall clock"], [rim.word], ["a pendulum"]
    if kind == 1:
        bell = m.metal("gold", "silver", "copper")
        for s in (-1, 1):
            m.add(
                moved(turned(scaled(ball(0.26, 0.7), 1, 1, 0.9), "z", -35.0 * s), s * 0.38, 0.68, -0.04), bell
            )
            m.add(tube((s * 0.35, -0.5, -0.04), (s * 0.5, -0.82, -0.04), 0.07), rim)
        m.add(moved(box(0.1, 0.22, 0.1), y=0.68, z=-0.04), bell)
        return ["alarm clock", "clock", "desk clock"], [rim.word], [*details, "two bells"]
    return ["clock", "wall clock", "round clock"], [rim.word], details


def key(m: Maker) -> Described:
    metal = m.metal("gold", "iron", "silver", "bronze", "copper", "gold")
    h, r = m.between(0.9, 1.2), m.between(0.22, 0.3)
    m.add(cylinder(0.07, h, segments=12), metal)
    kind = int(m.rng.integers(3))
    if kind == 0:
        m.add(moved(turned(ring(r, 0.085, segments=24), "x", 90), y=h + r), metal)
    elif kind == 1:
        for dx, dy in ((-0.19, 0.16), (0.19, 0.16), (0.0, 0.46)):
            m.add(moved(turned(ring(0.15, 0.07, segments=18), "x", 90), dx, h + dy), metal)
    else:
        m.add(moved(turned(ring(r, 0.085, segments=4), "x", 90), y=h + r), metal)
    m.add(moved(ring(0.07, 0.05, segments=12), y=h * 0.9), metal)
    for y, length in ((0.02, m.between(0.26, 0.34)), (0.24, m.between(0.18, 0.3))):
        m.add(moved(box(length, 0.13, 0.11), length / 2, y), metal)
    if m.chance(0.25):
        gem = m.color("red", "blue", "green", "purple", roughness=0.15)
        m.add(
            moved(ball(0.14 if kind == 1 else r * 0.85, segments=12), y=h + (0.24 if kind == 1 else r)), gem
        )
        return ["key", "magic key"], [metal.word], [f"a {gem.word} gem"]
    return ["key", "old key", "treasure key"][: 1 + int(m.rng.integers(3))], [metal.word], []


def television(m: Maker) -> Described:
    body = m.wood() if m.chance(0.5) else m.color(roughness=0.5)
    screen = m.color("dark grey", "black", "teal", "light blue", "dark green", roughness=0.1)
    bezel, knob = m.color("black", "beige", "light grey"), m.metal("silver", "gold", "steel")
    w, h, d = m.between(1.2, 1.5), m.between(0.85, 1.0), m.between(0.6, 0.8)
    m.add(box(w, h, d, bevel=0.06), body)
    m.add(moved(box(w * 0.7, h * 0.6, 0.35, taper=0.9), 0, h * 0.2, -d / 2 - 0.02), m.darker(body))
    m.add(moved(box(w * 0.68, h * 0.82, 0.08), -w * 0.13, h * 0.09, d / 2), bezel)
    m.add(moved(box(w * 0.58, h * 0.66, 0.14, bevel=0.06), -w * 0.13, h * 0.17, d / 2), screen)
    for y in (0.75, 0.52):
        m.add(moved(disc(0.085, 0.14, 14), w * 0.36, h * y, d / 2), knob)
    for y in (0.15, 0.24, 0.33):
        m.add(moved(box(w * 0.17, 0.04, 0.06), w * 0.36, h * y, d / 2), bezel)
    details = [f"a {screen.word} screen", "knobs"]
    if m.chance(0.75):
        m.add(moved(ball(0.1, 0.7, 12), y=h), bezel)
        for s in (-1, 1):
            end = (s * m.between(0.3, 0.5), h + m.between(0.45, 0.6), 0.0)
            m.add(tube((0, h, 0), end, 0.03), knob)
            m.add(moved(ball(0.05, segments=8), *end), knob)
        details.insert(0, "an antenna")
    if m.chance(0.5):
        for x in (-1, 1):
            for z in (-1, 1):
                m.add(
                    tube((x * w * 0.42, -0.35, z * d * 0.42), (x * w * 0.36, 0.05, z * d * 0.34), 0.05), body
                )
    names = ["television", "old tv", "tv", "retro television", "old television"]
    return names[: 1 + int(m.rng.integers(1, 5))], [body.word], details


def teapot(m: Maker) -> Described:
    body = m.color(roughness=0.3) if m.chance(0.75) else m.metal("silver", "copper", "gold", "iron")
    trim = body if m.chance(0.5) else m.color("white", "blue", "beige") if m.chance(0.5) else m.metal("gold")
    r, h = 0.5, m.between(0.65, 0.95)
    curve = [
        (r * 0.6, 0.0),
        (r * 0.65, 0.05),
        (r * 0.95, h * 0.3),
        (r, h * 0.5),
        (r * 0.85, h * 0.8),
        (r * 0.5, h),
    ]
    m.add(lathe(curve, 24), body)
    m.add(moved(lathe([(r * 0.56, -0.02), (r * 0.5, 0.06), (r * 0.2, 0.15), (0, 0.16)], 22), y=h), trim)
    m.add(moved(ball(0.1, segments=12), y=h + 0.22), trim)
    spout = [
        (r * 0.75, h * 0.3, 0.0),
        (r * 1.3, h * 0.42, 0.0),
        (r * 1.55, h * 0.75, 0.0),
        (r * 1.9, h * 1.05, 0.0),
    ]
    m.add(pipe(spout, 0.16, 0.07, 12), body)
    loop = [(-r * 0.85 + x * 1.05, h * 0.52 + y, 0.0) for x, y in arc(h * 0.34, 100, 260, 11)]
    m.add(pipe(loop, 0.06), trim)
    details = [] if trim is body else [f"a {trim.noun} lid", f"a {trim.noun} handle"]
    words = [body.word] if body.metallic else [body.word, "ceramic"]
    return ["teapot", "tea pot", "kettle"][: 1 + m.chance(0.4) + m.chance(0.2)], words, details


def mug(m: Maker) -> Described:
    body, r, h = m.color(roughness=0.35), 0.4, m.between(0.7, 0.95)
    drink = m.color("dark brown", "brown", roughness=0.15)
    if m.chance(0.35):
        h = 0.5
        m.add(lathe([(0.2, 0), (0.22, 0.06), (r * 0.9, 0.25), (r * 1.1, h), (r, h), (0, 0.3)], 24), body)
        m.add(moved(cylinder(r * 0.98, 0.02), y=h * 0.86), drink)
        m.add(
            moved(turned(scaled(ring(0.15, 0.05, segments=18), 0.9, 1, 1), "x", 90), r * 1.02, h * 0.58), body
        )
        plate = body if m.chance(0.6) else m.color("white")
        m.add(moved(lathe([(0.3, 0), (0.72, 0.1), (0.7, 0.15), (0.25, 0.08)], 26), y=-0.07), plate)
        return ["teacup", "cup", "cup of tea"], [body.word], ["a saucer", "a handle"]
    wide = m.between(0.85, 1.0)
    m.add(lathe([(r * wide, 0), (r, 0.06), (r, h), (r - 0.07, h), (r - 0.07, 0.15), (0, 0.15)], 24), body)
    m.add(moved(turned(scaled(ring(0.24, 0.07, segments=20), 0.85, 1, 1), "x", 90), r + 0.05, h * 0.52), body)
    details = ["a handle"]
    if m.chance(0.35):
        stripe = m.color()
        m.add(moved(lathe([(r * 1.015, 0), (r * 1.015, h * 0.28)], 24), y=h * m.between(0.25, 0.45)), stripe)
        details.append(f"a {stripe.word} stripe")
    if m.chance(0.6):
        m.add(moved(cylinder(r - 0.05, 0.02, segments=20), y=h * 0.86), drink)
        return ["mug", "coffee mug", "mug of coffee", "cup of coffee"], [body.word], details
    return ["mug", "cup", "coffee mug"], [body.word, "ceramic"], details


def ladder(m: Maker) -> Described:
    frame = m.wood() if m.chance(0.65) else m.metal("steel", "metal", "iron") if m.chance(0.6) else m.color()
    n, w = int(m.rng.integers(4, 7)), m.between(0.55, 0.75)
    h, folding = n * 0.32 + 0.2, m.chance(0.3)
    lean = 14.0 if folding else 0.0
    for s in (-1, 1) if folding else (1,):
        for x in (-1, 1):
            rail = moved(box(0.1, h, 0.12), x * w / 2 * (0.85 if folding and s < 0 else 1.0), -h)
            m.add(moved(turned(rail, "x", -lean * s), y=h), frame)
        for i in range(n if s > 0 else 2):
            y = (i + 0.75) * 0.32 if s > 0 else (0.3, 0.7)[i] * h
            rung = moved(box(w, 0.09, 0.18 if folding else 0.1), y=y - h - 0.045)
            m.add(moved(turned(rung, "x", -lean * s), y=h), frame, 0.08)
    if folding:
        m.add(moved(box(w + 0.15, 0.1, 0.32), y=h - 0.04), frame, 0.08)
        return ["stepladder", "step ladder", "ladder"], [frame.word], [f"{n} steps"]
    return ["ladder"], [frame.word], [f"{n} rungs"] if m.chance(0.5) else []
