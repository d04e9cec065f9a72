"""What a file for an engine holds: levels of detail, a collider, real size, and where the pivot is.

In: an `Asset`, or any scene (a user's GLB). Out: a `Package` in metres, placed, that every exporter of
`recon.export` reads. The first level is what files without levels hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
from jaxtyping import Float

from recon.asset import Asset, LodLayout, Pivot, pivot_of
from render.errors import InputError
from render.scene import Mesh, Part, Scene
from render.tangents import with_tangents

LOD_LAYOUTS: tuple[LodLayout, ...] = get_args(LodLayout)

Level = tuple[Part, ...]


@dataclass(frozen=True)
class Package:
    """Everything in metres, +Y up, moved to its pivot."""

    name: str
    levels: tuple[Level, ...]
    """Finest first; at least one, each with at least one part that has triangles."""
    collider: tuple[Mesh, ...] = ()
    """Convex hulls."""
    provenance: dict[str, str | int | float] = field(default_factory=dict)
    lod_layout: LodLayout = "nodes"

    def __post_init__(self) -> None:
        if not self.levels or not all(any(len(p.mesh.faces) for p in level) for level in self.levels):
            raise InputError("there is nothing to export: a level of detail has no triangles")
        if self.lod_layout not in LOD_LAYOUTS:
            raise InputError(f"lod_layout is {self.lod_layout!r}; it must be one of {', '.join(LOD_LAYOUTS)}")

    @property
    def parts(self) -> Level:
        """The finest level."""
        return self.levels[0]

    def scene(self) -> Scene:
        """The finest level, for renderers and inspection."""
        return Scene(self.parts)


def package_of(asset: Asset | Package) -> Package:
    """The asset in metres. A package comes back as it is."""
    if isinstance(asset, Package):
        return asset

    def placed(mesh: Mesh) -> Mesh:
        vertices = (mesh.vertices.astype(np.float64) - asset.pivot) * asset.scale
        return replace(mesh, vertices=vertices.astype(np.float32))

    levels = [(Part(asset.in_metres(), replace(asset.material, name=asset.name), asset.name),)]
    for number, part in enumerate(asset.lods, start=1):
        material = replace(part.material, name=f"{asset.name}_LOD{number}")
        levels.append((Part(placed(part.mesh), material, asset.name),))
    return Package(
        name=asset.name,
        levels=tuple(tuple(_ready(part) for part in level) for level in levels),
        collider=tuple(placed(hull) for hull in asset.collider),
        provenance=asset.provenance,
        lod_layout=asset.lod_layout,
    )


def package_of_scene(
    scene: Scene,
    name: str,
    *,
    pivot: Pivot = "keep",
    height_m: float | None = None,
    lods: Sequence[Scene] = (),
    collider: Sequence[Mesh] = (),
    provenance: dict[str, str | int | float] | None = None,
    lod_layout: LodLayout = "nodes",
) -> Package:
    """A scene of any file, moved to `pivot` and scaled to `height_m`; lods and collider go with it."""
    if height_m is not None and not (np.isfinite(height_m) and height_m > 0):
        raise InputError(f"height_m is {height_m}; it must be a positive number of metres")
    parts = [part for part in scene.parts if len(part.mesh.faces)]
    if not parts:
        raise InputError("the scene has no triangles")
    used = np.concatenate([part.mesh.vertices[np.unique(part.mesh.faces)] for part in parts])
    low, high = used.min(0).astype(np.float64), used.max(0).astype(np.float64)
    scale = 1.0
    if height_m is not None:
        extent = high - low
        height = extent[1] if extent[1] > 1e-3 * extent.max() else extent.max()
        scale = height_m / max(float(height), 1e-12)
    origin = pivot_of(low, high, pivot)

    def placed(mesh: Mesh) -> Mesh:
        if scale == 1.0 and not origin.any():
            return mesh
        vertices = (mesh.vertices.astype(np.float64) - origin) * scale
        return replace(mesh, vertices=vertices.astype(np.float32))

    def level(of: Scene) -> Level:
        return tuple(
            _ready(replace(part, mesh=placed(part.mesh))) for part in of.parts if len(part.mesh.faces)
        )

    return Package(
        name=name,
        levels=(level(scene), *(level(lod) for lod in lods)),
        collider=tuple(placed(hull) for hull in collider),
        provenance=provenance or {},
        lod_layout=lod_layout,
    )


def bounds_of(parts: Sequence[Part]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Lowest and highest corner of what triangles use."""
    used = np.concatenate([p.mesh.vertices[np.unique(p.mesh.faces)] for p in parts if len(p.mesh.faces)])
    return used.min(0).astype(np.float64), used.max(0).astype(np.float64)


def _ready(part: Part) -> Part:
    """With tangents where the material bends normals: every importer then reads the same relief."""
    if part.material.normal is None or part.mesh.tangents is not None:
        return part
    return replace(part, mesh=with_tangents(part.mesh))
