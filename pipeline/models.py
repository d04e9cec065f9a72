"""The model that ships with Maquette and the text encoder it needs: where they are, and whole.

Reads files and hashes only; nothing here loads a network.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints import file_sha256
from pipeline.resources import resource_directory
from render.errors import InputError

DEFAULT_MODEL = "maquette-props"
HASHES = "hashes.json"
"""sha256 of every weight file of a model, by its path inside the model's folder."""


@dataclass(frozen=True)
class ModelInfo:
    """A model on disk."""

    name: str
    directory: Path
    hashes: dict[str, str]
    """sha256 of the weight files as they are, by path inside the folder."""
    bytes: int
    card: Path | None


def model_directory(path: Path | None = None) -> Path:
    """The folder of the model at `path`, or of the shipped one. `InputError` when it is not there."""
    directory = path or resource_directory("assets") / DEFAULT_MODEL
    if not (directory / "model_index.json").is_file():
        raise InputError(
            f"The weights are missing: {directory} holds no model_index.json. "
            + (
                "Give the folder of a saved pipeline."
                if path
                else "Get the repository's assets folder again."
            )
        )
    return directory


def verified_model(path: Path | None = None) -> ModelInfo:
    """The model with its files' hashes; `InputError` when one differs from the model's own `hashes.json`."""
    directory = model_directory(path)
    files = sorted(directory.rglob("*.safetensors"))
    if not files:
        raise InputError(f"The weights are missing: {directory} holds no .safetensors file.")
    hashes = {file.relative_to(directory).as_posix(): file_sha256(file) for file in files}
    listed = directory / HASHES
    if listed.is_file():
        try:
            expected = json.loads(listed.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{listed} is damaged. Get the repository's assets folder again.") from None
        for name, digest in expected.items():
            if name not in hashes:
                raise InputError(f"The weights are missing: {directory / name}.")
            if hashes[name] != digest:
                raise InputError(
                    f"{directory / name} is not the file that was published: sha256 {hashes[name][:16]}..., "
                    f"expected {digest[:16]}... Get it again."
                )
    card = directory / "README.md"
    return ModelInfo(
        directory.name,
        directory,
        hashes,
        sum(file.stat().st_size for file in files),
        card if card.is_file() else None,
    )


def revision_of(hashes: dict[str, str]) -> str:
    """A model's revision: the first 16 digits of the hash of its weight files' hashes."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()[:16]


def text_encoder_file() -> tuple[Path, str]:
    """The text encoder's weights as found and their sha256; `InputError` when missing or not the original."""
    from pipeline.multiview.text import check_hash, find_weights

    file = find_weights() / "model.safetensors"
    check_hash(file)
    return file, file_sha256(file)
