"""Binary PLY mesh with normals, UVs and vertex colours taken from the base colour map. Metres, +Y up."""

from __future__ import annotations

import numpy as np

from recon.asset import Asset
from recon.export import images
from recon.package import Package, package_of
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.scene import Part


def ply_bytes(asset: Asset | Package) -> bytes:
    """All parts as one mesh; `s t` have their origin bottom-left. What one part lacks, all leave out."""
    parts = [part for part in package_of(asset).parts if len(part.mesh.faces)]
    kinds = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    smooth = all(part.mesh.normals is not None for part in parts)
    textured = all(part.mesh.uvs is not None for part in parts)
    if smooth:
        kinds += [("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
    if textured:
        kinds += [("s", "<f4"), ("t", "<f4")]
    kinds += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    tables, faces, first = [], [], 0
    for part in parts:
        mesh = part.mesh
        table = np.zeros(len(mesh.vertices), np.dtype(kinds))
        for i, name in enumerate("xyz"):
            table[name] = mesh.vertices[:, i]
        if smooth and mesh.normals is not None:
            for i, name in enumerate(("nx", "ny", "nz")):
                table[name] = mesh.normals[:, i]
        if textured and mesh.uvs is not None:
            for i, name in enumerate("st"):
                table[name] = mesh.uvs[:, i]
        color = images.to_bytes(_vertex_colors(part))
        for i, name in enumerate(("red", "green", "blue")):
            table[name] = color[:, i]
        tables.append(table)
        faces.append(mesh.faces + first)
        first += len(mesh.vertices)
    vertices, corners = np.concatenate(tables), np.concatenate(faces)
    records = np.zeros(len(corners), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    records["count"], records["corners"] = 3, corners
    header = ["ply", "format binary_little_endian 1.0", "comment Maquette, metres, +Y up"]
    header += [f"element vertex {len(vertices)}"]
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in kinds]
    header += [f"element face {len(records)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + records.tobytes()


def _vertex_colors(part: Part) -> np.ndarray:
    """sRGB: the base colour map at every vertex, times the vertex's own colour."""
    mesh, texture = part.mesh, part.material.base_color_srgb
    height, width = texture.shape[:2]
    if mesh.uvs is None:
        color = np.repeat(texture.reshape(-1, 3).mean(0, keepdims=True), len(mesh.vertices), 0)
    else:
        column = np.floor(mesh.uvs[:, 0] * width).astype(int) % width
        row = np.floor((1 - mesh.uvs[:, 1]) * height).astype(int) % height
        color = texture[row, column]
    if mesh.colors_srgb is None:
        return color
    linear = srgb_to_linear_np(color.astype(np.float32)) * srgb_to_linear_np(mesh.colors_srgb)
    return linear_to_srgb_np(linear.astype(np.float32))
