"""Robots, rubber ducks, drums and guitars."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.training.procedural.containers import Described
from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import (
    Solid,
    ball,
    box,
    cylinder,
    disc,
    lathe,
    moved,
    prism,
    ring,
    scaled,
    tube,
    turned,
)


def robot(m: Maker) -> Described:
    body = m.metal("steel", "silver", "metal", "copper", "iron") if m.chance(0.5) else m.color(roughness=0.4)
    joint = m.metal("black metal", "iron", "steel")
    eye = m.color("yellow", "light blue", "red", "green", "white", roughness=0.15)
    w, h, d = m.between(0.65, 0.85), m.between(0.6, 0.8), m.between(0.45, 0.55)
    leg = m.between(0.3, 0.45)
    for s in (-1, 1):
        x = s * w * 0.27
        m.add(moved(cylinder(0.09, leg, segments=12), x, 0.12), joint)
        m.add(moved(box(0.28, 0.16, 0.42, taper=0.85), x, 0, 0.05), body)
        m.add(moved(ball(0.13, segments=12), s * (w / 2 + 0.06), leg + h * 0.85), joint)
        m.add(
            tube((s * (w / 2 + 0.12), leg + h * 0.85, 0), (s * (w / 2 + 0.2), leg + h * 0.2, 0.08), 0.085),
            body,
        )
        claw = (s * (w / 2 + 0.21), leg + h * 0.12, 0.1)
        m.add(moved(ball(0.12, segments=12), *claw), joint)
    y = leg + 0.1
    m.add(moved(box(w, h, d, bevel=0.06), y=y), body)
    panel = m.color("dark grey", "black", "white", "light grey")
    m.add(moved(box(w * 0.6, h * 0.42, 0.06), 0, y + h * 0.3, d / 2), panel)
    for k, x in enumerate((-0.2, 0.0, 0.2)):
        button = m.color(("red", "yellow", "green")[k], roughness=0.2)
        m.add(moved(disc(0.06, 0.12, 12), x * w * 0.9, y + h * 0.5, d / 2), button)
    m.add(moved(cylinder(0.12, 0.1, segments=12), y=y + h), joint)
    y += h + 0.08
    round_head = m.chance(0.3)
    hw, hh = m.between(0.5, 0.65), m.between(0.38, 0.5)
    if round_head:
        m.add(moved(lathe([(hw / 2, 0), (hw / 2, hh * 0.45), (hw * 0.4, hh * 0.8), (0, hh)], 20), y=y), body)
    else:
        m.add(moved(box(hw, hh, 0.44, bevel=0.05), y=y), body)
    front = hw / 2 if round_head else 0.22
    for s in (-1, 1):
        m.add(moved(disc(0.09, 0.12, 14), s * hw * 0.24, y + hh * 0.55, front * 0.97), eye)
        m.add(moved(turned(disc(0.09, 0.1, 12), "y", 90), s * (hw / 2 + 0.03), y + hh * 0.4), joint)
    m.add(moved(box(hw * 0.5, 0.06, 0.08), 0, y + hh * 0.16, front * 0.98), panel)
    m.add(tube((0, y + hh - 0.03, 0), (0, y + hh + 0.2, 0), 0.04), joint)
    m.add(moved(ball(0.08, segments=10), y=y + hh + 0.22), eye if m.chance(0.5) else m.color("red"))
    names = ["robot", "toy robot", "small robot", "retro robot"][: 1 + int(m.rng.integers(1, 4))]
    return names, [body.word], [f"{eye.word} eyes", "an antenna"]


def duck(m: Maker) -> Described:
    body = (
        m.color("yellow", roughness=0.35)
        if m.chance(0.7)
        else m.color("white", "pink", "light blue", "green", "red")
    )
    beak, eye = m.color("orange", roughness=0.4), m.color("black", roughness=0.2)
    turn = m.one_of(0, 0, 0, 30, -30)
    assert isinstance(turn, int)

    def put(solid: Solid, finish: Finish, vary: float = 0.0) -> None:
        m.add(turned(solid, "y", turn), finish, vary)

    put(moved(scaled(ball(0.5, segments=20), 0.9, 0.68, 1.15), y=0.34), body)
    put(tube((0, 0.45, -0.35), (0, 0.78, -0.72), 0.24, 0.03, 12), body)
    put(moved(ball(0.33, segments=18), 0, 0.88, 0.28), body)
    for s in (-1, 1):
        wing = scaled(ball(0.28, segments=12), 0.35, 0.65, 1.15)
        put(moved(turned(wing, "x", 15), s * 0.42, 0.42, -0.08), body, 0.06)
        put(moved(ball(0.055, segments=10), s * 0.16, 0.98, 0.55), eye)
    put(moved(scaled(ball(0.16, segments=12), 1, 0.4, 1.2), 0, 0.84, 0.64), beak)
    details = [f"an {beak.word} beak"]
    if m.chance(0.2):
        hat = m.color("red", "blue", "black")
        put(moved(cylinder(0.3, 0.06), 0, 1.12, 0.25), hat)
        put(moved(cylinder(0.2, 0.22, 0.18), 0, 1.16, 0.25), hat)
        details.append(f"a {hat.word} hat")
    return (
        ["rubber duck", "duck", "toy duck", "rubber ducky"][: 1 + int(m.rng.integers(1, 4))],
        [body.word],
        details,
    )


def guitar(m: Maker) -> Described:
    electric = m.chance(0.35)
    body = m.color(roughness=0.25) if electric or m.chance(0.3) else m.wood()
    neck, dark = m.wood(), m.color("black", "dark brown")
    chrome = m.metal("silver", "gold", "steel")
    angle, depth = np.linspace(0, 2 * np.pi, 40, endpoint=False), 0.16 if electric else 0.26
    bottom, top, waist = m.between(0.52, 0.58), m.between(0.36, 0.42), m.between(0.28, 0.33)
    outline = []
    for a in angle:
        up = float(np.cos(a))
        wide = (bottom if up < 0 else top) * float(abs(np.sin(a))) ** 0.75
        pinch = 1 - (1 - waist / 0.42) * float(np.exp(-((up - 0.12) ** 2) / 0.06))
        outline.append((float(np.sign(np.sin(a))) * wide * pinch, 0.62 * up))
    if electric:
        outline = [
            (x * (1.15 if y > 0.2 else 1.0), y + (0.28 if y > 0.3 and abs(x) > 0.2 else 0.0))
            for x, y in outline
        ]
    m.add(prism(outline, depth), body)
    front = depth / 2
    m.add(moved(box(0.15, 1.35, 0.1), y=0.25, z=front), neck)
    m.add(moved(box(0.12, 1.2, 0.04), y=0.35, z=front + 0.05), dark)
    m.add(moved(box(0.25, 0.34, 0.1, taper=0.85), y=1.55, z=front - 0.03), neck if m.chance(0.6) else dark)
    for k in range(3):
        for s in (-1, 1):
            m.add(moved(ball(0.05, segments=8), s * 0.15, 1.61 + 0.1 * k, front - 0.02), chrome)
    if electric:
        guard = m.color("white", "black", "beige")
        m.add(moved(prism([(-0.28, -0.35), (0.3, -0.35), (0.22, 0.12), (-0.2, 0.12)], 0.05), z=front), guard)
        for y in (-0.22, 0.0):
            m.add(moved(box(0.26, 0.09, 0.06), y=y, z=front + 0.02), dark)
        for x, y in ((0.22, -0.36), (0.32, -0.24)):
            m.add(moved(disc(0.05, 0.12, 10), x, y, front), chrome)
        details = [f"a {guard.word} pickguard"]
    else:
        m.add(moved(disc(0.2, 0.03, 22), 0, 0.1, front), m.color("beige", "white", "brown"))
        m.add(moved(disc(0.15, 0.05, 22), 0, 0.1, front), m.color("black"))
        details = ["a sound hole"]
    m.add(moved(box(0.36, 0.08, 0.07), y=-0.36, z=front), dark)
    m.add(moved(box(0.07, 1.9, 0.025), y=-0.32, z=front + 0.07), m.color("light grey", "white"))
    kind = "electric guitar" if electric else "acoustic guitar"
    return ["guitar", kind], [body.word], details


def drum(m: Maker) -> Described:
    body, rim = m.color(roughness=0.4) if m.chance(0.7) else m.wood(), m.metal("gold", "silver", "steel")
    r, h = m.between(0.45, 0.6), m.between(0.5, 0.85)
    skin = m.color("white", "beige")
    m.add(cylinder(r, h, segments=26), body)
    for y in (0.0, h):
        m.add(moved(cylinder(r * 1.02, 0.06, segments=26), y=y - 0.03), skin)
        m.add(moved(ring(r * 1.02, 0.05, 1.4, 26), y=y), rim)
    n = 8
    points = [
        (
            r * 1.03 * float(np.sin(np.pi * k / n)),
            h * (0.06 if k % 2 else 0.94),
            r * 1.03 * float(np.cos(np.pi * k / n)),
        )
        for k in range(2 * n + 1)
    ]
    for a, b in pairwise(points):
        m.add(tube(a, b, 0.028, segments=6), skin)
    details = [f"{rim.noun} rims"]
    if m.chance(0.5):
        for s in (-1, 1):
            a, b = (s * 0.45, h + 0.1, 0.45), (-s * 0.15, h + 0.1, -0.3)
            m.add(tube(a, b, 0.03), m.wood())
            m.add(moved(ball(0.06, segments=10), *b), m.wood())
        details.append("drumsticks")
    return ["drum", "toy drum", "snare drum"][: 1 + int(m.rng.integers(3))], [body.word], details
