"""How thick an object is: what a printer, a decimator or a physics engine may lose.

From points spread evenly over the surface a ray goes inwards to where it leaves again (the shape
diameter of Shapira et al., 2008, with one ray). A surface without an inside has no thickness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon.projection import raycasting_scene
from recon.topology import face_vectors
from render.scene import Mesh

_THIN = 0.01
"""Share of the box's diagonal below which a place counts as thin."""
_SAMPLES = 5000


@dataclass(frozen=True)
class Thickness:
    """In the mesh's unit; None where no ray met anything."""

    thinnest: float | None
    """One place in a hundred is thinner."""
    median: float | None
    thin_share: float
    """Share of the area that is thinner than 1 % of the diagonal."""


def thickness(mesh: Mesh, seed: int = 0) -> Thickness:
    """Thickness of a closed mesh; of an open one as far as rays meet its back."""
    cross = face_vectors(mesh.vertices, mesh.faces)
    area = np.linalg.norm(cross, axis=1)
    if not area.sum() > 0:
        return Thickness(None, None, 0.0)
    rng = np.random.default_rng(seed)
    face = rng.choice(len(area), _SAMPLES, p=area / area.sum())
    u, v = rng.random((2, _SAMPLES))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u)[:, None], np.where(flip, 1 - v, v)[:, None]
    corners = mesh.vertices.astype(np.float64)[mesh.faces[face]]
    points = corners[:, 0] + u * (corners[:, 1] - corners[:, 0]) + v * (corners[:, 2] - corners[:, 0])
    inwards = -cross[face] / area[face, None]
    size = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    start = points + inwards * (1e-5 * size)
    scene = raycasting_scene(mesh.vertices, mesh.faces)
    found = scene.cast_rays(np.concatenate([start, inwards], 1).astype(np.float32))["t_hit"].numpy()
    met = np.isfinite(found)
    if not met.any():
        return Thickness(None, None, 0.0)
    return Thickness(
        round(float(np.quantile(found[met], 0.01)), 6),
        round(float(np.median(found[met])), 6),
        round(float((found < _THIN * size).mean()), 4),
    )
