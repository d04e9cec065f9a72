"""A scene to a folder of posed views (`maquette views`): the ground truth that reconstruction is tested with.

In: a scene and a rig. Out: `transforms.json` (see `pipeline.transforms_json`) with `images/` (RGBA),
`masks/`, `depth/` (float32 .npy, z-depth in thousandths of the scene's unit, so that nerfstudio's default
scale is right), `normals/` (PNG, n / 2 + 0.5) and `materials/` (PNG, green roughness, blue metallic),
`emissive/` (PNG, emitted light in sRGB up to white).

The set's world is Z-up, as nerfstudio and Blender have it: what Blender shows when it imports the same GLB.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from pipeline.output_directory import checked_directory, disk_errors
from pipeline.transforms_json import FILE
from render.errors import InputError
from render.framing import Placement, placement_of
from render.gbuffer import GBuffer
from render.preview import PreviewRenderer
from render.progress import Progress, silent
from render.rigs import RigConfig, rig_cameras
from render.scene import Scene
from render.scene_gbuffer import gbuffer_of

Channel = Literal["mask", "depth", "normal", "material", "emissive"]
CHANNELS: tuple[Channel, ...] = ("mask", "depth", "normal", "material", "emissive")
FOLDERS: dict[str, str] = {
    "image": "images",
    "mask": "masks",
    "depth": "depth",
    "normal": "normals",
    "material": "materials",
    "emissive": "emissive",
}
DEPTH_UNIT = 1e-3

Y_UP_TO_Z_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
"""glTF's world to Blender's: (x, y, z) becomes (x, -z, y)."""


def render_views(
    scene: Scene,
    out: Path,
    rig: RigConfig,
    *,
    color: Literal["shaded", "base_color"] = "shaded",
    channels: Sequence[Channel] = ("depth", "normal"),
    environment: str = "studio",
    supersample: int = 3,
    progress: Progress = silent,
) -> Path:
    """Writes the set into `out`; the path of its `transforms.json`.

    All files are made first and then renamed, `transforms.json` last. `InputError` for an empty scene, an
    unknown light, and what cannot be written.
    """
    for channel in channels:
        if channel not in CHANNELS:
            raise InputError(f"--channels: {channel!r} is unknown. Known: {', '.join(CHANNELS)}.")
    if color not in ("shaded", "base_color"):
        raise InputError(f"--color must be shaded or base_color, not {color!r}.")
    placement = placement_of(scene)
    unit = in_unit_ball(scene, placement)
    cameras = rig_cameras(rig)
    renderer = None
    if color == "shaded":
        # On a turntable the object turns under a light that stands still beside the camera.
        renderer = PreviewRenderer(unit, light=environment, floor=False, fixed_light=rig.rig != "turntable")
    directory = checked_directory(out)
    with (
        disk_errors(directory),
        tempfile.TemporaryDirectory(dir=directory, prefix=".maquette-") as folder,
    ):
        made = Path(folder)
        for name in ("image", *channels):
            (made / FOLDERS[name]).mkdir()
        frames = []
        for index in range(len(cameras)):
            progress(index / len(cameras), f"view {index + 1} of {len(cameras)}")
            seen = gbuffer_of(unit, cameras[index], supersample, emissive="emissive" in channels)
            picture = None
            if renderer is not None:
                picture = renderer.render(cameras[index], background="transparent", supersample=supersample)[
                    0
                ]
            files = _write_view(made, index, seen, picture, channels, placement.radius)
            pose = cameras.c2w[index].double().numpy().copy()
            pose[:3, 3] = pose[:3, 3] * placement.radius + placement.center
            frames.append({**files, "transform_matrix": (Y_UP_TO_Z_UP @ pose).tolist()})
        fx = float(cameras.intrinsics[0, 0])
        if cameras.projection == "orthographic":
            fx /= placement.radius
        header: dict[str, Any] = {
            "camera_model": "PINHOLE" if cameras.projection == "perspective" else "ORTHOPHOTO",
            "fl_x": fx,
            "fl_y": fx,
            "cx": rig.size_px / 2,
            "cy": rig.size_px / 2,
            "w": rig.size_px,
            "h": rig.size_px,
        }
        if cameras.projection == "perspective":
            header["camera_angle_x"] = 2 * math.atan(rig.size_px / (2 * fx))
        header |= {"up": "z", "color": color}
        if color == "shaded":
            header["tone_map"] = "pbr_neutral"
        if "depth" in channels:
            header["depth_unit_scale_factor"] = DEPTH_UNIT
        if "normal" in channels:
            header["normal_space"] = "world"
        text = json.dumps({**header, "frames": frames}, indent=1)
        (made / FILE).write_text(text + "\n", encoding="utf-8")
        _publish(made, directory)
    progress(1.0, "views")
    return directory / FILE


def in_unit_ball(scene: Scene, placement: Placement) -> Scene:
    """The scene moved and scaled by `placement`: the renderers' near plane and steps suit that size."""
    parts = []
    for part in scene.parts:
        moved = (part.mesh.vertices.astype(np.float64) - placement.center) / placement.radius
        parts.append(replace(part, mesh=replace(part.mesh, vertices=moved.astype(np.float32))))
    return Scene(tuple(parts))


def _write_view(
    made: Path,
    index: int,
    seen: GBuffer,
    picture: np.ndarray | None,
    channels: Sequence[Channel],
    radius: float,
) -> dict[str, str]:
    """Writes one view's files; their paths by key."""
    alpha = seen.alpha[0].numpy()
    channel = {name: value[0].numpy() for name, value in seen.channels().items()}
    if picture is None:
        picture = _bytes(np.concatenate([channel["base_color_srgb"], alpha], -1))
    stem = f"{index:04d}"
    paths = {"file_path": f"{FOLDERS['image']}/{stem}.png"}
    Image.fromarray(picture).save(made / paths["file_path"])
    for name in channels:
        suffix = "npy" if name == "depth" else "png"
        path = f"{FOLDERS[name]}/{stem}.{suffix}"
        paths["mask_path" if name == "mask" else f"{name}_file_path"] = path
        match name:
            case "mask":
                Image.fromarray(_bytes(alpha[..., 0])).save(made / path)
            case "depth":
                np.save(made / path, (channel["depth"][..., 0] * (radius / DEPTH_UNIT)).astype(np.float32))
            case "normal":
                turned = channel["normal"] @ Y_UP_TO_Z_UP[:3, :3].T.astype(np.float32)
                Image.fromarray(_bytes(turned * 0.5 + 0.5)).save(made / path)
            case "material":
                maps = np.concatenate([np.zeros_like(alpha), channel["roughness"], channel["metallic"]], -1)
                Image.fromarray(_bytes(maps)).save(made / path)
            case "emissive":
                Image.fromarray(_bytes(channel["emissive_srgb"])).save(made / path)
    return paths


def _bytes(values: Float[np.ndarray, "*s"]) -> np.ndarray:
    return np.round(values.clip(0, 1) * 255).astype(np.uint8)


def _publish(made: Path, directory: Path) -> None:
    """Moves folders and then `transforms.json` to their names; older ones of the same names go."""
    for source in sorted(made.iterdir(), key=lambda path: path.name == FILE):
        final = directory / source.name
        if final.is_dir() and not final.is_symlink():
            shutil.rmtree(final)
        os.replace(source, final)
