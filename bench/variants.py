"""How variants of a prompt are ranked: every seed's scores, and their agreement with a ranking by eye.

    python bench/variants.py --out out/variants "a red mushroom" "a wooden barrel"
    python bench/variants.py --out out/variants "a red mushroom" --eye 0,3,1,2    # best seed first

Draws each seed with the settings of a preset, writes a sheet of them to judge by eye, and prints what the
ranking is made of. The score was chosen so, with the first weights, on six prompts (mushroom, barrel, pine,
sword, house, chair) of four seeds each at `draft`, ranked by one person's eye before any number was known.
Rank correlation with the eye, mean of the six; prompts where the eye's best was kept; where its worst was:

    geometry x colour x framing (before)            0.00   3   3
    mean overlap with the consensus' outlines       0.13   3   2
    model's loss on its own views at noise 0.3      0.37   2   0
    ... its gain by the prompt, noise 0.3 to 0.85   0.07   1   0
    normals against the consensus' normals          0.30   0   1
    crispness of alpha                              0.33   1   0
    shape                                           0.43   3   1
    shape x connected                               0.37   3   1
    shape x connected x normals                     0.47   3   1
    shape x connected x colour (now)                0.60   3   0

Then four other seeds of mushroom, barrel, pine and chair, which the choice had not seen: 0.25 now, 0.45
before; both kept the same seeds, two of them the eye's best, none its worst. So over all ten: 0.46 against
0.18, five best kept by either, no worst against three. The differences among the last rows are chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pipeline.best_views import stage_generator, view_cameras
from pipeline.consistency import view_consistency
from pipeline.multiview.sampler import load
from pipeline.preset import load_preset
from pipeline.prompt import Prompt
from pipeline.request import slug
from pipeline.variants import variants_sheet

COLUMNS = ("geometry", "color", "framing", "shape", "connected", "score")


def rank_correlation(scores: list[float], eye: list[int]) -> float:
    """Spearman's, of scores by seed with the seeds in the order that the eye has them."""
    by_score = np.argsort(np.argsort([-score for score in scores]))
    by_eye = np.argsort(eye)
    return float(np.corrcoef(by_score, by_eye)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", nargs="+")
    parser.add_argument("--eye", action="append", default=[], help="seeds, best first; one per prompt")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = load_preset(arguments.preset).views
    model = load()
    print("| prompt | seed | " + " | ".join(COLUMNS) + " |\n|---|---|" + "---|" * len(COLUMNS))
    for index, text in enumerate(arguments.prompt):
        sets = [
            model(
                Prompt(text),
                view_cameras(config),
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
                guidance_rescale=config.guidance_rescale,
                generator=stage_generator(seed, "views"),
            )
            for seed in range(arguments.seeds)
        ]
        found = [view_consistency(views) for views in sets]
        for seed, each in enumerate(found):
            values = " | ".join(f"{getattr(each, name):.3f}" for name in COLUMNS)
            print(f"| {text} | {seed} | {values} |")
        labels = [f"seed {seed}: {each.score:.3f}" for seed, each in enumerate(found)]
        variants_sheet(sets, labels).save(arguments.out / f"{slug(text)}.png")
        if index < len(arguments.eye):
            eye = [int(seed) for seed in arguments.eye[index].split(",")]
            for name in COLUMNS:
                rho = rank_correlation([getattr(each, name) for each in found], eye)
                print(f"|  | {name} against the eye | {rho:+.2f} |")


if __name__ == "__main__":
    main()
