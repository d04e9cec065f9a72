"""Assemblies: shapes that nothing is called, of a few solids stuck together at random.

A picture says what they look like, and nothing else does, so they teach to make the
whole of an object from one picture of it; they have no captions. Shapes of this kind
alone were enough to train a large reconstruction model (LRM-Zero, arXiv:2406.09371).
"""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.maker import Finish, Maker
from pipeline.training.procedural.solids import (
    Solid,
    ball,
    box,
    cylinder,
    lathe,
    lump,
    moved,
    prism,
    ring,
    scaled,
    tube,
    turned,
)
from pipeline.training.props import Prop

_MIRRORED = 0.6
"""Most things that people make are the same on both sides."""


def assembly(rng: np.random.Generator) -> Prop:
    """Three to nine solids, each in touch with an earlier one, of two to four finishes."""
    maker = Maker(rng)
    finishes = [_finish(maker) for _ in range(int(rng.integers(2, 5)))]
    mirrored = maker.chance(_MIRRORED)
    anchors = [np.zeros(3, np.float32)]
    for part in range(int(rng.integers(3, 10))):
        solid = _placed(_solid(maker), maker, scale=1.0 if part == 0 else maker.between(0.25, 0.9))
        anchor = anchors[int(rng.integers(len(anchors)))]
        if part == 0 and mirrored:
            solid = (solid[0] - [solid[0][:, 0].mean(), 0, 0]).astype(np.float32), solid[1]
        at = moved(solid, *(float(v) for v in anchor))
        finish = finishes[int(rng.integers(len(finishes)))]
        maker.add(at, finish, vary=0.05)
        if mirrored and part > 0:
            maker.add(_other_side(at), finish, vary=0.0)
        anchors += [at[0][int(rng.integers(len(at[0])))] for _ in range(3)]
    return maker.prop([""], "assembly")


def _finish(maker: Maker) -> Finish:
    kind = maker.between(0, 1)
    if kind < 0.2:
        return maker.metal()
    if kind < 0.4:
        return maker.wood()
    return maker.color(roughness=maker.between(0.2, 0.95))


def _solid(maker: Maker) -> Solid:
    """One about as large as the unit ball, its middle near the origin."""
    a, b, c = (maker.between(0.3, 1.0) for _ in range(3))
    kind = int(maker.rng.integers(8))
    if kind == 0:
        made = box(2 * a, 2 * b, 2 * c, taper=maker.between(0.4, 1.0), bevel=maker.between(0, 0.15))
    elif kind == 1:
        made = cylinder(a, 2 * b, top=a * maker.between(0.0, 1.2), segments=int(maker.rng.integers(5, 24)))
    elif kind == 2:
        made = scaled(ball(1.0), a, b, c)
    elif kind == 3:
        made = ring(0.8, maker.between(0.1, 0.3))
    elif kind == 4:
        made = scaled(lump(1.0, maker.between(0.2, 0.8), maker.rng), a, b, c)
    elif kind == 5:
        heights = np.linspace(0, 2 * b, 6)
        made = lathe([(maker.between(0.15, 1.0) * a, float(height)) for height in heights])
    elif kind == 6:
        corners = int(maker.rng.integers(3, 8))
        angles = np.sort(maker.rng.uniform(0, 2 * np.pi, corners)) + np.arange(corners) * 1e-3
        made = prism([(float(np.cos(t)), float(np.sin(t))) for t in angles], maker.between(0.15, 1.2))
    else:
        made = tube((0.0, -1.0, 0.0), (0.0, 1.0, 0.0), maker.between(0.08, 0.25))
    vertices, faces = made
    return (vertices - (vertices.min(0) + vertices.max(0)) / 2).astype(np.float32), faces


def _placed(solid: Solid, maker: Maker, scale: float) -> Solid:
    """Scaled and turned, mostly by right angles, as made things are."""
    out = scaled(solid, scale, scale, scale)
    for axis in "xyz":
        degrees = 90.0 * float(maker.rng.integers(4))
        out = turned(out, axis, degrees if maker.chance(0.7) else maker.between(0, 360))
    return out


def _other_side(solid: Solid) -> Solid:
    vertices, faces = solid
    return vertices * np.array([-1, 1, 1], np.float32), np.ascontiguousarray(faces[:, ::-1])
