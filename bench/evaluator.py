"""The judge of text alignment: a critic (`pipeline.multiview.critic_network`) that chooses nothing.

It is trained here, on renders of the pack's TRAINING objects only, so that what it says of the `val` objects
and of a model's samples is no memory. The critic that ships with the model is another network of the same
kind: of other size and seed, trained on procedural objects as well.

    python -m bench.evaluator --props STEM      # trains it, unless runs/evaluator has it; says how good it is

Its own retrieval accuracy on true renders of `val` objects is the ceiling of any score it gives.
Training takes a fixed number of steps, so that the same data gives the same judge.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from pipeline.checkpoints import file_sha256
from pipeline.color_names import COLOR_WORDS
from pipeline.multiview.critic_network import CriticNetwork
from pipeline.multiview.text import TextEncoder
from pipeline.training.critic_views import RING, greyed, render_item
from pipeline.training.props import Prop, captions, is_asked_for, load_props
from pipeline.training.train_critic import CriticTraining, train_critic
from render.progress import Progress, silent

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "runs" / "evaluator"
RECIPE = CriticTraining()
VERSION = 1
"""Part of the cache's key: raise it when the network, the data or the loss change."""


@dataclass(frozen=True)
class Judge:
    """A trained critic, the text encoder and what it knows of the training objects."""

    model: CriticNetwork
    encoder: TextEncoder
    name: str
    """Changes with its code's version, recipe and data: figures of different judges do not compare."""
    training: Float[Tensor, "n 384"]
    """Vectors of the training objects, in the order of the pack's training objects that are asked for."""

    def texts(self, texts: list[str]) -> Float[Tensor, "n 384"]:
        with torch.no_grad():
            return self.model.sentences(self.encoder.sentences(texts))

    def objects(self, images: list[Tensor]) -> Float[Tensor, "n 384"]:
        """Vectors of objects, each given by its views."""
        return torch.stack([self.model.object(image) for image in images])


def prompt_of(prop: Prop) -> str:
    """The caption that a `val` object is asked for by: with its colour, where it has one."""
    texts = captions(prop)
    return texts[min(1, len(texts) - 1)]


def load_judge(
    data: Path,
    props: list[Prop],
    config: CriticTraining = RECIPE,
    cache: Path = CACHE,
    progress: Progress = silent,
) -> Judge:
    """The judge of a pack, trained now or read from `cache`."""
    training = [p for p in props if p.split == "train" and is_asked_for(p)]
    key = hashlib.sha256(
        json.dumps(
            [
                VERSION,
                asdict(config),
                file_sha256(data.with_suffix(".bin.xz")),
                [captions(p) for p in training],
            ],
            sort_keys=True,
        ).encode()
    ).hexdigest()[:12]
    encoder = TextEncoder()
    path = cache / f"judge-{key}.safetensors"
    model = CriticNetwork(config.width)
    if path.is_file():
        tensors = load_file(path)
        vectors = tensors.pop("training")
        model.load_state_dict(tensors)
        return Judge(model.eval().requires_grad_(False), encoder, key, vectors)
    model = train_critic(training, encoder, config, progress)
    vectors = training_vectors(model, training)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({n: t.contiguous() for n, t in model.state_dict().items()} | {"training": vectors}, partial)
    partial.replace(path)
    return Judge(model, encoder, key, vectors)


@torch.no_grad()
def training_vectors(model: CriticNetwork, props: list[Prop]) -> Float[Tensor, "n 384"]:
    """The vector of every object, from its ring of views."""
    out = []
    for start in range(0, len(props), 32):
        chunk = props[start : start + 32]
        image = torch.from_numpy(np.concatenate([render_item(p, list(RING)) for p in chunk]))
        views = model.views(image.contiguous(memory_format=torch.channels_last))
        out.append(functional.normalize(views.view(len(chunk), len(RING), -1).mean(1), dim=-1))
    return torch.cat(out)


def true_vectors(judge: Judge, props: list[Prop], *, shape_alone: bool = False) -> Float[Tensor, "n 384"]:
    """Vectors of true renders."""
    images = [torch.from_numpy(render_item(p, list(RING))) for p in props]
    return judge.objects([greyed(image) for image in images] if shape_alone else images)


def own_ranks(
    objects: Float[Tensor, "n d"], texts: Float[Tensor, "m d"], own: list[int]
) -> Int[np.ndarray, " n"]:
    """Place of text `own[i]` for object i among all texts, 0 for the first; a tie counts against it."""
    similarity = (objects @ texts.T).double().numpy()
    mine = similarity[np.arange(len(own)), own][:, None]
    return (similarity >= mine).sum(1) - 1


def names_alone(props: list[Prop]) -> tuple[list[str], list[int]]:
    """Distinct names of the objects without colours, as "grey NAME", and which is whose."""
    colors = set(" ".join(COLOR_WORDS).split())
    names = [" ".join(w for w in captions(p)[0].split() if w not in colors) or "object" for p in props]
    distinct = sorted(set(names))
    return [f"grey {name}" for name in distinct], [distinct.index(name) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--props", type=Path, required=True, help="the pack without its endings")
    parser.add_argument("--steps", type=int, default=CriticTraining.steps)
    arguments = parser.parse_args()
    props = list(load_props(arguments.props))
    start, said = time.process_time(), [-1]

    def progress(fraction: float, message: str = "") -> None:
        if int(fraction * 10) != said[0]:
            said[0] = int(fraction * 10)
            print(f"{message} {fraction:.0%}, {time.process_time() - start:.0f} CPU s", flush=True)

    judge = load_judge(arguments.props, props, CriticTraining(steps=arguments.steps), progress=progress)
    val = [p for p in props if p.split == "val" and is_asked_for(p)]
    texts, own = names_alone(val)
    for what, found in (
        ("captions", own_ranks(true_vectors(judge, val), judge.texts([prompt_of(p) for p in val]),
                               list(range(len(val))))),
        ("shape alone", own_ranks(true_vectors(judge, val, shape_alone=True), judge.texts(texts), own)),
    ):  # fmt: skip
        print(
            f"{what}: {len(val)} val objects: R@1 {(found < 1).mean():.3f}, R@5 {(found < 5).mean():.3f}, "
            f"median rank {np.median(found) + 1:.0f}"
        )
    print(f"{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
