"""`rework`: a GLB unwrapped, simplified, resized or converted, by the stages of `pipeline.rework`.

Planned here without loading anything heavy; `worker.rework_stages` runs it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config import build, plain
from pipeline.limits import POLYCOUNTS, checked_range
from pipeline.stage_versions import REWORK_VERSIONS
from render.errors import InputError
from worker.kinds import Plan, PlannedStage
from worker.retexturing import MODEL, checked_package
from worker.screened_kind import ScreenedKind

if TYPE_CHECKING:
    from worker.runner import Work

STAGES = (
    PlannedStage("rework", "cpu", 0.6),
    PlannedStage("preview", "cpu", 0.35),
    PlannedStage("finish", "cpu", 0.05),
)
"""The tasks of a job."""


@dataclass(frozen=True)
class ReworkParams:
    """What to do with the model."""

    operation: Literal["convert", "simplify", "unwrap"]
    """`convert` keeps mesh and materials; the others bake them onto fewer triangles, or onto new UVs."""
    polycount: int | None = None
    """Most triangles, of `simplify`."""
    texture_size: int | None = None
    height_m: float | None = None
    formats: tuple[str, ...] = ("glb",)
    name: str | None = None
    """Of the files, without suffix."""
    device: str | None = None
    """Changes nothing: all of it runs on the processor."""


class Rework(ScreenedKind):
    """The kind `rework`; its input `model` is a GLB."""

    name = "rework"

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        asked = build(ReworkParams, dict(params))
        if set(inputs) != {MODEL}:
            raise InputError(f"inputs: exactly one is taken, {MODEL}: a GLB.")
        if (asked.operation == "simplify") != (asked.polycount is not None):
            raise InputError("polycount belongs to the operation simplify, and is needed there.")
        if asked.polycount is not None:
            checked_range("polycount", asked.polycount, POLYCOUNTS)
        checked_package(asked.height_m, asked.texture_size, asked.formats, asked.name)
        return Plan(plain(asked), 0, STAGES, _revision(self.screening.name))  # type: ignore[arg-type]

    def run(self, stage: str, work: Work) -> None:
        from worker.rework_stages import run_stage

        run_stage(stage, work, self.screening)


@cache
def _revision(screening: str) -> str:
    decides = json.dumps([version("maquette"), sorted(REWORK_VERSIONS.items()), screening])
    return hashlib.sha256(decides.encode()).hexdigest()
