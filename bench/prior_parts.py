"""The parts of `bench.prior`: what they share, and those without words (autoencoder, novel)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from bench.evaluator import RING, Judge, prompt_of
from bench.prior_measures import (
    channel_psnr,
    compare,
)
from bench.prior_page import Row, Strip, shaded, strips
from bench.prior_samples import Sampler, network_image
from pipeline.multiview.lifter_network import Framing, LifterNetwork
from pipeline.multiview.pipeline import MultiViewPipeline
from pipeline.multiview.sampler import reference_tensor
from pipeline.preset import ViewsConfig
from pipeline.prompt import Prompt
from pipeline.training.props import Prop, is_asked_for
from pipeline.training.train_autoencoder import metrics, validation_images
from pipeline.training.views import (
    Pose,
    cameras_of,
    network_images,
    reference_azimuth,
    reference_picture_of,
)
from render.cameras import orbit_pose
from render.gbuffer import ViewSet

NOVEL = (
    Pose(45.0, 15.0),
    Pose(90.0, 0.0),
    Pose(135.0, 30.0),
    Pose(180.0, 15.0),
    Pose(270.0, 30.0),
    Pose(315.0, -15.0),
)
"""Cameras of the image-conditioned views, relative to where the picture was taken."""
T = TypeVar("T")


@dataclass
class Bench:
    """What all parts share."""

    props: list[Prop]
    pipeline: MultiViewPipeline
    sampler: Sampler
    judge: Judge
    config: ViewsConfig
    out: Path
    count: int | None
    seeds: int
    said: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    @property
    def val(self) -> list[Prop]:
        """Held-out objects."""
        return [p for p in self.props if p.split == "val"]

    @property
    def asked(self) -> list[Prop]:
        """Held-out objects that somebody might ask for by their name, one for each prompt."""
        distinct: dict[str, Prop] = {}
        for prop in self.val:
            if is_asked_for(prop):
                distinct.setdefault(prompt_of(prop), prop)
        return list(distinct.values())

    def some(self, items: Sequence[T]) -> list[T]:
        """At most `count` of them, evenly spread."""
        if self.count is None or self.count >= len(items):
            return list(items)
        return [items[i * len(items) // self.count] for i in range(self.count)]

    def add(self, part: str, measure: str, values: Iterable[float], **more: Any) -> None:
        """A row: the mean of the values that are numbers."""
        known = [v for v in map(float, values) if not math.isnan(v)]
        self.rows.append(Row(part, measure, float(np.mean(known)) if known else math.nan, len(known), **more))

    def picture(self, name: str, image: Image.Image) -> None:
        image.save(self.out / f"{name}.png")
        self.pictures.append(f"{name}.png")


def ring_of(views: ViewSet, config: ViewsConfig) -> ViewSet:
    """The views that the judge looks at: azimuths 0, 90, 180, 270 at 15 degrees."""
    poses = list(zip(config.azimuths_deg, config.elevations_deg, strict=True))
    return views[[poses.index((p.azimuth_deg, p.elevation_deg)) for p in RING]]


def by_category(bench: Bench, part: str, measure: str, categories: list[str], values: list[float]) -> None:
    """A row for each category."""
    groups = defaultdict(list)
    for category, value in zip(categories, values, strict=True):
        groups[category].append(value)
    for category in sorted(groups):
        bench.add(part, f"{measure}, {category}", groups[category])


def autoencoder(bench: Bench) -> None:
    """Views of `val` objects through the autoencoder and back."""
    count = len(bench.val) if bench.count is None else min(len(bench.val), 3 * bench.count)
    props = bench.val[:: max(1, len(bench.val) // count)][:count]
    model = bench.pipeline.autoencoder
    restored, true, knowns = [], [], []
    for number, prop in enumerate(props):
        rng = np.random.default_rng([7, number])
        poses = [Pose(float(rng.uniform(0, 360)), float(rng.choice([15.0, 15.0, -10.0, 45.0, 89.0])))]
        image, known = network_images(prop, cameras_of(poses, bench.config.size_px))
        with torch.no_grad():
            latents = model.encode(torch.from_numpy(image).to(model.device, model.dtype))
            restored.append(model.decode(latents).float().cpu())
        true.append(torch.from_numpy(image))
        knowns.append(torch.from_numpy(known))
    a, b, known = torch.cat(restored), torch.cat(true), torch.cat(knowns)
    bars = {"base colour": 34.0}
    for name, value in channel_psnr(a, b, known).items():
        bench.rows.append(Row("autoencoder", f"{name} PSNR", value, len(props), "dB", bars.get(name)))
    found = metrics(a, b)
    bench.rows.append(Row("autoencoder", "alpha IoU", found["alpha_iou"], len(props), "", 0.985))
    decided = found["alpha_iou_decided"]
    bench.rows.append(
        Row("autoencoder", "alpha IoU, pixels that are exactly half covered left out", decided, len(props))
    )
    bench.rows.append(Row("autoencoder", "normals", found["normal_deg"], len(props), "degrees", 8.0, True))
    fixed = validation_images(bench.val, 64, bench.config.size_px)
    with torch.no_grad():
        again = torch.cat(
            [
                model.decode(model.encode(v.to(model.device, model.dtype))).float().cpu()
                for v in fixed.split(16)
            ]
        )
    bench.rows.append(
        Row("autoencoder", "base colour PSNR, views of the training log",
            metrics(again, fixed)["base_color_psnr_db"], len(fixed), "dB")
    )  # fmt: skip
    worst = np.argsort(
        [channel_psnr(x[None], y[None], k[None])["base colour"] for x, y, k in zip(a, b, known, strict=True)]
    )
    shown = worst[: min(10, len(worst))].tolist()
    bench.picture(
        "autoencoder",
        strips(
            [
                Strip("true, worst first", [shaded(b[i : i + 1])[0] for i in shown]),
                Strip("through the autoencoder", [shaded(a[i : i + 1])[0] for i in shown]),
            ],
            title="autoencoder: the objects it restores worst",
        ),
    )


def as_believed(prop: Prop, azimuth_deg: float, true: Framing, believed: Framing) -> Prop:
    """The object that a picture shows to who believes its framing: turned, scaled and moved by what is wrong.

    The picture is taken for orthographic, from azimuth 0; each framing is of one picture.
    """
    turn = orbit_pose(torch.tensor([azimuth_deg]), torch.rad2deg(true.elevation_rad))[0, :3, :3]
    back = orbit_pose(torch.zeros(1), torch.rad2deg(believed.elevation_rad))[0, :3, :3]
    scale = torch.exp2(true.log2_magnification - believed.log2_magnification)
    x, y = ((true.center - believed.center)[0] / torch.exp2(believed.log2_magnification)).tolist()
    seen = torch.from_numpy(prop.vertices) @ turn.to(torch.float32) * scale + torch.tensor([x, -y, 0.0])
    return replace(prop, vertices=(seen @ back.to(torch.float32).T).numpy())


@torch.no_grad()
def believed_framing(lifter: LifterNetwork, picture: Image.Image) -> Framing:
    """How the lifter takes a picture to be framed."""
    seen = reference_tensor(picture, 128).to(next(lifter.parameters()).device)
    return Framing.from_tensor(lifter.framing(seen, lifter.features(seen)).cpu())


def novel(bench: Bench) -> None:
    """A picture of a `val` object in, six views from elsewhere out."""
    indexed = bench.some(list(enumerate(bench.val)))
    cameras = cameras_of(list(NOVEL), bench.config.size_px)
    lifter = bench.pipeline.lifter
    results, ceiling, rows = [], [], []
    for number, (index, prop) in enumerate(indexed):
        bench.said(f"novel views {number + 1}/{len(indexed)}")
        rng = np.random.default_rng([11, index])
        azimuth = reference_azimuth(rng)
        pixels, camera = reference_picture_of(prop, azimuth, 128, rng)
        picture = Image.fromarray(pixels, "RGBA")
        drawn = network_image(bench.sampler.views(Prompt("", picture), cameras, seed=0))
        turned = [Pose(p.azimuth_deg + azimuth, p.elevation_deg) for p in NOVEL]
        image, known = network_images(prop, cameras_of(turned, bench.config.size_px))
        true = torch.from_numpy(image)
        results.append(compare(drawn, true, torch.from_numpy(known)))
        last = results[-1]
        if lifter is not None:
            believed = believed_framing(lifter, picture)
            other = as_believed(prop, azimuth, Framing.of(camera), believed)
            shown = torch.from_numpy(network_images(other, cameras)[0])
            ceiling.append(compare(shown, true, torch.from_numpy(known)).iou)
        facts = f"IoU {last.iou:.2f}, {last.psnr_db:.1f} dB\nnormals {last.normal_deg:.0f} deg"
        rows.append(
            (last.iou, [Strip(f"{prop.caption}\ntrue", [picture, *shaded(true)]),
                               Strip(f"drawn\n{facts}", [picture, *shaded(drawn)])])
        )  # fmt: skip
    bars = {"iou": ("mask IoU", "", 0.85), "psnr_db": ("base colour PSNR, over white", "dB", 20.0)}
    bench.add("novel", bars["iou"][0], [r.iou for r in results], bar=0.85)
    if ceiling:
        note = "how the lifter takes the picture to be framed is all that is wrong"
        bench.add("novel", "ceiling: mask IoU of the true object, framed so", ceiling, note=note)
    bench.add("novel", bars["psnr_db"][0], [r.psnr_db for r in results], unit="dB", bar=20.0)
    bench.add("novel", "base colour PSNR, where both cover", [r.psnr_common_db for r in results], unit="dB")
    bench.add("novel", "normal error", [r.normal_deg for r in results], unit="degrees")
    bench.add("novel", "depth error", [r.depth for r in results], unit="units")
    bench.add("novel", "metallic right, of known pixels", [r.metallic_right for r in results])
    bench.add("novel", "roughness error, of known pixels", [r.roughness for r in results])
    categories = [prop.category for _, prop in indexed]
    by_category(bench, "novel", "mask IoU", categories, [r.iou for r in results])
    by_category(bench, "novel", "base colour PSNR, over white", categories, [r.psnr_db for r in results])
    for start in range(0, len(rows), 12):
        page = [strip for _, pair in rows[start : start + 12] for strip in pair]
        bench.picture(f"novel-{start // 12 + 1}", strips(page, title="picture, then true and drawn views"))
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])[:8]
    bench.picture(
        "novel-worst", strips([s for i in order for s in rows[i][1]], title="lowest mask IoU first")
    )
