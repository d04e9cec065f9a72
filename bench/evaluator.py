"""The judge of text alignment: a small contrastive image-text model of our own.

In: views of one object as network images (`pipeline.multiview.codec`) and sentences. Out: unit vectors
whose cosine says how well they fit. It is trained here, on renders of TRAINING objects only, so that
what it says of the `val` objects and of a model's samples is no memory; sentences are all-MiniLM-L6-v2
embeddings behind one linear layer that starts as the identity. A view that the judge sees is 64 pixels.

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
from torch import Tensor, nn
from torch.nn import functional

from bench.evaluator_views import RING, augmented, build_gallery, greyed, render_item, shrink
from pipeline.checkpoints import file_sha256
from pipeline.multiview.codec import CHANNELS
from pipeline.multiview.text import TextEncoder
from pipeline.training.props import COLOR_WORDS, Prop, captions, is_asked_for, load_props
from pipeline.training.weights import MasterWeights, warmup_cosine, working_dtype
from render.progress import Progress, silent

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "runs" / "evaluator"
VERSION = 1
"""Part of the cache's key: raise it when the network, the data or the loss change."""


@dataclass(frozen=True)
class EvaluatorConfig:
    """The judge's network and recipe."""

    width: int = 64
    steps: int = 900
    objects_per_batch: int = 96
    bank: int = 768
    """Captions of other objects that every view must tell from its own, besides those of the batch."""
    foils: int = 4
    """Captions of the same object in other colours and materials."""
    learning_rate: float = 1e-3
    muon_learning_rate: float = 2e-3
    free_views: int = 2
    """Views per object besides the ring of four."""
    seed: int = 0


class Block(nn.Module):
    """Two 3x3 convolutions around one normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(functional.silu(self.norm(x)))
        return x + self.second(functional.silu(hidden))


class Evaluator(nn.Module):
    """Views and sentences to unit vectors of MiniLM's width."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16 * CHANNELS, width, 3, padding=1),
            Block(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            Block(2 * width),
            Block(2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            Block(4 * width),
            Block(4 * width),
            nn.GroupNorm(8, 4 * width),
            nn.SiLU(),
        )
        self.out = nn.Linear(8 * width, 384)
        self.text = nn.Linear(384, 384)
        nn.init.eye_(self.text.weight)
        nn.init.zeros_(self.text.bias)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def views(self, image: Float[Tensor, "n 10 64 64"]) -> Float[Tensor, "n 384"]:
        """Unit vectors of single views."""
        features = self.tower(image)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], -1)
        return functional.normalize(self.out(pooled).float(), dim=-1)

    def sentences(self, embeddings: Float[Tensor, "n 384"]) -> Float[Tensor, "n 384"]:
        """Unit vectors of MiniLM sentence embeddings."""
        return functional.normalize(self.text(embeddings.to(self.text.weight.dtype)).float(), dim=-1)


@torch.no_grad()
def embed_object(model: Evaluator, image: Float[Tensor, "v 10 H W"]) -> Float[Tensor, " 384"]:
    """The unit vector of an object: the mean over its views."""
    views = shrink(image.float()).to(model.out.weight.dtype)
    return functional.normalize(model.views(views).mean(0), dim=-1)


