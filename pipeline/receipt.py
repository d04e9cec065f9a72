"""The receipt of a run: what was asked, with what it was made, what came out.

`maquette replay receipt.json` asks again and compares the bytes. Same seed, same
versions, same kind of processor: same asset.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pipeline.config import build, plain
from pipeline.request import Request
from render.errors import InputError

R = TypeVar("R")
Operation = Literal["make", "retexture", "rework"]

FORMAT = 1
LIBRARIES = (
    "maquette",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "scipy",
    "numba",
    "open3d-cpu",
    "open3d",
    "xatlas",
    "fast-simplification",
    "pillow",
)
"""Whose versions can change the result."""


@dataclass(frozen=True)
class Environment:
    """What the bytes depend on besides the request."""

    versions: dict[str, str]
    weights: dict[str, str]
    """sha256 of weight files."""
    machine: str
    """Operating system and architecture."""
    cpu: str
    """Instruction set that torch uses; matrix products differ in the last bits between sets."""
    threads: int


@dataclass(frozen=True)
class Receipt(Generic[R]):
    """Written as `receipt.json`."""

    request: R
    """A `pipeline.request.Request`, or that of another operation."""
    environment: Environment
    outputs: dict[str, str]
    """sha256 of the files made, by name."""
    variants: dict[str, float]
    """Score of every seed that was tried; the request's seed is the best."""
    operation: Operation = "make"

    def save(self, path: Path) -> None:
        data = {
            "format": FORMAT,
            **({} if self.operation == "make" else {"operation": self.operation}),
            "request": plain(self.request),
            "environment": plain(self.environment),
            "outputs": dict(sorted(self.outputs.items())),
            "variants": self.variants,
        }
        path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Receipt[Request]:
        """That of `maquette generate` and `reconstruct`; see `load_receipt`."""
        return load_receipt(path, Request, "make")


def load_receipt(path: Path, kind: type[R], operation: Operation) -> Receipt[R]:
    """Reads what `Receipt.save` wrote, its request of a `kind`; `InputError` when it is no receipt, or one of
    another operation."""
    data = _read(path)
    found = data.get("operation", "make")
    if found != operation:
        raise InputError(f"{path} is the receipt of another operation: {str(found)[:40]}.")
    try:
        environment = data["environment"]
        return Receipt(
            build(kind, data["request"], "request"),
            Environment(
                {str(k): str(v) for k, v in environment["versions"].items()},
                {str(k): str(v) for k, v in environment["weights"].items()},
                str(environment["machine"]),
                str(environment["cpu"]),
                int(environment["threads"]),
            ),
            {str(name): str(digest) for name, digest in data["outputs"].items()},
            {str(seed): float(score) for seed, score in data.get("variants", {}).items()},
            operation,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_receipt(path, error) from None


def operation_of(path: Path) -> object:
    """What the receipt in a file is of: an `Operation`, if it is one of ours."""
    return _read(path).get("operation", "make")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"There is no receipt {path}.")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = data["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_receipt(path, error) from None
    if version != FORMAT:
        raise InputError(f"{path} is a receipt of format {version}; this version reads {FORMAT}.")
    return data


def _no_receipt(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a receipt of maquette ({type(error).__name__}: {error}).")


def environment(weights: dict[str, str]) -> Environment:
    """What this process runs on."""
    import torch

    return Environment(
        dict(_versions()),
        dict(sorted(weights.items())),
        f"{platform.system()} {platform.machine()}",
        torch.backends.cpu.get_cpu_capability(),
        min(torch.get_num_threads(), os.cpu_count() or 1),
    )


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differences(then: Environment, now: Environment) -> list[str]:
    """What changed between two environments, one line each: why bytes may differ."""
    lines = []
    for name in sorted(then.versions.keys() | now.versions.keys()):
        before, after = then.versions.get(name, "absent"), now.versions.get(name, "absent")
        if before != after:
            lines.append(f"{name} was {before}, is {after}")
    if then.weights != now.weights:
        lines.append("the model's weights are others")
    for name in ("machine", "cpu", "threads"):
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            lines.append(f"{name} was {before}, is {after}")
    return lines
