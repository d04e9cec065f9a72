"""Do more pictures of an object help? Views drawn after one picture and after several, against the truth.

    python -m bench.pictures FOLDER/*.glb

Of each asset lit pictures are taken from the front, the side and the back, as users take them (random light,
elevation and lens, the same for all). The views that the model draws after them without words are compared
with the asset's own: intersection over union of the silhouettes, and the mean difference of the base colours
(sRGB, 0 to 1) where both have the object.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.best_views import stage_generator
from pipeline.multiview.sampler import load
from pipeline.posed_set import in_unit_ball
from pipeline.prompt import Prompt
from pipeline.run import side_by_side
from pipeline.training.own_assets import all_vertices, scene_images
from pipeline.training.views import lit_picture, reference_camera
from render.cameras import orbit_cameras
from render.framing import placement_of
from render.gbuffer import GBuffer
from render.glb import load_scene
from render.scene import Scene
from render.scene_gbuffer import gbuffer_of

AZIMUTHS = {"1 picture": (0.0,), "2 pictures": (0.0, 180.0), "3 pictures": (0.0, 90.0, 180.0)}
CAMERAS = orbit_cameras([0.0, 90.0, 180.0, 270.0, 0.0, 45.0], [15.0] * 4 + [89.0, 15.0], 128)
STEPS = 12
SEEDS = (0, 1)


def picture_of(scene: Scene, azimuth_deg: float) -> Image.Image:
    generator = np.random.default_rng(1)
    camera, elevation = reference_camera(all_vertices(scene), azimuth_deg, 128, generator)
    return Image.fromarray(lit_picture(scene_images(scene, camera)[0], elevation, generator))


def measured(made: GBuffer, truth: GBuffer) -> tuple[float, float]:
    a, b = made.alpha > 0.5, truth.alpha > 0.5
    overlap = (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)
    assert made.base_color_srgb is not None
    assert truth.base_color_srgb is not None
    both = (a & b).float()
    difference = ((made.base_color_srgb - truth.base_color_srgb).abs() * both).sum() / (3 * both.sum()).clamp(
        min=1
    )
    return float(overlap.mean()), float(difference)


def main() -> None:
    sampler = load()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in AZIMUTHS}
    for path in map(Path, sys.argv[1:]):
        scene = load_scene(path)
        scene = in_unit_ball(scene, placement_of(scene))
        truth = gbuffer_of(scene, CAMERAS)
        for name, azimuths in AZIMUTHS.items():
            image = side_by_side([picture_of(scene, azimuth) for azimuth in azimuths])
            drawn = [
                sampler(
                    Prompt(image=image),
                    CAMERAS,
                    num_inference_steps=STEPS,
                    generator=stage_generator(seed, "views"),
                )
                for seed in SEEDS
            ]
            values = np.mean([measured(views.gbuffer, truth) for views in drawn], 0)
            found[name].append((float(values[0]), float(values[1])))
            print(f"{path.stem:<28} {name}: IoU {values[0]:.3f}, colour {values[1]:.3f}", flush=True)
    for name, rows in found.items():
        iou, colour = np.mean(rows, 0)
        print(f"mean over {len(rows)} assets, {name}: IoU {iou:.3f}, colour {colour:.3f}")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
