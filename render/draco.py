"""Geometry that KHR_draco_mesh_compression holds: bytes -> attributes and triangles, from a stranger.

DracoPy (extra `draco`) carries Google's decoder. How much a stream unpacks to stands in its header (Draco
bitstream specification 2.2, sections 3 to 6), which is read first, so that a few bytes cannot ask
for gigabytes; afterwards the glTF accessors have to say the same counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.gltf_file import MAX_ELEMENTS, GltfFile

EXTENSION = "KHR_draco_mesh_compression"
_MESH, _SEQUENTIAL, _EDGEBREAKER = 1, 0, 1
_METADATA = 0x8000
_MAX_METADATA_DEPTH = 16


class DracoGeometry(NamedTuple):
    """A decoded primitive."""

    faces: NDArray[np.uint32]
    """[F, 3]."""
    attributes: dict[str, NDArray[Any]]
    """Values as stored, by glTF's names: POSITION [V, 3], ..."""


def read_draco(file: GltfFile, primitive: dict[str, Any], here: str) -> DracoGeometry:
    """The geometry of a compressed primitive. `InputError` when it is broken, too large, or DracoPy is
    not installed."""
    extension = file.mapping(file.mapping(primitive, "extensions", here), EXTENSION, here)
    ids = file.mapping(extension, "attributes", f"{here}.{EXTENSION}")
    data = file.view_bytes(extension.get("bufferView"), f"{here}.{EXTENSION}")
    try:
        import DracoPy
    except ImportError:
        raise InputError(
            f"{file.name}: {here} is compressed with Draco, which needs DracoPy; install it with: "
            "pip install 'maquette[draco]', or export the asset without compression."
        ) from None
    try:
        faces, points = _Header(data).counts()
    except (IndexError, ValueError):
        file.fail(here, "has a Draco stream without a readable header")
    if max(faces, points) > MAX_ELEMENTS:
        file.fail(here, f"unpacks to {max(faces, points)} elements, more than are read", "simplify the asset")
    file.spend(3 * faces, here)
    try:
        decoded = DracoPy.decode(data)
        triangles = np.asarray(decoded.faces, np.uint32).reshape(-1, 3)
        stored = {int(entry["unique_id"]): np.asarray(entry["data"]) for entry in decoded.attributes}
    except Exception:
        # The decoder raises classes of its own, ValueError, RuntimeError and more.
        file.fail(here, "has a Draco stream that cannot be decoded")
    out: dict[str, NDArray[Any]] = {}
    for name in ids:
        values = stored.get(file.integer(ids, name, f"{here}.{EXTENSION}.attributes"))
        if values is None or len(values) != len(stored[next(iter(stored))]):
            file.fail(f"{here}.{name}", "is not in its Draco stream")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            file.fail(f"{here}.{name}", "holds numbers that are not finite")
        out[name] = values.reshape(len(values), -1)
    count = len(next(iter(out.values()))) if out else 0
    if len(triangles) and (count == 0 or int(triangles.max()) >= count):
        file.fail(here, "has a Draco stream whose triangles name vertices that are not there")
    return DracoGeometry(triangles, out)


class _Header:
    """The counts in front of a stream; `IndexError` or `ValueError` where it is none."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def counts(self) -> tuple[int, int]:
        """Faces and points."""
        if self._bytes(5) != b"DRACO":
            raise ValueError
        major, _minor, kind, method = self._bytes(4)
        flags = int.from_bytes(self._bytes(2), "little")
        if major != 2 or kind != _MESH or method not in (_SEQUENTIAL, _EDGEBREAKER):
            raise ValueError
        if flags & _METADATA:
            for _ in range(self._varint()):
                self._varint()
                self._skip_metadata(0)
            self._skip_metadata(0)
        if method == _EDGEBREAKER:
            self._bytes(1)  # how the traversal is stored
            points = self._varint()
            return self._varint(), points
        faces = self._varint()
        return faces, self._varint()

    def _skip_metadata(self, depth: int) -> None:
        if depth > _MAX_METADATA_DEPTH:
            raise ValueError
        for _ in range(self._varint()):
            self._bytes(self._bytes(1)[0])
            self._bytes(self._varint())
        for _ in range(self._varint()):
            self._bytes(self._bytes(1)[0])
            self._skip_metadata(depth + 1)

    def _bytes(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise IndexError
        self.at += count
        return self.data[self.at - count : self.at]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self._bytes(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError
