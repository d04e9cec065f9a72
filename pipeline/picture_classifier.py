"""A picture policy around an image classifier of the user's choice, run by transformers.

The project ships no such classifier and names no default: which one a service may use, and where its
thresholds lie, is its operator's to decide and to measure. One that is made for this, with its labels:

    # mystudio/safety.py; then MAQUETTE_PICTURE_POLICY=mystudio.safety:policy
    from pipeline.picture_classifier import Classifier, Refuse

    def policy():
        return Classifier("/models/nsfw", (Refuse("nsfw", "sexual", 0.5),))

Weights are read as safetensors, from a folder or at a pinned commit of the Hub; code of a model's own is
never run. A picture is refused when a label's probability reaches its threshold in any picture.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.checkpoints import file_sha256
from pipeline.picture_safety import Origin
from pipeline.safety import Verdict
from render.errors import InputError

BATCH = 8


@dataclass(frozen=True)
class Refuse:
    """What is refused."""

    label: str
    """Of the classifier."""
    category: str
    """That the user is told: sexual, gore, ..."""
    threshold: float
    """Probability from which a picture is refused, above 0 to 1."""

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise InputError(
                f"threshold of {self.label!r} must be above 0 and at most 1, not {self.threshold}."
            )


class Classifier:
    """A `pipeline.picture_safety.PicturePolicy`. The model is loaded at the first picture and kept."""

    light = False

    def __init__(
        self, model: str, refuse: Sequence[Refuse], revision: str | None = None, device: str = "cpu"
    ) -> None:
        """`model` is a folder, or a name on the Hub with the `revision` of a commit (40 digits): what a
        branch holds changes, and with it what was let pass."""
        if not refuse:
            raise InputError("A classifier that refuses no label screens nothing.")
        self.folder = Path(model) if Path(model).is_dir() else None
        if self.folder is None and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
            raise InputError(
                f"{model!r} is no folder; of a model of the Hub, give revision, a commit's 40 digits."
            )
        self.model = model
        self.revision = revision
        self.refuse = tuple(refuse)
        self.device = device

    @cached_property
    def name(self) -> str:
        """With the hash of weights, labels and thresholds."""
        if self.folder is not None:
            files = sorted(self.folder.glob("*.safetensors")) + sorted(self.folder.glob("*.json"))
            weights = [file_sha256(path) for path in files]
            title = self.folder.resolve().name
        else:
            weights, title = [str(self.revision)], self.model
        digest = hashlib.sha256(repr((weights, self.refuse)).encode()).hexdigest()[:12]
        return f"classifier {title[-50:]} {digest}"

    @cached_property
    def _loaded(self) -> tuple[Any, Any, dict[str, int]]:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        given: dict[str, Any] = {} if self.folder is not None else {"revision": self.revision}
        try:
            processor = AutoImageProcessor.from_pretrained(self.model, trust_remote_code=False, **given)
            network = AutoModelForImageClassification.from_pretrained(
                self.model, use_safetensors=True, trust_remote_code=False, **given
            )
        except (OSError, ValueError) as error:
            line = " ".join(str(error).split())[:200]
            raise InputError(f"The picture classifier {self.model!r} cannot be loaded: {line}") from None
        labels = {str(name): int(i) for i, name in network.config.id2label.items()}
        for one in self.refuse:
            if one.label not in labels:
                raise InputError(f"{self.model!r} has no label {one.label!r}. It has {', '.join(labels)}.")
        return processor, network.to(self.device).eval(), labels

    def screen(self, pictures: Sequence[Image.Image], origin: Origin, text: str) -> Verdict:
        """The label that is furthest over its threshold decides; of those that pass, the nearest is told."""
        import torch

        processor, network, labels = self._loaded
        opaque = [_over_white(picture) for picture in pictures]
        most = [0.0] * len(labels)
        for start in range(0, len(opaque), BATCH):
            given = processor(images=opaque[start : start + BATCH], return_tensors="pt").to(self.device)
            with torch.no_grad():
                shares = network(**given).logits.float().softmax(-1).amax(0).tolist()
            most = [max(pair) for pair in zip(most, shares, strict=True)]
        worst = max(self.refuse, key=lambda one: most[labels[one.label]] / one.threshold)
        score = most[labels[worst.label]]
        said = f"{worst.label} {score:.2f}, refused from {worst.threshold:g}"
        if score >= worst.threshold:
            return Verdict(False, self.name, worst.category, said, score)
        return Verdict(True, self.name, reason=said, score=score)


def _over_white(picture: Image.Image) -> Image.Image:
    clear = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
