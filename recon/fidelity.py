"""How well one surface stands for another: what decimation and remeshing moved, and what they lost.

In: a mesh before and after. Out: distances as shares of the box's diagonal, and the parts of the mesh
before that the one after no longer has. Distances are taken from points spread evenly over the surface
before, so that a blade that vanished counts, and back, so that new shapes do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from recon.projection import raycasting_scene
from recon.topology import face_components, face_vectors, weld
from render.scene import Mesh

_LOST = 0.01
"""Distance, as a share of the diagonal, at which a point counts as lost."""


@dataclass(frozen=True)
class Fidelity:
    """Shares of the diagonal of the bounding box before."""

    mean: float
    rms: float
    largest: float
    lost_area: float
    """Share of the area before that lies farther than 1 % from the surface after."""
    lost_parts: int
    """Components before of which more than half is lost."""

    def sentence(self) -> str:
        """For people."""
        text = f"surface moved by {100 * self.mean:.3f} % of its size on average"
        text += f", {100 * self.largest:.2f} % at most"
        if self.lost_parts:
            text += f"; {self.lost_parts} separate part{'s' * (self.lost_parts > 1)} lost"
        elif self.lost_area > 0.002:
            text += f"; {100 * self.lost_area:.1f} % of it lost (thin parts)"
        return text


def fidelity(before: Mesh, after: Mesh, samples: int = 40_000, seed: int = 0) -> Fidelity:
    """Compare two surfaces; the same arguments give the same numbers."""
    rng = np.random.default_rng(seed)
    size = max(float(np.linalg.norm(np.ptp(before.vertices[np.unique(before.faces)], axis=0))), 1e-12)
    points, face = spread(before, samples, rng)
    there = _distances(points, after) / size
    back = _distances(spread(after, samples, rng)[0], before) / size
    welded, faces = weld(before.vertices, before.faces)
    count, label = face_components(faces)
    lost = there > _LOST
    total = np.bincount(label[face], minlength=count)
    gone = np.bincount(label[face], lost, minlength=count)
    both = np.concatenate([there, back])
    assert len(welded) > 0
    return Fidelity(
        mean=float(both.mean()),
        rms=float(np.sqrt((both**2).mean())),
        largest=float(both.max()),
        lost_area=float(lost.mean()),
        lost_parts=int(((total > 0) & (gone > total / 2)).sum()),
    )


def spread(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[Float[np.ndarray, "n 3"], np.ndarray]:
    """Points spread evenly over the area, every face at least once, and the faces they lie on."""
    area = np.linalg.norm(face_vectors(mesh.vertices, mesh.faces), axis=1)
    chance = area / max(float(area.sum()), 1e-30)
    face = np.concatenate([np.arange(len(area)), rng.choice(len(area), count, p=chance)])
    u, v = rng.random((2, len(face)))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    corners = mesh.vertices.astype(np.float64)[mesh.faces[face]]
    points = corners[:, 0] + u[:, None] * (corners[:, 1] - corners[:, 0])
    points = points + v[:, None] * (corners[:, 2] - corners[:, 0])
    return points.astype(np.float32), face


def _distances(points: Float[np.ndarray, "n 3"], mesh: Mesh) -> Float[np.ndarray, " n"]:
    scene = raycasting_scene(mesh.vertices, mesh.faces)
    return np.asarray(scene.compute_distance(np.ascontiguousarray(points)).numpy())
