"""glTF 2.0 as one binary file (section 4 of the specification), or as JSON with a .bin and pictures
beside."""

from __future__ import annotations

import json
import struct
from typing import Any

from recon.asset import Asset
from recon.export.gltf import GltfOptions, document_of
from recon.export.meshopt import EXTENSION as MESHOPT
from recon.package import Package, package_of


def glb_bytes(asset: Asset | Package, options: GltfOptions | None = None) -> bytes:
    """A GLB file: metres, +Y up, the pivot at the origin."""
    document, root = document_of(package_of(asset), options or GltfOptions())
    document.binary += b"\0" * (-len(document.binary) % 4)
    root["buffers"] = document.buffers(len(document.binary))
    text = _json(root)
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(document.binary)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(document.binary), b"BIN\0"),
            bytes(document.binary),
        ]
    )


def gltf_files(asset: Asset | Package, stem: str, options: GltfOptions | None = None) -> dict[str, bytes]:
    """`stem.gltf`, `stem.bin` and one picture a texture, by name."""
    document, root = document_of(package_of(asset), options or GltfOptions())
    pictures: dict[str, bytes] = {}
    kept: list[dict[str, Any]] = []
    binary = bytearray()
    new_index: dict[int, int] = {}
    of_image = {image["bufferView"]: image for image in document.images}
    for index, view in enumerate(document.views):
        place = view.get("extensions", {}).get(MESHOPT, view)
        data = bytes(document.binary[place["byteOffset"] : place["byteOffset"] + place["byteLength"]])
        if index in of_image:
            image = of_image[index]
            suffix = image["mimeType"].split("/")[1]
            name = f"{stem}_{len(pictures):02d}_{image['name'].rsplit('_', 1)[-1]}.{suffix}"
            pictures[name] = data
            image.pop("bufferView")
            image.pop("mimeType")
            image["uri"] = name
            continue
        binary += b"\0" * (-len(binary) % 4)
        new_index[index] = len(kept)
        place["byteOffset"] = len(binary)
        kept.append(view)
        binary += data
    for accessor in document.accessors:
        if "bufferView" in accessor:
            accessor["bufferView"] = new_index[accessor["bufferView"]]
    for mesh in document.meshes:
        for primitive in mesh["primitives"]:
            draco = primitive.get("extensions", {}).get("KHR_draco_mesh_compression")
            if draco is not None:
                draco["bufferView"] = new_index[draco["bufferView"]]
    root["bufferViews"] = kept
    root["buffers"] = document.buffers(len(binary), f"{stem}.bin")
    return {f"{stem}.gltf": _json(root), f"{stem}.bin": bytes(binary), **pictures}


def _json(root: dict[str, Any]) -> bytes:
    return json.dumps(root, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
