"""The glTF reader: what it must read, and what it must refuse with one clear line, quickly."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import DracoPy
import numpy as np
import pytest
import trimesh
from PIL import Image

from render.conventions import linear_to_srgb_np
from render.errors import InputError
from render.glb import load_scene

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)


class Builder:
    """A GLB put together by hand, so that every field can be wrong."""

    def __init__(self) -> None:
        self.binary = b""
        self.root: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {}}]}],
            "accessors": [],
            "bufferViews": [],
            "buffers": [{"byteLength": 0}],
        }
        self.attribute("POSITION", TRIANGLE, "VEC3", 5126)

    @property
    def primitive(self) -> dict[str, Any]:
        return self.root["meshes"][0]["primitives"][0]

    def view(self, data: bytes, **extra: int) -> int:
        self.root["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **extra}
        )
        self.binary += data + b"\0" * (-len(data) % 4)
        self.root["buffers"][0]["byteLength"] = len(self.binary)
        return len(self.root["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, kind: str, component: int, **extra: Any) -> int:
        entry = {"bufferView": self.view(values.tobytes()), "componentType": component, "type": kind}
        self.root["accessors"].append({**entry, "count": len(values), **extra})
        return len(self.root["accessors"]) - 1

    def attribute(self, name: str, values: np.ndarray, kind: str, component: int, **extra: Any) -> None:
        self.primitive["attributes"][name] = self.accessor(values, kind, component, **extra)

    def texture(self, data: bytes, mime: str = "image/png") -> int:
        self.root.setdefault("images", []).append({"bufferView": self.view(data), "mimeType": mime})
        self.root.setdefault("textures", []).append({"source": len(self.root["images"]) - 1})
        return len(self.root["textures"]) - 1

    def material(self, **material: Any) -> None:
        self.root["materials"] = [material]
        self.primitive["material"] = 0

    def draco(self, stream: bytes, count: int = 3, unique_id: int = 0) -> None:
        """The triangle as a Draco stream in the place of its accessor's bytes."""
        accessor = self.root["accessors"][self.primitive["attributes"]["POSITION"]]
        del accessor["bufferView"]
        accessor["count"] = count
        self.primitive["extensions"] = {
            "KHR_draco_mesh_compression": {
                "bufferView": self.view(stream),
                "attributes": {"POSITION": unique_id},
            }
        }

    def bytes(self, json_part: bytes | None = None) -> bytes:
        text = json.dumps(self.root).encode() if json_part is None else json_part
        text += b" " * (-len(text) % 4)
        body = struct.pack("<II", len(text), 0x4E4F534A) + text
        body += struct.pack("<II", len(self.binary), 0x004E4942) + self.binary
        return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def draco_stream() -> bytes:
    return bytes(DracoPy.encode(TRIANGLE, np.array([[0, 1, 2]], np.uint32), quantization_bits=14))


def load(tmp_path: Path, data: bytes, name: str = "asset.glb"):
    path = tmp_path / name
    path.write_bytes(data)
    return load_scene(path)


def refusal(tmp_path: Path, data: bytes, name: str = "asset.glb") -> str:
    """The message; also checks that it is one line that names the file, and came at once."""
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        load(tmp_path, data, name)
    assert time.process_time() - start < 10  # seconds, on a busy machine
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    assert len(message) < 300
    return message


def test_trimesh_export_comes_back(tmp_path: Path):
    box = trimesh.creation.box((1, 2, 3))
    scene = trimesh.Scene()
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    path = tmp_path / "box.glb"
    scene.export(path)
    mesh = load_scene(path).parts[0].mesh
    np.testing.assert_allclose(mesh.vertices.min(0), [4.5, -1, -1.5], atol=1e-6)
    np.testing.assert_allclose(mesh.vertices.max(0), [5.5, 1, 1.5], atol=1e-6)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).volume == pytest.approx(6, rel=1e-5)


