"""The finished asset against the object that a picture was taken of, with parts of the path switched off.

    python -m bench.assets --props STEM --count 24 [--preset standard] [--arms preset,distillation] [--texts]

A lit picture of a `val` object, never trained on, goes in; the views are drawn once for all arms that draw
them alike, and every arm makes a textured mesh of them. Compared with the true object, both scaled into
the unit ball and not turned (the picture fixes the pose): F-score at 0.1 over what can be seen from
outside, and that of the asset where it was drawn, in the model's own unit ball, of which a lost tip makes no
larger thing; masks and colours from behind, where the picture says nothing; whether the judge
(`bench.evaluator`) finds the object's own caption among all of `val`. With `--texts` the captions are the
prompts, and the judge's figures are the ones to read: nothing says what a caption's object is like from
behind. Prints each object and the means of each arm, and for pictures the ceiling: the F-score of the true
object, turned as the lifter takes the picture to be framed; pictures in OUT/assets.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree

from bench.evaluator import RING, load_judge, own_ranks, prompt_of
from bench.prior_measures import compare
from bench.prior_page import Strip, shaded, strips
from bench.prior_parts import as_believed, believed_framing
from bench.surface import visible_samples
from pipeline.artifacts import load_material, load_mesh
from pipeline.distillation import DistillationConfig, Strategy
from pipeline.multiview.codec import encode_gbuffer
from pipeline.multiview.lifter_network import Framing
from pipeline.multiview.sampler import load
from pipeline.preset import Preset, load_preset
from pipeline.prompt import Prompt
from pipeline.source import ModelSource
from pipeline.stages import (
    MATERIAL_FILE,
    MESH_FILE,
    draw_views,
    fit_field,
    mesh,
    surface,
    texture,
)
from pipeline.training.props import Prop, in_unit_ball, is_asked_for, load_props
from pipeline.training.views import (
    Pose,
    cameras_of,
    network_images,
    reference_azimuth,
    reference_picture_of,
)
from recon.inspect import inspect
from render.cameras import Cameras, orbit_cameras
from render.scene import Mesh, Part, Scene
from render.scene_gbuffer import gbuffer_of

ROOT = Path(__file__).resolve().parent.parent
BEHIND = (Pose(135.0, 15.0), Pose(180.0, 15.0), Pose(225.0, 15.0))
LIMIT = 0.1
SIZE = 128


def distilled(preset: Preset, steps: int, strategy: Strategy = "x0") -> Preset:
    """The preset with score distillation for so many steps more."""
    fit = replace(preset.fit, guidance_steps=steps)
    return replace(preset, fit=fit, distillation=DistillationConfig(strategy=strategy))


ARMS: dict[str, Callable[[Preset], Preset]] = {
    "preset": lambda preset: preset,
    "distillation": lambda preset: distilled(preset, 40),
    "distillation-4x": lambda preset: distilled(preset, 160),
    "sds-4x": lambda preset: distilled(preset, 160, "sds"),
    "no-consensus": lambda preset: replace(
        preset,
        views=replace(preset.views, consensus=replace(preset.views.consensus, tolerance_px=1000.0)),
    ),
    "four-candidates": lambda preset: replace(preset, views=replace(preset.views, candidates=4)),
}


@dataclass(frozen=True)
class Found:
    """One asset."""

    f_score: float
    f_score_as_drawn: float
    """Of the asset in the unit ball as the model believes it to be, not scaled."""
    iou_behind: float
    psnr_behind_db: float
    watertight: bool
    seconds: float
    """Of processor time, from the drawn views to the texture."""


def turned(vertices: np.ndarray, degrees: float) -> np.ndarray:
    """About the vertical axis, so that what faced azimuth `degrees` faces 0."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y, z = vertices.T
    return np.stack([c * x - s * z, y, s * x + c * z], 1).astype(np.float32)


