"""LoRAs: small additions to a model's weights that `maquette finetune` makes of a user's own assets.

A LoRA is a folder: `adapter_model.safetensors` and `adapter_config.json` as peft writes them, and
`lora.json`, which says what it was made of and for. It fits one revision of one model only: to another
revision's weights its numbers mean nothing, so it is refused there. Reads small files and hashes; no network
is loaded before `merge`, which adds `weight * alpha / rank * B A` (arXiv:2106.09685, Eq. 3) to the linear
layers, so that drawing with a LoRA costs no more time than without, and needs no peft.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.checkpoints import file_sha256
from pipeline.config import build, plain
from pipeline.resources import user_data_directory
from render.errors import InputError

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "adapter_model.safetensors"
CARD = "lora.json"
FORMAT = 1
MAX_WEIGHT = 2.0
_PREFIX = "base_model.model."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class LoraAsset:
    """What a LoRA was made of: the name of an asset's file, and its captions."""

    name: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class LoraCard:
    """What a LoRA says of itself, `lora.json`."""

    format: int
    name: str
    model: str
    revision: str
    """Of the model that it was made for."""
    rank: int
    alpha: float
    steps: int
    seed: int
    objects: tuple[LoraAsset, ...]
    """Every asset that it was made of."""
    held_out: tuple[str, ...]
    """Names of those that only the losses below were measured on."""
    loss_before: float
    """Velocity loss on what was held out, without the LoRA."""
    loss_after: float
    weights_sha256: str
    licence: str


@dataclass(frozen=True)
class Lora:
    """A LoRA on disk, its hash checked."""

    card: LoraCard
    directory: Path


@dataclass(frozen=True)
class LoraUse:
    """A LoRA in a request."""

    name: str
    """Of an installed LoRA, or its folder."""
    weight: float
    """1 is what was trained; 0 is the model without it."""
    sha256: str
    """Of its weights."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and 0 <= self.weight <= MAX_WEIGHT):
            raise InputError(f"weight must be between 0 and {MAX_WEIGHT:g}, not {self.weight:g}.")


def loras_directory() -> Path:
    """Where `maquette finetune` puts what it makes."""
    return user_data_directory() / "loras"


def checked_name(name: str) -> str:
    """The name of a LoRA as a folder's name; `InputError` when it is none."""
    if not _NAME.fullmatch(name):
        raise InputError(f"--name must be letters, digits, - and _ (at most 64), not {name[:80]!r}.")
    return name


def parse_lora(text: str) -> tuple[str, float]:
    """`name` or `name:weight` as name and weight."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        value = float(weight)
    except ValueError:
        return text, 1.0  # the colon belongs to a path
    if not name:
        raise InputError(f"--lora {text!r} has no name; give NAME or NAME:WEIGHT.")
    return name, value


def find_lora(name: str) -> Lora:
    """The LoRA of that name, or in that folder. `InputError` when there is none or its files are damaged."""
    installed = loras_directory()
    if _NAME.fullmatch(name) and (installed / name / CARD).is_file():
        return read_lora(installed / name)
    if (Path(name) / CARD).is_file():
        return read_lora(Path(name))
    known = ", ".join(lora.card.name for lora in installed_loras()) or "none"
    raise InputError(
        f"There is no LoRA {name!r}. Installed in {installed}: {known}. Make one with: maquette finetune"
    )


def read_lora(directory: Path) -> Lora:
    """The LoRA in a folder, whole; `InputError` when it is not."""
    path = directory / CARD
    try:
        card = build(LoraCard, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if card.format != FORMAT:
        raise InputError(f"{path} is of format {card.format}; this version reads {FORMAT}.")
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{directory} lacks {WEIGHTS}; run maquette finetune again.")
    if file_sha256(weights) != card.weights_sha256:
        raise InputError(
            f"{weights} is not the file that {CARD} was written for; run maquette finetune again."
        )
    return Lora(card, directory)


def write_card(card: LoraCard, directory: Path) -> None:
    """Write `lora.json`."""
    text = json.dumps(plain(card), indent=1, ensure_ascii=False) + "\n"
    (directory / CARD).write_text(text, encoding="utf-8")


def installed_loras() -> list[Lora]:
    """Every whole LoRA in the user's folder, by name."""
    found = []
    for path in sorted(loras_directory().glob(f"*/{CARD}")):
        try:
            found.append(read_lora(path.parent))
        except InputError:
            continue
    return found


def use_lora(text: str, revision: str) -> LoraUse:
    """What `--lora NAME[:WEIGHT]` means for the model of a revision; refuses a LoRA of another."""
    name, weight = parse_lora(text)
    lora = find_lora(name)
    check_revision(lora, revision)
    return LoraUse(name, weight, lora.card.weights_sha256)


def check_revision(lora: Lora, revision: str) -> None:
    """`InputError` unless the LoRA was made for this revision of the model."""
    if lora.card.revision != revision:
        raise InputError(
            f"The LoRA {lora.card.name!r} was made for {lora.card.model} of revision {lora.card.revision}, "
            f"but the model here is {revision}. Make it again: maquette finetune ... --name {lora.card.name}"
        )


def resolve(use: LoraUse, revision: str) -> Lora:
    """The files of a request's LoRA; `InputError` when they are not the ones that it was made with."""
    lora = find_lora(use.name)
    check_revision(lora, revision)
    if lora.card.weights_sha256 != use.sha256:
        raise InputError(
            f"The LoRA {use.name!r} here is not the one of the request: sha256 "
            f"{lora.card.weights_sha256[:16]}..., expected {use.sha256[:16]}..."
        )
    return lora


def weights_of(use: LoraUse) -> dict[str, str]:
    """What a LoRA adds to the list of a run's weights, for keys and receipts."""
    return {f"lora {Path(use.name).name} x {use.weight:g}": use.sha256}


def merge(transformer: nn.Module, lora: Lora, weight: float) -> None:
    """Add the LoRA to the transformer's linear layers, in place. `InputError` when it does not fit them."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(lora.directory / WEIGHTS)
    layers = dict(transformer.named_modules())
    scale = weight * lora.card.alpha / lora.card.rank
    names = {key.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for key in tensors if ".lora_A." in key}
    for name in sorted(names):
        layer = layers.get(name)
        down = tensors.get(f"{_PREFIX}{name}.lora_A.weight")
        up = tensors.get(f"{_PREFIX}{name}.lora_B.weight")
        fits = isinstance(layer, torch.nn.Linear) and down is not None and up is not None
        if not fits or layer.weight.shape != (up.shape[0], down.shape[1]):  # type: ignore[union-attr]
            raise InputError(f"The LoRA {lora.card.name!r} does not fit the model: no layer for {name!r}.")
        assert isinstance(layer, torch.nn.Linear)
        assert up is not None
        assert down is not None
        change = scale * (up.float() @ down.float())
        with torch.no_grad():
            layer.weight.copy_(layer.weight.float() + change.to(layer.weight.device))
