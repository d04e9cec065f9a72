"""Calibration of the domain score: known captions, prompts of users, prompts from elsewhere.

    python bench/domain.py [--data PACK]

Prints the scores of the prompts below and the error rates at the shipped threshold;
with the training pack's path (without endings) also those of its `val` captions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pipeline.models import model_directory
from pipeline.multiview.domain import THRESHOLD, Domain
from pipeline.multiview.text import TextEncoder
from pipeline.training.props import captions, is_asked_for, load_props

INSIDE = (
    "a wooden barrel with iron bands", "a red sports car", "a treasure chest with gold coins",
    "an old oak tree",
    "a stone well with a wooden roof", "a medieval sword with a golden hilt", "a comfy blue armchair",
    "a small wooden cottage", "a red mushroom with white spots", "a pirate ship", "a wooden crate",
    "a stack of pancakes", "a wooden table", "a sci-fi blaster pistol", "a potted cactus", "a street lamp",
    "a round wooden shield", "a pumpkin lantern", "a snowy pine tree", "a campfire with logs",
)  # fmt: skip
OUTSIDE = (
    "a photograph of Albert Einstein", "the concept of justice", "a human hand holding a violin",
    "quarterly revenue bar chart", "a bowl of ramen noodles with steam in anime style", "DNA double helix",
    "the Eiffel Tower at night", "a portrait of an elderly woman", "a jet engine turbine cutaway",
    "a heart anatomy model", "iPhone 15 pro", "lace wedding dress", "a swarm of bees", "saxophone",
    "a Nike running shoe", "microscope", "the letter Q in cursive", "a whale breaching the ocean",
    "stethoscope", "Mona Lisa painting",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    encoder, domain = TextEncoder(), Domain.load(model_directory())
    groups = {"inside": INSIDE, "outside": OUTSIDE}
    if arguments.data:
        held_out = [p for p in load_props(arguments.data) if p.split == "val" and is_asked_for(p)]
        groups["val captions"] = tuple(captions(p)[0] for p in held_out)
    for name, texts in groups.items():
        scores = np.array([domain.score(text, encoder).score for text in texts])
        if name != "val captions":
            for text, score in zip(texts, scores, strict=True):
                print(f"  {score:.2f}  {text}")
        low, median, high = np.percentile(scores, [5, 50, 90])
        print(
            f"{name}: {len(texts)} prompts, 5th percentile {low:.3f}, median {median:.3f}, 90th {high:.3f}, "
            f"below the threshold of {THRESHOLD}: {(scores < THRESHOLD).mean():.0%}"
        )


if __name__ == "__main__":
    main()
