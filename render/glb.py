"""Any glTF 2.0 asset as a `Scene`: `load_scene`.

In: a `.glb`, or a `.gltf` whose buffers are data URIs. Out: parts in world space with their materials, UV
origin turned to bottom-left (here and nowhere else on the way in). Missing normals mean flat shading, as
glTF says; skinned meshes are shown in their bind pose, without morph targets; points and lines are left
out. Hostile files raise `InputError` in bounded time and memory (render.gltf_file says how).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from render.conventions import linear_to_srgb_np
from render.draco import EXTENSION as DRACO
from render.draco import DracoGeometry, read_draco
from render.errors import InputError
from render.gltf_file import GltfFile, read_gltf
from render.gltf_material import MaterialReader, UvMapping
from render.scene import Material, Mesh, Part, Scene

_MAX_NODES = 100_000
_MAX_PARTS = 20_000
_MAX_PLACED = {"triangles": 10_000_000, "vertices": 20_000_000, "meshes": _MAX_PARTS}
"""In the whole scene: a small file may place one mesh many times."""
_UNDERSTOOD = (
    "KHR_materials_",
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "KHR_lights_punctual",
    "KHR_draco_mesh_compression",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
    "EXT_texture_webp",
    "KHR_texture_basisu",
    "KHR_xmp",
    "KHR_animation_pointer",
    "MSFT_lod",
)
_COLLIDER = re.compile(r"U(CX|BX|SP|CP)_")
_LEVEL = re.compile(r"(.*)_LOD[1-9]\d*")
_Placed = tuple[int, NDArray[np.float64], str]
_POSE = frozenset(("matrix", "translation", "rotation", "scale"))
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


def load_scene(path: Path, *, everything: bool = False) -> Scene:
    """Read a file's default scene. Raises `InputError` with one line when it cannot be read whole.

    What engines do not show is left out unless `everything` is asked for: colliders (nodes named UCX_...,
    as Unreal has them) and coarser levels of detail (NAME_LOD1, ... beside a NAME_LOD0).
    """
    file = read_gltf(Path(path))
    for name in file.items("extensionsRequired"):
        if not isinstance(name, str) or not name.startswith(_UNDERSTOOD):
            raise InputError(
                f"{file.name}: needs the extension {str(name)[:60]!r}, which is not read; "
                "export the asset without compression and without it."
            )
    materials = MaterialReader(file)
    meshes: dict[int, list[tuple[Mesh, Material]]] = {}
    placed = _shown(_placed_meshes(file), everything)
    totals = {"triangles": 0, "vertices": 0, "meshes": 0}
    for index, _, _ in placed:
        if index not in meshes:
            meshes[index] = _read_mesh(file, index, materials)
        totals["triangles"] += sum(len(mesh.faces) for mesh, _ in meshes[index])
        totals["vertices"] += sum(len(mesh.vertices) for mesh, _ in meshes[index])
        totals["meshes"] += len(meshes[index])
        for what, limit in _MAX_PLACED.items():
            if totals[what] > limit:
                raise InputError(f"{file.name}: has over {limit} {what}, more than are read; simplify it.")
    parts = []
    for index, matrix, _ in placed:
        name = file.items("meshes")[index].get("name")
        for mesh, material in meshes[index]:
            part_name = name if isinstance(name, str) and name else f"mesh{index}"
            parts.append(Part(_transformed(file, mesh, matrix, index), material, part_name))
    if not parts:
        raise InputError(f"{file.name}: has no triangles in its scene, so there is nothing to show.")
    return Scene(tuple(parts))


def _shown(placed: list[_Placed], everything: bool) -> list[_Placed]:
    """Without colliders and coarser levels of detail; all when nothing else is there."""
    names = {name for _, _, name in placed}

    def hidden(name: str) -> bool:
        level = _LEVEL.fullmatch(name)
        return bool(_COLLIDER.match(name) or (level and f"{level[1]}_LOD0" in names))

    shown = [one for one in placed if not hidden(one[2])]
    return placed if everything or not shown else shown


def _placed_meshes(file: GltfFile) -> list[_Placed]:
    """Mesh indices, world matrices and names of the nodes, in the order of the file's tree."""
    nodes = file.items("nodes")
    if file.items("scenes"):
        scene = file.item("scenes", file.root.get("scene", 0), "scene")
        roots = scene.get("nodes", [])
    else:
        children = {
            c for n in nodes if isinstance(n, dict) for c in _indices(file, n.get("children", []), "nodes")
        }
        roots = [index for index in range(len(nodes)) if index not in children]
    placed: list[_Placed] = []
    visited: set[int] = set()
    pending = [(index, np.eye(4)) for index in reversed(_indices(file, roots, "scene.nodes"))]
    while pending:
        index, parent = pending.pop()
        node = file.item("nodes", index, "the scene")
        here = f"nodes[{index}]"
        if index in visited:
            file.fail(here, "is met twice: its tree has a loop or a node with two parents")
        visited.add(index)
        if len(visited) > _MAX_NODES:
            file.fail("nodes", f"are more than the {_MAX_NODES} that are read", "simplify the asset")
        matrix = parent
        if not _POSE.isdisjoint(node):
            with np.errstate(over="ignore", invalid="ignore"):
                matrix = parent @ _local_matrix(file, node, here)
        if not np.isfinite(matrix).all():
            file.fail(here, "has a transform that is not finite")
        if node.get("mesh") is not None:
            file.item("meshes", node["mesh"], here)
            # A skinned mesh ignores its node; in bind pose its vertices stay as stored (section 3.7.3.3).
            name = node.get("name")
            placed.append(
                (
                    node["mesh"],
                    np.eye(4) if node.get("skin") is not None else matrix,
                    name if isinstance(name, str) else "",
                )
            )
        pending += [
            (child, matrix)
            for child in reversed(_indices(file, node.get("children", []), f"{here}.children"))
        ]
    return placed


