"""The receipt of a run: what was asked, with what it was made, what came out.

`maquette replay receipt.json` asks again and compares the bytes. Same seed, same
versions, same kind of processor: same asset.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.config import build, plain
from pipeline.request import Request
from render.errors import InputError

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
class Receipt:
    """Written as `receipt.json`."""

    request: Request
    environment: Environment
    outputs: dict[str, str]
    """sha256 of the files made, by name."""
    variants: dict[str, float]
    """Score of every seed that was tried; the request's seed is the best."""

    def save(self, path: Path) -> None:
        data = {
            "format": FORMAT,
            "request": plain(self.request),
            "environment": plain(self.environment),
            "outputs": dict(sorted(self.outputs.items())),
            "variants": self.variants,
        }
        path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Receipt:
        """Read what `save` wrote; `InputError` when it is no receipt."""
        if not path.is_file():
            raise InputError(f"There is no receipt {path}.")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise InputError(
                    f"{path} is a receipt of format {data['format']}; this version reads {FORMAT}."
                )
            request, environment = data["request"], data["environment"]
            outputs = {str(name): str(digest) for name, digest in data["outputs"].items()}
            return Receipt(
                build(Request, request, "request"),
                Environment(
                    {str(k): str(v) for k, v in environment["versions"].items()},
                    {str(k): str(v) for k, v in environment["weights"].items()},
                    str(environment["machine"]),
                    str(environment["cpu"]),
                    int(environment["threads"]),
                ),
                outputs,
                {str(seed): float(score) for seed, score in data.get("variants", {}).items()},
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is not a receipt of maquette ({type(error).__name__}: {error})."
            ) from None


def environment(weights: dict[str, str]) -> Environment:
    """What this process runs on."""
    import torch

    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Environment(
        versions,
        dict(sorted(weights.items())),
        f"{platform.system()} {platform.machine()}",
        torch.backends.cpu.get_cpu_capability(),
        min(torch.get_num_threads(), os.cpu_count() or 1),
    )


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
