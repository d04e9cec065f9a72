"""The glTF reader: what it must read. What it must refuse is in `test_glb_hostile`."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
from pathlib import Path
from typing import Any

import DracoPy
import meshopt
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

    def meshopt(self, stream: bytes, **changes: Any) -> None:
        """The triangle as a meshopt stream in the place of its accessor's bytes."""
        view = self.root["bufferViews"][self.root["accessors"][0]["bufferView"]]
        packed = self.root["bufferViews"][self.view(stream)]
        where = {key: packed[key] for key in ("buffer", "byteOffset", "byteLength")}
        entry = where | {"byteStride": 12, "count": 3, "mode": "ATTRIBUTES"} | changes
        view["extensions"] = {"EXT_meshopt_compression": entry}
        view["byteLength"] = 12 * entry["count"]

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


def meshopt_stream(vertices: int = 3) -> bytes:
    return bytes(meshopt.encode_gltf_buffer(TRIANGLE[:vertices], "ATTRIBUTES"))


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


def test_meshopt_views_are_read(tmp_path: Path):
    builder = Builder()
    builder.meshopt(meshopt_stream())
    builder.root["extensionsRequired"] = ["EXT_meshopt_compression"]
    mesh = load(tmp_path, builder.bytes()).parts[0].mesh
    np.testing.assert_array_equal(mesh.vertices, TRIANGLE)


def test_gltf_with_data_uri(tmp_path: Path):
    builder = Builder()
    builder.root["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(
        builder.binary
    ).decode("ascii")
    scene = load(tmp_path, json.dumps(builder.root).encode(), "asset.gltf")
    np.testing.assert_array_equal(scene.parts[0].mesh.vertices, TRIANGLE)
