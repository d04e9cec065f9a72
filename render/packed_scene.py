"""A scene flattened for the kernels: all parts in one set of arrays.

In: a `Scene`. Out: a `PackedScene`, and the device function `surface_at` that says what the surface is at
a fragment: material, shading normal (interpolated, bent by the normal map) and place. Ground-truth
G-buffers and the preview both stand on it, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int, UInt16
from numpy.typing import NDArray

from render.conventions import srgb_to_linear_np
from render.errors import InputError
from render.scene import Material, Mesh, Scene
from render.tangents import with_tangents
from render.textures import mip_chain, sample_map

BASE_COLOR, METALLIC, ROUGHNESS, NORMAL, OCCLUSION, EMISSIVE, OPACITY = range(7)
"""Slots of a material's maps."""

_CHANNELS = (3, 1, 1, 3, 1, 3, 1)
_SRGB_SLOTS = (BASE_COLOR, EMISSIVE)

# Columns of what `surface_at` writes.
COLOR, METAL, ROUGH, OCCLUDED, EMITTED, SHADING_NORMAL, FACE_NORMAL, POSITION = 0, 3, 4, 5, 6, 9, 12, 15
SURFACE_SIZE = 18
_COLUMNS = (COLOR, METAL, ROUGH, SHADING_NORMAL, OCCLUDED, EMITTED)


class PackedScene(NamedTuple):
    """Float arrays are float32; colours linear."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    face_part: Int[np.ndarray, " F"]
    normals: Float[np.ndarray, "V 3"]
    """Zero where a part has none: it is shaded flat."""
    tangents: Float[np.ndarray, "V 4"]
    """Zero where a part has no normal map."""
    uvs: Float[np.ndarray, "V 2"]
    colors: Float[np.ndarray, "V 3"]
    """Vertex colours, linear."""
    face_log2_uv: Float[np.ndarray, " F"]
    """log2 of UV length per world length, from the ratio of areas."""
    texels: UInt16[np.ndarray, " T"]
    maps: Int[np.ndarray, "P 7 4"]
    """Offset, width, height, levels of every part's maps (render.textures)."""
    glow: Float[np.ndarray, " P"]
    """Factor of every part's emission."""


def _maps_of(material: Material) -> list[np.ndarray | None]:
    def stacked(one: np.ndarray | None) -> np.ndarray | None:
        return None if one is None else one[..., None]

    opacity = material.opacity
    if opacity is not None and opacity.min() >= 0.5:
        opacity = None
    return [
        material.base_color_srgb,
        stacked(material.metallic),
        stacked(material.roughness),
        material.normal,
        stacked(material.occlusion),
        material.emissive_srgb
        if material.emissive_srgb is not None and material.emissive_srgb.any()
        else None,
        stacked(opacity),
    ]


def _pack_materials(
    materials: list[Material],
) -> tuple[UInt16[np.ndarray, " T"], Int[np.ndarray, "P 7 4"]]:
    table = np.full((len(materials), len(_CHANNELS), 4), -1, np.int64)
    chunks: list[np.ndarray] = []
    placed: dict[tuple[object, ...], tuple[int, ...]] = {}
    offset = 0
    for index, material in enumerate(materials):
        for slot, texture in enumerate(_maps_of(material)):
            if texture is None:
                continue
            if texture.size == 0 or texture.shape[-1] != _CHANNELS[slot]:
                raise InputError(
                    f"Material {material.name!r}: a map of shape {texture.shape} cannot be used; "
                    f"it must have {_CHANNELS[slot]} channel(s) and at least one texel."
                )
            key = (texture.__array_interface__["data"][0], texture.shape, texture.strides, slot)
            if key not in placed:
                chain = mip_chain(texture, slot in _SRGB_SLOTS)
                placed[key] = (offset, texture.shape[1], texture.shape[0], len(chain))
                chunks += [level.ravel() for level in chain]
                offset += sum(level.size for level in chain)
            table[index, slot] = placed[key]
    return np.concatenate(chunks), table


