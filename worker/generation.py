"""`generate`: a prompt, a picture or both to an asset, by the stages of `pipeline.run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import build, plain
from render.errors import InputError
from worker.kinds import Plan, PlannedStage

if TYPE_CHECKING:
    from worker.runner import Work

IMAGE = "image"
"""Name of the picture among a job's inputs."""


@dataclass(frozen=True)
class GenerateParams:
    """What `pipeline.generate` is told; see there."""

    prompt: str = ""
    negative: str = ""
    preset: str = "standard"
    """Name of a shipped preset."""
    seed: int = 0
    variants: int = 1
    polycount: int | None = None
    texture_size: int | None = None
    height_m: float = 1.0
    formats: tuple[str, ...] = ("glb",)
    name: str | None = None
    """Of the files, without suffix. Default: from the prompt."""
    device: str | None = None
    """`cpu` or `cuda`; default: the service's."""


class Generation:
    """The kind `generate`; its input `image` is a picture."""

    name = "generate"

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        asked = build(GenerateParams, dict(params))
        if unknown := sorted(inputs.keys() - {IMAGE}):
            raise InputError(f"inputs: {unknown[0]!r} is unknown. Known: {IMAGE}.")
        stages: tuple[PlannedStage, ...] = (
            PlannedStage("views", "gpu", 0.30),
            PlannedStage("field", "gpu", 0.25),
            PlannedStage("surface", "cpu", 0.12),
            PlannedStage("mesh", "cpu", 0.08),
            PlannedStage("texture", "cpu", 0.08),
            PlannedStage("export", "cpu", 0.05),
            PlannedStage("preview", "cpu", 0.11),
            PlannedStage("finish", "cpu", 0.01),
        )
        if IMAGE in inputs:
            stages = (PlannedStage("picture", "cpu", 0.03), *stages)
        return Plan(plain(asked), asked.seed, stages)  # type: ignore[arg-type]

    def run(self, stage: str, work: Work) -> None:
        raise NotImplementedError
