"""What is true of a mesh, an asset or any scene: topology, UVs, textures. Changes nothing.

Topology is asked of the mesh welded by position, because seams of UVs and normals
split vertices without opening the surface. Lengths are in the unit of what is
given: an `Asset` is inspected as exported, in metres.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from recon.asset import Asset
from recon.topology import (
    edge_use,
    face_components,
    face_vectors,
    is_closed_manifold,
    nonmanifold_vertices,
    signed_volumes,
    weld,
)
from render.scene import Material, Mesh, Part, Scene

_OVERLAP_GRID = 1024
"""Side of the grid on which UV coverage and overlap are counted."""


@dataclass(frozen=True)
class Inspection:
    """Facts for people and for `report.json`."""

    triangles: int
    vertices: int
    """As stored: split at seams."""
    welded_vertices: int
    components: int
    watertight: bool
    """Every edge has two faces that run along it in opposite directions, after welding."""
    manifold: bool
    """No edge has more than two faces and no vertex more than one fan."""
    outward: bool
    """Every closed component has a positive volume."""
    border_edges: int
    nonmanifold_edges: int
    nonmanifold_vertices: int
    degenerate_faces: int
    """Faces without area."""
    genus: int | None
    """Handles, summed over components; None unless the mesh is a closed manifold."""
    size: tuple[float, float, float]
    """Of the bounding box, along x, y, z."""
    surface_area: float
    volume: float | None
    """None unless the mesh is watertight."""
    normals_unit: bool | None
    """None without normals."""
    uv_charts: int
    uv_coverage: float
    """Fraction of the unit square that charts cover."""
    uv_overlap: float
    """Fraction of the covered area that more than one triangle covers."""
    texel_density_min: float | None
    """Texels of the base colour map per unit of length, over triangles; None without UVs."""
    texel_density_median: float | None
    textures: tuple[str, ...]
    """Such as "base_color 1024x1024"; constants are left out."""
    materials: tuple[str, ...]
    """One line per material: its name and kind."""

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def inspect(what: Mesh | Asset | Scene) -> Inspection:
    """Facts about a mesh, an asset (as exported) or all parts of a scene together."""
    if isinstance(what, Asset):
        parts = what.scene().parts
    elif isinstance(what, Scene):
        parts = what.parts
    else:
        grey = np.full((1, 1), 0.5, np.float32)
        parts = (Part(what, Material(np.stack([grey] * 3, -1), grey, grey)),)
    meshes = [part.mesh for part in parts if len(part.mesh.faces)]
    if not meshes:
        meshes = [Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))]
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=True)])
    return Inspection(
        triangles=len(faces),
        vertices=len(vertices),
        **_topology(vertices, faces),
        normals_unit=_normals_unit(meshes),
        **_uvs([part for part in parts if part.mesh.uvs is not None and len(part.mesh.faces)]),
        textures=tuple(dict.fromkeys(line for part in parts for line in _textures(part.material))),
        materials=tuple(dict.fromkeys(_kind(part.material) for part in parts))
        if not isinstance(what, Mesh)
        else (),
    )


def _topology(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> dict[str, Any]:
    welded, welded_faces = weld(vertices, faces)
    cross = face_vectors(welded, welded_faces)
    area = np.linalg.norm(cross, axis=1) / 2
    size = np.ptp(welded, axis=0).astype(float) if len(welded) else np.zeros(3)
    repeated = (welded_faces == np.roll(welded_faces, 1, axis=1)).any(1)
    # Less than a billionth of the box's face is no area for a float32 position.
    degenerate = repeated | (area < 1e-12 * max(float(size.max()) ** 2, 1e-30))
    proper = welded_faces[~repeated]
    uses = edge_use(proper) if len(proper) else np.zeros(0, int)
    count, label = face_components(welded_faces)
    closed = is_closed_manifold(welded_faces)
    fans = nonmanifold_vertices(proper)
    volumes = signed_volumes(welded, welded_faces, label) if count else np.zeros(0)
    genus = None
    if closed and fans == 0:
        euler = len(welded) - len(uses) + len(welded_faces)
        genus = count - euler // 2
    return {
        "welded_vertices": len(welded),
        "components": count,
        "watertight": closed,
        "manifold": bool(len(faces) > 0 and (uses <= 2).all() and fans == 0),
        "outward": bool(closed and (volumes > 0).all()),
        "border_edges": int((uses == 1).sum()),
        "nonmanifold_edges": int((uses > 2).sum()),
        "nonmanifold_vertices": fans,
        "degenerate_faces": int(degenerate.sum()),
        "genus": genus,
        "size": tuple(round(float(s), 6) for s in size),
        "surface_area": round(float(area.sum()), 6),
        "volume": round(float(volumes.sum()), 6) if closed else None,
    }


def _normals_unit(meshes: list[Mesh]) -> bool | None:
    lengths = [np.linalg.norm(mesh.normals, axis=1) for mesh in meshes if mesh.normals is not None]
    if not lengths:
        return None
    return bool((np.abs(np.concatenate(lengths) - 1) < 1e-3).all())


def _uvs(parts: list[Part]) -> dict[str, Any]:
    if not parts:
        return {
            "uv_charts": 0,
            "uv_coverage": 0.0,
            "uv_overlap": 0.0,
            "texel_density_min": None,
            "texel_density_median": None,
        }
    charts = 0
    grid = np.zeros((_OVERLAP_GRID, _OVERLAP_GRID), np.int32)
    densities = []
    for part in parts:
        mesh = part.mesh
        assert mesh.uvs is not None
        charts += uv_charts(mesh)
        # Parts that use other textures may use the same UVs; overlap is asked of one texture.
        if id(part.material) == id(parts[0].material):
            _count_cover(mesh.uvs[:, 0], mesh.uvs[:, 1], mesh.faces.astype(np.int32), grid)
        height, width = part.material.base_color_srgb.shape[:2]
        flat = np.concatenate([mesh.uvs * [width, height], np.zeros((len(mesh.uvs), 1))], 1)
        texel_area = np.linalg.norm(face_vectors(flat, mesh.faces), axis=1) / 2
        area = np.linalg.norm(face_vectors(mesh.vertices, mesh.faces), axis=1) / 2
        real = area > 1e-12 * max(float(area.max(initial=0)), 1e-30)
        densities.append(np.sqrt(texel_area[real] / area[real]))
    density = np.concatenate(densities)
    covered = int((grid > 0).sum())
    return {
        "uv_charts": charts,
        "uv_coverage": round(covered / grid.size, 4),
        "uv_overlap": round(int((grid > 1).sum()) / max(covered, 1), 4),
        "texel_density_min": round(float(density.min()), 3) if len(density) else None,
        "texel_density_median": round(float(np.median(density)), 3) if len(density) else None,
    }


def uv_charts(mesh: Mesh) -> int:
    """Number of charts: sets of triangles that hang together in the texture."""
    assert mesh.uvs is not None
    keys = np.ascontiguousarray(np.concatenate([mesh.vertices, mesh.uvs], 1), np.float32) + np.float32(0)
    _, index = np.unique(keys.view(np.dtype((np.void, 20))).ravel(), return_inverse=True)
    return face_components(index[mesh.faces].astype(np.int32))[0]


@numba.njit(cache=True)
@no_type_check
def _count_cover(
    u: NDArray[np.float32], v: NDArray[np.float32], faces: NDArray[np.int32], grid: NDArray[np.int32]
) -> None:
    """Add one to every grid cell whose centre lies inside a UV triangle (not on its edge)."""
    size = grid.shape[0]
    for f in range(len(faces)):
        x0, y0 = u[faces[f, 0]] * size, v[faces[f, 0]] * size
        x1, y1 = u[faces[f, 1]] * size, v[faces[f, 1]] * size
        x2, y2 = u[faces[f, 2]] * size, v[faces[f, 2]] * size
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0:
            continue
        for row in range(max(0, int(min(y0, y1, y2) - 0.5)), min(size - 1, int(max(y0, y1, y2) + 0.5)) + 1):
            y = row + 0.5
            for column in range(
                max(0, int(min(x0, x1, x2) - 0.5)), min(size - 1, int(max(x0, x1, x2) + 0.5)) + 1
            ):
                x = column + 0.5
                w0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                w1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                if w0 > 1e-5 and w1 > 1e-5 and 1.0 - w0 - w1 > 1e-5:
                    grid[row, column] += 1


def _textures(material: Material) -> list[str]:
    lines = []
    for name in (
        "base_color_srgb",
        "metallic",
        "roughness",
        "normal",
        "occlusion",
        "emissive_srgb",
        "opacity",
    ):
        values = getattr(material, name)
        if values is not None and values.shape[:2] != (1, 1):
            lines.append(f"{name.removesuffix('_srgb')} {values.shape[1]}x{values.shape[0]}")
    return lines


def _kind(material: Material) -> str:
    metal = float((material.metallic > 0.5).mean())
    kind = "metal" if metal > 0.9 else "metal and other" if metal > 0.1 else "not metal"
    cut = ", cut out" if material.opacity is not None else ""
    if material.emissive_srgb is not None and material.emissive_srgb.any():
        cut += f", emits (strength {material.emissive_strength:g})"
    roughness = float(material.roughness.mean())
    return f"{material.name}: metallic-roughness, {kind}, mean roughness {roughness:.2f}{cut}"
