"""Mirror symmetry: how nearly an object has it, and a mesh brought nearer to it.

In: a mesh that stands upright (+Y up). Out: the same faces, with every vertex between where it was and the
mirror image of the other side. First parts move as wholes, towards the closest part of the image that faces
the same way (closest points, Besl and McKay, 1992), so that a leg whose image stands beside it stays as thick
as it was; then each vertex by itself. The mirror stands in the middle of the box, across x (left and right)
or z (front and back). Which of the two, and whether at all, the mesh tells: left and right, as things have a
front more often than a side, unless front and back are more than twice as alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from recon.fidelity import spread
from recon.projection import raycasting_scene
from recon.sewing import smoothed_vectors
from recon.topology import face_vectors, used_only, vertex_normals
from render.scene import Mesh

TOLERANCE = 0.02
"""Most `asymmetry` of what counts as nearly symmetric."""
DRAWN_FARTHEST = 0.075
"""Of what is drawn from a text no point is farther from the mirror image than this, over the box's diagonal,
where it is taken for symmetric. Drawn askew, things have up to 0.072; of the `val` objects 58 % are symmetric
to 0.001 on average, and a chimney, a branch or a mill wheel on one side is mostly above."""
_EXACT = 1e-5
"""`asymmetry` of what is symmetric as it is."""
_SMOOTHINGS = (40, 20, 10, 5)
"""Of each of the first rounds, how often vertices go the mean of their neighbours' ways: parts move as
wholes, each to the part that faces as it does."""
_ROUNDS = 3
"""After those, each vertex by itself, to the closest point whichever way that faces."""
_FACING = 0.2
"""What opposite normals count as, of the mesh's size, where the closest point is looked for."""
_POINTS = 40_000
"""Of the mirror image's surface, among which that is."""
_SIDES = {0: "left and right", 2: "front and back"}


@dataclass(frozen=True)
class Symmetry:
    """What `symmetrised` found."""

    axis: int
    """Across which the object is mirrored: 0 or 2."""
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


def symmetrised(mesh: Mesh, *, asked: bool = True) -> tuple[Mesh, Symmetry]:
    """The mesh with two sides brought together, if they nearly are; faces stay, so it stays closed.

    An object that differs from its mirror image by more than `TOLERANCE`, or, where nobody `asked`, anywhere
    by more than `DRAWN_FARTHEST`, comes back as it is. UVs are dropped.
    """
    differences = {axis: _differences(mesh, axis) for axis in _SIDES}
    found = {axis: float(distance.mean()) for axis, distance in differences.items()}
    axis = 2 if found[2] < found[0] / 2 else 0
    nearly = found[axis] <= TOLERANCE and (asked or differences[axis].max() <= DRAWN_FARTHEST)
    symmetry = Symmetry(axis, found[axis], bool(nearly))
    if not symmetry.done or symmetry.asymmetry <= _EXACT:
        return mesh, symmetry
    vertices, faces = used_only(mesh.vertices, mesh.faces, np.ones(len(mesh.faces), bool))
    made = Mesh(vertices, faces)
    middle = _middle(made, axis)
    for smoothings in _SMOOTHINGS:
        way = smoothed_vectors(_facing_mirrored(made, axis, middle) - made.vertices, faces, smoothings)
        made = Mesh((made.vertices + way / 2).astype(np.float32), faces)
    for _ in range(_ROUNDS):
        half = (made.vertices + _nearest_mirrored(made, axis, middle)) / 2
        made = Mesh(half.astype(np.float32), faces)
    return replace(made, normals=vertex_normals(made.vertices, faces)), symmetry


def _facing_mirrored(mesh: Mesh, axis: int, middle: float) -> Float[np.ndarray, "V 3"]:
    """Of each vertex the closest point of the mirror image that faces as it does."""
    image, face = spread(mesh, _POINTS, np.random.default_rng(0))
    image[:, axis] = 2 * middle - image[:, axis]
    facing = face_vectors(mesh.vertices, mesh.faces)[face]
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-12)
    facing[:, axis] *= -1
    weight = _FACING / 2 * np.linalg.norm(np.ptp(mesh.vertices, axis=0))
    tree = cKDTree(np.concatenate([image, weight * facing], 1))
    normals = vertex_normals(mesh.vertices, mesh.faces)
    closest: Float[np.ndarray, "V 3"] = image[
        tree.query(np.concatenate([mesh.vertices, weight * normals], 1))[1]
    ]
    return closest


def asymmetry(mesh: Mesh, axis: int = 0) -> float:
    """Mean distance of the surface from its mirror image across the middle of `axis`, over the box's
    diagonal."""
    return float(_differences(mesh, axis).mean())


def _differences(mesh: Mesh, axis: int) -> Float[np.ndarray, " V"]:
    mirrored = _nearest_mirrored(mesh, axis, _middle(mesh, axis))
    size = max(float(np.linalg.norm(np.ptp(mesh.vertices, axis=0))), 1e-12)
    distance: Float[np.ndarray, " V"] = np.linalg.norm(mirrored - mesh.vertices, axis=1) / size
    return distance


def _middle(mesh: Mesh, axis: int) -> float:
    used = mesh.vertices[np.unique(mesh.faces), axis].astype(np.float64)
    return float((used.min() + used.max()) / 2)


def _nearest_mirrored(mesh: Mesh, axis: int, middle: float) -> Float[np.ndarray, "V 3"]:
    image = mesh.vertices.astype(np.float32).copy()
    image[:, axis] = 2 * middle - image[:, axis]
    scene = raycasting_scene(image, mesh.faces[:, ::-1])
    found = scene.compute_closest_points(np.ascontiguousarray(mesh.vertices, np.float32))
    return np.asarray(found["points"].numpy())
