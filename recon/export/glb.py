"""Binary glTF 2.0 (the Khronos specification, sections 3 and 4), one mesh with one material.

Nothing depends on the clock, the machine or a hash order: equal assets give equal
bytes. A writer of our own, because it has to place names, extras, samplers and
packed textures exactly, and because what a general library adds (empty objects,
unused attributes) the Khronos validator reports.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from recon.asset import Asset
from recon.export import images
from render.conventions import srgb_to_linear_np
from render.scene import Material, Mesh

_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_TYPES = {2: "VEC2", 3: "VEC3", 4: "VEC4"}


class _Builder:
    """Collects buffer views, accessors and images of one file."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.textures: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        if target is not None:
            entry["target"] = target
        self.binary += data
        self.views.append(entry)
        return len(self.views) - 1

    def attribute(self, values: np.ndarray, *, bounds: bool = False) -> int:
        values = np.ascontiguousarray(values, "<f4")
        entry: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), _ARRAY_BUFFER),
            "componentType": _FLOAT,
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if bounds:
            entry["min"], entry["max"] = values.min(0).tolist(), values.max(0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def indices(self, faces: np.ndarray, n_vertices: int) -> int:
        # 65535 itself restarts a primitive and may not be an index.
        small = n_vertices <= 65535
        flat = np.ascontiguousarray(faces.reshape(-1), "<u2" if small else "<u4")
        self.accessors.append(
            {
                "bufferView": self.view(flat.tobytes(), _ELEMENT_ARRAY_BUFFER),
                "componentType": _UNSIGNED_SHORT if small else _UNSIGNED_INT,
                "count": int(flat.size),
                "type": "SCALAR",
            }
        )
        return len(self.accessors) - 1

    def texture(self, pixels: np.ndarray, name: str) -> dict[str, Any]:
        self.images.append(
            {"name": name, "mimeType": "image/png", "bufferView": self.view(images.png(pixels))}
        )
        self.textures.append({"sampler": 0, "source": len(self.images) - 1})
        return {"index": len(self.textures) - 1}


def glb_bytes(asset: Asset) -> bytes:
    """The asset as a GLB file: metres, +Y up, pivot at the floor's centre."""
    mesh, builder = asset.in_metres(), _Builder()
    material = _material(asset.material, asset.name, mesh.uvs is not None, builder)
    attributes = _attributes(mesh, bool(builder.textures), builder)
    primitive = {
        "attributes": attributes,
        "indices": builder.indices(mesh.faces, len(mesh.vertices)),
        "material": 0,
    }
    head: dict[str, Any] = {"version": "2.0", "generator": "Maquette"}
    if asset.provenance:
        head["extras"] = dict(asset.provenance)
    document: dict[str, Any] = {
        "asset": head,
        "scene": 0,
        "scenes": [{"name": asset.name, "nodes": [0]}],
        "nodes": [{"name": asset.name, "mesh": 0}],
        "meshes": [{"name": asset.name, "primitives": [primitive]}],
        "materials": [material],
    }
    if builder.textures:
        document["textures"] = builder.textures
        document["images"] = builder.images
        document["samplers"] = [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ]
    document["accessors"] = builder.accessors
    document["bufferViews"] = builder.views
    builder.binary += b"\0" * (-len(builder.binary) % 4)
    document["buffers"] = [{"byteLength": len(builder.binary)}]
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(builder.binary)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(builder.binary), b"BIN\0"),
            bytes(builder.binary),
        ]
    )


def _attributes(mesh: Mesh, textured: bool, builder: _Builder) -> dict[str, int]:
    attributes = {"POSITION": builder.attribute(mesh.vertices, bounds=True)}
    if mesh.normals is not None:
        attributes["NORMAL"] = builder.attribute(mesh.normals)
    if mesh.tangents is not None and textured:
        attributes["TANGENT"] = builder.attribute(mesh.tangents)
    if mesh.uvs is not None and textured:
        attributes["TEXCOORD_0"] = builder.attribute(np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], 1))
    if mesh.colors_srgb is not None:
        attributes["COLOR_0"] = builder.attribute(srgb_to_linear_np(mesh.colors_srgb))
    return attributes


def _material(material: Material, name: str, has_uvs: bool, builder: _Builder) -> dict[str, Any]:
    """Constant maps become factors, others textures. Without UVs a map becomes its mean."""
    pbr: dict[str, Any] = {}
    out: dict[str, Any] = {"name": name, "pbrMetallicRoughness": pbr}
    cut_out = material.opacity is not None
    if has_uvs and (material.base_color_srgb.shape[:2] != (1, 1) or cut_out):
        pbr["baseColorTexture"] = builder.texture(images.base_color(material), f"{name}_base_color")
    else:
        linear = srgb_to_linear_np(material.base_color_srgb.reshape(-1, 3).mean(0).astype(np.float32))
        pbr["baseColorFactor"] = [*(round(float(c), 6) for c in linear), 1.0]
    if has_uvs and max(material.metallic.size, material.roughness.size) > 1:
        packed = images.metallic_roughness(material)
        pbr["metallicRoughnessTexture"] = builder.texture(packed, f"{name}_metallic_roughness")
    else:
        pbr["metallicFactor"] = round(float(material.metallic.mean()), 6)
        pbr["roughnessFactor"] = round(float(material.roughness.mean()), 6)
    if not has_uvs:
        return out
    if material.normal is not None:
        out["normalTexture"] = builder.texture(images.to_bytes(material.normal), f"{name}_normal")
    if material.occlusion is not None:
        grey = np.repeat(images.to_bytes(material.occlusion)[..., None], 3, -1)
        out["occlusionTexture"] = builder.texture(grey, f"{name}_occlusion")
    if material.emissive_srgb is not None:
        out["emissiveTexture"] = builder.texture(images.to_bytes(material.emissive_srgb), f"{name}_emissive")
        out["emissiveFactor"] = [1.0, 1.0, 1.0]
    if cut_out:
        out["alphaMode"] = "MASK"
        out["doubleSided"] = True
    return out
