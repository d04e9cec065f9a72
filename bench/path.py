"""The preview renderer against the path tracer, asset by asset.

    python bench/path.py FOLDER_OF_GLBS [--size 192] [--samples 64] [--out bench/path]

Both draw the same view with the same light and floor. Differences are of 8-bit sRGB inside the object and of
the picture outside it (background and shadow): mean of preview - path (bias), mean of its absolute value
on pictures blurred over 5 pixels, so that neither the path tracer's noise nor the finest glints count, and
PSNR of the blurred pictures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

from render.glb import load_scene
from render.pathtrace import PathConfig, PathRenderer
from render.preview import PreviewRenderer, frame_cameras


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--light", default="studio")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    print(f"{'asset':<28}{'bias':>7}{'inside':>8}{'outside':>9}{'PSNR':>7}{'preview':>10}{'path':>8}")
    rows = []
    for path in sorted(given.folder.glob("*.glb")):
        scene = load_scene(path)
        cameras = frame_cameras(scene, given.size)
        quick = PreviewRenderer(scene, light=given.light)
        start = time.perf_counter()
        preview = quick.render(cameras, supersample=4)[0]
        preview_s = time.perf_counter() - start
        tracer = PathRenderer(scene, light=given.light, config=PathConfig(samples=given.samples))
        start = time.perf_counter()
        traced = tracer.render(cameras)[0]
        path_s = time.perf_counter() - start
        empty = PreviewRenderer(scene, light=given.light, floor=False)
        inside = empty.render(cameras, background="transparent")[0, ..., 3] == 255
        a, b = (uniform_filter(p[..., :3].astype(float), (5, 5, 1)) for p in (preview, traced))
        difference = a - b
        psnr = float(10 * np.log10(255**2 / (difference**2).mean()))
        row = (
            float(difference[inside].mean()),
            float(np.abs(difference[inside]).mean()),
            float(np.abs(difference[~inside]).mean()),
            psnr,
        )
        rows.append(row)
        print(
            f"{path.stem:<28}{row[0]:>7.1f}{row[1]:>8.1f}{row[2]:>9.1f}{psnr:>7.1f}"
            f"{preview_s:>8.2f} s{path_s:>6.1f} s",
            flush=True,
        )
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate([preview, traced], 1)).save(given.out / f"{path.stem}.png")
    mean = np.mean(rows, axis=0)
    print(f"{'mean':<28}{mean[0]:>7.1f}{mean[1]:>8.1f}{mean[2]:>9.1f}{mean[3]:>7.1f}")


if __name__ == "__main__":
    main()
