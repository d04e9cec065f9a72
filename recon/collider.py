"""A collider: few convex hulls that together follow a shape, for physics engines.

CoACD (Wei et al., "Approximate Convex Decomposition for 3D Meshes with Collision-Aware Concavity and
Tree Search", 2022) finds where to cut; the extra `collider` installs it. The same mesh and
configuration give the same hulls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon.needs import require
from recon.topology import weld
from render.errors import InputError
from render.scene import Mesh, Scene, merged


@dataclass(frozen=True)
class ColliderConfig:
    """How closely the hulls follow the shape."""

    max_hulls: int = 16
    concavity: float = 0.06
    """How far hulls may stand off the surface, as a share of the size; smaller makes more of them."""
    max_vertices: int = 32
    """Of one hull; engines take up to 255."""
    seed: int = 0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "max_hulls": (1, 256),
            "concavity": (0.01, 1.0),
            "max_vertices": (8, 255),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"collider.{name} is {getattr(self, name)}; it must be from {low:g} to {high:g}"
                )


def convex_hulls(what: Mesh | Scene, config: ColliderConfig | None = None) -> tuple[Mesh, ...]:
    """Convex hulls around a mesh or all parts of a scene, largest first; closed, outward, without UVs.

    `InputError` when CoACD is not installed or the shape has no volume at all.
    """
    config = config or ColliderConfig()
    mesh = what if isinstance(what, Mesh) else merged(what)
    vertices, faces = weld(mesh.vertices, mesh.faces)
    require("collider")
    import coacd

    coacd.set_log_level("error")
    found = coacd.run_coacd(
        coacd.Mesh(vertices.astype(np.float64), faces.astype(np.int32)),
        threshold=config.concavity,
        max_convex_hull=config.max_hulls,
        resolution=600,
        mcts_iterations=40,
        max_ch_vertex=config.max_vertices,
        decimate=True,
        seed=config.seed,
    )
    hulls = []
    for points, triangles in found:
        hull = _outward(np.asarray(points, np.float32), np.asarray(triangles, np.int32))
        if hull is not None:
            hulls.append(hull)
    if not hulls:
        raise InputError("no collider can be made of this shape: it has no volume")
    return tuple(mesh for _, mesh in sorted(hulls, key=lambda pair: -pair[0]))


def _outward(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, Mesh] | None:
    """Volume and mesh of a hull whose faces look outward; None for one without volume."""
    p = vertices.astype(np.float64)[faces] - vertices.mean(0, dtype=np.float64)
    volume = float(np.einsum("fi,fi->", p[:, 0], np.cross(p[:, 1], p[:, 2])) / 6)
    if abs(volume) < 1e-12 * float(np.ptp(vertices, axis=0).max()) ** 3:
        return None
    return abs(volume), Mesh(vertices, np.ascontiguousarray(faces if volume > 0 else faces[:, ::-1]))
