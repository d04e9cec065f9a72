"""The finished asset: what the exporters write."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from render.errors import InputError
from render.scene import Material, Mesh, Part, Scene

Pivot = Literal["floor", "center", "corner", "keep"]
"""floor: the middle of the lowest side of the bounding box; corner: its lowest corner; keep: as it is."""


LodLayout = Literal["nodes", "msft"]
"""nodes: all levels are nodes `NAME_LOD0`, ... of the scene; msft: the extension MSFT_lod names the coarser
ones, and the scene shows the first only."""


def pivot_of(
    low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], pivot: Pivot
) -> Float[np.ndarray, "3"]:
    """The point of a bounding box that becomes the origin."""
    middle = np.asarray((low + high) / 2)
    match pivot:
        case "floor":
            return np.array([middle[0], low[1], middle[2]])
        case "center":
            return middle
        case "corner":
            return np.asarray(low)
        case "keep":
            return np.zeros(3)
        case _:
            raise InputError(f"pivot is {pivot!r}; it must be one of {', '.join(get_args(Pivot))}")


class Splats(Protocol):
    """Flat Gaussians, as `recon.fields.gaussians.GaussianField` holds them."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    """wxyz; the third axis is the flat one."""
    log_scales: Float[Tensor, "N 2"]
    opacity_logits: Float[Tensor, " N"]
    base_color_srgb: Float[Tensor, "N 3"]


@dataclass(frozen=True)
class Asset:
    """A mesh with its material, in the generator's units (the unit ball)."""

    mesh: Mesh
    material: Material
    name: str
    height_m: float
    """Height (extent along +Y) that exported files have, in metres."""
    provenance: dict[str, str | int | float] = field(default_factory=dict)
    """Written into `asset.extras`. No clock and no path, so that equal runs give equal bytes."""
    splats: Any = None
    """`Splats` or None."""
    lods: tuple[Part, ...] = ()
    """Coarser levels of detail after `mesh`, each with maps of its own, in the same units."""
    collider: tuple[Mesh, ...] = ()
    """Convex hulls, in the same units."""
    pivot_at: Pivot = "floor"
    lod_layout: LodLayout = "nodes"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.height_m) and self.height_m > 0):
            raise InputError(f"height_m is {self.height_m}; it must be a positive number of metres")
        if len(self.mesh.faces) == 0:
            raise InputError("the asset's mesh has no triangles")

    @property
    def scale(self) -> float:
        """Metres per unit. Something flat on the floor is scaled by its largest extent."""
        return self.height_m / height_of(self.mesh)

    @property
    def pivot(self) -> Float[np.ndarray, "3"]:
        """The point that becomes the origin, in units."""
        low, high = self.mesh.vertices.min(0).astype(np.float64), self.mesh.vertices.max(0).astype(np.float64)
        return pivot_of(low, high, self.pivot_at)

    def in_metres(self) -> Mesh:
        """The mesh in metres, moved to its pivot: by default standing on y = 0 over the origin."""
        moved = (self.mesh.vertices.astype(np.float64) - self.pivot) * self.scale
        return replace(self.mesh, vertices=moved.astype(np.float32))

    def scene(self) -> Scene:
        """The asset as exported, for the renderers and for inspection."""
        return Scene((Part(self.in_metres(), self.material, self.name),))


def height_of(mesh: Mesh) -> float:
    """Extent along +Y in units; of something flat on the floor its largest extent."""
    extent = np.ptp(mesh.vertices.astype(np.float64), axis=0)
    height = extent[1] if extent[1] > 1e-3 * extent.max() else extent.max()
    return float(max(height, 1e-12))
