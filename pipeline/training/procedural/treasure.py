"""What adventurers wear and carry: helmets, hats, crowns, coins, potions, bombs, torches, spears."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Maker
from pipeline.training.procedural.solids import (
    arc,
    ball,
    box,
    cylinder,
    lathe,
    loft,
    lump,
    moved,
    pipe,
    prism,
    ring,
    scaled,
    tube,
    turned,
)


def helmet(m: Maker) -> Described:
    metal, dark = (
        m.metal("steel", "iron", "silver", "gold", "bronze", "black metal"),
        m.color("black", "dark grey"),
    )
    trim = m.metal("gold", "silver", "bronze", "iron")
    names = ["helmet", "medieval helmet"]
    kind = int(m.rng.integers(3))
    if kind == 0:
        m.add(lathe([(0.46, 0), (0.5, 0.1), (0.5, 0.75), (0.42, 0.95), (0, 1.0)], 22), metal)
        m.add(lathe([(0.53, 0.5), (0.53, 0.58)], 22), dark)
        m.add(moved(box(0.1, 0.95, 0.12), y=0.02, z=0.5), trim)
        m.add(moved(box(0.62, 0.1, 0.12), y=0.6, z=0.5), trim)
        m.add(lathe([(0.49, 0), (0.54, 0.06), (0.49, 0.12)], 22), trim)
        for s in (-1, 1):
            m.add(moved(box(0.3, 0.08, 0.1), s * 0.22, 0.5, 0.49), dark)
            for k in range(6):
                m.add(
                    moved(ball(0.035, segments=6), s * (0.15 + 0.1 * (k % 2)), 0.15 + 0.11 * (k // 2), 0.47),
                    dark,
                )
        details = ["an eye slit", f"a {trim.noun} cross"]
        names += ["knight helmet", "crusader helmet", "great helm"]
    elif kind == 1:
        m.add(lathe([(0.5, 0), (0.52, 0.3), (0.45, 0.6), (0.27, 0.8), (0, 0.88)], 22), metal)
        m.add(lathe([(0.55, 0), (0.57, 0.13), (0.52, 0.16)], 22), trim)
        m.add(moved(box(0.12, 0.5, 0.12), y=-0.3, z=0.52), trim)
        m.add(moved(ball(0.1), y=0.88), trim)
        horn = m.color("white", "beige")
        for s in (-1, 1):
            bend = [(s * 0.48, 0.3, 0.0), (s * 0.75, 0.4, 0.0), (s * 0.88, 0.65, 0.0), (s * 0.82, 0.95, 0.0)]
            m.add(pipe(bend, 0.15, 0.02, 12), horn)
        details = [f"{horn.word} horns", "horns"]
        names = ["viking helmet", "helmet", "horned helmet"]
    else:
        plume = m.color("red", "blue", "purple", "white", "green", "yellow", roughness=0.9)
        m.add(lathe([(0.42, 0), (0.5, 0.25), (0.5, 0.55), (0.38, 0.85), (0, 0.98)], 22), metal)
        visor = [(0.0, 0.12), (0.0, 0.62), (0.3, 0.4)]
        m.add(moved(turned(prism(visor, 0.8), "y", -90), z=0.36), metal, 0.1)
        m.add(moved(box(0.78, 0.09, 0.3), y=0.5, z=0.35), dark)
        m.add(lathe([(0.48, -0.12), (0.43, 0.0), (0.47, 0.1)], 22), trim)
        crest = [
            [
                (x, 0.45 + r * y, -0.05 - r * z)
                for x, r in ((-0.07, 0.4), (0.07, 0.4), (0.06, 0.72), (-0.06, 0.72))
            ]
            for z, y in arc(1.0, 115, -5, 11)
        ]
        m.add(loft(crest), plume)
        details = [f"a {plume.word} plume", "a visor"]
        names += ["knight helmet", "knight's helmet"]
    return names[: 2 + int(m.rng.integers(len(names) - 1))], [metal.word], details


def wizard_hat(m: Maker) -> Described:
    cloth = m.color(
        "blue", "purple", "dark blue", "black", "red", "green", "dark green", "grey", roughness=0.9
    )
    band = m.color("yellow", "white", "red", "brown", "gold") if m.chance(0.7) else m.metal("gold")
    r, h, bend = 0.4, m.between(1.0, 1.3), m.between(-0.35, 0.35)
    m.add(lathe([(0.78, 0.0), (0.8, 0.05), (0.4, 0.12), (0.3, 0.02)], 24), cloth)
    rings = []
    for t in np.linspace(0, 1, 8):
        radius, x = r * (1 - float(t)) + 0.02, bend * float(t) ** 2
        fold = 1.0 + 0.12 * float(np.sin(t * 14)) * float(t)
        rings.append(
            [(x + radius * fold * float(np.sin(a)), 0.08 + h * float(t), radius * fold * float(np.cos(a)))
             for a in np.linspace(0, 2 * np.pi, 20, endpoint=False)]
        )  # fmt: skip
    m.add(loft(rings), cloth)
    m.add(lathe([(r + 0.02, 0.1), (r - 0.01, 0.24)], 22), band)
    details = [f"a {band.word} band"]
    if m.chance(0.5):
        star = m.color("yellow", "white")
        for k in range(7):
            t, a = 0.28 + 0.09 * k, 2.2 * k
            radius = r * (1 - t) + 0.02
            x, z = bend * t**2 + radius * float(np.sin(a)), radius * float(np.cos(a))
            m.add(moved(ball(0.06, segments=6), x, 0.08 + h * t, z), star)
        details.append(f"{star.word} stars" if m.chance(0.3) else f"{star.word} dots")
    elif m.chance(0.5):
        m.add(moved(turned(ring(0.09, 0.03, segments=4), "x", 90), y=0.18, z=r), m.metal("gold", "silver"))
        details.append("a buckle")
    return (
        ["wizard hat", "witch hat", "pointed hat"][: 1 + m.chance(0.6) + m.chance(0.3)],
        [cloth.word],
        details,
    )


def top_hat(m: Maker) -> Described:
    felt = m.color("black", "black", "dark grey", "brown", "red", "purple", "blue", "white", roughness=0.85)
    band = m.color("red", "white", "purple", "blue", "green", "yellow")
    h, r = m.between(0.6, 0.85), m.between(0.38, 0.44)
    m.add(scaled(lathe([(0.68, 0.06), (0.7, 0.1), (r, 0.08), (r - 0.05, 0.02)], 26), 1, 1, 1.1), felt)
    m.add(lathe([(r, 0.05), (r * 0.94, h * 0.5), (r * 1.08, h), (r * 1.0, h + 0.03)], 26), felt)
    m.add(lathe([(r * 1.03, 0.1), (r * 1.0, 0.26)], 26), band)
    details = [f"a {band.word} band"]
    if m.chance(0.2):
        m.add(
            tube((r * 0.9, 0.15, 0.15), (r * 1.25, 0.75, -0.1), 0.07, 0.03), m.color("white", "green", "red")
        )
        details.append("a feather")
    return ["top hat", "hat", "cylinder hat"][: 1 + m.chance(0.4) + m.chance(0.2)], [felt.word], details


def crown(m: Maker) -> Described:
    metal = m.metal("gold", "gold", "gold", "silver", "bronze")
    gem = m.color("red", "blue", "green", "purple", "pink", roughness=0.15)
    n, r, h = m.one_of(5, 6, 8), 0.5, m.between(0.3, 0.5)
    assert isinstance(n, int)
    m.add(lathe([(r, 0), (r * 1.08, 0.3), (r * 0.97, 0.3), (r * 0.9, 0.04), (0, 0.04)], 24), metal)
    m.add(ring(r, 0.06, segments=24), metal)
    balls = m.chance(0.7)
    width = np.pi * r / n * 1.9
    for k in range(n):
        spike = moved(prism([(-width / 2, 0), (width / 2, 0), (0, h)], 0.09), y=0.26, z=r * 1.03)
        m.add(turned(spike, "y", 360 * k / n), metal)
        m.add(turned(moved(ball(0.085, segments=10), y=0.15, z=r * 1.04), "y", 360 * k / n), gem)
        if balls:
            m.add(turned(moved(ball(0.08, segments=10), y=0.27 + h, z=r * 1.03), "y", 360 * k / n), metal)
    details = [f"{gem.word} gems"]
    if m.chance(0.35):
        velvet = m.color("red", "purple", "blue", roughness=0.95)
        m.add(moved(ball(0.44, 0.75, 18), y=0.2), velvet)
        details.append(f"{velvet.word} velvet")
    return ["crown", "king's crown", "royal crown"][: 1 + int(m.rng.integers(3))], [metal.word], details


def finger_ring(m: Maker) -> Described:
    metal = m.metal("gold", "gold", "silver", "copper")
    gem = m.color("red", "blue", "green", "purple", "white", "light blue", "pink", roughness=0.1)
    m.add(turned(ring(0.55, m.between(0.09, 0.13), m.between(1.0, 1.6), 32), "x", 90), metal)
    m.add(moved(cylinder(0.13, 0.14, 0.26, 12), y=0.58), metal)
    cut = int(m.rng.integers(6, 9))
    size = m.between(0.22, 0.3)
    m.add(moved(lathe([(0.08, -0.14), (size, 0.08), (size * 0.62, 0.2)], cut), y=0.74), gem)
    for k in range(4):
        m.add(moved(turned(tube((0, 0, 0.2), (0, 0.2, size), 0.04), "y", 45 + 90.0 * k), y=0.66), metal)
    names = ["ring", "finger ring", "magic ring", "ring with a gem"]
    return names[: 1 + int(m.rng.integers(1, 4))], [metal.word], [f"a {gem.word} gem", f"a {gem.word} stone"]


def coins(m: Maker) -> Described:
    metal = m.metal("gold") if m.chance(0.8) else m.metal("silver", "copper")

    many = m.chance(0.75)
    if many:
        wide, high = 0.8, m.between(0.45, 0.7)
        m.add(
            lathe([(wide, 0), (wide * 0.6, high * 0.55), (wide * 0.2, high * 0.95), (0, high)], 18),
            metal,
            0.1,
        )
        for _ in range(45):
            t, a = float(np.sqrt(m.rng.uniform())), m.between(0, 2 * np.pi)
            radius = wide * 1.05 * t
            piece = moved(cylinder(0.15, 0.055, segments=12), y=0.01)
            piece = turned(
                turned(turned(piece, "x", m.between(0, 35) * t), "z", m.between(-20, 20)), "y", np.rad2deg(a)
            )
            y = high * (1 - t) ** 0.8 + 0.01
            m.add(moved(piece, radius * float(np.sin(a)), y, radius * float(np.cos(a))), metal, 0.1)
        names = [
            "pile of coins",
            f"pile of {metal.noun} coins",
            f"{metal.noun} coins",
            "coin pile",
            "treasure pile",
        ]
        if m.chance(0.3):
            gem = m.color("red", "blue", "green", "purple", roughness=0.1)
            for k in range(4):
                a = 1.5 * k + 0.4
                at = (0.45 * float(np.sin(a)), high * 0.5 + 0.05, 0.45 * float(np.cos(a)))
                m.add(moved(lathe([(0, -0.13), (0.13, 0.03), (0.08, 0.1)], 6), *at), gem)
            return names, [], [f"{gem.word} gems"]
        return names, [], []
    y = 0.0
    for _ in range(int(m.rng.integers(5, 11))):
        x, z = m.rng.normal(size=2) * 0.03
        m.add(
            moved(lathe([(0.42, 0), (0.45, 0.02), (0.45, 0.1), (0.42, 0.12)], 24), float(x), y, float(z)),
            metal,
            0.08,
        )
        y += 0.13
    return ["stack of coins", f"stack of {metal.noun} coins", f"{metal.noun} coins", "coins"], [], []


def bomb(m: Maker) -> Described:
    body = (
        m.color("black", "black", "dark grey") if m.chance(0.8) else m.color("red", "blue", "purple", "green")
    )
    cap = m.metal("iron", "gold", "steel") if m.chance(0.6) else m.color("grey", "light grey")
    tilt = m.between(-30, 30)
    m.add(ball(0.55, segments=24), body)
    m.add(turned(moved(cylinder(0.2, 0.16, 0.18, 16), y=0.5), "z", tilt), cap)
    way = [(0.0, 0.6, 0.0), (0.0, 0.8, 0.0), (0.1, 0.93, 0.0), (0.25, 0.97, 0.0), (0.35, 1.05, 0.0)]
    m.add(turned(pipe(way, 0.045), "z", tilt), m.color("beige", "white", "brown"))
    details = ["a fuse"]
    if m.chance(0.65):
        spark = m.color("orange", "yellow", "red")
        tip = turned(moved(lump(0.13, 0.4, m.rng), 0.37, 1.09), "z", tilt)
        m.add(tip, spark)
        m.add(
            turned(moved(lathe([(0.02, 0), (0.08, 0.1), (0.0, 0.28)], 8), 0.37, 1.08), "z", tilt),
            m.color("yellow"),
        )
        details = ["a burning fuse", "a fuse"]
    return ["bomb", "round bomb", "cartoon bomb"][: 1 + int(m.rng.integers(3))], [body.word], details


def torch(m: Maker) -> Described:
    wood, metal, h = m.wood(), m.metal("iron", "black metal", "bronze"), m.between(0.9, 1.2)
    m.add(cylinder(0.07, h, 0.11, 12), wood)
    if m.chance(0.5):
        m.add(
            moved(lathe([(0.1, 0), (0.2, 0.14), (0.22, 0.26), (0.14, 0.26), (0, 0.1)], 16), y=h - 0.1), metal
        )
        details = ["a flame", f"a {metal.noun} holder"]
    else:
        m.add(
            moved(lathe([(0.13, 0), (0.17, 0.08), (0.17, 0.24), (0.12, 0.3)], 14), y=h - 0.15),
            m.color("beige", "brown"),
        )
        m.add(moved(ring(0.14, 0.035, segments=14), y=h - 0.12), metal)
        details = ["a flame", "fire"]
    outer = m.color("orange", "orange", "red", "blue") if m.chance(0.9) else m.color("green", "purple")
    inner = m.color("yellow") if outer.word in ("orange", "red") else m.color("white", "light blue")
    m.add(moved(lathe([(0.1, 0), (0.22, 0.14), (0.18, 0.3), (0.07, 0.5), (0, 0.65)], 12), y=h + 0.08), outer)
    for k in range(3):
        lick = moved(lathe([(0.03, 0), (0.1, 0.1), (0.0, 0.42)], 8), z=0.15, y=h + 0.1)
        m.add(turned(lick, "y", 120.0 * k), inner)
    if outer.word not in ("orange", "red"):
        details = [f"{outer.word} fire", f"a {outer.word} flame"]
    return ["torch", "burning torch", "wooden torch"][: 1 + int(m.rng.integers(3))], [], details


def potion(m: Maker) -> Described:
    liquid, cork = m.color(roughness=0.12), m.wood()
    r, squash = m.between(0.42, 0.5), m.between(0.8, 1.0)
    m.add(moved(lathe([(r * 0.5, 0), *[(r * float(np.cos(a)), r * squash * (1 + float(np.sin(a))))
                                         for a in np.linspace(-0.95, 1.2, 9)]], 22)), liquid)  # fmt: skip
    top = r * squash * 1.9
    glass = m.glass()
    m.add(moved(cylinder(r * 0.38, r * 0.8, r * 0.32, 16), y=top), glass)
    m.add(moved(ring(r * 0.36, 0.06, segments=16), y=top + r * 0.78), glass)
    m.add(moved(cylinder(r * 0.28, 0.24, r * 0.34, 14), y=top + r * 0.72), cork)
    details = ["a cork"]
    if m.chance(0.35):
        band = m.metal("gold", "silver") if m.chance(0.5) else m.color("brown", "beige", "red")
        m.add(moved(ring(r * 0.4, 0.05, segments=18), y=top + 0.06), band)
        details.append(f"a {band.noun} ring" if band.metallic else f"a {band.word} ribbon")
    elif m.chance(0.35):
        m.add(
            moved(scaled(ball(r, segments=12), 0.5, 0.35, 0.1), 0, r * squash, r * 0.98),
            m.color("white", "beige"),
        )
        details.append("a label")
    return ["potion", "round potion", "potion bottle", "magic potion", "potion flask"], [liquid.word], details


def spear(m: Maker) -> Described:
    wood, metal = m.wood(), m.metal("steel", "iron", "silver", "gold", "bronze")
    h = m.between(1.3, 1.7)
    m.add(cylinder(0.055, h, segments=10), wood)
    if m.chance(0.5):
        trident = True
        m.add(moved(box(0.62, 0.1, 0.1), y=h - 0.05), metal)
        shaft = wood if m.chance(0.6) else metal
        if shaft is metal:
            m.add(cylinder(0.06, h, segments=10), metal)
        for s in (-1, 0, 1):
            m.add(moved(cylinder(0.05, 0.34 if s else 0.42, segments=8), s * 0.26, h - 0.03), metal)
            tip = [(0.05, 0.0), (0.1, 0.0), (0.0, 0.26)]
            m.add(moved(lathe(tip, 6), s * 0.26, h + (0.3 if s else 0.38)), metal)
    else:
        trident = False
        w, length = m.between(0.12, 0.18), m.between(0.4, 0.55)
        rings = [
            [(w * s, y, 0.0), (0.0, y, 0.07 * s), (-w * s, y, 0.0), (0.0, y, -0.07 * s)]
            for y, s in ((0.0, 0.4), (0.14, 1.0), (length, 0.03))
        ]
        m.add(moved(loft(rings), y=h), metal)
        m.add(moved(cylinder(0.075, 0.16, segments=10), y=h - 0.1), metal)
    details = [f"a {wood.noun} shaft"] if not trident or shaft is wood else []
    if m.chance(0.3):
        cloth = m.color("red", "blue", "white", "green")
        m.add(moved(ring(0.07, 0.05, 1.3, 12), y=h - 0.2), cloth)
        details.append(f"a {cloth.word} band")
    return (["trident"] if trident else ["spear", "lance"][: 1 + m.chance(0.3)]), [metal.word], details
