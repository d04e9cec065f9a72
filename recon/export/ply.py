"""Binary PLY mesh with normals, UVs and vertex colours taken from the base colour map. Metres, +Y up."""

from __future__ import annotations

import numpy as np

from recon.asset import Asset
from recon.export import images


def ply_bytes(asset: Asset) -> bytes:
    """The asset's mesh; `s t` have their origin bottom-left."""
    mesh = asset.in_metres()
    columns: list[tuple[str, str, np.ndarray]] = [
        (n, "<f4", mesh.vertices[:, i]) for i, n in enumerate("xyz")
    ]
    if mesh.normals is not None:
        columns += [(n, "<f4", mesh.normals[:, i]) for i, n in enumerate(("nx", "ny", "nz"))]
    if mesh.uvs is not None:
        columns += [(n, "<f4", mesh.uvs[:, i]) for i, n in enumerate("st")]
        height, width = asset.material.base_color_srgb.shape[:2]
        column = np.clip((mesh.uvs[:, 0] * width).astype(int), 0, width - 1)
        row = np.clip(((1 - mesh.uvs[:, 1]) * height).astype(int), 0, height - 1)
        color = images.to_bytes(asset.material.base_color_srgb[row, column])
        columns += [(n, "u1", color[:, i]) for i, n in enumerate(("red", "green", "blue"))]
    vertices = np.zeros(len(mesh.vertices), np.dtype([(name, kind) for name, kind, _ in columns]))
    for name, _, values in columns:
        vertices[name] = values
    faces = np.zeros(len(mesh.faces), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, mesh.faces
    header = ["ply", "format binary_little_endian 1.0", "comment Maquette, metres, +Y up"]
    header += [f"element vertex {len(vertices)}"]
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind, _ in columns]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()
