"""Materials of one surface onto the UVs of another: the maps that `bake`, `simplify` and `unwrap` make.

In: a mesh with UVs and normals, and a source scene with any number of parts and materials. Out: one
material whose maps show on the mesh what the source shows there: base colour, metallic, roughness,
emissive, the normals of the source (its geometry and its normal maps) in the mesh's own tangent space,
and ambient occlusion. The dense surface of a reconstruction is a source without textures.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from recon.ambient import AmbientConfig, ambient_occlusion
from recon.projection import SurfacePoints, project
from recon.texels import Texels, pull_push, texels_of
from recon.topology import face_vectors
from render.conventions import linear_to_srgb_np
from render.errors import InputError
from render.packed_scene import (
    COLOR,
    EMITTED,
    METAL,
    OCCLUDED,
    OPACITY,
    POSITION,
    ROUGH,
    SHADING_NORMAL,
    SURFACE_SIZE,
    PackedScene,
    pack,
    surface_at,
)
from render.progress import Progress, silent
from render.scene import Material, Mesh, Scene
from render.tangents import with_tangents
from render.textures import sample_map

MapName = Literal["base_color", "metallic", "roughness", "normal", "occlusion", "emissive"]
ALL_MAPS: tuple[MapName, ...] = ("base_color", "metallic", "roughness", "normal", "occlusion", "emissive")


@dataclass(frozen=True)
class TransferConfig:
    """Which maps, how large."""

    texture_size: int = 2048
    maps: tuple[MapName, ...] = ALL_MAPS
    reach: float | None = None
    """How far off the source may lie, in units of the mesh; None measures it."""
    two_sided: bool = False
    """The source's winding says nothing: leaves, cloth, meshes of uncertain origin."""
    ambient: AmbientConfig = field(default_factory=AmbientConfig)

    def __post_init__(self) -> None:
        if not 16 <= self.texture_size <= 8192:
            raise InputError(f"texture_size is {self.texture_size}; it must be from 16 to 8192")
        for name in self.maps:
            if name not in ALL_MAPS:
                raise InputError(f"maps: {name!r} is unknown; known are {', '.join(ALL_MAPS)}")
        if self.reach is not None and not self.reach > 0:
            raise InputError(f"reach is {self.reach}; it must be positive")


class _Frames(NamedTuple):
    """Per texel: where it is, and the frame that a renderer will have there. All `[n, 3]`, unit vectors."""

    position: NDArray[np.float32]
    normal: NDArray[np.float32]
    tangent: NDArray[np.float32]
    bitangent: NDArray[np.float32]


