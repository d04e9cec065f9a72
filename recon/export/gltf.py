"""The document of a glTF 2.0 file (the Khronos specification, section 3): nodes, meshes, materials, images.

In: a `Package`. Out: the JSON and its bytes, which `recon.export.glb` puts into one file or several.
A writer of our own, because it has to place names, extras, samplers and packed textures exactly, and
because what a general library adds (empty objects, unused attributes) the Khronos validator reports.
Nothing depends on the clock, the machine or a hash order: equal packages give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from recon.export import images
from recon.export.draco import draco_primitive
from recon.export.ktx2 import EXTENSION as BASISU
from recon.export.ktx2 import can_be_ktx2, ktx2
from recon.export.meshopt import EXTENSION as MESHOPT
from recon.export.meshopt import Packed, packed_attribute, packed_indices, reordered
from recon.export.xmp import EXTENSION as XMP
from recon.export.xmp import xmp_packet
from recon.package import Package
from render.conventions import srgb_to_linear_np
from render.errors import InputError
from render.scene import Material, Mesh, Part

TextureFormat = Literal["png", "webp", "ktx2"]
MeshFormat = Literal["plain", "draco", "meshopt"]

_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE, _REPEAT = 9729, 9987, 33071, 10497
_TYPES = {2: "VEC2", 3: "VEC3", 4: "VEC4"}
_STRENGTH = "KHR_materials_emissive_strength"
_SCREEN_COVERAGE = (0.4, 0.15, 0.05, 0.02, 0.01, 0.005, 0.002, 0.0)
"""Share of the screen's height below which MSFT_lod goes on to the next level."""


@dataclass(frozen=True)
class GltfOptions:
    """How geometry and textures are stored."""

    textures: TextureFormat = "png"
    meshes: MeshFormat = "plain"

    def __post_init__(self) -> None:
        if self.textures not in get_args(TextureFormat):
            raise InputError(f"textures is {self.textures!r}; it must be png, webp or ktx2")
        if self.meshes not in get_args(MeshFormat):
            raise InputError(f"meshes is {self.meshes!r}; it must be plain, draco or meshopt")