def _indices(file: GltfFile, value: object, where: str) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        file.fail(where, "is not a list of indices")
    return value


def _local_matrix(file: GltfFile, node: dict[str, Any], here: str) -> NDArray[np.float64]:
    if node.get("matrix") is not None:
        return file.vector(node, "matrix", here, (0.0,) * 16).reshape(4, 4).T
    translation = file.vector(node, "translation", here, (0.0, 0.0, 0.0))
    x, y, z, w = file.vector(node, "rotation", here, (0.0, 0.0, 0.0, 1.0))
    scale = file.vector(node, "scale", here, (1.0, 1.0, 1.0))
    length = x * x + y * y + z * z + w * w
    if length < 1e-12:
        file.fail(f"{here}.rotation", "is a quaternion of length 0")
    x, y, z, w = np.array([x, y, z, w]) / np.sqrt(length)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * scale
    matrix[:3, 3] = translation
    return matrix


def _read_mesh(file: GltfFile, index: int, materials: MaterialReader) -> list[tuple[Mesh, Material]]:
    entry = file.item("meshes", index, "a node")
    primitives = entry.get("primitives")
    if not isinstance(primitives, list):
        file.fail(f"meshes[{index}]", "has no primitives")
    if len(primitives) > _MAX_PARTS:
        file.fail(f"meshes[{index}]", f"has over {_MAX_PARTS} primitives", "simplify the asset")
    out: list[tuple[Mesh, Material]] = []
    for number, primitive in enumerate(primitives):
        here = f"meshes[{index}].primitives[{number}]"
        if not isinstance(primitive, dict):
            file.fail(here, "is not an object")
        if file.integer(primitive, "mode", here, _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN):
            read = _read_primitive(file, primitive, here, materials)
            if read is not None:
                out.append(read)
    return out


def _read_primitive(
    file: GltfFile, primitive: dict[str, Any], here: str, materials: MaterialReader
) -> tuple[Mesh, Material] | None:
    packed: DracoGeometry | None = None
    if DRACO in file.mapping(primitive, "extensions", here):
        packed = read_draco(file, primitive, here)
    attributes = file.mapping(primitive, "attributes", here)
    if "POSITION" not in attributes:
        return None

    def numbers(name: str, kinds: tuple[str, ...]) -> NDArray[Any]:
        inside = packed.attributes.get(name) if packed is not None else None
        return file.accessor(attributes[name], f"{here}.{name}", kinds, inside)

    vertices = numbers("POSITION", ("VEC3",)).astype(np.float32)
    faces = _faces(file, primitive, here, len(vertices), packed)
    if len(faces) == 0:
        return None

    def attribute(name: str, kinds: tuple[str, ...]) -> NDArray[Any] | None:
        if attributes.get(name) is None:
            return None
        values = numbers(name, kinds)
        if len(values) != len(vertices):
            file.fail(f"{here}.{name}", f"has {len(values)} values for {len(vertices)} vertices")
        return values

    material, mapping = materials.read(primitive.get("material"))
    normals = attribute("NORMAL", ("VEC3",))
    tangents = attribute("TANGENT", ("VEC4",))
    return (
        Mesh(
            vertices=vertices,
            faces=faces,
            normals=None if normals is None else normals.astype(np.float32),
            uvs=_uvs(attribute(f"TEXCOORD_{mapping.set_index}", ("VEC2",)), mapping),
            tangents=None if tangents is None else tangents.astype(np.float32),
            colors_srgb=_colors(attribute("COLOR_0", ("VEC3", "VEC4")), material.base_color_srgb.size > 3),
        ),
        material,
    )


