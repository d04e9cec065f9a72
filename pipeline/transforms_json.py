"""`transforms.json`: posed pictures as nerfstudio and Blender datasets store them.

Written and read, after https://docs.nerf.studio/quickstart/data_conventions.html:

* `frames[].transform_matrix`: camera to world, 4 x 4 (or 3 x 4), OpenGL camera axes.
* Intrinsics in pixels, of the whole set or of a frame: `fl_x fl_y cx cy w h`, or `camera_angle_x` (and
  `camera_angle_y`) in radians. Distortion `k1 k2 k3 k4 p1 p2` of OpenCV's model.
* `camera_model`: `OPENCV`, `PINHOLE`, `SIMPLE_PINHOLE`, `SIMPLE_RADIAL`, `RADIAL`, or `ORTHOPHOTO` for
  orthographic cameras, whose `fl_x` and `fl_y` are then pixels per world unit, as in nerfstudio.
* `file_path`, `mask_path`, `depth_file_path`, `normal_file_path`, relative to the folder; Blender's paths
  have no suffix, which means `.png`.

Keys of our own, which others ignore: `material_file_path` (green roughness, blue metallic),
`depth_unit_scale_factor` (world units per stored unit; nerfstudio's option of that name, and its default of
0.001, so depth is stored in thousandths), `normal_space` (`world` or `camera`), `color` (`base_color` when
the pictures are unlit) and `up` (`y` or `z`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from render.cameras import Projection
from render.errors import InputError

FILE = "transforms.json"
MAX_BYTES = 64 * 1024**2
MIN_VIEWS, MAX_VIEWS = 3, 200
MODELS: dict[str, Projection] = {
    "OPENCV": "perspective",
    "PINHOLE": "perspective",
    "SIMPLE_PINHOLE": "perspective",
    "SIMPLE_RADIAL": "perspective",
    "RADIAL": "perspective",
    "PERSPECTIVE": "perspective",
    "ORTHOPHOTO": "orthographic",
}
DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4")
"""Order of OpenCV: radial, tangential, radial."""
_RIGID = 0.02
"""Largest deviation of R^T R from the unit matrix: poses are printed with few digits at times."""

NormalSpace = Literal["world", "camera"]


@dataclass(frozen=True)
class Frame:
    """One posed picture; its files are there, but have not been opened."""

    index: int
    name: str
    """`file_path` as it is written, for messages."""
    image: Path
    c2w: Float[np.ndarray, "4 4"]
    """float64."""
    intrinsics: tuple[float, float, float, float] | None
    """fx, fy, cx, cy in pixels of `size`; None when the angle of view is given instead."""
    angles_rad: tuple[float, float | None] | None
    """`camera_angle_x` and `camera_angle_y`."""
    size: tuple[int, int] | None
    """Width and height that the intrinsics are of; None: of the picture."""
    distortion: tuple[float, ...]
    """As `DISTORTION`."""
    mask: Path | None
    depth: Path | None
    normal: Path | None
    material: Path | None
    emissive: Path | None = None


@dataclass(frozen=True)
class PosedSet:
    """A `transforms.json`, checked."""

    directory: Path
    frames: tuple[Frame, ...]
    projection: Projection
    depth_unit: float
    """World units per stored unit of depth."""
    normal_space: NormalSpace | None
    """None: not said."""
    unlit: bool
    """The pictures show base colour without light."""
    up: Literal["y", "z"] | None
    """None: not said."""
    tone_map: Literal["pbr_neutral"] | None = None
    """What the pictures' renderer made colours of radiance with; None: not said, as for photographs."""


def read_transforms(path: Path) -> PosedSet:
    """Reads a folder's `transforms.json` (or the file itself, of any name).

    `InputError`, with the frame, for what is missing, is no number, or cannot be a camera.
    """
    path = path / FILE if path.is_dir() else path
    data = _json(path)
    raw = data.get("frames")
    if not isinstance(raw, list) or not all(isinstance(frame, dict) for frame in raw):
        raise InputError(f"{path} has no list of frames.")
    if len(raw) < MIN_VIEWS:
        raise InputError(f"{path} has {len(raw)} frames; at least {MIN_VIEWS} are needed for a shape.")
    if len(raw) > MAX_VIEWS:
        raise InputError(f"{path} has {len(raw)} frames; at most {MAX_VIEWS} are read. Leave some out.")
    models = {str(frame.get("camera_model", data.get("camera_model", "PINHOLE"))) for frame in raw}
    unknown = sorted(models - MODELS.keys())
    if unknown:
        raise InputError(f"{path}: camera_model {unknown[0]!r} is not read. Known: {', '.join(MODELS)}.")
    projections = {MODELS[model] for model in models}
    if len(projections) > 1:
        raise InputError(f"{path} mixes orthographic and perspective cameras; give one kind.")
    frames = tuple(_frame(path, index, frame, data) for index, frame in enumerate(raw))
    _check_poses(path, frames)
    space, up = data.get("normal_space"), data.get("up")
    if space not in (None, "world", "camera"):
        raise InputError(f"{path}: normal_space must be world or camera, not {space!r}.")
    if up not in (None, "y", "z"):
        raise InputError(f"{path}: up must be y or z, not {up!r}.")
    tone = data.get("tone_map")
    if tone not in (None, "pbr_neutral"):
        raise InputError(f"{path}: tone_map must be pbr_neutral or left out, not {tone!r}.")
    unit = _number(path, data, "depth_unit_scale_factor", 1e-3)
    if unit is None or unit <= 0:
        raise InputError(f"{path}: depth_unit_scale_factor must be positive.")
    return PosedSet(
        path.parent, frames, projections.pop(), unit, space, data.get("color") == "base_color", up, tone
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"There is no {path}. Give a folder with a {FILE}.")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES // 1024**2} MB; this is no list of views.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} does not hold a set of views.")
    return data