class Document:
    """Collects buffer views, accessors and images of one file."""

    def __init__(self, options: GltfOptions) -> None:
        self.options = options
        self.binary = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.textures: list[dict[str, Any]] = []
        self.samplers: list[dict[str, Any]] = []
        self.materials: list[dict[str, Any]] = []
        self.meshes: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.extensions: set[str] = set()
        self.unpacked_bytes = 0
        """Length of the buffer that compressed views stand for; the file does not have it."""
        self._material_at: dict[tuple[int, bool], int] = {}

    def view(self, data: bytes, target: int | None = None) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        if target is not None:
            entry["target"] = target
        self.binary += data
        self.views.append(entry)
        return len(self.views) - 1

    def packed_view(self, packed: Packed, size: int, target: int) -> int:
        """A view of `size` bytes when unpacked, by EXT_meshopt_compression."""
        index = self.view(packed.data, target)
        entry = self.views[index]
        where = {"buffer": 0, "byteOffset": entry["byteOffset"], "byteLength": entry["byteLength"]}
        self.extensions.add(MESHOPT)
        self.unpacked_bytes += -self.unpacked_bytes % 4
        entry |= {"buffer": 1, "byteOffset": self.unpacked_bytes, "byteLength": size}
        if packed.entry["mode"] == "ATTRIBUTES":
            entry["byteStride"] = packed.entry["byteStride"]
        entry["extensions"] = {MESHOPT: where | packed.entry}
        self.unpacked_bytes += size
        return index

    def attribute(self, name: str, values: np.ndarray) -> int:
        values = np.ascontiguousarray(values, "<f4")
        if self.options.meshes == "meshopt":
            packed, values = packed_attribute(name, values)
            view = self.packed_view(packed, values.nbytes, _ARRAY_BUFFER)
        else:
            view = self.view(values.tobytes(), _ARRAY_BUFFER)
        entry: dict[str, Any] = {
            "bufferView": view,
            "componentType": _FLOAT,
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if name == "POSITION":
            entry["min"], entry["max"] = values.min(0).tolist(), values.max(0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def indices(self, faces: np.ndarray, n_vertices: int) -> int:
        # 65535 itself restarts a primitive and may not be an index.
        small = n_vertices <= 65535
        flat = np.ascontiguousarray(faces.reshape(-1), "<u2" if small else "<u4")
        if self.options.meshes == "meshopt":
            view = self.packed_view(packed_indices(flat), flat.nbytes, _ELEMENT_ARRAY_BUFFER)
        else:
            view = self.view(flat.tobytes(), _ELEMENT_ARRAY_BUFFER)
        self.accessors.append(
            {
                "bufferView": view,
                "componentType": _UNSIGNED_SHORT if small else _UNSIGNED_INT,
                "count": int(flat.size),
                "type": "SCALAR",
            }
        )
        return len(self.accessors) - 1

    def texture(self, pixels: np.ndarray, name: str, sampler: int, *, exact: bool) -> dict[str, Any]:
        """A picture; `exact` ones (data, not colour) are stored without loss, or as KTX2 with little."""
        extension = None
        if self.options.textures == "webp":
            data, kind, extension = images.webp(pixels, lossless=exact), "image/webp", "EXT_texture_webp"
        elif self.options.textures == "ktx2" and can_be_ktx2(pixels):
            data, kind, extension = ktx2(pixels, data=exact), "image/ktx2", BASISU
        else:
            data, kind = images.png(pixels), "image/png"
        self.images.append({"name": name, "mimeType": kind, "bufferView": self.view(data)})
        source = len(self.images) - 1
        entry: dict[str, Any] = {"sampler": sampler}
        if extension is None:
            entry["source"] = source
        else:
            self.extensions.add(extension)
            entry["extensions"] = {extension: {"source": source}}
        self.textures.append(entry)
        return {"index": len(self.textures) - 1}

    def sampler(self, wrap: int) -> int:
        entry = {
            "magFilter": _LINEAR,
            "minFilter": _LINEAR_MIPMAP_LINEAR,
            "wrapS": wrap,
            "wrapT": wrap,
        }
        if entry not in self.samplers:
            self.samplers.append(entry)
        return self.samplers.index(entry)

    def mesh(self, parts: tuple[Part, ...], name: str) -> int:
        primitives = [self._primitive(part) for part in parts if len(part.mesh.faces)]
        self.meshes.append({"name": name, "primitives": primitives})
        return len(self.meshes) - 1

    def node(self, **entry: Any) -> int:
        self.nodes.append(entry)
        return len(self.nodes) - 1

    def _primitive(self, part: Part) -> dict[str, Any]:
        mesh = part.mesh
        key = (id(part.material), mesh.uvs is not None)
        if key not in self._material_at:
            name = part.material.name
            wrap = _CLAMP_TO_EDGE if _inside(mesh) else _REPEAT
            self.materials.append(_material(part.material, name, mesh.uvs is not None, wrap, self))
            self._material_at[key] = len(self.materials) - 1
        index = self._material_at[key]
        entry = self.materials[index]
        textured = any(key.endswith("Texture") for key in (*entry, *entry["pbrMetallicRoughness"]))
        values = _attributes(mesh, textured)
        if self.options.meshes == "draco":
            self.extensions.add("KHR_draco_mesh_compression")
            return draco_primitive(self, values, mesh.faces) | {"material": index}
        faces = mesh.faces
        if self.options.meshes == "meshopt":
            values, faces = reordered(values, faces)
        return {
            "attributes": {name: self.attribute(name, of_vertices) for name, of_vertices in values.items()},
            "indices": self.indices(faces, len(values["POSITION"])),
            "material": index,
        }

    def buffers(self, length: int, uri: str | None = None) -> list[dict[str, Any]]:
        """The file's buffer of `length` bytes, and the one that is only unpacked, where there is one."""
        out: list[dict[str, Any]] = [{"byteLength": length} | ({} if uri is None else {"uri": uri})]
        if self.unpacked_bytes:
            out.append({"byteLength": self.unpacked_bytes, "extensions": {MESHOPT: {"fallback": True}}})
        return out

    def root(self, package: Package, roots: list[int]) -> dict[str, Any]:
        """The JSON, without the buffer's length."""
        head: dict[str, Any] = {"version": "2.0", "generator": "Maquette"}
        if package.provenance:
            head["extras"] = dict(package.provenance)
            head["extensions"] = {XMP: {"packet": 0}}
            self.extensions.add(XMP)
        out: dict[str, Any] = {"asset": head}
        if self.extensions:
            out["extensionsUsed"] = sorted(self.extensions)
            # These are hints; without the others nothing could be shown.
            required = sorted(self.extensions - {"MSFT_lod", _STRENGTH, XMP})
            if required:
                out["extensionsRequired"] = required
        out |= {"scene": 0, "scenes": [{"name": package.name, "nodes": roots}], "nodes": self.nodes}
        out |= {"meshes": self.meshes, "materials": self.materials}
        if self.textures:
            out |= {"textures": self.textures, "images": self.images, "samplers": self.samplers}
        if package.provenance:
            out["extensions"] = {XMP: {"packets": [xmp_packet(package.name, package.provenance)]}}
        return out | {"accessors": self.accessors, "bufferViews": self.views}


def document_of(package: Package, options: GltfOptions) -> tuple[Document, dict[str, Any]]:
    """The document and its JSON.

    One level without a collider is one node of the package's name. Levels are nodes NAME_LOD0,
    NAME_LOD1, ... under a node NAME. Hulls are nodes UCX_<node of the finest mesh>_00, ... below it:
    Unreal takes them for its simple collision by that name. Their material is fully transparent, so
    that viewers that know nothing of colliders show nothing.
    """
    document = Document(options)
    name = package.name
    if len(package.levels) == 1:
        finest = name
        top = document.node(name=name, mesh=document.mesh(package.parts, name))
        roots, parent = [top], top
    else:
        levels = []
        for number, level in enumerate(package.levels):
            title = f"{name}_LOD{number}"
            levels.append(document.node(name=title, mesh=document.mesh(level, title)))
        finest = f"{name}_LOD0"
        if package.lod_layout == "msft":
            document.extensions.add("MSFT_lod")
            first = document.nodes[levels[0]]
            first["extensions"] = {"MSFT_lod": {"ids": levels[1:]}}
            first["extras"] = {"MSFT_screencoverage": list(_SCREEN_COVERAGE[: len(levels)])}
            parent = document.node(name=name, children=levels[:1])
        else:
            parent = document.node(name=name, children=levels)
        roots = [parent]
    if package.collider:
        document.materials.append(
            {
                "name": "collider",
                "alphaMode": "BLEND",
                "pbrMetallicRoughness": {
                    "baseColorFactor": [0.0, 0.6, 0.2, 0.0],
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
            }
        )
        material = len(document.materials) - 1
        hulls = [
            _hull(document, hull, f"UCX_{finest}_{number:02d}", material)
            for number, hull in enumerate(package.collider)
        ]
        document.nodes[parent]["children"] = [*document.nodes[parent].get("children", []), *hulls]
    return document, document.root(package, roots)


def _hull(document: Document, hull: Mesh, name: str, material: int) -> int:
    primitive = {
        "attributes": {"POSITION": document.attribute("POSITION", hull.vertices)},
        "indices": document.indices(hull.faces, len(hull.vertices)),
        "material": material,
    }
    document.meshes.append({"name": name, "primitives": [primitive]})
    return document.node(name=name, mesh=len(document.meshes) - 1)


def _inside(mesh: Mesh) -> bool:
    """Whether the texture is used once only, so that its edges need not meet."""
    return mesh.uvs is None or bool((mesh.uvs >= -1e-6).all() and (mesh.uvs <= 1 + 1e-6).all())


def _attributes(mesh: Mesh, textured: bool) -> dict[str, np.ndarray]:
    out = {"POSITION": mesh.vertices}
    if mesh.normals is not None:
        length = np.linalg.norm(mesh.normals, axis=1, keepdims=True)
        whole = np.where(length > 1e-12, mesh.normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
        exact = bool((np.abs(length - 1) < 1e-5).all())
        out["NORMAL"] = mesh.normals if exact else whole
    if mesh.tangents is not None and mesh.normals is not None and textured:
        out["TANGENT"] = mesh.tangents
    if mesh.uvs is not None and textured:
        out["TEXCOORD_0"] = np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], 1)
    if mesh.colors_srgb is not None:
        out["COLOR_0"] = srgb_to_linear_np(np.asarray(mesh.colors_srgb, np.float32))
    return out


def _material(material: Material, name: str, has_uvs: bool, wrap: int, document: Document) -> dict[str, Any]:
    """Constant maps become factors, others textures. Without UVs a map becomes its mean.

    Occlusion shares a texture with roughness and metallic (red, green, blue: "ORM").
    """
    pbr: dict[str, Any] = {}
    out: dict[str, Any] = {"name": name, "pbrMetallicRoughness": pbr}
    cut_out = material.opacity is not None

    def texture(pixels: np.ndarray, what: str, *, exact: bool = True) -> dict[str, Any]:
        return document.texture(pixels, f"{name}_{what}", document.sampler(wrap), exact=exact)

    if has_uvs and (material.base_color_srgb.shape[:2] != (1, 1) or cut_out):
        pbr["baseColorTexture"] = texture(images.base_color(material), "base_color", exact=False)
    else:
        linear = srgb_to_linear_np(material.base_color_srgb.reshape(-1, 3).mean(0).astype(np.float32))
        pbr["baseColorFactor"] = [*(round(float(c), 6) for c in linear), 1.0]
    packed: dict[str, Any] | None = None
    hidden = material.occlusion if has_uvs and _varies(material.occlusion) else None
    if has_uvs and max(material.metallic.size, material.roughness.size) > 1:
        what = "metallic_roughness" if hidden is None else "orm"
        packed = texture(images.metallic_roughness(material), what)
        pbr["metallicRoughnessTexture"] = packed
    else:
        pbr["metallicFactor"] = round(float(material.metallic.mean()), 6)
        pbr["roughnessFactor"] = round(float(material.roughness.mean()), 6)
    _emission(material, out, has_uvs, texture, document)
    if not has_uvs:
        return out
    if _varies(material.normal):
        assert material.normal is not None
        out["normalTexture"] = texture(images.to_bytes(material.normal), "normal")
    if hidden is not None:
        if packed is None:
            grey = np.repeat(images.to_bytes(hidden)[..., None], 3, -1)
            out["occlusionTexture"] = texture(grey, "occlusion")
        else:
            out["occlusionTexture"] = dict(packed)
    if cut_out:
        out["alphaMode"] = "MASK"
        out["doubleSided"] = True
    return out


def _emission(
    material: Material,
    out: dict[str, Any],
    has_uvs: bool,
    texture: Callable[..., dict[str, Any]],
    document: Document,
) -> None:
    """What the material emits; more than white by KHR_materials_emissive_strength."""
    if material.emissive_srgb is None or not material.emissive_srgb.any():
        return
    if has_uvs and _varies(material.emissive_srgb):
        out["emissiveTexture"] = texture(images.to_bytes(material.emissive_srgb), "emissive", exact=False)
        out["emissiveFactor"] = [1.0, 1.0, 1.0]
    else:
        linear = srgb_to_linear_np(np.asarray(material.emissive_srgb.reshape(-1, 3), np.float32)).mean(0)
        out["emissiveFactor"] = [round(float(c), 6) for c in linear]
    if material.emissive_strength != 1:
        strength = round(float(material.emissive_strength), 6)
        out["extensions"] = {_STRENGTH: {"emissiveStrength": strength}}
        document.extensions.add(_STRENGTH)


def _varies(values: np.ndarray | None) -> bool:
    """Whether a map is there and more than one constant texel."""
    return values is not None and values.shape[:2] != (1, 1)
