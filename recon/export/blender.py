"""FBX and .blend through Blender itself (extra `blender`: the package bpy, half a gigabyte).

Blender reads the GLB that this project wrote and saves it in its own formats, so size, pivot,
materials and names are those that its users get from the GLB. It runs in a process of its own: it
keeps state of a whole session, and a crash of it must not end ours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from recon.asset import Asset
from recon.export.glb import glb_bytes
from recon.needs import require
from recon.package import Package
from render.errors import InputError

BlenderFormat = Literal["fbx", "blend"]

_TIMEOUT_S = 600
_SCRIPT = """
import sys
import bpy
source, target, kind = sys.argv[-3:]
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=source)
if kind == "fbx":
    bpy.ops.export_scene.fbx(
        filepath=target, path_mode="COPY", embed_textures=True, mesh_smooth_type="FACE", use_tspace=True,
        add_leaf_bones=False, bake_anim=False, axis_forward="-Z", axis_up="Y", apply_unit_scale=True,
    )
else:
    bpy.ops.file.pack_all()
    bpy.ops.wm.save_as_mainfile(filepath=target, compress=True)
"""


def blender_bytes(asset: Asset | Package, kind: BlenderFormat, *, python: str | None = None) -> bytes:
    """The asset as FBX (textures inside) or .blend. `python`: an interpreter that has bpy.

    `InputError` when bpy is not installed or Blender refuses. These files hold the time of their
    making: equal assets give equal contents, not equal bytes.
    """
    if python is None:
        require(kind)
    with tempfile.TemporaryDirectory(prefix="maquette-blender-") as folder:
        source, target = Path(folder) / "asset.glb", Path(folder) / f"asset.{kind}"
        source.write_bytes(glb_bytes(asset))
        script = Path(folder) / "convert.py"
        script.write_text(_SCRIPT, encoding="utf-8")
        try:
            done = subprocess.run(
                [python or sys.executable, str(script), str(source), str(target), kind],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"Blender took more than {_TIMEOUT_S} s to write {kind}") from None
        if done.returncode != 0 or not target.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise InputError(f"Blender could not write {kind}: {lines[-1] if lines else 'no reason given'}")
        return target.read_bytes()
