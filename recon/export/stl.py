"""Binary STL for 3D printing: triangles in millimetres and +Z up, as slicers read it."""

from __future__ import annotations

import struct

import numpy as np

from recon.asset import Asset
from recon.package import Package, package_of
from recon.topology import face_vectors

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl_bytes(asset: Asset | Package) -> bytes:
    """The triangles of all parts. STL has no units; slicers take the numbers as millimetres."""
    corners = np.concatenate(
        [printed(part.mesh.vertices)[part.mesh.faces] for part in package_of(asset).parts]
    )
    count = len(corners)
    faces = np.arange(3 * count).reshape(-1, 3)
    normals = face_vectors(corners.reshape(-1, 3), faces)
    records = np.zeros(count, _RECORD)
    records["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    records["corners"] = corners
    return b"Maquette".ljust(80, b"\0") + struct.pack("<I", count) + records.tobytes()


def printed(vertices: np.ndarray) -> np.ndarray:
    """Metres, +Y up to millimetres, +Z up."""
    x, y, z = (vertices.astype(np.float64) * 1000.0).T
    return np.stack([x, -z, y], 1).astype(np.float32)
