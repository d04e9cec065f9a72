"""Meshes, materials and scenes: what is rendered, baked and exported."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise seen from outside."""

    vertices: Float[np.ndarray, "V 3"]
    """float32, world units."""
    faces: Int[np.ndarray, "F 3"]
    """int32 vertex indices."""
    normals: Float[np.ndarray, "V 3"] | None = None
    uvs: Float[np.ndarray, "V 2"] | None = None
    """Origin bottom-left: v = 1 is row 0 of a texture."""
    tangents: Float[np.ndarray, "V 4"] | None = None
    """xyz and handedness, as glTF."""
    colors_srgb: Float[np.ndarray, "V 3"] | None = None
    """Vertex colours that multiply the base colour."""


@dataclass(frozen=True)
class Material:
    """Maps of a metallic-roughness material, float32 in [0, 1], row 0 on top. A constant is a 1x1 map."""

    base_color_srgb: Float[np.ndarray, "H W 3"]
    metallic: Float[np.ndarray, "Hm Wm"]
    roughness: Float[np.ndarray, "Hr Wr"]
    normal: Float[np.ndarray, "Hn Wn 3"] | None = None
    """Tangent space, +Y up, encoded as n / 2 + 0.5."""
    occlusion: Float[np.ndarray, "Ho Wo"] | None = None
    emissive_srgb: Float[np.ndarray, "He We 3"] | None = None
    """Emitted light, divided by `emissive_strength`."""
    opacity: Float[np.ndarray, "Ha Wa"] | None = None
    """Coverage; below 0.5 a texel is cut out."""
    name: str = "material"
    emissive_strength: float = 1.0
    """What emits more than white has more than 1 here (KHR_materials_emissive_strength)."""


@dataclass(frozen=True)
class Part:
    """One mesh with one material."""

    mesh: Mesh
    material: Material
    name: str = "mesh"


@dataclass(frozen=True)
class Scene:
    """Parts in one world space, node transforms already applied."""

    parts: tuple[Part, ...] = field(default_factory=tuple)


def merged(scene: Scene) -> Mesh:
    """All parts as one mesh, vertices and faces only."""
    parts = [part.mesh for part in scene.parts if len(part.mesh.faces)]
    if not parts:
        return Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in parts[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in parts]).astype(np.float32),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(parts, offsets, strict=True)]).astype(
            np.int32
        ),
    )
