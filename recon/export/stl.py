"""Binary STL for 3D printing: welded triangles, millimetres and +Z up, as slicers read it."""

from __future__ import annotations

import struct

import numpy as np

from recon.asset import Asset
from recon.topology import face_vectors

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl_bytes(asset: Asset) -> bytes:
    """The asset's triangles. STL has no units; slicers take the numbers as millimetres."""
    mesh = asset.in_metres()
    x, y, z = (mesh.vertices.astype(np.float64) * 1000.0).T
    vertices = np.stack([x, -z, y], 1).astype(np.float32)
    normals = face_vectors(vertices, mesh.faces)
    records = np.zeros(len(mesh.faces), _RECORD)
    records["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    records["corners"] = vertices[mesh.faces]
    return b"Maquette".ljust(80, b"\0") + struct.pack("<I", len(records)) + records.tobytes()
