"""What the glTF reader must refuse with one clear line, quickly: cut off, damaged and hostile files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from render.errors import InputError
from render.glb import load_scene
from tests.render.test_glb import TRIANGLE, Builder, draco_stream, load, meshopt_stream, png, refusal


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


def ktx2(side: int) -> bytes:
    """A header that says so, and nothing else."""
    return b"\xabKTX 20\xbb\r\n\x1a\n" + struct.pack("<9I", 0, 1, side, side, 0, 0, 1, 1, 1) + bytes(200)


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
        case "meshopt of garbage":
            builder.meshopt(b"\xa0" + bytes(60))
        case "meshopt cut off":
            builder.meshopt(meshopt_stream()[:-8])
        case "meshopt without data":
            view["extensions"] = {"EXT_meshopt_compression": {}}
        case "meshopt outside its buffer":
            builder.meshopt(meshopt_stream(), byteLength=10**9)
        case "meshopt bomb":
            builder.meshopt(meshopt_stream(), count=2**31)
        case "meshopt of many bytes":
            builder.meshopt(meshopt_stream(), count=19_999_999, byteStride=256)
        case "meshopt of an unknown filter":
            builder.meshopt(meshopt_stream(), filter="SECRET")
        case "meshopt of fewer values":
            builder.meshopt(meshopt_stream(2), count=2)
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
        case "ktx2 of garbage":
            builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": builder.texture(ktx2(64))}})
        case "ktx2 cut off":
            texture = builder.texture(ktx2(64)[:40])
            builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}})
        case "ktx2 bomb":
            builder.material(
                pbrMetallicRoughness={"baseColorTexture": {"index": builder.texture(ktx2(60000))}}
            )
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
        ("meshopt of garbage", "cannot be decoded"),
        ("meshopt cut off", "cannot be decoded"),
        ("meshopt without data", "buffers[None]"),
        ("meshopt outside its buffer", "outside its buffer"),
        ("meshopt bomb", "2147483648"),
        ("meshopt of many bytes", "150000000"),
        ("meshopt of an unknown filter", "mode or filter"),
        ("meshopt of fewer values", "needs 36 bytes"),
        ("required extension", "VENDOR_secret"),
        ("not an image", "images[0]"),
        ("image is cut off", "images[0]"),
        ("decompression bomb", "images[0]"),
        ("ktx2 of garbage", "broken KTX2"),
        ("ktx2 cut off", "broken KTX2"),
        ("ktx2 bomb", "60000 x 60000"),
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
