"""Geometry of a glTF primitive compressed with Draco (KHR_draco_mesh_compression).

DracoPy (extra `draco`) carries Google's encoder. Positions keep 14 bits of the object's size, UVs 12,
normals 10, tangents and vertex colours stay exact; vertices are reordered. Viewers need a decoder:
three.js, Babylon.js, model-viewer, Blender and Unity's importers have one, Godot and Unreal do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recon.needs import require

if TYPE_CHECKING:
    from recon.export.gltf import Document

POSITION_BITS, UV_BITS, NORMAL_BITS = 14, 12, 10
_COMPRESSION = 7
_TANGENT_ID, _COLOR_ID = 8, 9
_KINDS = {0: "POSITION", 1: "NORMAL", 3: "TEXCOORD_0"}
"""Draco's attribute types."""


def draco_primitive(document: Document, values: dict[str, np.ndarray], faces: np.ndarray) -> dict[str, Any]:
    """The primitive without its material: accessors without data, and the extension that has it."""
    require("draco")
    import DracoPy

    generic = {}
    if "TANGENT" in values:
        generic[_TANGENT_ID] = np.ascontiguousarray(values["TANGENT"], np.float32)
    if "COLOR_0" in values:
        generic[_COLOR_ID] = np.ascontiguousarray(values["COLOR_0"], np.float32)
    data = DracoPy.encode(
        np.ascontiguousarray(values["POSITION"], np.float32),
        np.ascontiguousarray(faces, np.uint32),
        quantization_bits=POSITION_BITS,
        compression_level=_COMPRESSION,
        tex_coord=_floats(values.get("TEXCOORD_0")),
        normals=_floats(values.get("NORMAL")),
        tex_coord_quantization_bits=UV_BITS,
        normal_quantization_bits=NORMAL_BITS,
        generic_attributes=generic or None,
    )
    # Counts and bounds are those of what a decoder will find.
    decoded = DracoPy.decode(data)
    points = np.asarray(decoded.points, np.float32)
    ids: dict[str, int] = {}
    for attribute in decoded.attributes:
        unique = int(attribute["unique_id"])
        kind = _KINDS.get(int(attribute["attribute_type"]))
        if unique in generic:
            kind = "TANGENT" if unique == _TANGENT_ID else "COLOR_0"
        if kind is not None:
            ids[kind] = unique
    attributes: dict[str, int] = {}
    for name in values:
        entry: dict[str, Any] = {
            "componentType": 5126,
            "count": len(points),
            "type": {2: "VEC2", 3: "VEC3", 4: "VEC4"}[values[name].shape[1]],
        }
        if name == "POSITION":
            entry["min"], entry["max"] = points.min(0).tolist(), points.max(0).tolist()
        document.accessors.append(entry)
        attributes[name] = len(document.accessors) - 1
    count = int(np.asarray(decoded.faces).size)
    document.accessors.append({"componentType": 5125, "count": count, "type": "SCALAR"})
    return {
        "attributes": attributes,
        "indices": len(document.accessors) - 1,
        "extensions": {
            "KHR_draco_mesh_compression": {"bufferView": document.view(bytes(data)), "attributes": ids}
        },
    }


def _floats(values: np.ndarray | None) -> np.ndarray | None:
    # DracoPy takes nothing but doubles here; Draco itself stores single precision.
    return None if values is None else np.ascontiguousarray(values, np.float64)
