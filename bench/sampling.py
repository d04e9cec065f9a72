"""What precision, steps, guidance and candidates of the sampler cost and bring, on the gallery's prompts.

    python -m bench.sampling --props STEM [--model FOLDER] [--prompts 24]

Four tables, each with the agreement of the views and how often the judge (`bench.evaluator`, trained on
training objects only) finds the prompt among all the gallery's by the four views around the object.
Precision: relative squared distance of the latents from those of fp32 with the same noise, processor seconds.
Steps: distance from 100 steps (what is left is the solver's error), processor seconds. Guidance. Candidates:
the best of several by agreement.
Seed 0, ten views as the presets draw them.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.evaluator import Judge, load_judge, own_ranks
from bench.gallery import PROMPTS
from pipeline.best_views import stage_generator, view_cameras
from pipeline.consistency import view_consistency
from pipeline.multiview.codec import encode_gbuffer
from pipeline.multiview.sampler import ViewSampler, load
from pipeline.preset import ViewsConfig, load_preset
from pipeline.prompt import Prompt
from pipeline.training.props import load_props
from render.gbuffer import ViewSet

STEPS = (2, 3, 4, 6, 8, 12, 16, 25, 50)
TRUTH_STEPS = 100
GUIDANCE = (2.0, 3.0, 3.5, 5.0)
CANDIDATES = 4
FOUND = ("agreement", "judge's first", "among three")
AROUND = [0, 2, 4, 6]
"""Of the presets' views, those from the four sides."""


@dataclass(frozen=True)
class Drawn:
    views: ViewSet
    latents: Tensor
    score: float
    seconds: float
    """Of processor time."""


class Bench:
    def __init__(self, sampler: ViewSampler) -> None:
        self.sampler, self.cameras = sampler, view_cameras(ViewsConfig())

    def draw(self, prompt: str, config: ViewsConfig, candidate: int = 0) -> Drawn:
        """A single set, as `stages.draw_views` draws it; its candidates have the same noise here."""
        start = time.process_time()
        views = self.sampler(
            Prompt(prompt),
            self.cameras,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            guidance_rescale=config.guidance_rescale,
            generator=stage_generator(0, f"views-{candidate}" if candidate else "views"),
        )
        seconds = time.process_time() - start
        with torch.no_grad():
            latents = self.sampler.encode_views(views.gbuffer, self.cameras)
        return Drawn(views, latents, view_consistency(views).score, seconds)

    def around(self, drawn: Drawn) -> Tensor:
        """What the judge is shown."""
        return encode_gbuffer(drawn.views.gbuffer[AROUND], self.cameras[AROUND])


def found(bench: Bench, judge: Judge, drawn: list[Drawn]) -> str:
    """Agreement, and how often the judge's first and first three are the prompt."""
    ranks = own_ranks(
        judge.objects([bench.around(one) for one in drawn]),
        judge.texts(list(PROMPTS)),
        list(range(len(drawn))),
    )
    score = np.mean([one.score for one in drawn])
    return f"{score:.3f} | {np.mean(ranks < 1):.2f} | {np.mean(ranks < 3):.2f}"


def measured(bench: Bench, judge: Judge, drawn: list[Drawn], truth: list[Drawn]) -> str:
    """Distance from `truth`, what was found, processor seconds."""
    error = np.mean([float((a.latents - b.latents).square().mean() / b.latents.square().mean())
                     for a, b in zip(drawn, truth, strict=True)])  # fmt: skip
    return f"{error:.4f} | {found(bench, judge, drawn)} | {np.mean([one.seconds for one in drawn]):.2f}"


def heading(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--props", type=Path, required=True, help="the training pack without its endings")
    parser.add_argument("--model", type=Path, help="a folder; the shipped model by default")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    given = parser.parse_args()
    judge = load_judge(given.props, list(load_props(given.props)))
    prompts, chosen = PROMPTS[: given.prompts], load_preset("standard").views
    print(f"{len(prompts)} prompts of the gallery, seed 0")

    heading("precision", "error", *FOUND, "processor s")
    exact = Bench(load(given.model, dtype=torch.float32))
    bench = Bench(load(given.model, dtype=torch.bfloat16))
    pairs = [(exact.draw(prompt, chosen), bench.draw(prompt, chosen)) for prompt in prompts]
    precise = [pair[0] for pair in pairs]
    print(f"| fp32 | {measured(exact, judge, precise, precise)} |", flush=True)
    print(f"| bf16 | {measured(bench, judge, [pair[1] for pair in pairs], precise)} |", flush=True)

    heading("steps", "error", *FOUND, "processor s")
    truth = [bench.draw(prompt, replace(chosen, num_inference_steps=TRUTH_STEPS)) for prompt in prompts]
    for steps in STEPS:
        drawn = [bench.draw(prompt, replace(chosen, num_inference_steps=steps)) for prompt in prompts]
        print(f"| {steps} | {measured(bench, judge, drawn, truth)} |", flush=True)

    heading("guidance", "rescale", *FOUND)
    for guidance, rescale in itertools.product(GUIDANCE, (0.0, 1.0)):
        config = replace(chosen, guidance_scale=guidance, guidance_rescale=rescale)
        drawn = [bench.draw(prompt, config) for prompt in prompts]
        print(f"| {guidance:g} | {rescale:g} | {found(bench, judge, drawn)} |", flush=True)

    heading("candidates", *FOUND)
    sets = [[bench.draw(prompt, chosen, k) for k in range(CANDIDATES)] for prompt in prompts]
    for count in (1, 2, CANDIDATES):
        best = [max(one[:count], key=lambda drawn: drawn.score) for one in sets]
        print(f"| {count} | {found(bench, judge, best)} |", flush=True)


if __name__ == "__main__":
    main()
