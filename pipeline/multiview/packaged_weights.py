"""Published weights that come as Python packages: where they lie, and that they are the published ones."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from pipeline.checkpoints import file_sha256
from render.errors import InputError


def packaged_file(package: str, *parts: str) -> Path | None:
    """A file of an installed package, which is not imported; None where it is not there."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent.joinpath(*parts)
    return file if file.is_file() else None


@lru_cache(maxsize=8)
def check_sha256(file: Path, sha256: str, name: str, requirement: str) -> None:
    """`InputError` unless the file is the published one, `name`, which installing `requirement` brings."""
    found = file_sha256(file)
    if found != sha256:
        raise InputError(
            f"{file} is not {name}: sha256 {found[:12]}..., expected {sha256[:12]}...; "
            f"reinstall {requirement}"
        )
