"""Closed solids that procedural objects are put together from: (vertices, faces), +Y up, front +Z."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Solid = tuple[NDArray[np.float32], NDArray[np.int32]]
Point = tuple[float, float, float]


def box(width: float, height: float, depth: float, taper: float = 1.0, bevel: float = 0.0) -> Solid:
    """Stands on y = 0, centred in x and z; the top is `taper` times the bottom, edges cut by `bevel`."""
    if bevel > 0:
        w, d, b = width / 2, depth / 2, min(bevel, 0.45 * min(width, height, depth))
        outline = [(w - b, -d), (w, -d + b), (w, d - b), (w - b, d), (-w + b, d), (-w, d - b), (-w, -d + b),
                   (-w + b, -d)]  # fmt: skip
        inner = [(x * (1 - b / w), z * (1 - b / d)) for x, z in outline]
        rings = [(inner, 0.0, 1.0), (outline, b, 1.0), (outline, height - b, taper), (inner, height, taper)]
        return loft([[(x * s, y, z * s) for x, z in ring] for ring, y, s in rings])
    w, d = width / 2, depth / 2
    base = [(w, d), (-w, d), (-w, -d), (w, -d)]
    return loft([[(x * s, y, z * s) for x, z in base] for y, s in ((0.0, 1.0), (height, taper))])


def loft(rings: Sequence[Sequence[Point]], capped: bool = True) -> Solid:
    """Skin over rings of equally many points; the ends are closed by fans."""
    count, total = len(rings[0]), len(rings[0]) * len(rings)
    points = np.asarray(rings, np.float32)
    vertices = [points.reshape(total, 3)]
    around = np.arange(count)
    following = (around + 1) % count
    a, b = (np.arange(0, total - count, count)[:, None] + j for j in (around, following))
    faces = [np.stack([a, b, b + count, a, b + count, a + count], -1).reshape(-1, 3)]
    if capped:
        start = total - count
        faces.append(np.stack([following, around, np.full(count, total)], -1))
        faces.append(np.stack([start + around, start + following, np.full(count, total + 1)], -1))
        vertices += [points[0].mean(0, keepdims=True), points[-1].mean(0, keepdims=True)]
    return np.concatenate(vertices), np.concatenate(faces).astype(np.int32)


def lathe(profile: Sequence[tuple[float, float]], segments: int = 20) -> Solid:
    """Surface of revolution about y of (radius, height) points, from bottom to top."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = [[(r * float(np.sin(a)), y, r * float(np.cos(a))) for a in angle] for r, y in profile]
    return loft(rings)


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 20) -> Solid:
    """Stands on y = 0; a cone with `top` 0."""
    return lathe([(radius, 0.0), (radius if top is None else top, height)], segments)


def prism(outline: Sequence[tuple[float, float]], depth: float, inset: float = 1.0) -> Solid:
    """An (x, y) outline, seen whole from its centre, extruded along z; its ends scaled by `inset`."""
    points = np.asarray(outline, np.float32)
    middle = points.mean(0)

    def at(z: float, scale: float) -> list[Point]:
        return [(float(x), float(y), z) for x, y in middle + (points - middle) * scale]

    if inset == 1.0:
        return loft([at(-depth / 2, 1), at(depth / 2, 1)])
    return loft([at(-depth / 2, inset), at(-depth * 0.3, 1), at(depth * 0.3, 1), at(depth / 2, inset)])


def tube(start: Point, end: Point, radius: float, top: float | None = None, segments: int = 10) -> Solid:
    """A round bar from `start` to `end`."""
    a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
    axis = b - a
    length = float(np.linalg.norm(axis))
    axis = axis / max(length, 1e-9)
    side = np.cross(axis, (0, 0, 1) if abs(axis[2]) < 0.9 else (1, 0, 0))
    side = side / np.linalg.norm(side)
    frame = np.stack([side, axis, np.cross(side, axis)])
    vertices, faces = cylinder(radius, length, top, segments)
    return (vertices @ frame + a).astype(np.float32), faces


def pipe(points: Sequence[Point], radius: float, top: float | None = None, segments: int = 10) -> Solid:
    """A bent round bar through `points`, whose radius goes from `radius` to `top`: handles, spouts."""
    at = np.asarray(points, np.float64)
    steps = np.diff(at, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    axes = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    side = np.cross(axes[0], (0, 0, 1) if abs(axes[0, 2]) < 0.9 else (1, 0, 0))
    rings = []
    for middle, axis, r in zip(
        at, axes, np.linspace(radius, radius if top is None else top, len(at)), strict=True
    ):
        side = side - axis * (side @ axis)
        side = side / np.linalg.norm(side)
        circle = np.sin(angle)[:, None] * side + np.cos(angle)[:, None] * np.cross(side, axis)
        rings.append([(float(x), float(y), float(z)) for x, y, z in middle + r * circle])
    return loft(rings)


def arc(radius: float, start: float, end: float, count: int = 9) -> list[tuple[float, float]]:
    """(x, y) points on a circle about the origin from angle `start` to `end`, degrees from +x."""
    return [
        (radius * float(np.cos(a)), radius * float(np.sin(a)))
        for a in np.deg2rad(np.linspace(start, end, count))
    ]


def disc(radius: float, depth: float, segments: int = 24) -> Solid:
    """A cylinder about z, centred at the origin: faces, wheels seen from the front."""
    return turned(moved(cylinder(radius, depth, segments=segments), y=-depth / 2), "x", 90)


def ball(radius: float, squash: float = 1.0, segments: int = 16) -> Solid:
    """Sphere about the origin, `squash` times as high."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, max(5, segments // 2 + 1))
    return lathe([(radius * float(np.cos(a)), radius * squash * float(np.sin(a))) for a in angle], segments)


def ring(radius: float, thickness: float, height: float = 1.0, segments: int = 24) -> Solid:
    """Torus about y at the origin; its tube is `height` times as high as wide."""
    around = 9
    profile = [
        (radius + thickness * float(np.cos(a)), thickness * height * float(np.sin(a)))
        for a in np.linspace(0, 2 * np.pi, around, endpoint=False)
    ]
    vertices = lathe(profile, segments)[0][: around * segments]
    j, i = np.meshgrid(np.arange(segments), np.arange(around))
    after, above = (j + 1) % segments, (i + 1) % around
    a, b = i * segments + j, i * segments + after
    c, d = above * segments + after, above * segments + j
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return vertices, faces.reshape(-1, 3).astype(np.int32)


def lump(radius: float, roughness: float, rng: np.random.Generator, squash: float = 1.0) -> Solid:
    """A ball with dents: rocks, crowns of trees."""
    vertices, faces = ball(1.0, segments=12)
    bumps = rng.normal(size=(6, 3))
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    scale = 1 + roughness * np.tanh(3 * (vertices @ bumps.T)) @ rng.uniform(-0.5, 0.5, 6)
    out = vertices * scale[:, None] * radius * np.array([1, squash, 1])
    return out.astype(np.float32), faces


def moved(solid: Solid, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
    """The solid elsewhere."""
    return solid[0] + np.array([x, y, z], np.float32), solid[1]


def turned(solid: Solid, axis: str, degrees: float) -> Solid:
    """The solid turned about a coordinate axis through the origin."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return solid[0] @ matrix.T, solid[1]


def scaled(solid: Solid, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Solid:
    """The solid stretched along the axes."""
    return solid[0] * np.array([x, y, z], np.float32), solid[1]