def _with_face_normals(mesh: Mesh) -> Mesh:
    """Flat shading, as glTF asks of a mesh without normals: every face has vertices of its own."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    chosen = mesh.faces.ravel()
    return replace(
        mesh,
        vertices=mesh.vertices[chosen],
        faces=np.arange(len(chosen), dtype=np.int32).reshape(-1, 3),
        normals=np.repeat(normal, 3, axis=0).astype(np.float32),
        uvs=None if mesh.uvs is None else mesh.uvs[chosen],
        colors_srgb=None if mesh.colors_srgb is None else mesh.colors_srgb[chosen],
    )


def pack(scene: Scene) -> PackedScene:
    """Flatten `scene`. Raises `InputError` when there is no triangle to draw."""
    parts = [part for part in scene.parts if len(part.mesh.faces)]
    if not parts:
        raise InputError("The scene has no triangles, so there is nothing to draw.")
    distinct = list({id(part.material): part.material for part in parts}.values())
    slot_of = {id(material): index for index, material in enumerate(distinct)}
    texels, maps = _pack_materials(distinct)
    vertices: list[NDArray[Any]] = []
    faces: list[NDArray[Any]] = []
    face_part: list[NDArray[Any]] = []
    normals: list[NDArray[Any]] = []
    tangents: list[NDArray[Any]] = []
    uvs: list[NDArray[Any]] = []
    colors: list[NDArray[Any]] = []
    first = 0
    for part in parts:
        mesh = part.mesh
        bent = part.material.normal is not None and mesh.uvs is not None
        if bent and mesh.tangents is None:
            mesh = with_tangents(mesh if mesh.normals is not None else _with_face_normals(mesh))
        count = len(mesh.vertices)
        vertices.append(mesh.vertices)
        faces.append(mesh.faces + first)
        face_part.append(np.full(len(mesh.faces), slot_of[id(part.material)], np.int32))
        normals.append(np.zeros((count, 3)) if mesh.normals is None else mesh.normals)
        uvs.append(np.zeros((count, 2)) if mesh.uvs is None else mesh.uvs)
        tangents.append(mesh.tangents if bent and mesh.tangents is not None else np.zeros((count, 4)))
        if mesh.colors_srgb is None:
            colors.append(np.ones((count, 3)))
        else:
            colors.append(srgb_to_linear_np(np.asarray(mesh.colors_srgb, np.float32)))
        first += count
    all_vertices = np.concatenate(vertices).astype(np.float32)
    all_faces = np.concatenate(faces).astype(np.int32)
    all_uvs = np.concatenate(uvs).astype(np.float32)
    return PackedScene(
        np.ascontiguousarray(all_vertices),
        np.ascontiguousarray(all_faces),
        np.concatenate(face_part),
        np.ascontiguousarray(np.concatenate(normals), np.float32),
        np.ascontiguousarray(np.concatenate(tangents), np.float32),
        np.ascontiguousarray(all_uvs),
        np.ascontiguousarray(np.concatenate(colors), np.float32),
        _log2_uv_per_world(all_vertices, all_faces, all_uvs),
        texels,
        maps,
        np.array([material.emissive_strength for material in distinct], np.float32),
    )


def _log2_uv_per_world(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], uvs: Float[np.ndarray, "V 2"]
) -> Float[np.ndarray, " F"]:
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    world = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    d1, d2 = uvs[faces[:, 1]] - uvs[faces[:, 0]], uvs[faces[:, 2]] - uvs[faces[:, 0]]
    texture = np.abs(d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0])
    ratio = np.maximum(texture, 1e-24) / np.maximum(world, 1e-24)
    return np.asarray(0.5 * np.log2(ratio), np.float32)


# forceinline, here and in shading and occlusion: kernels that come from numba's cache otherwise call these
# as functions, which counts the arrays' references for every pixel: 7.7 frames/s instead of 17.4
# (bench/preview.py).
@numba.njit(cache=True, error_model="numpy", forceinline=True)
@no_type_check
def surface_at(
    scene: PackedScene,
    face: int,
    b0: float,
    b1: float,
    b2: float,
    view_x: float,
    view_y: float,
    view_z: float,
    log2_world_per_pixel: float,
    out: NDArray[np.float32],
) -> None:
    """What the surface is at a fragment, into `out` [SURFACE_SIZE].

    `view` points to the eye (unit); the normals face it, so that inconsistent winding does not show.
    `log2_world_per_pixel` sets the size of the texture footprint.
    """
    i0, i1, i2 = scene.faces[face, 0], scene.faces[face, 1], scene.faces[face, 2]
    part = scene.face_part[face]
    vertices, maps = scene.vertices, scene.maps
    for axis in range(3):
        out[POSITION + axis] = b0 * vertices[i0, axis] + b1 * vertices[i1, axis] + b2 * vertices[i2, axis]
    ax, ay, az = (
        vertices[i1, 0] - vertices[i0, 0],
        vertices[i1, 1] - vertices[i0, 1],
        vertices[i1, 2] - vertices[i0, 2],
    )
    bx, by, bz = (
        vertices[i2, 0] - vertices[i0, 0],
        vertices[i2, 1] - vertices[i0, 1],
        vertices[i2, 2] - vertices[i0, 2],
    )
    gx, gy, gz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    length = np.sqrt(gx * gx + gy * gy + gz * gz)
    if length < 1e-20:
        gx, gy, gz, length = view_x, view_y, view_z, np.float32(1.0)
    facing = gx * view_x + gy * view_y + gz * view_z
    turn = np.float32(-1.0) if facing < 0.0 else np.float32(1.0)
    inverse = turn / length
    gx, gy, gz = gx * inverse, gy * inverse, gz * inverse
    cosine = max(facing * inverse, np.float32(0.1))
    out[FACE_NORMAL], out[FACE_NORMAL + 1], out[FACE_NORMAL + 2] = gx, gy, gz
    out[OCCLUDED] = np.float32(1.0)
    out[EMITTED : EMITTED + 3] = np.float32(0.0)

    normals = scene.normals
    nx = b0 * normals[i0, 0] + b1 * normals[i1, 0] + b2 * normals[i2, 0]
    ny = b0 * normals[i0, 1] + b1 * normals[i1, 1] + b2 * normals[i2, 1]
    nz = b0 * normals[i0, 2] + b1 * normals[i1, 2] + b2 * normals[i2, 2]
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    if length < 1e-8:
        nx, ny, nz = gx, gy, gz
    else:
        turn = np.float32(-1.0) if nx * gx + ny * gy + nz * gz < 0.0 else np.float32(1.0)
        inverse = turn / length
        nx, ny, nz = nx * inverse, ny * inverse, nz * inverse

    u = b0 * scene.uvs[i0, 0] + b1 * scene.uvs[i1, 0] + b2 * scene.uvs[i2, 0]
    v = b0 * scene.uvs[i0, 1] + b1 * scene.uvs[i1, 1] + b2 * scene.uvs[i2, 1]
    footprint = scene.face_log2_uv[face] + log2_world_per_pixel - np.float32(0.5) * np.log2(cosine)
    texels = scene.texels
    for slot in range(OPACITY):
        # One call site for all maps: inlined seven times over, it takes the compiler a minute.
        if maps[part, slot, 0] >= 0:
            sample_map(texels, maps[part, slot], _CHANNELS[slot], u, v, footprint, out, _COLUMNS[slot])
    for c in range(3):
        out[EMITTED + c] *= scene.glow[part]
        out[COLOR + c] *= b0 * scene.colors[i0, c] + b1 * scene.colors[i1, c] + b2 * scene.colors[i2, c]
    if maps[part, NORMAL, 0] >= 0:
        tangents = scene.tangents
        tx = b0 * tangents[i0, 0] + b1 * tangents[i1, 0] + b2 * tangents[i2, 0]
        ty = b0 * tangents[i0, 1] + b1 * tangents[i1, 1] + b2 * tangents[i2, 1]
        tz = b0 * tangents[i0, 2] + b1 * tangents[i1, 2] + b2 * tangents[i2, 2]
        along = tx * nx + ty * ny + tz * nz
        tx, ty, tz = tx - along * nx, ty - along * ny, tz - along * nz
        length = np.sqrt(tx * tx + ty * ty + tz * tz)
        if length > 1e-6:
            inverse = np.float32(1.0) / length
            tx, ty, tz = tx * inverse, ty * inverse, tz * inverse
            # A normal that was turned to face the eye turns the cross product; the bitangent stays.
            hand = turn if tangents[i0, 3] >= 0.0 else -turn
            mx = out[SHADING_NORMAL] * np.float32(2.0) - np.float32(1.0)
            my = (out[SHADING_NORMAL + 1] * np.float32(2.0) - np.float32(1.0)) * hand
            mz = out[SHADING_NORMAL + 2] * np.float32(2.0) - np.float32(1.0)
            sx = mx * tx + my * (ny * tz - nz * ty) + mz * nx
            sy = mx * ty + my * (nz * tx - nx * tz) + mz * ny
            sz = mx * tz + my * (nx * ty - ny * tx) + mz * nz
            length = np.sqrt(sx * sx + sy * sy + sz * sz)
            if length > 1e-6:
                inverse = np.float32(1.0) / length
                nx, ny, nz = sx * inverse, sy * inverse, sz * inverse
    out[SHADING_NORMAL], out[SHADING_NORMAL + 1], out[SHADING_NORMAL + 2] = nx, ny, nz
