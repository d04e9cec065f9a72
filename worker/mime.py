"""Media types of the files that jobs make and are given."""

from __future__ import annotations

TYPES = {
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "obj": "model/obj",
    "mtl": "model/mtl",
    "stl": "model/stl",
    "3mf": "model/3mf",
    "usdz": "model/vnd.usdz+zip",
    "fbx": "application/octet-stream",
    "ply": "application/octet-stream",
    "zip": "application/zip",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "hdr": "image/vnd.radiance",
    "mp4": "video/mp4",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "c2pa": "application/c2pa",
}


def mime_of(name: str) -> str:
    """By the file's suffix; bytes when it is unknown."""
    return TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
