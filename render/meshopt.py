"""Buffer views that EXT_meshopt_compression holds: bytes -> bytes, from a stranger.

The package meshopt (extra `meshopt`) carries meshoptimizer's decoder, which checks its input. How much a view
unpacks to stands in the file's JSON and is held to what is read before anything is allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from render.errors import InputError

if TYPE_CHECKING:
    from render.gltf_file import GltfFile

EXTENSIONS = ("EXT_meshopt_compression", "KHR_meshopt_compression")
"""The second is the same with a later version of the codec, which the same decoder reads."""
_MODES = ("ATTRIBUTES", "TRIANGLES", "INDICES")
_FILTERS = ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR")


def unpacked(file: GltfFile, extension: dict[str, Any], here: str) -> bytes:
    """What a compressed buffer view holds. `InputError` when it is broken, too large, or the package meshopt
    is not installed."""
    data = file.buffer(extension.get("buffer"), here)
    offset, length = (
        file.integer(extension, "byteOffset", here, 0),
        file.integer(extension, "byteLength", here),
    )
    stride, count = file.integer(extension, "byteStride", here), file.count(extension, here)
    mode, kind = extension.get("mode"), extension.get("filter", "NONE")
    if offset + length > len(data):
        file.fail(here, f"ends at byte {offset + length}, outside its buffer of {len(data)} bytes")
    if mode not in _MODES or kind not in _FILTERS:
        file.fail(here, "names a mode or filter that meshopt compression does not have")
    if stride > 256:
        file.fail(here, f"has a stride of {stride}, more than the 256 of meshopt compression")
    file.spend(count * -(-stride // 4), here)
    try:
        import meshopt
    except ImportError:
        raise InputError(
            f"{file.name}: {here} is compressed with meshopt, which needs the package of that name; install "
            "it with: pip install 'maquette[meshopt]', or export the asset without compression."
        ) from None
    if count == 0:
        return b""
    try:
        found = meshopt.decode_gltf_buffer(data[offset : offset + length], count, stride, mode, kind)
    except Exception:
        # The binding raises ValueError, RuntimeError and more.
        file.fail(here, "has a meshopt stream that cannot be decoded")
    return np.ascontiguousarray(found).tobytes()
