"""How much of the light in pictures `recon.delight` takes out of base colour, where the paint is known.

    python -m bench.delight FILE.glb ... [--views 24] [--size 192] [--texture 384] [--lights studio,sunset]

Every asset is rendered lit and unlit from the same cameras; both sets are baked onto the same UVs of its true
surface, so that only light and paint differ. The lit map, as it is and delighted, is compared with the unlit
one at all texels: mean difference of sRGB channels in 8-bit levels, as it is (exposure counts) and after the
best common scale of linear colours (only shading counts). `neutral` undoes the renderer's tone map first, as
sets of `maquette views` ask for; `unknown` takes the pictures for photographs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.posed_set import in_unit_ball
from recon.bake import BakeConfig, bake
from recon.delight import DelightConfig, delight
from recon.simplify import simplify
from recon.texels import texels_of
from recon.uv import unwrap
from render.conventions import linear_to_srgb_np, srgb_to_linear_np
from render.framing import placement_of
from render.gbuffer import GBuffer, ViewSet
from render.glb import load_scene
from render.preview import PreviewRenderer
from render.rigs import RigConfig, rig_cameras
from render.scene import merged
from render.scene_gbuffer import gbuffer_of

MOST_TRIANGLES = 6000


def differences(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Mean differences in 8-bit levels: as they are, and after the best common scale of linear colours."""
    a, b = srgb_to_linear_np(found), srgb_to_linear_np(true)
    scaled = a * ((a * b).sum() / max((a * a).sum(), 1e-9))
    level = linear_to_srgb_np(np.clip(scaled, 0, 1).astype(np.float32))
    return 255 * float(np.abs(found - true).mean()), 255 * float(np.abs(level - true).mean())


def measured(path: Path, given: argparse.Namespace) -> list[tuple[float, ...]]:
    """One row a light: nothing done, neutral, unknown; each absolute and scaled."""
    unit = in_unit_ball(scene := load_scene(path), placement_of(scene))
    cameras = rig_cameras(RigConfig(count=given.views, size_px=given.size))
    truth = gbuffer_of(unit, cameras, 2)
    surface = merged(unit)
    if len(surface.faces) > MOST_TRIANGLES:
        surface = simplify(surface, MOST_TRIANGLES, close=False)
    mesh = unwrap(surface, given.texture)
    known = texels_of(mesh, given.texture).face >= 0
    config = BakeConfig(texture_size=given.texture)
    true = bake(mesh, ViewSet(cameras, truth), None, config).base_color_srgb[known]
    rows = []
    for light in given.lights.split(","):
        renderer = PreviewRenderer(unit, light=light, floor=False, fixed_light=True)
        pictures = [renderer.render(cameras[i], background="transparent") for i in range(len(cameras))]
        pixels = torch.from_numpy(np.concatenate(pictures).astype(np.float32) / 255)
        seen = GBuffer(alpha=pixels[..., 3:], rgb_srgb=pixels[..., :3].contiguous(), depth=truth.depth)
        lit = bake(mesh, ViewSet(cameras, seen), None, config).base_color_srgb
        start = time.process_time()
        undone = [delight(mesh, lit, DelightConfig(neutral=neutral))[0] for neutral in (True, False)]
        took = (time.process_time() - start) / 2
        row = [value for image in (lit, *undone) for value in differences(image[known], true)]
        rows.append(tuple(row))
        print(
            f"| {path.stem} | {light} | " + " | ".join(f"{v:.1f}" for v in row) + f" | {took:.1f} |",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--texture", type=int, default=384)
    parser.add_argument("--lights", default="studio,sunset,overcast")
    given = parser.parse_args()
    print("| asset | light | nothing | scaled | neutral | scaled | unknown | scaled | processor s |")
    rows = np.array([row for path in given.files for row in measured(path, given)])
    print("| mean | | " + " | ".join(f"{value:.1f}" for value in rows.mean(0)) + " | |")
    better = [(rows[:, at] < rows[:, at % 2]).sum() for at in (2, 3, 4, 5)]
    print(f"better than nothing in {better} of {len(rows)}")


if __name__ == "__main__":
    main()
