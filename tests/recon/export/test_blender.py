"""Blender reads our GLB as promised, and writes FBX and .blend of it. Needs bpy: pytest -m blender."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recon.export.blender import blender_bytes
from recon.export.glb import glb_bytes
from recon.package import Package, package_of
from render.errors import InputError
from render.scene import Part
from tests.recon.export.test_export import barrel

_LIST = """
import json, sys, bpy
path = sys.argv[-1]
bpy.ops.wm.read_factory_settings(use_empty=True)
if path.endswith(".glb"):
    bpy.ops.import_scene.gltf(filepath=path)
elif path.endswith(".fbx"):
    bpy.ops.import_scene.fbx(filepath=path)
else:
    bpy.ops.wm.open_mainfile(filepath=path)
out = {}
for thing in bpy.data.objects:
    low = [min(c[i] for c in thing.bound_box) for i in range(3)] if thing.type == "MESH" else None
    out[thing.name] = {
        "size": list(thing.dimensions), "low": low,
        "parent": thing.parent.name if thing.parent else None,
        "materials": [m.name for m in thing.data.materials] if thing.type == "MESH" else [],
        "triangles": len(thing.data.polygons) if thing.type == "MESH" else 0,
    }
images = {image.name: image.colorspace_settings.name for image in bpy.data.images}
print("FOUND" + json.dumps({"objects": out, "images": images}))
"""


def package() -> Package:
    asset = barrel()
    part = Part(asset.mesh, asset.material, "x")
    return package_of(replace(asset, name="well", lods=(part,), collider=(asset.mesh,)))


def look(path: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", _LIST, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    found: dict[str, Any] = json.loads(line[5:])
    return found


@pytest.mark.blender
@pytest.mark.slow
def test_blender_sees_size_pivot_materials_levels_and_hulls(tmp_path: Path) -> None:
    path = tmp_path / "well.glb"
    path.write_bytes(glb_bytes(package()))
    found = look(path)
    objects = found["objects"]
    assert set(objects) == {"well", "well_LOD0", "well_LOD1", "UCX_well_LOD0_00"}
    assert {objects[name]["parent"] for name in objects if name != "well"} == {"well"}
    finest = objects["well_LOD0"]
    # Blender's up is +Z.
    assert finest["size"][2] == pytest.approx(1.5, abs=1e-4)
    assert finest["low"][2] == pytest.approx(0, abs=1e-4)
    assert finest["materials"] == ["well"]
    assert objects["well_LOD1"]["materials"] == ["well_LOD1"]
    assert found["images"]["well_base_color"] == "sRGB"
    assert found["images"]["well_metallic_roughness"] == "Non-Color"


@pytest.mark.blender
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fbx", "blend"])
def test_blenders_own_formats_keep_names_and_size(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / f"well.{kind}"
    path.write_bytes(blender_bytes(package(), kind))
    objects = look(path)["objects"]
    assert {"well_LOD0", "well_LOD1"} <= set(objects)
    assert sorted(objects["well_LOD0"]["size"]) == pytest.approx([1.5, 1.5, 2.25], abs=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("bpy") is not None, reason="bpy is installed")
def test_without_blender_the_error_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r"maquette\[blender\]"):
        blender_bytes(barrel(), "fbx")