def sentence_vectors(encoder: TextEncoder, texts: list[str]) -> Float[Tensor, "n 384"]:
    """MiniLM's sentence embeddings; short texts are not padded, which is what most of the time went into."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.empty(len(texts), 384)
    for start in range(0, len(order), 64):
        chunk = order[start : start + 64]
        tokens = encoder.tokens([texts[i] for i in chunk], length=1)
        count = (tokens.abs().amax(-1) > 0).sum(1, keepdim=True).clamp_min(1)
        out[chunk] = functional.normalize(tokens.sum(1) / count, dim=-1)
    return out


def train_evaluator(
    props: list[Prop], encoder: TextEncoder, config: EvaluatorConfig, progress: Progress = silent
) -> Evaluator:
    """Train on `props`, which must be training objects."""
    if any(prop.split != "train" for prop in props):
        raise ValueError("the judge may see training objects only")
    gallery = build_gallery(props, config.free_views, config.seed, progress)
    texts = sorted({t for group in (*gallery.true, *gallery.false) for t in group})
    place = {text: i for i, text in enumerate(texts)}
    embeddings = sentence_vectors(encoder, texts)
    true = [[place[t] for t in group] for group in gallery.true]
    false = [[place[t] for t in group] for group in gallery.false]
    torch.manual_seed(config.seed)
    model = Evaluator(config.width)
    dtype = working_dtype(torch.device("cpu"))
    weights = MasterWeights(
        model,
        use_muon=lambda name, p: p.ndim == 4 and not name.endswith("tower.1.weight"),
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=0.05,
        ema_decay=0.99,
    )
    weights.cast(dtype)
    model.to(memory_format=torch.channels_last)
    rng = np.random.default_rng([config.seed, 1])
    for step in range(config.steps):
        progress(step / config.steps, "training the judge")
        chosen = rng.choice(len(gallery.views), config.objects_per_batch, replace=False)
        items = gallery.item[chosen]
        own = [true[i][rng.integers(len(true[i]))] for i in items]
        wrong = [
            [false[i][k] for k in rng.choice(len(false[i]), config.foils, replace=False)]
            if false[i]
            else rng.integers(len(texts), size=config.foils).tolist()
            for i in items
        ]
        image = augmented(torch.from_numpy(gallery.views[chosen]), rng)
        seen = model.views(image.to(dtype, memory_format=torch.channels_last))
        bank = rng.integers(len(texts), size=config.bank)
        loss = contrastive_loss(
            model,
            seen,
            embeddings[own],
            embeddings[bank],
            embeddings[np.array(wrong)],
            torch.from_numpy(items),
        )
        loss.backward()
        weights.step(warmup_cosine(step, 30, config.steps))
    weights.load_working(weights.ema)
    return model.float().eval().requires_grad_(False)


def contrastive_loss(
    model: Evaluator,
    seen: Float[Tensor, "b 384"],
    own: Float[Tensor, "b 384"],
    bank: Float[Tensor, "n 384"],
    foils: Float[Tensor, "b f 384"],
    items: Tensor,
) -> Tensor:
    """Symmetric InfoNCE (arXiv:2103.00020); captions that mean nearly the same are no negatives."""
    scale = model.log_scale.float().clamp(max=4.2).exp()
    said = model.sentences(own)
    many = model.sentences(torch.cat([own, bank]))
    b, f, width = foils.shape
    wrong = model.sentences(foils.reshape(-1, width)).view(b, f, width)
    logits = torch.cat([seen @ many.T, torch.einsum("bw,bfw->bf", seen, wrong)], 1) * scale
    alike = torch.cat([own @ torch.cat([own, bank]).T, torch.einsum("bw,bfw->bf", own, foils)], 1)
    same = alike > 0.97
    same[:, :b] |= items[:, None] == items[None]
    same[torch.arange(b), torch.arange(b)] = False
    targets = torch.arange(b)
    forward = functional.cross_entropy(logits.masked_fill(same, -1e4), targets)
    back = functional.cross_entropy((said @ seen.T * scale).masked_fill(same[:, :b], -1e4), targets)
    return 0.7 * forward + 0.3 * back


@dataclass(frozen=True)
class Judge:
    """A trained evaluator, the text encoder and what it knows of the training objects."""

    model: Evaluator
    encoder: TextEncoder
    name: str
    """Changes with its code's version, recipe and data: figures of different judges do not compare."""
    training: Float[Tensor, "n 384"]
    """Vectors of the training objects, in the order of the pack's training objects that are asked for."""

    def texts(self, texts: list[str]) -> Float[Tensor, "n 384"]:
        with torch.no_grad():
            return self.model.sentences(sentence_vectors(self.encoder, texts))

    def objects(self, images: list[Tensor]) -> Float[Tensor, "n 384"]:
        """Vectors of objects, each given by its views."""
        return torch.stack([embed_object(self.model, image) for image in images])


def prompt_of(prop: Prop) -> str:
    """The caption that a `val` object is asked for by: with its colour, where it has one."""
    texts = captions(prop)
    return texts[min(1, len(texts) - 1)]


def load_judge(
    data: Path,
    props: list[Prop],
    config: EvaluatorConfig = EvaluatorConfig(),
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
    model = Evaluator(config.width)
    if path.is_file():
        tensors = load_file(path)
        vectors = tensors.pop("training")
        model.load_state_dict(tensors)
        return Judge(model.eval().requires_grad_(False), encoder, key, vectors)
    model = train_evaluator(training, encoder, config, progress)
    vectors = training_vectors(model, training)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({n: t.contiguous() for n, t in model.state_dict().items()} | {"training": vectors}, partial)
    partial.replace(path)
    return Judge(model, encoder, key, vectors)


@torch.no_grad()
def training_vectors(model: Evaluator, props: list[Prop]) -> Float[Tensor, "n 384"]:
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
    parser.add_argument("--steps", type=int, default=EvaluatorConfig.steps)
    arguments = parser.parse_args()
    props = list(load_props(arguments.props))
    start, said = time.process_time(), [-1]

    def progress(fraction: float, message: str = "") -> None:
        if int(fraction * 10) != said[0]:
            said[0] = int(fraction * 10)
            print(f"{message} {fraction:.0%}, {time.process_time() - start:.0f} CPU s", flush=True)

    judge = load_judge(arguments.props, props, EvaluatorConfig(steps=arguments.steps), progress=progress)
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
