"""`retexture`: a GLB in a new look, by the stages of `pipeline.retexture`.

Here it is planned, where jobs are admitted, and nothing heavy is loaded for that; `worker.retexturing_stages`
runs it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline.config import build, plain
from pipeline.limits import HEIGHTS_M, MAX_SEED, STEM, checked_formats, checked_range
from pipeline.models import verified_model
from pipeline.prompt import clean_text
from pipeline.resources import preset_names
from pipeline.safety import screen_words
from pipeline.stage_versions import RETEXTURE_VERSIONS
from recon.export import SPLAT_FORMATS
from render.errors import InputError
from worker.generation import IMAGE, PICTURE, PICTURE_VERSION, safety_of
from worker.kinds import Plan, PlannedStage
from worker.screened_kind import ScreenedKind

if TYPE_CHECKING:
    from worker.runner import Work

MODEL = "model"
"""Name of the GLB among a job's inputs."""
REWORKED_SIZES = (512, 4096)
"""Side of textures that are baked anew, as `pipeline.tools.PackageOptions` allows it."""


@dataclass(frozen=True)
class RetextureParams:
    """What `pipeline.retexture` is told; see there."""

    prompt: str = ""
    negative: str = ""
    preset: str = "standard"
    """Name of a shipped preset."""
    seed: int = 0
    strength: float = 1.0
    grain: float = 1.0
    keep_uvs: bool = True
    texture_size: int | None = None
    height_m: float | None = None
    formats: tuple[str, ...] = ("glb",)
    name: str | None = None
    """Of the files, without suffix. Default: from the prompt."""
    device: str | None = None
    """`cpu` or `cuda`; default: the service's."""


class Retexturing(ScreenedKind):
    """The kind `retexture`; its inputs are `model`, a GLB, and perhaps `image`, a picture of the look."""

    name = "retexture"

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        asked = build(RetextureParams, dict(params))
        if unknown := sorted(inputs.keys() - {IMAGE, MODEL}):
            raise InputError(f"inputs: {unknown[0]!r} is unknown. Known: {MODEL}, {IMAGE}.")
        if MODEL not in inputs:
            raise InputError("There is no model to paint. Give a GLB.")
        if asked.preset not in preset_names():
            raise InputError(f"preset: {asked.preset!r} is unknown. Known: {', '.join(preset_names())}.")
        text, _ = clean_text(asked.prompt), clean_text(asked.negative, "negative prompt")
        if not text and IMAGE not in inputs:
            raise InputError("The prompt is empty. Say what it shall look like, or give an image.")
        checked_range("seed", asked.seed, (0, MAX_SEED))
        checked_range("strength", asked.strength, (0.05, 1))
        checked_range("grain", asked.grain, (0, 1))
        checked_package(asked.height_m, asked.texture_size, asked.formats, asked.name)
        screen_words(safety_of(asked.preset), text)
        stages = retexture_stages(IMAGE in inputs)
        return Plan(plain(asked), asked.seed, stages, _revision(self.screening.name))  # type: ignore[arg-type]

    def run(self, stage: str, work: Work) -> None:
        from worker.retexturing_stages import run_stage

        run_stage(stage, work, self.screening)


def retexture_stages(with_image: bool) -> tuple[PlannedStage, ...]:
    """The tasks of a job."""
    picture = [PlannedStage(PICTURE, "cpu", 0.05)] if with_image else []
    return (
        *picture,
        PlannedStage("paint", "gpu", 0.45),
        PlannedStage("texture", "cpu", 0.2),
        PlannedStage("export", "cpu", 0.1),
        PlannedStage("preview", "cpu", 0.2),
        PlannedStage("finish", "cpu", 0.05),
    )


def checked_package(
    height_m: float | None, texture_size: int | None, formats: tuple[str, ...], name: str | None
) -> None:
    """`InputError` for what `pipeline.tools.PackageOptions` would refuse."""
    if height_m is not None:
        checked_range("height_m", height_m, HEIGHTS_M, " metres")
    if texture_size is not None:
        checked_range("texture_size", texture_size, REWORKED_SIZES)
    if name is not None and not re.fullmatch(STEM, name):
        raise InputError(f"name must be a short file name of a-z, 0-9, - and _, not {name!r}.")
    for one in checked_formats(formats):
        if one in SPLAT_FORMATS:
            raise InputError(f"formats: {one} holds Gaussians, and a model that was given has none.")


@cache
def _revision(screening: str) -> str:
    decides = [
        version("maquette"),
        sorted(RETEXTURE_VERSIONS.items()),
        PICTURE_VERSION,
        verified_model().hashes,
        screening,
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