def f_score(truth: Mesh, made: Mesh) -> float:
    """At `LIMIT`, over points that are seen from outside."""
    cameras = orbit_cameras([0, 60, 120, 180, 240, 300, 0, 0], [20, -20, 20, -20, 20, -20, 90, -90], 96)
    a, _ = visible_samples(truth.vertices, truth.faces, cameras)
    b, _ = visible_samples(made.vertices, made.faces, cameras)
    if len(b) == 0:
        return 0.0
    recall = float((cKDTree(b).query(a)[0] < LIMIT).mean())
    precision = float((cKDTree(a).query(b)[0] < LIMIT).mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def make(prompt: Prompt, preset: Preset, views: Path, out: Path, model: ModelSource) -> Scene:
    """The textured mesh of drawn views, in the unit ball as drawn."""
    folders = {name: out / name for name in ("field", "surface", "mesh", "texture")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    fit_field(folders["field"], views, prompt, preset.seeds, preset.fit, preset.distillation,
              preset.views.guidance_for(prompt), 0, model)  # fmt: skip
    surface(folders["surface"], views, folders["field"], preset.surface)
    mesh(folders["mesh"], views, folders["surface"], preset.mesh, preset.bake.texture_size)
    texture(folders["texture"], views, folders["field"], folders["mesh"], preset.bake)
    found = load_mesh(folders["mesh"] / MESH_FILE)
    return Scene((Part(found, load_material(folders["texture"] / MATERIAL_FILE)),))


def scaled(scene: Scene) -> Scene:
    part = scene.parts[0]
    return Scene((replace(part, mesh=replace(part.mesh, vertices=in_unit_ball(part.mesh.vertices))),))


def truth_of(prop: Prop, azimuth: float) -> Mesh:
    """The object in the unit ball, facing where its picture was taken from."""
    return Mesh(in_unit_ball(turned(prop.vertices, azimuth)), prop.faces)


def ceiling(prop: Prop, azimuth: float, camera: Cameras, believed: Framing) -> float:
    """F-score of the true object, framed as its picture is believed to be."""
    other = as_believed(prop, azimuth, Framing.of(camera), believed)
    return f_score(truth_of(prop, azimuth), Mesh(in_unit_ball(other.vertices), prop.faces))


def measure(prop: Prop, azimuth: float, scene: Scene, seconds: float) -> tuple[Found, torch.Tensor]:
    """Figures, and the asset's views behind and around as network images. scene: as drawn."""
    truth, as_drawn = truth_of(prop, azimuth), scene.parts[0].mesh
    scene = scaled(scene)
    part = scene.parts[0]
    cameras = cameras_of([*BEHIND, *RING], SIZE)
    seen = encode_gbuffer(gbuffer_of(scene, cameras), cameras)
    poses = [Pose(pose.azimuth_deg + azimuth, pose.elevation_deg) for pose in BEHIND]
    image, known = network_images(prop, cameras_of(poses, SIZE))
    behind = compare(seen[: len(BEHIND)], torch.from_numpy(image), torch.from_numpy(known))
    found = Found(
        f_score(truth, part.mesh),
        f_score(truth, as_drawn),
        behind.iou,
        behind.psnr_db,
        bool(inspect(part.mesh).watertight),
        seconds,
    )
    return found, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--props", type=Path, required=True, help="the training pack without its endings")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--arms", default="preset,distillation", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--texts", action="store_true", help="captions instead of pictures")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "assets")
    given = parser.parse_args()
    everything = list(load_props(given.props))
    judge = load_judge(given.props, everything)
    asked = [p for p in everything if p.split == "val" and is_asked_for(p)]
    texts = judge.texts([prompt_of(p) for p in asked])
    chosen = [i * len(asked) // given.count for i in range(given.count)]
    base, model = load_preset(given.preset), ModelSource()
    results: dict[str, list[Found]] = {arm: [] for arm in given.arms.split(",")}
    around: dict[str, list[torch.Tensor]] = {arm: [] for arm in results}
    lifter = None if given.texts else load().lifter
    rows, ceilings = [], []
    for index in chosen:
        prop = asked[index]
        rng = np.random.default_rng([13, index])
        azimuth = reference_azimuth(rng)
        pixels, camera = reference_picture_of(prop, azimuth, SIZE, rng)
        picture = Image.fromarray(pixels, "RGBA")
        if lifter is not None:
            ceilings.append(ceiling(prop, azimuth, camera, believed_framing(lifter, picture)))
        prompt = Prompt(prompt_of(prop)) if given.texts else Prompt("", picture)
        drawn: dict[object, Path] = {}
        shown = [picture]
        for arm, change in ARMS.items():
            if arm not in results:
                continue
            preset = change(base)
            if preset.views not in drawn:
                folder = given.out / f"{index:03d}" / f"views-{len(drawn)}"
                folder.mkdir(parents=True, exist_ok=True)
                draw_views(folder, prompt, preset.views, 0, model)
                drawn[preset.views] = folder
            start = time.process_time()
            out = given.out / f"{index:03d}" / arm
            scene = make(prompt, preset, drawn[preset.views], out, model)
            found, seen = measure(prop, azimuth, scene, time.process_time() - start)
            results[arm].append(found)
            around[arm].append(seen[len(BEHIND) :])
            shown += shaded(seen)
            print(f"{prop.caption} | {arm} | F {found.f_score:.3f}, as drawn {found.f_score_as_drawn:.3f} "
                  f"| behind IoU {found.iou_behind:.3f} "
                  f"{found.psnr_behind_db:.1f} dB | {found.seconds:.0f} s", flush=True)  # fmt: skip
        rows.append(Strip(prop.caption, shown))
        strips(rows, title=f"picture; then {', '.join(results)}: three views from behind, four around").save(
            given.out / "assets.png"
        )
    if ceilings:
        print(f"the true objects, framed as believed: F at {LIMIT} {np.mean(ceilings):.3f}")
    for arm, all_found in results.items():
        vectors = judge.objects(around[arm])
        rank = own_ranks(vectors, texts, chosen)
        fits = (vectors * texts[chosen]).sum(1).mean()
        f = np.array([found.f_score for found in all_found])
        print(
            f"{arm}: F at {LIMIT} {f.mean():.3f} (bar 0.75; {(f >= 0.75).mean():.0%} of objects reach it), "
            f"as drawn {np.mean([x.f_score_as_drawn for x in all_found]):.3f}, "
            f"behind IoU {np.mean([x.iou_behind for x in all_found]):.3f} "
            f"{np.mean([x.psnr_behind_db for x in all_found]):.2f} dB, "
            f"cosine with the own caption {fits:.4f}, first {np.mean(rank < 1):.2f}, "
            f"among five {np.mean(rank < 5):.2f} of {len(texts)}, "
            f"watertight {sum(x.watertight for x in all_found)} of {len(all_found)}, "
            f"{np.mean([x.seconds for x in all_found]):.0f} s of processor"
        )


if __name__ == "__main__":
    main()
