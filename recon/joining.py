"""Parts that hang in the air are brought to touch what stands.

Where a leg, a pole or a stem gets thinner than what views can show, a mesh ends on one side of the gap and
goes on on the other. In: a mesh in the generator's units (the unit ball, +Y up). Out: the same faces; of a
part that stands nowhere and lies near to another, the slenderer tips of the two reach into the other. Both
stay closed, and one dips into the other as parts of game assets do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from recon.projection import raycasting_scene
from recon.topology import face_components, face_vectors, vertex_normals
from render.scene import Mesh

_REACH = 0.2
"""Parts farther off are left where they are; world units, as all that follows."""
_TOUCH = 0.004
_INTO = 0.012
"""How deep a tip dips in."""
_FLOOR = 0.03
"""What comes so near to the lowest point stands."""
_APART = 0.12
"""Between two tips."""
_TIPS = 0.1
"""Most of a part, by vertices, that are tips: two curtains side by side have none."""
_LEAST_RADIUS = 0.03
_LEAST_LENGTH = 0.1
"""Of a tip that is drawn out: a short one would be drawn to a thread."""


def joined(mesh: Mesh) -> Mesh:
    """The mesh with parts in the air made to touch; itself if there are none within reach."""
    count, label = face_components(mesh.faces)
    vertices = mesh.vertices.astype(np.float64)
    part = np.zeros(len(vertices), np.int64)
    part[mesh.faces] = label[:, None]
    lowest = np.full(count, np.inf)
    np.minimum.at(lowest, label, vertices[mesh.faces, 1].min(1))
    stands = lowest <= lowest.min() + _FLOOR
    moved = False
    while not stands.all():
        held = stands[label]
        gaps = {
            hanging: _to_surface(vertices[part == hanging], vertices, mesh.faces[held])[1].min()
            for hanging in np.flatnonzero(~stands)
        }
        nearest = min(gaps, key=lambda hanging: gaps[hanging])
        if gaps[nearest] > _REACH:
            break
        if gaps[nearest] > _TOUCH:
            own = label == nearest
            here, there = mesh.faces[own], mesh.faces[held]
            if _around(vertices, here, there) > _around(vertices, there, here):
                here, there = there, here
            moved |= _reach_out(vertices, here, there)
        stands[nearest] = True
    if not moved:
        return mesh
    bent = vertices.astype(np.float32)
    return replace(mesh, vertices=bent, normals=vertex_normals(bent, mesh.faces))


def _to_surface(
    points: Float[np.ndarray, "N 3"], vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, " N"]]:
    """The nearest points of a surface, and how far they are."""
    scene = raycasting_scene(vertices.astype(np.float32), faces)
    found = scene.compute_closest_points(np.ascontiguousarray(points, np.float32))["points"].numpy()
    return found, np.linalg.norm(found - points, axis=1)


def _around(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], others: Int[np.ndarray, "G 3"]
) -> float:
    """Area of a part where it is nearest to another: the less, the slenderer."""
    own = np.unique(faces)
    _, distance = _to_surface(vertices[own], vertices, others)
    tip = vertices[own[distance.argmin()]]
    near = np.linalg.norm(vertices[faces].mean(1) - tip, axis=1) < 2 * distance.min() + 0.04
    return float(np.linalg.norm(face_vectors(vertices, faces[near]), axis=1).sum())


def _reach_out(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], others: Int[np.ndarray, "G 3"]
) -> bool:
    """Draws a part's tips out, in place, until they dip into the other. Whether it has any."""
    own = np.unique(faces)
    aim, distance = _to_surface(vertices[own], vertices, others)
    by_distance = np.argsort(distance)
    close = by_distance[distance[by_distance] < 1.5 * distance.min() + 0.01]
    if len(close) > _TIPS * len(own):
        return False
    tips: list[int] = []
    for i in close:
        if all(np.linalg.norm(vertices[own[i]] - vertices[own[tip]]) > _APART for tip in tips):
            tips.append(int(i))
    ways = np.zeros((len(own), 3))
    for tip in tips:
        way = _drawn_out(vertices[own] - vertices[own[tip]], aim[tip] - vertices[own[tip]])
        farther = np.linalg.norm(way, axis=1) > np.linalg.norm(ways, axis=1)
        ways[farther] = way[farther]
    vertices[own] += ways
    return True


def _drawn_out(points: Float[np.ndarray, "N 3"], gap: Float[np.ndarray, "3"]) -> Float[np.ndarray, "N 3"]:
    """How points of a part move so that its tip, at the origin, goes across a gap."""
    wide = float(np.linalg.norm(gap))
    direction = gap / wide
    along = points @ direction
    aside = np.linalg.norm(points - along[:, None] * direction, axis=1)
    distance = np.linalg.norm(points, axis=1)
    radius = max(_LEAST_RADIUS, float(np.quantile(aside[distance < 2 * _LEAST_RADIUS], 0.9)))
    length = max(3 * (wide + _INTO), _LEAST_LENGTH)
    share = _eased(1 + along / length) * _eased(2 - aside / radius)
    share *= distance < length + 2 * radius
    way: Float[np.ndarray, "N 3"] = share[:, None] * (wide + _INTO) * direction
    return way


def _eased(x: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """From 0 at 0 to 1 at 1, level at both."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
