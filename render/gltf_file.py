"""The container and the numbers of a glTF 2.0 file, read as data from a stranger.

In: the path of a `.glb`, or of a `.gltf` whose buffers are data URIs. Out: a `GltfFile`, whose methods hand
out checked JSON values and accessor arrays. Nothing is believed: every length, offset, count and index is
checked against the bytes that are there before memory is allocated, no other file is opened, and what is
wrong raises `InputError` with one line. Specification: Khronos glTF 2.0, sections 3.6 and 4.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.meshopt import EXTENSIONS as MESHOPT
from render.meshopt import unpacked

MAX_FILE_BYTES = 1 << 30
MAX_JSON_BYTES = 64 << 20
MAX_ELEMENTS = 20_000_000
"""Of one accessor: 240 MB of positions."""
MAX_NUMBERS = 150_000_000
"""Of all accessors together: 600 MB, ten million triangles with all attributes."""

_GLB_MAGIC = b"glTF"
_CHUNK_JSON, _CHUNK_BIN = 0x4E4F534A, 0x004E4942
_COMPONENTS: dict[int, type[np.generic]] = {
    5120: np.int8,
    5121: np.uint8,
    5122: np.int16,
    5123: np.uint16,
    5125: np.uint32,
    5126: np.float32,
}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MAX_JSON_VALUES = 4_000_000
"""Every value costs some hundred bytes of memory; real assets have thousands."""


@dataclass
class GltfFile:
    """A parsed file. Indices given to its methods may be any JSON value; they are checked."""

    name: str
    root: dict[str, Any]
    binary: bytes
    _buffers: dict[int, bytes]
    _numbers: int = 0
    """Read from accessors so far; the same accessor may be named often."""
    _unpacked: dict[int, bytes] = field(default_factory=dict)
    """Buffer views that were compressed."""

    def fail(self, where: str, what: str, advice: str = "export the asset again") -> NoReturn:
        raise InputError(f"{self.name}: {where} {what}; {advice}.")

    def items(self, key: str) -> list[Any]:
        """A top-level array, empty when absent."""
        value = self.root.get(key, [])
        if not isinstance(value, list):
            self.fail(f"{key}", "is not an array")
        return value

    def item(self, key: str, index: object, where: str) -> dict[str, Any]:
        """The object at an index of a top-level array."""
        array = self.items(key)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(array):
            self.fail(where, f"refers to {key}[{_short(index)}], but there are {len(array)}")
        value = array[index]
        if not isinstance(value, dict):
            self.fail(f"{key}[{index}]", "is not an object")
        return value

    def integer(self, owner: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
        """A non-negative integer property."""
        value = owner.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(f"{where}.{key}", f"is {_short(value)}, not a whole number from 0")
        return value

    def number(self, owner: dict[str, Any], key: str, where: str, default: float) -> float:
        value = owner.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e30:
            self.fail(f"{where}.{key}", f"is {_short(value)}, not a number")
        return float(value)

    def vector(
        self, owner: dict[str, Any], key: str, where: str, default: tuple[float, ...]
    ) -> NDArray[np.float64]:
        """An array of as many finite numbers as `default` has."""
        value = owner.get(key, list(default))
        if (
            not isinstance(value, list)
            or len(value) != len(default)
            or not all(
                isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e30 for v in value
            )
        ):
            self.fail(f"{where}.{key}", f"is {_short(value)}, not {len(default)} numbers")
        return np.array(value, np.float64)

    def mapping(self, owner: dict[str, Any], key: str, where: str) -> dict[str, Any]:
        """An object property, empty when absent."""
        value = owner.get(key, {})
        if not isinstance(value, dict):
            self.fail(f"{where}.{key}", "is not an object")
        return value

    def buffer(self, index: object, where: str) -> bytes:
        entry = self.item("buffers", index, where)
        assert isinstance(index, int)
        if index in self._buffers:
            return self._buffers[index]
        here = f"buffers[{index}]"
        length = self.integer(entry, "byteLength", here)
        data = self.binary if entry.get("uri") is None else self.data_uri(entry["uri"], here)
        if entry.get("uri") is None and index != 0:
            self.fail(here, "has no data")
        if length > len(data):
            self.fail(here, f"should hold {length} bytes, but only {len(data)} are there")
        self._buffers[index] = data[:length]
        return self._buffers[index]

    def data_uri(self, uri: object, where: str) -> bytes:
        """The bytes of a data URI; other URIs are refused, whatever they point at."""
        if not isinstance(uri, str) or not uri.startswith("data:"):
            self.fail(
                where,
                f"points outside the file ({_short(uri)}), which is not followed",
                "export it as one .glb with everything embedded",
            )
        head, comma, body = uri.partition(",")
        if not comma or not head.endswith(";base64"):
            self.fail(where, "has a data URI that is not base64")
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            self.fail(where, "has a data URI with broken base64")

    def view(self, index: object, where: str) -> tuple[bytes, int, int, int]:
        """Buffer, first byte, length and stride (0: tightly packed) of a buffer view."""
        entry = self.item("bufferViews", index, where)
        here = f"bufferViews[{index}]"
        extensions = self.mapping(entry, "extensions", here)
        length = self.integer(entry, "byteLength", here)
        stride = self.integer(entry, "byteStride", here, 0)
        packed = next((name for name in MESHOPT if name in extensions), None)
        if packed is None:
            data = self.buffer(entry.get("buffer"), here)
            offset = self.integer(entry, "byteOffset", here, 0)
        else:
            assert isinstance(index, int)
            if index not in self._unpacked:
                extension = self.mapping(extensions, packed, here)
                self._unpacked[index] = unpacked(self, extension, f"{here}.{packed}")
            data, offset = self._unpacked[index], 0
        if offset + length > len(data):
            self.fail(here, f"ends at byte {offset + length}, outside its buffer of {len(data)} bytes")
        if stride > 252:
            self.fail(f"{here}.byteStride", f"is {stride}, more than the 252 that glTF allows")
        return data, offset, length, stride

    def view_bytes(self, index: object, where: str) -> bytes:
        data, offset, length, _ = self.view(index, where)
        return data[offset : offset + length]

    def accessor(
        self, index: object, where: str, kinds: tuple[str, ...], decoded: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The numbers of an accessor as [count, width]; normalised integers as float32.

        Strided and sparse accessors are read; `kinds` are the types that make sense here. `decoded` takes the
        place of a buffer view: values of a compressed primitive, held to what the accessor says of them.
        """
        entry = self.item("accessors", index, where)
        here = f"accessors[{index}]"
        kind = entry.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            self.fail(here, f"has type {_short(kind)} where {where} needs {' or '.join(kinds)}")
        dtype = self._component(entry, here)
        count = self.count(entry, here)
        width = _WIDTHS[kind]
        self.spend(count * width, here)
        if decoded is not None:
            if decoded.shape != (count, width):
                shape = " x ".join(str(side) for side in decoded.shape)
                self.fail(here, f"is said to have {count} x {width} numbers, but its stream has {shape}")
            values = decoded
        elif entry.get("bufferView") is None:
            if "sparse" not in entry:
                self.fail(here, "has no bufferView", "export the asset without mesh compression")
            values = np.zeros((count, width), dtype)
        else:
            offset = self.integer(entry, "byteOffset", here, 0)
            values = self._strided(entry["bufferView"], offset, count, width, dtype, here)
        if "sparse" in entry:
            values = self._with_sparse(values.copy(), self.mapping(entry, "sparse", here), f"{here}.sparse")
        if entry.get("normalized") is True and values.dtype.kind in "iu":
            # glTF 2.0, section 3.11: signed values map to [-1, 1] with max(c / max, -1).
            limit = np.float32(np.iinfo(values.dtype).max)
            values = np.maximum(values.astype(np.float32) / limit, np.float32(-1.0))
        if values.dtype == np.float32 and not np.isfinite(values).all():
            self.fail(here, "holds numbers that are not finite")
        return values

    def count(self, owner: dict[str, Any], here: str) -> int:
        """Of an accessor's elements, held to what is read."""
        count = self.integer(owner, "count", here)
        if count > MAX_ELEMENTS:
            self.fail(
                here,
                f"has {_short(count)} elements, more than the {MAX_ELEMENTS} that are read",
                "simplify the asset",
            )
        return count

    def check_span(self, entry: dict[str, Any], here: str) -> None:
        """An accessor's elements lie within its buffer view; nothing is read. Types not known here pass."""
        width = _WIDTHS.get(str(entry.get("type")))
        if width is not None:
            offset = self.integer(entry, "byteOffset", here, 0)
            size = np.dtype(self._component(entry, here)).itemsize * width
            self._span(entry["bufferView"], offset, self.count(entry, here), size, here)

    def _span(self, view: object, offset: int, count: int, size: int, here: str) -> tuple[bytes, int, int]:
        """Buffer, first byte and stride of `count` elements of `size` bytes."""
        data, start, length, stride = self.view(view, here)
        stride = stride or size
        if stride < size:
            self.fail(here, f"has elements of {size} bytes in a stride of {stride}")
        needed = offset + (stride * (count - 1) + size if count else 0)
        if needed > length:
            self.fail(here, f"needs {needed} bytes, but its buffer view has {length}")
        return data, start, stride

    def spend(self, numbers: int, here: str) -> None:
        """Counts numbers that are about to be read against the limit of the whole file."""
        self._numbers += numbers
        if self._numbers > MAX_NUMBERS:
            self.fail(here, f"brings all geometry over {MAX_NUMBERS} numbers", "simplify the asset")

    def _component(self, entry: dict[str, Any], here: str) -> type[np.generic]:
        component = entry.get("componentType")
        if not isinstance(component, int) or component not in _COMPONENTS:
            self.fail(f"{here}.componentType", f"is {_short(component)}, which glTF does not know")
        return _COMPONENTS[component]

    def _strided(
        self, view: object, offset: int, count: int, width: int, dtype: type[np.generic], here: str
    ) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize * width
        data, start, stride = self._span(view, offset, count, size, here)
        if count == 0:
            return np.zeros((0, width), dtype)
        raw = np.ndarray(
            (count, width),
            np.dtype(dtype).newbyteorder("<"),
            data,
            start + offset,
            (stride, np.dtype(dtype).itemsize),
        )
        return np.ascontiguousarray(raw, dtype)

    def _with_sparse(self, values: NDArray[Any], sparse: dict[str, Any], here: str) -> NDArray[Any]:
        count = self.integer(sparse, "count", here)
        if count > len(values):
            self.fail(here, f"replaces {count} elements of {len(values)}")
        indices, replacements = self.mapping(sparse, "indices", here), self.mapping(sparse, "values", here)
        index_type = self._component(indices, f"{here}.indices")
        if index_type not in (np.uint8, np.uint16, np.uint32):
            self.fail(f"{here}.indices", "are not unsigned integers")
        at = self._strided(
            indices.get("bufferView"),
            self.integer(indices, "byteOffset", here, 0),
            count,
            1,
            index_type,
            f"{here}.indices",
        )[:, 0]
        if count and int(at.max()) >= len(values):
            self.fail(here, f"replaces element {int(at.max())} of {len(values)}")
        values[at] = self._strided(
            replacements.get("bufferView"),
            self.integer(replacements, "byteOffset", here, 0),
            count,
            values.shape[1],
            values.dtype.type,
            f"{here}.values",
        )
        return values


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _parse_json(name: str, data: bytes) -> dict[str, Any]:
    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is not JSON")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text} is out of range")
        return value

    if len(data) > MAX_JSON_BYTES:
        raise InputError(
            f"{name}: its JSON has {len(data)} bytes, more than the {MAX_JSON_BYTES} that are read."
        )
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > _MAX_JSON_VALUES:
        raise InputError(f"{name}: its JSON has over {_MAX_JSON_VALUES} values; simplify the asset.")
    try:
        root = json.loads(data.decode("utf-8-sig"), parse_constant=constant, parse_float=finite)
    except (ValueError, RecursionError):  # the parser's own limit stops what nests too deep
        raise InputError(f"{name}: its JSON part is broken; export the asset again.") from None
    if not isinstance(root, dict):
        raise InputError(f"{name}: its JSON part is not an object; export the asset again.")
    return root


