"""Files that other programs read: validated, reloaded, compared, and the same every time."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from recon.asset import Asset
from recon.export import FORMATS, export
from recon.export.glb import glb_bytes
from recon.export.xmp import EXTENSION as XMP
from recon.uv import unwrap
from render.errors import InputError
from render.scene import Material
from tests.recon.mesh_field import as_mesh

VALIDATOR = Path(__file__).parents[2] / "gltf_validator"


@dataclass
class Splats:
    means: Tensor
    quats: Tensor
    log_scales: Tensor
    opacity_logits: Tensor
    base_color_srgb: Tensor


def barrel(size: int = 64) -> Asset:
    mesh = unwrap(as_mesh(trimesh.creation.cylinder(0.4, 1.2, sections=24)), size)
    rng = np.random.default_rng(0)
    maps = rng.random((size, size, 5)).astype(np.float32)
    splats = Splats(
        torch.rand(7, 3), torch.rand(7, 4), torch.zeros(7, 2), torch.zeros(7), torch.full((7, 3), 0.5)
    )
    material = Material(maps[..., :3], maps[..., 3], maps[..., 4], name="wood")
    return Asset(mesh, material, "old barrel ☃", 1.5, {"prompt": "ein Faß", "seed": 7, "scale": 1.5}, splats)


def validate(data: bytes, folder: Path) -> dict[str, Any]:
    node = shutil.which("node")
    assert node, "Node.js is missing: scripts/system-packages.sh --dev installs it"
    assert (VALIDATOR / "node_modules/gltf-validator").is_dir(), (
        "the glTF validator is missing: run make test"
    )
    path = folder / "asset.glb"
    path.write_bytes(data)
    done = subprocess.run([node, VALIDATOR / "validate.js", path], capture_output=True, text=True, check=True)
    issues: dict[str, Any] = json.loads(done.stdout)["issues"]
    # It says of this ratified extension that it cannot check it; test_xmp.py does.
    unknown = [m for m in issues["messages"] if m["code"] == "UNSUPPORTED_EXTENSION" and XMP in m["message"]]
    issues["numInfos"] -= len(unknown)
    issues["messages"] = [m for m in issues["messages"] if m not in unknown]
    return issues


def document(data: bytes) -> dict[str, Any]:
    length = struct.unpack("<I", data[12:16])[0]
    parsed: dict[str, Any] = json.loads(data[20 : 20 + length])
    return parsed


@pytest.mark.parametrize("kind", ["textured", "constant", "no uvs", "all maps", "vertex colours"])
def test_the_khronos_validator_has_nothing_to_say(kind: str, tmp_path: Path) -> None:
    asset = barrel()
    one = np.full((1, 1), 0.5, np.float32)
    match kind:
        case "constant":
            asset = replace(asset, material=Material(np.stack([one] * 3, -1), one, one))
        case "no uvs":
            asset = replace(asset, mesh=replace(asset.mesh, uvs=None))
        case "all maps":
            grey = np.full((64, 64), 0.5, np.float32)
            full = replace(
                asset.material, occlusion=grey, emissive_srgb=np.stack([grey] * 3, -1), opacity=grey
            )
            asset = replace(asset, material=full)
        case "vertex colours":
            asset = replace(
                asset, mesh=replace(asset.mesh, colors_srgb=np.full_like(asset.mesh.vertices, 0.5))
            )
    issues = validate(glb_bytes(asset), tmp_path)
    assert issues["messages"] == []
    assert issues["numErrors"] + issues["numWarnings"] + issues["numInfos"] + issues["numHints"] == 0


def test_the_validator_does_find_errors(tmp_path: Path) -> None:
    data = bytearray(glb_bytes(barrel()))
    data[data.index(b'"min":[') + 8] = ord("9")
    assert validate(bytes(data), tmp_path)["numErrors"] > 0


def test_size_pivot_names_and_provenance(tmp_path: Path) -> None:
    asset = barrel()
    head = document(glb_bytes(asset))
    position = head["accessors"][head["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    low, high = np.array(position["min"]), np.array(position["max"])
    assert high[1] - low[1] == pytest.approx(1.5, abs=1e-5)
    assert low[1] == 0.0
    assert np.allclose((low + high)[[0, 2]], 0, atol=1e-6)
    extensions = {XMP: {"packet": 0}}
    said = {"extras": dict(asset.provenance), "extensions": extensions}
    assert head["asset"] == {"version": "2.0", "generator": "Maquette", **said}
    assert {head[kind][0]["name"] for kind in ("nodes", "meshes", "materials")} == {"old barrel ☃"}
    assert all(image["name"] for image in head["images"])
    indices = head["accessors"][head["meshes"][0]["primitives"][0]["indices"]]
    assert indices["componentType"] == 5123


def test_a_general_loader_reads_the_same_surface_and_pixels(tmp_path: Path) -> None:
    asset = barrel()
    (path,) = export(asset, tmp_path, "barrel", ["glb"])
    loaded = trimesh.load(path, force="mesh", process=False)
    truth = asset.in_metres()
    assert np.array_equal(loaded.faces, truth.faces)
    assert np.array_equal(loaded.vertices.astype(np.float32), truth.vertices)
    assert np.allclose(loaded.visual.uv, truth.uvs, atol=1e-6)
    packed = np.asarray(loaded.visual.material.metallicRoughnessTexture) / 255
    assert np.abs(packed[..., 1] - asset.material.roughness).max() < 0.003
    assert np.abs(packed[..., 2] - asset.material.metallic).max() < 0.003
    color = np.asarray(loaded.visual.material.baseColorTexture)[..., :3] / 255
    assert np.abs(color - asset.material.base_color_srgb).max() < 0.003


def test_equal_assets_give_equal_bytes() -> None:
    torch.manual_seed(0)
    assert glb_bytes(barrel()) == glb_bytes(barrel())


def test_every_format_is_written_and_nothing_else(tmp_path: Path) -> None:
    paths = export(barrel(), tmp_path / "new", "b", [f for f in FORMATS if f not in ("fbx", "blend")])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)
    stl = trimesh.load(tmp_path / "new/b.stl")
    assert stl.is_watertight
    assert np.ptp(stl.vertices, axis=0)[2] == pytest.approx(1500, rel=1e-5)
    for name in ("b.obj", "b.ply"):
        mesh = trimesh.load(tmp_path / "new" / name, force="mesh", process=False)
        assert np.ptp(mesh.vertices, axis=0)[1] == pytest.approx(1.5, rel=1e-4)
        assert len(mesh.faces) == len(barrel().mesh.faces)


def test_splats_have_the_layout_that_viewers_read(tmp_path: Path) -> None:
    asset = barrel()
    (path,) = export(asset, tmp_path, "b", ["splat"])
    header, _, body = path.read_bytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property")]
    assert names[:3] == ["x", "y", "z"]
    assert names[6:] == [
        *("f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
        *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]
    table = np.frombuffer(body, "<f4").reshape(7, 17)
    assert np.allclose(table[:, :3], (asset.splats.means.numpy() - asset.pivot) * asset.scale, atol=1e-5)
    assert np.allclose(table[:, 6:9], 0, atol=1e-6)
    assert np.allclose(np.linalg.norm(table[:, 13:], axis=1), 1, atol=1e-6)
    assert (table[:, 12] < table[:, 10:12].min(1)).all()


def test_no_splats_an_unknown_format_and_a_full_disk_are_input_errors(tmp_path: Path) -> None:
    asset = barrel()
    with pytest.raises(InputError, match="splats"):
        export(replace(asset, splats=None), tmp_path, "b", ["splat"])
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        export(asset, blocked, "b", ["glb"])
    (tmp_path / "half").mkdir()
    (tmp_path / "half/b.stl").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        export(asset, tmp_path / "half", "b", ["stl"])
    assert [p.name for p in (tmp_path / "half").iterdir()] == ["b.stl"]
