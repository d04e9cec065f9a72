"""How near a prompt is to what the model was trained on.

The score is the mean cosine similarity of the prompt's sentence embedding to its
three nearest training captions. Its threshold was set on `val` captions against
prompts of ours for things that the training packs do not hold; the model card
gives the error rates.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.multiview.text import TextEncoder
from render.errors import InputError

CONCEPTS = "concepts.safetensors"
CONCEPT_NAMES = "concepts.json"
THRESHOLD = 0.55
_NEAREST = 3


@dataclass(frozen=True)
class DomainScore:
    """What the model knows that is near a prompt."""

    score: float
    nearest: tuple[str, ...]
    threshold: float = THRESHOLD

    @property
    def inside(self) -> bool:
        return self.score >= self.threshold


@dataclass(frozen=True)
class Domain:
    """The captions that the model was trained on."""

    names: tuple[str, ...]
    embeddings: Float[Tensor, "n 384"]

    @staticmethod
    def build(names: list[str], encoder: TextEncoder) -> Domain:
        """Embed distinct captions."""
        distinct = tuple(sorted(set(names)))
        return Domain(distinct, encoder.sentences(list(distinct)))

    def save(self, folder: Path) -> None:
        save_file({"embeddings": self.embeddings.half()}, folder / CONCEPTS)
        (folder / CONCEPT_NAMES).write_text(json.dumps(self.names, indent=0) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Domain:
        if not (folder / CONCEPTS).is_file() or not (folder / CONCEPT_NAMES).is_file():
            raise InputError(f"{folder} lacks {CONCEPTS} or {CONCEPT_NAMES}; reinstall maquette")
        names = json.loads((folder / CONCEPT_NAMES).read_text(encoding="utf-8"))
        return Domain(tuple(names), load_file(folder / CONCEPTS)["embeddings"].float())

    def score(self, text: str, encoder: TextEncoder) -> DomainScore:
        """The score of one prompt, with the names of what is nearest."""
        similarity = self.embeddings @ encoder.sentences([text])[0]
        best = similarity.topk(min(_NEAREST, len(self.names)))
        return DomainScore(float(best.values.mean()), tuple(self.names[i] for i in best.indices.tolist()))

    def nearest(self, similarity: Float[Tensor, " n"]) -> tuple[str, ...]:
        """Names of the largest similarities, without articles, each once."""
        found: dict[str, None] = {}
        for i in similarity.argsort(descending=True)[: 4 * _NEAREST].tolist():
            found.setdefault(re.sub("^an? ", "", self.names[i]))
        return tuple(found)[:_NEAREST]