def test_node_transforms_compose_and_mirrors_keep_faces_outward(tmp_path: Path):
    builder = Builder()
    builder.attribute("NORMAL", np.tile(np.array([[0, 0, 1]], np.float32), (3, 1)), "VEC3", 5126)
    half = float(np.sqrt(0.5))
    builder.root["nodes"] = [
        {"children": [1], "rotation": [0, half, 0, half], "translation": [1, 0, 0]},  # +Z turns to +X
        {"mesh": 0, "scale": [-2, 1, 1]},
    ]
    mesh = load(tmp_path, builder.bytes()).parts[0].mesh
    # Scaled to x = -2, turned about +Y by 90 degrees (x -> -z), moved by 1 along x.
    np.testing.assert_allclose(mesh.vertices, [[1, 0, 0], [1, 0, 2], [1, 1, 0]], atol=1e-6)
    a, b, c = mesh.vertices[mesh.faces[0]]
    np.testing.assert_allclose(np.cross(b - a, c - a), [2, 0, 0], atol=1e-6)
    assert mesh.normals is not None
    np.testing.assert_allclose(mesh.normals, np.tile([[1, 0, 0]], (3, 1)), atol=1e-6)


def test_uvs_turn_to_bottom_left_and_missing_normals_stay_missing(tmp_path: Path):
    builder = Builder()
    builder.attribute("TEXCOORD_0", np.array([[0, 0], [1, 0], [0, 0.25]], np.float32), "VEC2", 5126)
    mesh = load(tmp_path, builder.bytes()).parts[0].mesh
    assert mesh.normals is None
    np.testing.assert_allclose(mesh.uvs, [[0, 1], [1, 1], [0, 0.75]])


def test_strided_normalised_and_sparse_accessors(tmp_path: Path):
    builder = Builder()
    interleaved = np.zeros((3, 20), np.uint8)
    interleaved[:, :12] = (TRIANGLE * 2).view(np.uint8).reshape(3, 12)
    interleaved[:, 12:16] = np.array([[0, 65535], [65535, 0], [32768, 32768]], np.uint16).view(np.uint8)
    view = builder.view(interleaved.tobytes(), byteStride=20)
    builder.root["accessors"] += [
        {"bufferView": view, "componentType": 5126, "type": "VEC3", "count": 3},
        {
            "bufferView": view,
            "byteOffset": 12,
            "componentType": 5123,
            "type": "VEC2",
            "count": 3,
            "normalized": True,
        },
    ]
    builder.primitive["attributes"] = {"POSITION": 1, "TEXCOORD_0": 2}
    index = builder.view(np.array([2], np.uint8).tobytes())
    value = builder.view(np.array([[0, 9, 0]], np.float32).tobytes())
    builder.root["accessors"][1]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": index, "componentType": 5121},
        "values": {"bufferView": value},
    }
    mesh = load(tmp_path, builder.bytes()).parts[0].mesh
    np.testing.assert_allclose(mesh.vertices, [[0, 0, 0], [2, 0, 0], [0, 9, 0]])
    np.testing.assert_allclose(mesh.uvs, [[0, 0], [1, 1], [0.5, 0.5]], atol=1e-5)


@pytest.mark.parametrize(("mode", "count"), [(4, 1), (5, 2), (6, 2)])
def test_strips_and_fans(tmp_path: Path, mode: int, count: int):
    builder = Builder()
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    order = [0, 1, 3, 2] if mode == 6 else [0, 1, 2, 3]
    builder.attribute("POSITION", square, "VEC3", 5126)
    builder.primitive["indices"] = builder.accessor(np.array(order, np.uint16), "SCALAR", 5123)
    builder.primitive["mode"] = mode
    mesh = load(tmp_path, builder.bytes()).parts[0].mesh
    assert len(mesh.faces) == count
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    assert (np.cross(b - a, c - a)[:, 2] == 1).all()


def test_material_channels_factors_and_colour_spaces(tmp_path: Path):
    builder = Builder()
    builder.attribute("TEXCOORD_0", np.zeros((3, 2), np.float32), "VEC2", 5126)
    builder.attribute("COLOR_0", np.full((3, 3), 0.25, np.float32), "VEC3", 5126)
    base = builder.texture(png(np.full((2, 2, 4), (255, 128, 0, 77), np.uint8)))
    packed = builder.texture(png(np.full((2, 2, 3), (200, 51, 102), np.uint8)))
    builder.material(
        name="paint",
        pbrMetallicRoughness={
            "baseColorTexture": {"index": base},
            "baseColorFactor": [0.5, 1, 1, 1],
            "metallicRoughnessTexture": {"index": packed},
            "metallicFactor": 0.5,
        },
        occlusionTexture={"index": packed, "strength": 0.5},
        emissiveFactor=[0, 0, 1],
        alphaMode="MASK",
        alphaCutoff=0.25,
    )
    part = load(tmp_path, builder.bytes()).parts[0]
    material = part.material
    assert material.name == "paint"
    half, quarter = linear_to_srgb_np(np.array([0.5, 0.25], np.float32))
    np.testing.assert_allclose(material.base_color_srgb[0, 0], [half, 128 / 255, 0], atol=1e-6)
    assert material.roughness[0, 0] == pytest.approx(51 / 255)
    assert material.metallic[0, 0] == pytest.approx(102 / 255 / 2)
    assert material.occlusion is not None
    assert material.occlusion[0, 0] == pytest.approx(1 - 0.5 * (1 - 200 / 255))
    np.testing.assert_allclose(material.emissive_srgb, [[[0, 0, 1]]], atol=1e-6)
    assert material.opacity is not None
    assert material.opacity[0, 0] == pytest.approx(77 / 255 + 0.25)  # above the cut, as 77 / 255 > 0.25
    np.testing.assert_allclose(part.mesh.colors_srgb, np.full((3, 3), quarter), rtol=1e-5)