def _split_glb(name: str, data: bytes) -> tuple[bytes, bytes]:
    """The JSON and the binary chunk."""
    if len(data) < 20:
        raise InputError(f"{name}: has only {len(data)} bytes, too few for a GLB; copy or export it again.")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise InputError(
            f"{name}: is a GLB of version {version}; only version 2 is read. Export it as glTF 2.0."
        )
    if length > len(data):
        raise InputError(
            f"{name}: is truncated: it should have {length} bytes but has {len(data)}; copy it again."
        )
    found: dict[int, bytes] = {}
    at = 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<II", data, at)
        if at + 8 + size > length:
            raise InputError(f"{name}: a chunk at byte {at} ends outside the file; copy or export it again.")
        if kind not in found and kind in (_CHUNK_JSON, _CHUNK_BIN):
            found[kind] = data[at + 8 : at + 8 + size]
        at += 8 + size + (-size) % 4
    if _CHUNK_JSON not in found:
        raise InputError(f"{name}: is a GLB without a JSON chunk; export the asset again.")
    return found[_CHUNK_JSON], found.get(_CHUNK_BIN, b"")


def read_gltf(path: Path) -> GltfFile:
    """Read the container. Raises `InputError` for all that is not a readable glTF 2.0 file."""
    name = path.name
    try:
        if not path.is_file():
            raise InputError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}.")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{name}: has {size} bytes, more than the {MAX_FILE_BYTES} that are read.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if not data:
        raise InputError(f"{name}: is empty; copy or export it again.")
    if data[:4] == _GLB_MAGIC:
        json_part, binary = _split_glb(name, data)
    elif data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        json_part, binary = data, b""
    else:
        raise InputError(f"{name}: is not a GLB or glTF file; convert it to .glb first.")
    root = _parse_json(name, json_part)
    asset = root.get("asset")
    version = asset.get("version") if isinstance(asset, dict) else None
    if not isinstance(version, str) or not version.startswith("2."):
        raise InputError(
            f"{name}: does not say that it is glTF 2.0 (asset.version is {_short(version)}); export it again."
        )
    return GltfFile(name, root, binary, {})
