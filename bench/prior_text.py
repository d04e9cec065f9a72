"""The parts of `bench.prior` that ask with words: captions, compositional, diversity, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.evaluator import names_alone, own_ranks, prompt_of, true_vectors
from bench.prior_measures import (
    FINISHES,
    OBJECTS,
    asked_colors,
    color_is_right,
    compare,
    compositional_prompts,
    mask_iou,
)
from bench.prior_page import Row, Strip, grid, shaded, strips
from bench.prior_parts import Bench, by_category, ring_of
from bench.prior_samples import network_image
from pipeline.best_views import view_cameras
from pipeline.color_names import color_shares
from pipeline.consistency import view_consistency
from pipeline.finish import metal_share
from pipeline.multiview.codec import decode_gbuffer
from pipeline.preset import ViewsConfig
from pipeline.prompt import Prompt
from pipeline.training.critic_views import RING, greyed, painted, render_item
from pipeline.training.props import Prop, is_asked_for
from pipeline.training.views import cameras_of, network_images
from recon.consensus import disagreement_px
from recon.fusion import depth_maps
from render.gbuffer import ViewSet

DIVERSITY_PROMPTS = (
    "a wooden chair", "a stone well", "a red car", "a potion bottle", "a pine tree", "a sword", "a house",
    "a treasure chest", "a mushroom", "a street lamp",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A prompt with what was drawn."""

    prompt: str
    views: ViewSet
    image: Tensor
    """The ring, as network images."""


def draw_all(bench: Bench, prompts: list[str], seed: int = 0) -> list[Asked]:
    """Views of every prompt, as a run with the preset would keep them."""
    out = []
    for number, prompt in enumerate(prompts):
        bench.said(f"views of prompts {number + 1}/{len(prompts)}")
        views = bench.sampler.best(Prompt(prompt), bench.config, seed)
        out.append(Asked(prompt, views, network_image(ring_of(views, bench.config))))
    return out


def add_consistency(bench: Bench, part: str, views: list[ViewSet]) -> None:
    """How well the views of each sample agree: carried points, and pixels of disagreement."""
    found = [view_consistency(v) for v in views]
    bench.add(part, "views agree: points that no view contradicts", [c.geometry for c in found])
    bench.add(part, "views agree: colour of common points", [c.color for c in found])
    apart = [
        disagreement_px(depth_maps(v.cameras, v.gbuffer))
        for v in views
        if bool((v.gbuffer.alpha > 0.5).any())
    ]
    bench.add(part, "views disagree by", apart, unit="px", note="true views of a mesh: 0.0 to 0.4")


def caption_part(bench: Bench) -> None:
    """One prompt for every `val` object: does the judge find it among all of them?"""
    everything = bench.asked
    chosen = bench.some(list(range(len(everything))))
    texts = bench.judge.texts([prompt_of(p) for p in everything])
    drawn = draw_all(bench, [prompt_of(everything[i]) for i in chosen])
    place = own_ranks(bench.judge.objects([d.image for d in drawn]), texts, chosen)
    limit = own_ranks(true_vectors(bench.judge, everything), texts, list(range(len(everything))))
    best = limit[chosen]
    among = f"among {len(everything)} captions; chance {1 / len(everything):.3f}"
    bench.add("captions", "R-precision@1", place < 1, bar=0.5, note=among)
    bench.add("captions", "R-precision@5", place < 5, note=among)
    bench.add("captions", "ceiling: R@1 of true renders", best < 1, note="the same objects")
    bench.add("captions", "ceiling: R@5 of true renders", best < 5, note="the same objects")
    bench.add("captions", "ceiling: R@1 of true renders, all", limit < 1)
    bench.add("captions", "R@1 where the judge knows the true object", (place < 1)[best < 1])
    names, own = names_alone(everything)
    name_texts = bench.judge.texts(names)
    own = [own[i] for i in chosen]
    shape = own_ranks(bench.judge.objects([greyed(d.image) for d in drawn]), name_texts, own)
    true = true_vectors(bench.judge, [everything[i] for i in chosen], shape_alone=True)
    shape_limit = own_ranks(true, name_texts, own)
    for first in (1, 5):
        note = f"all grey, names without colours; among {len(names)}"
        bench.add("captions", f"shape alone: R@{first}", shape < first, note=note)
        bench.add("captions", f"ceiling: shape alone, R@{first} of true renders", shape_limit < first)
    colors = [(asked_colors(d.prompt), color_shares(d.views.gbuffer)) for d in drawn]
    right = [color_is_right(shares, asked) for asked, shares in colors if asked]
    bench.add("captions", "asked colour is the largest", [ok for _, ok in right])
    bench.add("captions", "share of the asked colour", [share for share, _ in right])
    add_consistency(bench, "captions", [d.views for d in drawn])
    known = [true_views(everything[i], bench.config) for i in chosen[:12]]
    true_agreement = [view_consistency(v).geometry for v in known]
    bench.add("captions", "ceiling: points that no view contradicts, true views", true_agreement)
    categories = [everything[i].category for i in chosen]
    by_category(bench, "captions", "R-precision@5", categories, (place < 5).astype(float).tolist())
    labels = [
        f"{'' if by_shape < 5 else '!'}{d.prompt}\nrank {rank + 1} of true {top + 1}; shape {by_shape + 1}"
        for d, rank, top, by_shape in zip(drawn, place, best, shape, strict=True)
    ]
    for start in range(0, len(drawn), 60):
        page = slice(start, start + 60)
        bench.picture(
            f"captions-{start // 60 + 1}",
            grid([three_quarter(d) for d in drawn[page]], labels[page],
                 title="val captions: rank of the own one; red: by shape alone not among the first five"),
        )  # fmt: skip


def true_views(prop: Prop, config: ViewsConfig) -> ViewSet:
    """An object as the rig would see it."""
    cameras = view_cameras(config)
    image, _ = network_images(prop, cameras)
    return ViewSet(cameras, decode_gbuffer(torch.from_numpy(image), cameras))


def three_quarter(asked: Asked) -> Image.Image:
    """The view at azimuth 45 if the rig has it: a front view hides depth."""
    return shaded(network_image(asked.views[1 if len(asked.views) > 4 else 0]))[0]


def compositional(bench: Bench) -> None:
    """Objects in colours and materials of which the training has no real example."""
    prompts = compositional_prompts()
    chosen = list(range(100 if bench.count is None else min(100, bench.count)))
    drawn = draw_all(bench, [prompts[i][0] for i in chosen])
    objects = bench.judge.objects([d.image for d in drawn])
    place = own_ranks(objects, bench.judge.texts([p for p, _, _ in prompts]), chosen)
    bench.add("compositional", "R-precision@1", place < 1, note="among 100 prompts; chance 0.01")
    names, finishes = [], []
    for i, vector in zip(chosen, objects, strict=True):
        _, name, finish = prompts[i]
        same_finish = bench.judge.texts([f"a {finish.words} {other}" for other in OBJECTS])
        same_object = bench.judge.texts([f"a {other.words} {name}" for other in FINISHES])
        names.append(int((same_finish @ vector).argmax()) == OBJECTS.index(name))
        finishes.append(int((same_object @ vector).argmax()) == FINISHES.index(finish))
    bench.add("compositional", "object right", names, note="among the 10 objects; chance 0.1")
    shapes = bench.judge.objects([greyed(d.image) for d in drawn])
    said = (shapes @ bench.judge.texts([f"grey {other}" for other in OBJECTS]).T).argmax(1).tolist()
    by_shape = [prompts[i][1] == OBJECTS[found] for i, found in zip(chosen, said, strict=True)]
    bench.add("compositional", "object right by shape alone", by_shape, note="all grey; chance 0.1")
    bench.add("compositional", "finish right", finishes, note="among the 10 finishes; chance 0.1")
    bench.add(
        "compositional", "ceiling: finish right on painted val objects", painted_finishes(bench), note="judge"
    )
    right, share, metal = [], [], []
    for i, sample in zip(chosen, drawn, strict=True):
        finish = prompts[i][2]
        found = color_is_right(color_shares(sample.views.gbuffer), finish.colors)
        share.append(found[0])
        right.append(found[1])
        value = metal_share(sample.views.gbuffer)
        metal.append(math.nan if finish.metal is None else float((value > 0.5) == finish.metal))
    bench.add("compositional", "colour right", right, bar=0.9, note="the asked colour is the largest")
    bench.add("compositional", "share of the asked colour", share)
    bench.add("compositional", "metal or not right", metal, bar=0.85, note="mean metallic against 0.5")
    for number, name in enumerate(OBJECTS):
        mine = [k for k, i in enumerate(chosen) if i % 10 == number]
        bench.add("compositional", f"object right by shape alone, {name}", [by_shape[k] for k in mine])
    for finish in FINISHES:
        mine = [k for k, i in enumerate(chosen) if prompts[i][2] == finish]
        bench.add("compositional", f"colour right, {finish.words}", [right[k] for k in mine])
        if finish.metal is not None:
            bench.add("compositional", f"metal or not right, {finish.words}", [metal[k] for k in mine])
    add_consistency(bench, "compositional", [d.views for d in drawn])
    labels = []
    for k, sample in enumerate(drawn):
        wrong = [
            word
            for word, ok in (("shape", by_shape[k]), ("colour", right[k]), ("metal", metal[k] != 0))
            if not ok
        ]
        state = ("not " + ", ".join(wrong)) if wrong else "right"
        labels.append(f"{'!' if wrong else ''}{sample.prompt.removeprefix('a ')}\n{state}")
    bench.picture(
        "compositional",
        grid(
            [three_quarter(d) for d in drawn], labels, title="compositional prompts; red: something is wrong"
        ),
    )


def painted_finishes(bench: Bench) -> list[bool]:
    """Whether the judge tells how painted `val` objects were painted, among four other finishes."""
    out = []
    for number, prop in enumerate(bench.asked[:60]):
        made, foils = painted(prop, np.random.default_rng([13, number]))
        vector = bench.judge.objects([torch.from_numpy(render_item(made, list(RING)))])[0]
        out.append(int((bench.judge.texts([made.caption, *foils[:4]]) @ vector).argmax()) == 0)
    return out


def diversity(bench: Bench) -> None:
    """Seeds of one prompt: do they differ, and less than prompts do?"""
    prompts = list(DIVERSITY_PROMPTS[: 3 if bench.count is not None else len(DIVERSITY_PROMPTS)])
    drawn = [draw_all(bench, prompts, seed) for seed in range(bench.seeds)]
    vectors = torch.stack([bench.judge.objects([d.image for d in row]) for row in drawn])
    within, overlap = [], []
    for k in range(len(prompts)):
        pairs = [(a, b) for a in range(bench.seeds) for b in range(a)]
        within.append(float(np.mean([1 - float(vectors[a, k] @ vectors[b, k]) for a, b in pairs])))
        overlap.append(
            float(np.mean([mask_iou(drawn[a][k].views.gbuffer, drawn[b][k].views.gbuffer) for a, b in pairs]))
        )
    means = torch.nn.functional.normalize(vectors.mean(0), dim=-1)
    across = (1 - means @ means.T)[~torch.eye(len(prompts), dtype=torch.bool)].tolist()
    note = f"{bench.seeds} seeds each"
    bench.add(
        "diversity", "distance between seeds of a prompt", within, note=note + "; 1 - cosine of the judge"
    )
    bench.rows.append(
        Row(
            "diversity",
            "distance between prompts",
            float(np.mean(across)),
            len(prompts),
            note="the same measure",
        )
    )
    bench.add("diversity", "mask IoU between seeds", overlap, note=note + "; 1 is no variety of shape")
    bench.picture(
        "diversity",
        strips([Strip(p, [three_quarter(row[k]) for row in drawn]) for k, p in enumerate(prompts)],
               title="one prompt a row, one seed a column"),
    )  # fmt: skip


def memory(bench: Bench) -> None:
    """Is a sample a training object seen again? Beside how near the true `val` objects are to those."""
    everything = bench.asked
    chosen = bench.some(everything)
    drawn = draw_all(bench, [prompt_of(p) for p in chosen])
    training = [p for p in bench.props if p.split == "train" and is_asked_for(p)]
    vectors = bench.judge.objects([d.image for d in drawn])
    true = bench.judge.objects([torch.from_numpy(render_item(p, list(RING))) for p in chosen])
    bank = bench.judge.training
    bench.add("memory", "cosine to the nearest training object", (vectors @ bank.T).amax(1).tolist())
    bench.add(
        "memory",
        "the same of the true val objects",
        (true @ bank.T).amax(1).tolist(),
        note="what new is like",
    )
    copies, rows = [], []
    for sample, vector in zip(drawn, vectors, strict=True):
        best, found = None, None
        for i in (bank @ vector).topk(min(5, len(bank))).indices.tolist():
            image, known = network_images(training[i], cameras_of(list(RING), bench.config.size_px))
            near = compare(sample.image, torch.from_numpy(image), torch.from_numpy(known))
            if found is None or near.iou > found.iou:
                best, found = (training[i].caption, torch.from_numpy(image)), near
        assert best is not None
        assert found is not None
        copies.append((found.iou, found.psnr_db))
        rows.append(Strip(f"{sample.prompt}\nnearest: {best[0]}\nIoU {found.iou:.2f}, {found.psnr_db:.1f} dB",
                          [*shaded(sample.image), *shaded(best[1])]))  # fmt: skip
    bench.add("memory", "mask IoU with the nearest training object", [iou for iou, _ in copies])
    bench.add("memory", "base colour PSNR to it, over white", [psnr for _, psnr in copies], unit="dB")
    bench.add(
        "memory",
        "copies",
        [iou > 0.9 and psnr > 25 for iou, psnr in copies],
        note="IoU over 0.9 and over 25 dB",
    )
    order = sorted(range(len(rows)), key=lambda k: -copies[k][0])
    for page in range(0, min(len(rows), 48), 24):
        bench.picture(
            f"memory-{page // 24 + 1}",
            strips([rows[k] for k in order[page : page + 24]], cell_px=80,
                   title="four drawn views, then the nearest training object; most alike first"),
        )  # fmt: skip