def test_specular_glossiness_and_unlit_fall_back(tmp_path: Path):
    builder = Builder()
    builder.material(
        extensions={
            "KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [1, 0, 0, 1], "glossinessFactor": 0.7}
        }
    )
    material = load(tmp_path, builder.bytes()).parts[0].material
    np.testing.assert_allclose(material.base_color_srgb, [[[1, 0, 0]]])
    assert (material.metallic[0, 0], material.roughness[0, 0]) == (0, pytest.approx(0.3))
    builder.material(extensions={"KHR_materials_unlit": {}}, pbrMetallicRoughness={"metallicFactor": 1})
    material = load(tmp_path, builder.bytes()).parts[0].material
    assert (material.metallic[0, 0], material.roughness[0, 0]) == (0, 1)


def test_texture_transform_moves_the_uvs(tmp_path: Path):
    builder = Builder()
    builder.attribute("TEXCOORD_0", np.array([[0, 0], [1, 0], [0, 1]], np.float32), "VEC2", 5126)
    texture = builder.texture(png(np.zeros((2, 2, 3), np.uint8)))
    transform = {"offset": [0.5, 0], "rotation": np.pi / 2, "scale": [2, 1]}
    builder.material(
        pbrMetallicRoughness={
            "baseColorTexture": {"index": texture, "extensions": {"KHR_texture_transform": transform}}
        }
    )
    mesh = load(tmp_path, builder.bytes()).parts[0].mesh
    # The extension's own matrices, in the top-left convention: T @ R @ S.
    np.testing.assert_allclose(mesh.uvs, [[0.5, 1], [0.5, 3], [1.5, 1]], atol=1e-6)


def test_gltf_with_data_uri(tmp_path: Path):
    builder = Builder()
    builder.root["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(
        builder.binary
    ).decode("ascii")
    scene = load(tmp_path, json.dumps(builder.root).encode(), "asset.gltf")
    np.testing.assert_array_equal(scene.parts[0].mesh.vertices, TRIANGLE)


def test_every_truncation_is_refused(tmp_path: Path):
    whole = Builder().bytes()
    for length in range(0, len(whole), 7):
        refusal(tmp_path, whole[:length])


def test_random_damage_never_escapes(tmp_path: Path):
    builder = Builder()
    builder.attribute("TEXCOORD_0", np.zeros((3, 2), np.float32), "VEC2", 5126)
    texture = builder.texture(png(np.zeros((4, 4, 3), np.uint8)))
    builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}})
    whole = builder.bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(400):
        damaged = bytearray(whole)
        for at in rng.integers(12, len(whole), 3):
            damaged[at] = rng.integers(0, 256)
        try:
            load(tmp_path, bytes(damaged))
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert not any("\n" in message for message in messages)