def _uvs(values: NDArray[Any] | None, mapping: UvMapping) -> Float[np.ndarray, "V 2"] | None:
    if values is None:
        return None
    uvs = mapping.apply(values.astype(np.float32))
    return np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1)


def _colors(values: NDArray[Any] | None, textured: bool) -> Float[np.ndarray, "V 3"] | None:
    """glTF's vertex colours are linear (section 3.7.2.1).

    All black over a texture is an unfilled attribute that some exporters write, and would hide the texture.
    """
    if values is None or (textured and not values[:, :3].any()):
        return None
    if np.issubdtype(values.dtype, np.integer):
        # Integers without `normalized` are against the specification, yet common; they mean the same.
        values = values / np.iinfo(values.dtype).max
    linear = np.clip(values[:, :3], 0, 1).astype(np.float32)
    return None if (linear == 1).all() else linear_to_srgb_np(linear)


def _faces(
    file: GltfFile, primitive: dict[str, Any], here: str, vertices: int, packed: DracoGeometry | None
) -> Int[np.ndarray, "F 3"]:
    if packed is not None:
        order = packed.faces.reshape(-1).astype(np.int64)
        if len(order) and int(order.max()) >= vertices:
            file.fail(here, f"names vertex {int(order.max())}, but there are {vertices}")
    elif primitive.get("indices") is None:
        order = np.arange(vertices, dtype=np.int64)
    else:
        order = file.accessor(primitive["indices"], f"{here}.indices", ("SCALAR",))[:, 0]
        if not np.issubdtype(order.dtype, np.unsignedinteger):
            file.fail(f"{here}.indices", "are not unsigned integers")
        if len(order) and int(order.max()) >= vertices:
            file.fail(f"{here}.indices", f"name vertex {int(order.max())}, but there are {vertices}")
        order = order.astype(np.int64)
    # A Draco stream holds triangles, whatever order its indices were in before.
    mode = _TRIANGLES if packed is not None else primitive.get("mode", _TRIANGLES)
    if mode == _TRIANGLES:
        faces = order[: len(order) // 3 * 3].reshape(-1, 3)
    elif len(order) < 3:
        faces = np.zeros((0, 3), np.int64)
    elif mode == _STRIP:
        faces = np.stack([order[:-2], order[1:-1], order[2:]], 1)
        faces[1::2] = faces[1::2][:, [1, 0, 2]]
    else:
        faces = np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], 1)
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return np.asarray(faces[distinct], np.int32)


def _transformed(file: GltfFile, mesh: Mesh, matrix: NDArray[np.float64], index: int) -> Mesh:
    linear = matrix[:3, :3]
    vertices = mesh.vertices.astype(np.float64) @ linear.T + matrix[:3, 3]
    if not (np.abs(vertices) < 1e12).all():
        file.fail(f"meshes[{index}]", "is placed farther away than 1e12 m")
    determinant = float(np.linalg.det(linear))
    # Normals turn with the cofactors, which exist for flat scales too.
    cofactor = np.stack(
        [
            np.cross(linear[1], linear[2]),
            np.cross(linear[2], linear[0]),
            np.cross(linear[0], linear[1]),
        ]
    )
    normals, tangents = mesh.normals, mesh.tangents
    if normals is not None:
        normals = _unit(normals @ (cofactor * (-1 if determinant < 0 else 1)).T)
    if tangents is not None:
        hand = tangents[:, 3:] * (-1 if determinant < 0 else 1)
        tangents = np.concatenate([_unit(tangents[:, :3] @ linear.T), hand], 1).astype(np.float32)
    faces = mesh.faces[:, ::-1] if determinant < 0 else mesh.faces
    return Mesh(
        vertices.astype(np.float32),
        np.ascontiguousarray(faces),
        normals,
        mesh.uvs,
        tangents,
        mesh.colors_srgb,
    )


def _unit(vectors: NDArray[Any]) -> Float[np.ndarray, "V 3"]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-30), np.float32)