def _number(where: object, data: dict[str, Any], key: str, default: float | None = None) -> float | None:
    value = data.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: {key} must be a finite number, not {value!r}.")
    return float(value)


def _frame(path: Path, index: int, raw: dict[str, Any], shared: dict[str, Any]) -> Frame:
    name = raw.get("file_path")
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: frame {index} has no file_path.")
    where = f"{path}, frame {index} ({name})"
    both = {**shared, **raw}
    numbers = {key: _number(where, both, key) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", *DISTORTION)}
    width, height, fx = numbers["w"], numbers["h"], numbers["fl_x"]
    size = (int(width), int(height)) if width and height else None
    if size is not None and min(size) < 1:
        raise InputError(f"{where}: the size {size[0]} x {size[1]} is none.")
    angle, angle_y = _number(where, both, "camera_angle_x"), _number(where, both, "camera_angle_y")
    intrinsics = None
    if fx is not None:
        fy = numbers["fl_y"] if numbers["fl_y"] is not None else fx
        if fx <= 0 or fy <= 0:
            raise InputError(f"{where}: fl_x and fl_y must be positive, not {fx:g} and {fy:g}.")
        cx, cy = numbers["cx"], numbers["cy"]
        if (cx is None or cy is None) and size is None:
            raise InputError(f"{where}: cx and cy (or w and h, to take the middle) are missing.")
        middle = (0.0, 0.0) if size is None else (size[0] / 2, size[1] / 2)
        intrinsics = (fx, fy, middle[0] if cx is None else cx, middle[1] if cy is None else cy)
    elif angle is None:
        raise InputError(f"{where}: no intrinsics; give fl_x (pixels) or camera_angle_x (radians).")
    for value in (angle, angle_y):
        if value is not None and not 0.001 < value < 3.1:
            raise InputError(f"{where}: an angle of view of {value:g} radians is none.")
    return Frame(
        index=index,
        name=name,
        image=_file(where, path.parent, name, "file_path"),
        c2w=_pose(where, raw.get("transform_matrix")),
        intrinsics=intrinsics,
        angles_rad=None if angle is None else (angle, angle_y),
        size=size,
        distortion=tuple(numbers[key] or 0.0 for key in DISTORTION),
        mask=_optional(where, path.parent, raw, "mask_path"),
        depth=_optional(where, path.parent, raw, "depth_file_path"),
        normal=_optional(where, path.parent, raw, "normal_file_path"),
        material=_optional(where, path.parent, raw, "material_file_path"),
        emissive=_optional(where, path.parent, raw, "emissive_file_path"),
    )


def _file(where: str, directory: Path, name: str, key: str) -> Path:
    """A file inside the folder; Blender writes paths without a suffix."""
    path = directory / name
    for candidate in (path, path.with_name(path.name + ".png")):
        if candidate.is_file():
            if not candidate.resolve().is_relative_to(directory.resolve()):
                raise InputError(f"{where}: {key} leads out of the folder.")
            return candidate
    raise InputError(f"{where}: there is no file {path}.")


def _optional(where: str, directory: Path, raw: dict[str, Any], key: str) -> Path | None:
    name = raw.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: {key} must be a path.")
    return _file(where, directory, name, key)


def _pose(where: str, raw: object) -> Float[np.ndarray, "4 4"]:
    """A checked pose with an exact rotation."""
    try:
        matrix = np.array(raw, np.float64)
    except (ValueError, TypeError):
        matrix = np.zeros(0)
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    if matrix.shape != (4, 4):
        raise InputError(f"{where}: transform_matrix must have 4 x 4 numbers.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{where}: transform_matrix has values that are not finite.")
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(f"{where}: the last row of transform_matrix must be 0 0 0 1.")
    rotation = matrix[:3, :3]
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _RIGID:
        raise InputError(f"{where}: transform_matrix is not rigid (its axes are not unit and orthogonal).")
    if np.linalg.det(rotation) < 0:
        raise InputError(f"{where}: transform_matrix mirrors (its axes are left-handed).")
    u, _, vt = np.linalg.svd(rotation)
    matrix[:3, :3] = u @ vt
    return matrix


def _check_poses(path: Path, frames: tuple[Frame, ...]) -> None:
    """All cameras at one place with one direction are copies, not views."""
    poses = np.stack([frame.c2w for frame in frames])
    spread = np.abs(poses - poses[0]).max()
    if spread < 1e-6:
        raise InputError(f"{path}: all frames have the same pose; a shape needs views from several sides.")
