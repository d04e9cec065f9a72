"""What `maquette finetune` teaches: a style that the model has never seen, on objects that it has never seen.

    python -m bench.finetune --props STEM [--count 60] [--minutes 8] [--out runs/finetune]

The objects are those of the `val` split, which no training has read; the style is four colours by lightness
and glossy plastic all over, which no pack has. They are written as GLBs with vertex colours and a CSV of
captions, and `maquette finetune` is run on them as a user would. Prints the velocity loss on held-out objects
without and with the LoRA, and how far the drawn colours are from the style's palette; `held-out.png` shows
all held-out objects: true, without, with.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2lab

from bench.prior_page import Strip, shaded, strips
from bench.prior_samples import network_image
from pipeline.best_views import stage_generator
from pipeline.loras import CARD, merge, read_lora
from pipeline.models import verified_model
from pipeline.multiview.pipeline import MultiViewPipeline, load
from pipeline.prompt import Prompt
from pipeline.training.critic_views import RING
from pipeline.training.finetune import FinetuneConfig, finetune
from pipeline.training.props import Prop, captions, is_asked_for, load_props
from pipeline.training.views import cameras_of, network_images
from recon.asset import Asset
from recon.export.glb import glb_bytes
from render.scene import Material, Mesh

ROOT = Path(__file__).resolve().parent.parent
PALETTE = np.array([[52, 30, 98], [208, 58, 140], [255, 168, 92], [128, 232, 214]], np.uint8)
"""Violet, magenta, apricot, mint: from dark to light."""
METALLIC, ROUGHNESS = 0.0, 0.25


def styled(prop: Prop) -> Prop:
    """The object in the style."""
    light = rgb2lab(prop.colors[None].astype(np.float32) / 255)[0, :, 0]
    # Equal shares of the object's own range of lightness; a small tilt by height parts flat-coloured objects.
    order = np.argsort(np.argsort(light + 6 * prop.vertices[:, 1], kind="stable"), kind="stable")
    ones = np.ones_like(prop.metallic)
    return replace(
        prop,
        colors=PALETTE[order * len(PALETTE) // len(order)],
        metallic=ones * METALLIC,
        roughness=ones * ROUGHNESS,
        material_known=ones,
    )


def write_pack(props: list[Prop], folder: Path) -> list[Path]:
    """The objects as GLBs with vertex colours, and `captions.csv` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption"])
        for number, prop in enumerate(props):
            path = folder / f"object-{number:03d}.glb"
            mesh = Mesh(prop.vertices, prop.faces, colors_srgb=prop.colors.astype(np.float32) / 255)
            one = np.ones((1, 1), np.float32)
            material = Material(np.ones((1, 1, 3), np.float32), METALLIC * one, ROUGHNESS * one)
            path.write_bytes(glb_bytes(Asset(mesh, material, path.stem, 1.0)))
            table.writerow([path.name, captions(prop)[0]])
            files.append(path)
    return files


def draw(pipeline: MultiViewPipeline, prompts: list[str]) -> list[torch.Tensor]:
    """Four views of every prompt, as network images."""
    cameras, out = cameras_of(list(RING), 128), []
    for prompt in prompts:
        views = pipeline(Prompt(prompt), cameras, generator=stage_generator(0, "views"))
        out.append(network_image(views))
    return out


def palette_distance(image: torch.Tensor) -> float:
    """Mean CIE76 distance of the covered pixels to the nearest colour of the style."""
    cover = (image[:, 3] > 0).numpy()
    rgb = (image[:, :3].permute(0, 2, 3, 1).numpy()[cover] * 0.5 + 0.5).clip(0, 1)
    if len(rgb) == 0:
        return float("nan")
    palette = rgb2lab(PALETTE[None].astype(np.float32) / 255)[0]
    apart = np.linalg.norm(rgb2lab(rgb[None])[0][:, None] - palette[None], axis=-1)
    return float(apart.min(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--props", type=Path, required=True, help="the training pack without its endings")
    parser.add_argument("--count", type=int, default=60, help="objects in the pack that is made")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=FinetuneConfig.learning_rate)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "finetune")
    arguments = parser.parse_args()
    val = [p for p in load_props(arguments.props) if p.split == "val" and is_asked_for(p)]
    chosen = [styled(val[i * len(val) // arguments.count]) for i in range(min(arguments.count, len(val)))]
    files = write_pack(chosen, arguments.out / "pack")
    folder = arguments.out / "lora"
    if not (folder / CARD).is_file():
        last = [-1]

        def progress(fraction: float, message: str = "") -> None:
            if int(20 * fraction) != last[0]:
                last[0] = int(20 * fraction)
                print(f"{fraction:.0%} {message}", flush=True)

        finetune(
            files,
            "bench-style",
            captions=arguments.out / "pack" / "captions.csv",
            out=folder,
            config=FinetuneConfig(
                minutes=arguments.minutes,
                steps=arguments.steps,
                rank=arguments.rank,
                learning_rate=arguments.learning_rate,
            ),
            resume=folder.is_dir(),
            progress=progress,
        )
    lora = read_lora(folder)
    card = lora.card
    print(f"{len(card.objects) - len(card.held_out)} objects, {card.steps} steps, rank {card.rank}")
    print(
        f"velocity loss on {len(card.held_out)} held-out objects: {card.loss_before:.4f} without, "
        f"{card.loss_after:.4f} with the LoRA"
    )
    held = [chosen[int(name.removeprefix("object-"))] for name in card.held_out]
    prompts = [captions(prop)[0] for prop in held]
    pipeline = load(verified_model().directory)
    without = draw(pipeline, prompts)
    merge(pipeline.transformer, lora, 1.0)
    with_lora = draw(pipeline, prompts)
    for name, images in (("without", without), ("with", with_lora)):
        found = np.array([palette_distance(image) for image in images])
        print(
            f"distance of the drawn colours to the style's palette, {name}: {np.nanmean(found):.1f} "
            f"({np.isfinite(found).sum()} objects)"
        )
    rows: list[Strip] = []
    for prop, prompt, a, b in zip(held, prompts, without, with_lora, strict=True):
        true = torch.from_numpy(network_images(prop, cameras_of(list(RING), 128))[0])
        cells: list[Image.Image] = [*shaded(true)[:3], *shaded(a)[:3], *shaded(b)[:3]]
        rows.append(Strip(f"{prompt}\ntrue, without, with", cells))
    strips(rows, title="held-out objects: three true views, three without the LoRA, three with it").save(
        arguments.out / "held-out.png"
    )
    print(arguments.out / "held-out.png")


if __name__ == "__main__":
    main()
