"""Trains the critic (`pipeline.multiview.critic_network`), and with other data the benches' judge.

A fixed number of steps, so that the same data gives the same network; some six minutes of one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pipeline.multiview.critic_network import CriticNetwork
from pipeline.multiview.text import TextEncoder
from pipeline.training.critic_views import augmented, build_gallery
from pipeline.training.props import Prop
from pipeline.training.weights import MasterWeights, warmup_cosine, working_dtype
from render.progress import Progress, silent


@dataclass(frozen=True)
class CriticTraining:
    """Recipe of the critic."""

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


def train_critic(
    props: list[Prop], encoder: TextEncoder, config: CriticTraining, progress: Progress = silent
) -> CriticNetwork:
    """Train on `props`, which must be training objects."""
    if any(prop.split == "val" for prop in props):
        raise ValueError("a critic may see training objects only")
    gallery = build_gallery(props, config.free_views, config.seed, progress)
    texts = sorted({t for group in (*gallery.true, *gallery.false) for t in group})
    place = {text: i for i, text in enumerate(texts)}
    embeddings = encoder.sentences(texts)
    true = [[place[t] for t in group] for group in gallery.true]
    false = [[place[t] for t in group] for group in gallery.false]
    torch.manual_seed(config.seed)
    model = CriticNetwork(config.width)
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
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = np.random.default_rng([config.seed, 1])
    for step in range(config.steps):
        progress(step / config.steps, "training the critic")
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
    model: CriticNetwork,
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
