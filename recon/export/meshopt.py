"""Buffer views of a glTF file compressed with meshoptimizer (EXT_meshopt_compression).

The package meshopt (extra `meshopt`, MIT) carries its encoder. Values stay 32-bit floats whose last bits are
gone (the filter EXPONENTIAL): positions, UVs and colours keep 15 bits of the largest of a column, normals and
tangents 11; vertices are reordered. Viewers need a decoder: three.js, Babylon.js, model-viewer and Unity's
glTFast have one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt

from recon.needs import require

EXTENSION = "EXT_meshopt_compression"
_BITS = {"NORMAL": 12, "TANGENT": 12}
_OTHER_BITS = 16
"""Of the mantissas, with their sign."""


class Packed(NamedTuple):
    """A compressed buffer view."""

    data: bytes
    entry: dict[str, Any]
    """The extension's object, without where the bytes lie."""


def reordered(
    values: dict[str, np.ndarray], faces: Int[np.ndarray, "F 3"]
) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "F 3"]]:
    """The same triangles in an order that packs well, vertices as they are first used."""
    order, place, used = _library().reorder_mesh(
        np.ascontiguousarray(faces, np.uint32).reshape(-1), True, True
    )
    kept = place < used
    moved = {}
    for name, of_vertices in values.items():
        moved[name] = np.empty((used, *of_vertices.shape[1:]), of_vertices.dtype)
        moved[name][place[kept]] = of_vertices[kept]
    return moved, np.asarray(order, np.int32).reshape(-1, 3)


def packed_attribute(name: str, values: Float[np.ndarray, "V k"]) -> tuple[Packed, Float[np.ndarray, "V k"]]:
    """An attribute, and the values that a decoder will find."""
    library = _library()
    stride = 4 * values.shape[1]
    rows = library.encode_filter_exp(
        np.asarray(values, np.float32), _BITS.get(name, _OTHER_BITS), "SharedComponent"
    )
    data = library.encode_gltf_buffer(rows, "ATTRIBUTES")
    found = library.decode_gltf_buffer(data, len(values), stride, "ATTRIBUTES", "EXPONENTIAL")
    entry = {"byteStride": stride, "count": len(values), "mode": "ATTRIBUTES", "filter": "EXPONENTIAL"}
    return Packed(data, entry), found.view("<f4").reshape(values.shape)


def packed_indices(flat: UInt[np.ndarray, " n"]) -> Packed:
    """Corners of triangles, of 2 or 4 bytes each."""
    data = _library().encode_gltf_buffer(flat, "TRIANGLES")
    return Packed(data, {"byteStride": flat.itemsize, "count": len(flat), "mode": "TRIANGLES"})


def _library() -> Any:
    require("meshopt")
    import meshopt

    return meshopt