def broken(change: str) -> bytes:
    """One hostile file by name."""
    builder = Builder()
    root = builder.root
    accessor, view = root["accessors"][0], root["bufferViews"][0]
    match change:
        case "count of 2^31":
            accessor["count"] = 2**31
        case "count beyond the view":
            accessor["count"] = 4
        case "negative count":
            accessor["count"] = -1
        case "count is text":
            accessor["count"] = "3"
        case "accessor offset":
            accessor["byteOffset"] = 2**40
        case "view outside its buffer":
            view["byteLength"] = 10**9
        case "negative view offset":
            view["byteOffset"] = -4
        case "buffer longer than the file":
            root["buffers"][0]["byteLength"] = 10**12
        case "missing buffer":
            view["buffer"] = 7
        case "stride smaller than an element":
            view["byteStride"] = 4
        case "unknown component type":
            accessor["componentType"] = 5130
        case "outside file":
            root["buffers"][0]["uri"] = "../../../../etc/passwd"
        case "outside url":
            root["buffers"][0]["uri"] = "http://169.254.169.254/latest/meta-data"
        case "absolute path":
            root["buffers"][0]["uri"] = "file:///etc/passwd"
        case "image outside":
            root["images"], root["textures"] = [{"uri": "../secret.png"}], [{"source": 0}]
            builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": 0}})
        case "broken base64":
            root["buffers"][0]["uri"] = "data:application/octet-stream;base64,####"
        case "index beyond the vertices":
            builder.primitive["indices"] = builder.accessor(np.array([0, 1, 3], np.uint32), "SCALAR", 5125)
        case "sparse index beyond":
            index, value = builder.view(b"\xff"), builder.view(b"\0" * 12)
            accessor["sparse"] = {
                "count": 1,
                "indices": {"bufferView": index, "componentType": 5121},
                "values": {"bufferView": value},
            }
        case "vertices are not numbers":
            builder.attribute("POSITION", TRIANGLE * np.float32("nan"), "VEC3", 5126)
        case "vertices are infinite":
            builder.attribute("POSITION", TRIANGLE + np.float32("inf"), "VEC3", 5126)
        case "nodes in a circle":
            root["nodes"] = [{"mesh": 0, "children": [1]}, {"children": [0]}]
        case "node is its own child":
            root["nodes"] = [{"mesh": 0, "children": [0]}]
        case "missing node":
            root["scenes"][0]["nodes"] = [3]
        case "missing mesh":
            root["nodes"][0]["mesh"] = 9
        case "mesh index is true":
            root["nodes"][0]["mesh"] = True
        case "transform overflows":
            root["nodes"] = [{"children": [1], "scale": [1e29] * 3}, {"mesh": 0, "scale": [1e29] * 3}]
        case "nothing to draw":
            root["nodes"] = [{}]
        case "zeros from nothing":
            root["accessors"] = [
                {"componentType": 5126, "type": "VEC3", "count": 20_000_000, "sparse": {"count": 0}}
            ]
            index = builder.view(b"")
            where = {"bufferView": index, "componentType": 5121}
            root["accessors"][0]["sparse"] = {"count": 0, "indices": where, "values": {"bufferView": index}}
            root["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 0}, "mode": 0}] + [
                {"attributes": {"POSITION": 0}} for _ in range(100)
            ]
        case "one mesh placed many times":
            big = np.zeros((200_000, 3), np.float32)
            big[:3] = TRIANGLE
            builder.attribute("POSITION", big, "VEC3", 5126)
            builder.primitive["indices"] = builder.accessor(np.array([0, 1, 2], np.uint32), "SCALAR", 5125)
            root["nodes"] = [{"mesh": 0} for _ in range(2_000)]
            root["scenes"][0]["nodes"] = list(range(2_000))
        case "many materials of one image":
            builder.attribute("TEXCOORD_0", np.zeros((3, 2), np.float32), "VEC2", 5126)
            texture = builder.texture(png(np.zeros((2048, 2048), np.uint8)))
            root["materials"] = [
                {
                    "pbrMetallicRoughness": {
                        "baseColorTexture": {"index": texture},
                        "baseColorFactor": [f / 99, 1, 1, 1],
                    }
                }
                for f in range(100)
            ]
            attributes = builder.primitive["attributes"]
            root["meshes"][0]["primitives"] = [{"attributes": attributes, "material": m} for m in range(100)]
        case "draco without data":
            builder.primitive["extensions"] = {"KHR_draco_mesh_compression": {}}
        case "draco of garbage":
            builder.draco(b"DRACO" + bytes(60))
        case "draco cut off":
            builder.draco(draco_stream()[:-20])
        case "draco bomb":
            # 2^31 faces in a header of 20 bytes.
            builder.draco(b"DRACO" + bytes([2, 2, 1, 1, 0, 0, 0, 4]) + b"\xff\xff\xff\xff\x07" + bytes(40))
        case "draco of another count":
            builder.draco(draco_stream(), count=4)
        case "draco of another attribute":
            builder.draco(draco_stream(), unique_id=7)
        case "required extension":
            root["extensionsRequired"] = ["VENDOR_secret"]
        case "not an image":
            builder.material(
                pbrMetallicRoughness={"baseColorTexture": {"index": builder.texture(b"GIF89a....")}}
            )
        case "image is cut off":
            data = png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
            builder.material(
                pbrMetallicRoughness={"baseColorTexture": {"index": builder.texture(data[:2000])}}
            )
        case "decompression bomb":
            header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
            chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
            data = b"\x89PNG\r\n\x1a\n" + chunk
            builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": builder.texture(data)}})
        case "nodes is an object":
            root["nodes"] = {}
        case "version 1":
            root["asset"]["version"] = "1.0"
        case "deep json":
            return builder.bytes(b'{"asset":' + b"[" * 200_000 + b"]" * 200_000 + b"}")
        case "many values":
            return builder.bytes(b'{"asset":[' + b"[]," * 5_000_000 + b"0]}")
        case "huge number":
            return builder.bytes(b'{"asset":{"version":"2.0"},"scene":' + b"9" * 100_000 + b"}")
        case "nan in json":
            return builder.bytes(b'{"asset":{"version":"2.0"},"scene":NaN}')
        case "json is a list":
            return builder.bytes(b"[1]")
        case "not utf-8":
            return builder.bytes(b'{"asset":"\xff\xfe"}')
        case "text":
            return b"solid cube\nendsolid\n"
        case "zip":
            return b"PK\x03\x04" + b"\0" * 100
        case "glb of version 1":
            return b"glTF" + struct.pack("<II", 1, 20) + b"\0" * 8
        case "only a magic":
            return b"glTF"
        case "chunk outside the file":
            data = bytearray(builder.bytes())
            data[12:16] = struct.pack("<I", 0xFFFFFFF0)
            return bytes(data)
        case _:
            raise AssertionError(change)
    return builder.bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("count of 2^31", "2147483648"),
        ("count beyond the view", "needs 48 bytes"),
        ("negative count", "count"),
        ("count is text", "count"),
        ("accessor offset", "bytes"),
        ("view outside its buffer", "outside its buffer"),
        ("negative view offset", "byteOffset"),
        ("buffer longer than the file", "buffers[0]"),
        ("missing buffer", "buffers[7]"),
        ("stride smaller than an element", "stride"),
        ("unknown component type", "componentType"),
        ("outside file", "points outside"),
        ("outside url", "points outside"),
        ("absolute path", "points outside"),
        ("image outside", "points outside"),
        ("broken base64", "base64"),
        ("index beyond the vertices", "vertex 3"),
        ("sparse index beyond", "255"),
        ("vertices are not numbers", "not finite"),
        ("vertices are infinite", "not finite"),
        ("nodes in a circle", "loop"),
        ("node is its own child", "loop"),
        ("missing node", "nodes[3]"),
        ("missing mesh", "meshes[9]"),
        ("mesh index is true", "meshes[True]"),
        ("transform overflows", "farther"),
        ("nothing to draw", "no triangles"),
        ("zeros from nothing", "150000000"),
        ("one mesh placed many times", "vertices"),
        ("many materials of one image", "250000000"),
        ("draco without data", "bufferViews"),
        ("draco of garbage", "Draco stream without a readable header"),
        ("draco cut off", "cannot be decoded"),
        ("draco bomb", "simplify the asset"),
        ("draco of another count", "its stream has 3 x 3"),
        ("draco of another attribute", "is not in its Draco stream"),
        ("required extension", "VENDOR_secret"),
        ("not an image", "images[0]"),
        ("image is cut off", "images[0]"),
        ("decompression bomb", "images[0]"),
        ("nodes is an object", "nodes"),
        ("version 1", "2.0"),
        ("deep json", "JSON"),
        ("many values", "JSON"),
        ("huge number", "JSON"),
        ("nan in json", "JSON"),
        ("json is a list", "JSON"),
        ("not utf-8", "JSON"),
        ("text", "not a GLB"),
        ("zip", "not a GLB"),
        ("glb of version 1", "version 1"),
        ("only a magic", "too few"),
        ("chunk outside the file", "outside the file"),
    ],
)
def test_hostile_files_are_refused_with_one_line(tmp_path: Path, change: str, says: str):
    assert says in refusal(tmp_path, broken(change))


def test_missing_and_empty_files(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        load_scene(tmp_path / "none.glb")
    with pytest.raises(InputError, match="not a file"):
        load_scene(tmp_path)
    assert "empty" in refusal(tmp_path, b"")
