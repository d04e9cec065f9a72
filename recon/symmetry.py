"""Mirror symmetry: how nearly an object has it, and a mesh brought nearer to it.

In: a mesh that stands upright (+Y up). Out: the same faces, with every vertex between where it was and the
mirror image of the other side. The mirror stands in the middle of the box, across x (left and right) or z
(front and back). Which of the two, and whether at all, the mesh tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from recon.projection import raycasting_scene
from recon.topology import used_only, vertex_normals
from render.scene import Mesh

TOLERANCE = 0.02
"""Most `asymmetry` of what counts as nearly symmetric."""
_ROUNDS = 3
_SIDES = {0: "left and right", 2: "front and back"}


@dataclass(frozen=True)
class Symmetry:
    """What `symmetrised` found."""

    axis: int
    """Across which the object differs least from its mirror image: 0 or 2."""
    asymmetry: float
    """By how much it did (see `asymmetry`)."""
    done: bool
    """Whether its sides were brought together."""

    def warning(self) -> str | None:
        """One line for the user, who asked for symmetry; None when it was made."""
        if self.done:
            return None
        return (
            f"The object is not symmetric: {_SIDES[self.axis]} differ by {self.asymmetry:.1%} of its size on "
            f"average, more than {TOLERANCE:.0%}; it was left as it is."
        )


def symmetrised(mesh: Mesh, tolerance: float = TOLERANCE) -> tuple[Mesh, Symmetry]:
    """The mesh with two sides brought together, if they nearly are; faces stay, so it stays closed.

    Every vertex goes halfway to the nearest point of the mirror image, a few times. An object that differs
    from its mirror images by more than `tolerance` comes back as it is. UVs are dropped.
    """
    found = {axis: asymmetry(mesh, axis) for axis in _SIDES}
    axis = min(found, key=lambda axis: found[axis])
    symmetry = Symmetry(axis, found[axis], found[axis] <= tolerance)
    if not symmetry.done:
        return mesh, symmetry
    vertices, faces = used_only(mesh.vertices, mesh.faces, np.ones(len(mesh.faces), bool))
    made = Mesh(vertices, faces)
    middle = _middle(made, axis)
    for _ in range(_ROUNDS):
        half = (made.vertices + _nearest_mirrored(made, axis, middle)) / 2
        made = Mesh(half.astype(np.float32), faces)
    return replace(made, normals=vertex_normals(made.vertices, faces)), symmetry


def asymmetry(mesh: Mesh, axis: int = 0) -> float:
    """Mean distance of the surface from its mirror image across the middle of `axis`, over the box's
    diagonal."""
    middle = _middle(mesh, axis)
    mirrored = _nearest_mirrored(mesh, axis, middle)
    size = max(float(np.linalg.norm(np.ptp(mesh.vertices, axis=0))), 1e-12)
    return float(np.linalg.norm(mirrored - mesh.vertices, axis=1).mean() / size)


def _middle(mesh: Mesh, axis: int) -> float:
    used = mesh.vertices[np.unique(mesh.faces), axis].astype(np.float64)
    return float((used.min() + used.max()) / 2)


def _nearest_mirrored(mesh: Mesh, axis: int, middle: float) -> Float[np.ndarray, "V 3"]:
    image = mesh.vertices.astype(np.float32).copy()
    image[:, axis] = 2 * middle - image[:, axis]
    scene = raycasting_scene(image, mesh.faces[:, ::-1])
    found = scene.compute_closest_points(np.ascontiguousarray(mesh.vertices, np.float32))
    return np.asarray(found["points"].numpy())
