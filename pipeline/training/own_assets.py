"""A user's own assets as training data: GLBs and captions in, a latent cache in memory out.

Every asset is centred, scaled into the unit ball as the training objects are, rendered with its textures
(`render.scene_gbuffer`), and encoded. It is its own mirror image, too: the mirrored object seen from
azimuth -a is the mirrored picture from azimuth a. Captions come from a CSV (`path,caption`, a row each;
several rows may name one file) or, where it has none, from the file's name.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from pipeline.multiview.autoencoder import DOWNSAMPLING
from pipeline.multiview.codec import encode_gbuffer
from pipeline.training.latents import LatentCache
from pipeline.training.props import clean_caption
from pipeline.training.views import (
    cameras_of,
    lit_picture,
    reference_azimuth,
    reference_camera,
    training_poses,
)
from render.cameras import Cameras
from render.errors import InputError
from render.glb import load_scene
from render.progress import Progress, silent
from render.scene import Part, Scene
from render.scene_gbuffer import gbuffer_of

if TYPE_CHECKING:
    from pipeline.multiview.pipeline import MultiViewPipeline

MAX_ASSETS = 2000
MAX_CAPTION = 200
VIEWS_PER_ITEM = 8
REFERENCES_PER_ITEM = 2
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True)
class OwnAsset:
    """One asset, centred, inside the unit ball."""

    name: str
    """Of the file, without its ending."""
    captions: tuple[str, ...]
    scene: Scene


def caption_of_name(stem: str) -> str:
    """`Big_WoodenBarrel-01` as "big wooden barrel"; empty when the name has no words."""
    return clean_caption(" ".join(_WORDS.findall(stem)).lower())


def read_captions(path: Path, files: Sequence[Path]) -> dict[Path, list[str]]:
    """Captions by file. A row's path is taken from the CSV's folder, the working directory, or as a mere
    file name. `InputError` names the line that is wrong."""
    by_path = {file.resolve(): file for file in files}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    rows = csv.DictReader(text.splitlines())
    if rows.fieldnames is None or not {"path", "caption"} <= set(rows.fieldnames):
        raise InputError(f"{path} must begin with the line: path,caption")
    found: dict[Path, list[str]] = {}
    for row in rows:
        here = f"{path} line {rows.line_num}"
        given, caption = (row["path"] or "").strip(), " ".join((row["caption"] or "").split())
        if not given or not caption:
            raise InputError(f"{here}: lacks its path or its caption.")
        if len(caption) > MAX_CAPTION:
            raise InputError(f"{here}: the caption is longer than {MAX_CAPTION} letters.")
        same = by_name.get(given, [])
        meant = by_path.get((path.parent / given).resolve()) or by_path.get(Path(given).resolve())
        if meant is None and len(same) == 1:
            meant = same[0]
        if meant is None:
            reason = "names several of them" if len(same) > 1 else "is not among the assets given"
            raise InputError(f"{here}: {given!r} {reason}.")
        found.setdefault(meant, []).append(caption)
    return found


def load_assets(
    files: Sequence[Path], captions: Path | None = None, progress: Progress = silent
) -> list[OwnAsset]:
    """Read the files. `InputError` names the first that cannot be used."""
    if not files:
        raise InputError("No assets were given. Give GLB files, such as: maquette finetune MY_PACK/*.glb")
    if len(files) > MAX_ASSETS:
        raise InputError(f"{len(files)} assets were given; at most {MAX_ASSETS} are used at a time.")
    for file in files:
        if not file.is_file():
            raise InputError(f"There is no file {file}.")
        if file.suffix.lower() not in (".glb", ".gltf"):
            raise InputError(f"{file} is no GLB; export the assets as GLB.")
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("A file is given twice; give each asset once.")
    written = {} if captions is None else read_captions(captions, files)
    out: list[OwnAsset] = []
    taken: set[str] = set()
    for number, file in enumerate(files):
        progress(number / len(files), f"reading {file.name}")
        texts = written.get(file) or [caption_of_name(file.stem)]
        if not texts[0]:
            raise InputError(f"{file}: its name says nothing; give its caption in a CSV with --captions.")
        name = file.stem
        while name in taken:
            name += "+"
        taken.add(name)
        out.append(OwnAsset(name, tuple(texts), in_unit_ball(load_scene(file), file.name)))
    return out


def in_unit_ball(scene: Scene, name: str = "the scene") -> Scene:
    """The scene centred by its bounding box, its farthest vertex at distance 1, as training objects are."""
    vertices = all_vertices(scene).astype(np.float64)
    center = (vertices.min(0) + vertices.max(0)) / 2
    radius = float(np.linalg.norm(vertices - center, axis=1).max())
    if not np.isfinite(radius) or radius <= 1e-12:
        raise InputError(f"{name}: has no extent, so there is nothing to learn from.")

    def moved(part: Part) -> Part:
        placed = ((part.mesh.vertices.astype(np.float64) - center) / radius).astype(np.float32)
        return replace(part, mesh=replace(part.mesh, vertices=placed))

    return Scene(tuple(moved(part) for part in scene.parts))


def all_vertices(scene: Scene) -> Float[np.ndarray, "V 3"]:
    """Of all parts."""
    return np.concatenate([part.mesh.vertices for part in scene.parts])


def scene_images(scene: Scene, cameras: Cameras) -> Float[np.ndarray, "C 10 H W"]:
    """Network images of a scene with its textures."""
    return encode_gbuffer(gbuffer_of(scene, cameras), cameras).numpy()


def mirrored(image: Float[np.ndarray, "C 10 H W"]) -> Float[np.ndarray, "C 10 H W"]:
    """Network images of the mirror image of what they show, from the opposite azimuth."""
    out = image[..., ::-1].copy()
    out[:, 4] *= -1
    return out


def build_cache(
    assets: Sequence[OwnAsset],
    pipeline: MultiViewPipeline,
    size: int,
    seed: int,
    *,
    progress: Progress = silent,
) -> LatentCache:
    """Latents, poses, lit reference pictures and captions of every asset and of its mirror image."""
    rng = np.random.default_rng(seed)
    latents, poses, references, azimuths = [], [], [], []
    rows: list[dict[str, object]] = []
    for number, asset in enumerate(assets):
        progress(number / len(assets), f"rendering {asset.name}")
        for mirror in (False, True):
            views = training_poses(VIEWS_PER_ITEM, rng)
            image = scene_images(asset.scene, cameras_of(views, size))
            turned = [reference_azimuth(rng) for _ in range(REFERENCES_PER_ITEM)]
            sign = -1.0 if mirror else 1.0
            pictures = []
            for azimuth in turned:
                camera, elevation = reference_camera(all_vertices(asset.scene), azimuth, size, rng)
                seen = scene_images(asset.scene, camera)
                pictures.append(lit_picture((mirrored(seen) if mirror else seen)[0], elevation, rng))
            latents.append(_encoded(pipeline, mirrored(image) if mirror else image))
            poses.append([[sign * view.azimuth_deg, view.elevation_deg] for view in views])
            references.append(np.stack(pictures))
            azimuths.append([sign * azimuth for azimuth in turned])
            rows.append({"captions": list(asset.captions), "object": number, "augmented": False,
                         "category": "", "pack": ""})  # fmt: skip
    known = np.ones((len(rows), VIEWS_PER_ITEM, size // DOWNSAMPLING, size // DOWNSAMPLING), np.bool_)
    return LatentCache(
        [np.stack(latents)],
        [known],
        [np.array(poses, np.float32)],
        [np.stack(references)],
        [np.array(azimuths, np.float32)],
        [rows],
    )


@torch.no_grad()
def _encoded(pipeline: MultiViewPipeline, image: NDArray[np.float32]) -> NDArray[np.float16]:
    model = pipeline.autoencoder
    tensor = torch.from_numpy(image).to(model.device, model.dtype, memory_format=torch.channels_last)
    encoded: NDArray[np.float16] = model.encode(tensor).half().cpu().numpy()
    return encoded
