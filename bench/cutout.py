"""How well objects are cut out of plain backgrounds: soft intersection over union with the true alpha.

    python -m bench.cutout FOLDER/*.glb

Pictures of `scripts/make_samples.py`'s props and of the given assets, with their soft shadow on a floor of
the background's colour: white, grey, blue, beige, and two colours close to the object's own (8 and 4 Lab
units from its median in the lower half of the picture). Each is cut out as it is, unevenly lit, with noise of
2 and of 5 of 255 levels, and after JPEG at quality 75. Prints mean and worst overlap by background and by
damage.
"""

from __future__ import annotations

import io
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from pipeline.cutout import matte
from render.errors import InputError
from render.glb import load_scene
from render.preview import PreviewRenderer, frame_cameras
from render.scene import Scene

SIZE_PX = 384
BACKGROUNDS = {"white": "#ffffff", "grey": "#808080", "blue": "#3f5566", "beige": "#c9b79a"}
NEAR = {"8 away": (6.0, 3.7, 3.7), "4 away": (2.0, -2.5, 2.5)}
"""Lab offsets from the object's own colour."""
DAMAGES = ("clean", "uneven", "noise 2", "noise 5", "jpeg 75")
Measured = dict[tuple[str, str, str], float]


def scenes(paths: list[str]) -> Iterator[tuple[str, Scene]]:
    samples = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "make_samples.py"))
    for name, look in samples["LOOKS"].items():
        yield name, samples["scene_of"](look[0])
    for path in map(Path, paths):
        yield path.stem, load_scene(path)


def near_color(picture: UInt8[np.ndarray, "H W 4"], offset: tuple[float, float, float]) -> str:
    lower = picture[picture.shape[0] // 2 :]
    median = np.median(rgb2lab(lower[lower[..., 3] == 255][:, :3] / 255.0), axis=0)
    rgb = np.clip(np.round(lab2rgb(median + offset) * 255), 0, 255).astype(int)
    return "#" + "".join(f"{value:02x}" for value in rgb)


def damaged(rgb: UInt8[np.ndarray, "H W 3"], damage: str) -> Image.Image:
    rows, columns = rgb.shape[:2]
    pixels = rgb.astype(np.float32)
    match damage:
        case "uneven":
            y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
            pixels *= (0.94 - 0.06 * x - 0.08 * (x**2 + y**2))[..., None]
        case "noise 2" | "noise 5":
            pixels += np.random.default_rng(0).normal(0, float(damage[-1]), pixels.shape)
    image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    if damage == "jpeg 75":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=75)
        image = Image.open(file)
    return image.convert("RGBA")


def overlap(image: Image.Image, truth: Float[np.ndarray, "H W"]) -> float:
    try:
        alpha = matte(image)[1]
    except InputError:
        return 0.0
    return float(np.minimum(alpha, truth).sum() / np.maximum(alpha, truth).sum())


def main() -> None:
    found: Measured = {}
    seconds = 0.0
    for name, scene in scenes(sys.argv[1:]):
        cameras = frame_cameras(scene, SIZE_PX, elevation_deg=12.0, fov_deg=30.0)
        alone = PreviewRenderer(scene, light="overcast", floor=False)
        truth = alone.render(cameras, background="transparent", supersample=3)[0]
        renderer = PreviewRenderer(scene, light="overcast")
        colors = BACKGROUNDS | {near: near_color(truth, offset) for near, offset in NEAR.items()}
        for background, color in colors.items():
            picture = renderer.render(cameras, background=color, supersample=3)[0, ..., :3]
            for damage in DAMAGES:
                image = damaged(picture, damage)
                start = time.perf_counter()
                found[name, background, damage] = overlap(image, truth[..., 3].astype(np.float32) / 255)
                seconds += time.perf_counter() - start
        own = [value for key, value in found.items() if key[0] == name]
        print(f"{name:<26} mean {np.mean(own):.3f}, worst {min(own):.3f}", flush=True)
    groups = defaultdict(list)
    for (_, background, damage), value in found.items():
        for group in (background, damage, "all"):
            groups[group].append(value)
    for group, values in groups.items():
        poor = sum(value < 0.9 for value in values)
        print(
            f"{group:<26} mean {np.mean(values):.3f}, worst {min(values):.3f}, {poor} of {len(values)} < 0.9"
        )
    print(f"{1000 * seconds / len(found):.0f} ms a picture of {SIZE_PX} pixels")


if __name__ == "__main__":
    main()