def transfer(
    mesh: Mesh, source: Scene, config: TransferConfig | None = None, *, progress: Progress = silent
) -> tuple[Mesh, Material]:
    """The mesh with tangents (vertices may be split for them), and the material that the source gives it.

    Maps that are not asked for are constants: the means of the source. `InputError` when the mesh has no
    UVs or normals, or the source no triangles.
    """
    config = config or TransferConfig()
    if mesh.uvs is None or mesh.normals is None:
        raise InputError("the mesh has no UVs or no normals; unwrap it first")
    mesh = with_tangents(mesh)
    packed = pack(source)
    size = config.texture_size
    texels = texels_of(mesh, size)
    if not (texels.face >= 0).any():
        raise InputError("the mesh's UVs cover no texel: they lie outside [0, 1] or have no area")
    frames = frames_of(mesh, texels)
    progress(0.1, "finding the source's surface")
    places = project(
        frames.position,
        frames.normal,
        packed.vertices,
        packed.faces,
        reach=config.reach,
        two_sided=config.two_sided,
    )
    progress(0.5, "reading the source's materials")
    surface = _read(packed, places, frames.normal, _texel_length(mesh, size))
    known = texels.face >= 0

    def image(values: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.zeros((size, size, values.shape[1]), np.float32)
        out[known] = values
        return pull_push(out, known)

    wanted = set(config.maps)
    progress(0.6, "padding charts")
    color = linear_to_srgb_np(np.clip(surface[:, COLOR : COLOR + 3], 0, 1))
    scalars = np.clip(surface[:, [METAL, ROUGH]], 0, 1)
    made = image(np.concatenate([color, scalars], 1))
    material = Material(
        base_color_srgb=_map_or_mean(made[..., :3], color, "base_color" in wanted),
        metallic=_map_or_mean(made[..., 3], scalars[:, 0], "metallic" in wanted),
        roughness=_map_or_mean(made[..., 4], scalars[:, 1], "roughness" in wanted),
        name=source.parts[0].material.name,
    )
    if "emissive" in wanted and surface[:, EMITTED : EMITTED + 3].any():
        light = surface[:, EMITTED : EMITTED + 3]
        glow = max(float(light.max()), 1.0)
        emitted = linear_to_srgb_np(np.clip(light / np.float32(glow), 0, 1))
        material = replace(
            material, emissive_srgb=_map_or_mean(image(emitted), emitted, True), emissive_strength=glow
        )
    normals = surface[:, SHADING_NORMAL : SHADING_NORMAL + 3]
    if "normal" in wanted:
        material = replace(material, normal=image(encoded_normals(normals, frames)))
    if "occlusion" in wanted:
        drawn = any(part.material.occlusion is not None for part in source.parts)
        if drawn:
            hidden = surface[:, OCCLUDED]
        else:
            hidden = ambient_occlusion(
                surface[:, POSITION : POSITION + 3],
                _geometric_normals(packed, places, frames.normal),
                packed.vertices,
                packed.faces,
                config.ambient,
                progress=lambda done, message="": progress(0.65 + 0.35 * done, message),
            )
        material = replace(material, occlusion=image(np.clip(hidden, 0, 1)[:, None])[..., 0])
    if any(part.material.opacity is not None for part in source.parts):
        solid = _opacity(packed, places)
        if (solid < 0.5).any():
            material = replace(material, opacity=image(solid[:, None])[..., 0])
    progress(1.0, "maps are made")
    return mesh, material


def detail_maps(
    mesh: Mesh,
    material: Material,
    dense: Mesh,
    config: TransferConfig,
    *,
    progress: Progress = silent,
) -> tuple[Mesh, Material]:
    """The normals and occlusion of the dense surface, beside the maps that `material` has already."""
    from render.scene import Part

    maps: tuple[MapName, ...] = tuple(name for name in config.maps if name in ("normal", "occlusion"))
    plain = Material(
        np.full((1, 1, 3), 0.5, np.float32), np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    )
    found, made = transfer(mesh, Scene((Part(dense, plain),)), replace(config, maps=maps), progress=progress)
    return found, replace(material, normal=made.normal, occlusion=made.occlusion)


def frames_of(mesh: Mesh, texels: Texels) -> _Frames:
    """Positions and tangent frames of the texels, interpolated as renderers do it (render.packed_scene)."""
    assert mesh.normals is not None
    assert mesh.tangents is not None
    position = texels.interpolate(mesh.vertices, mesh.faces)
    normal = _unit(texels.interpolate(mesh.normals, mesh.faces))
    tangent = texels.interpolate(mesh.tangents, mesh.faces)
    hand = np.where(tangent[:, 3:] < 0, np.float32(-1), np.float32(1))
    along = tangent[:, :3]
    along = _unit(along - normal * (along * normal).sum(1, keepdims=True))
    return _Frames(position, normal, along, np.asarray(np.cross(normal, along) * hand, np.float32))


def encoded_normals(normals: Float[np.ndarray, "n 3"], frames: _Frames) -> Float[np.ndarray, "n 3"]:
    """World normals as a normal map's colours. One that points below the surface is bent up to graze it."""
    local = np.stack(
        [(normals * axis).sum(1) for axis in (frames.tangent, frames.bitangent, frames.normal)], 1
    )
    local[:, 2] = np.maximum(local[:, 2], 0.05)
    return np.asarray(_unit(local) * 0.5 + 0.5, np.float32)


def _geometric_normals(
    packed: PackedScene, places: SurfacePoints, towards: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Interpolated normals of the source's geometry (its faces' where it has none), turned outwards."""
    cross = face_vectors(packed.vertices, packed.faces)
    face = _unit(cross.astype(np.float32))[places.face]
    smooth = places.interpolate(packed.normals, packed.faces)
    normal = np.where((np.abs(smooth).sum(1) > 1e-6)[:, None], _unit(smooth), face)
    turn = np.where((face * towards).sum(1, keepdims=True) < 0, -1, 1)
    return np.asarray(normal * turn, np.float32)


def _texel_length(mesh: Mesh, size: int) -> float:
    """Mean length of a texel on the mesh, in world units."""
    assert mesh.uvs is not None
    flat = np.concatenate([mesh.uvs, np.zeros((len(mesh.uvs), 1), np.float32)], 1)
    in_texture = np.linalg.norm(face_vectors(flat, mesh.faces), axis=1).sum() * size * size
    in_world = np.linalg.norm(face_vectors(mesh.vertices, mesh.faces), axis=1).sum()
    return float(np.sqrt(max(in_world, 1e-24) / max(in_texture, 1e-24)))


def _read(
    packed: PackedScene, places: SurfacePoints, towards: Float[np.ndarray, "n 3"], texel_length: float
) -> NDArray[np.float32]:
    out = np.zeros((len(places.face), SURFACE_SIZE), np.float32)
    _surfaces(
        packed,
        places.face.astype(np.int64),
        np.ascontiguousarray(places.barycentric, np.float32),
        np.ascontiguousarray(towards, np.float32),
        np.float32(np.log2(texel_length)),
        out,
    )
    return out


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def _surfaces(
    scene: PackedScene,
    face: NDArray[np.int64],
    barycentric: NDArray[np.float32],
    towards: NDArray[np.float32],
    log2_length: float,
    out: NDArray[np.float32],
) -> None:
    """`surface_at` of many places, each seen along the normal of its texel."""
    for i in numba.prange(len(face)):
        b = barycentric[i]
        surface_at(
            scene, face[i], b[0], b[1], b[2], towards[i, 0], towards[i, 1], towards[i, 2], log2_length, out[i]
        )


def _opacity(packed: PackedScene, places: SurfacePoints) -> NDArray[np.float32]:
    out = np.ones(len(places.face), np.float32)
    _opacities(packed, places.face.astype(np.int64), np.ascontiguousarray(places.barycentric), out)
    return out


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _opacities(
    scene: PackedScene, face: NDArray[np.int64], barycentric: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """The finest level of the opacity map, as the rasteriser cuts out with."""
    value = np.ones(1, np.float32)
    for i in range(len(face)):
        place = scene.maps[scene.face_part[face[i]], OPACITY]
        if place[0] < 0:
            continue
        u, v = np.float32(0.0), np.float32(0.0)
        for k in range(3):
            corner = scene.faces[face[i], k]
            u += barycentric[i, k] * scene.uvs[corner, 0]
            v += barycentric[i, k] * scene.uvs[corner, 1]
        sample_map(scene.texels, place, 1, u, v, -99.0, value, 0)
        out[i] = value[0]


def _map_or_mean(
    image: NDArray[np.float32], values: NDArray[np.float32], wanted: bool
) -> NDArray[np.float32]:
    """The map; its mean as a 1x1 map when it was not asked for or is the same everywhere."""
    if wanted and float(np.ptp(values, axis=0).max()) > 1 / 512:
        return np.ascontiguousarray(image)
    mean = values.mean(0, dtype=np.float64)
    return np.asarray(mean, np.float32).reshape(1, 1, *image.shape[2:])


def _unit(v: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-20), np.float32)
