"""`generate`: a prompt, a picture or both to an asset, by the stages of `pipeline.run`.

Here it is planned, where jobs are admitted, and nothing heavy is loaded for that; `worker.generation_stages`
runs it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline.config import build, plain
from pipeline.limits import (
    HEIGHTS_M,
    MAX_SEED,
    MAX_VARIANTS,
    POLYCOUNTS,
    STEM,
    TEXTURE_SIZES,
    checked_formats,
    checked_range,
)
from pipeline.models import verified_model
from pipeline.preset_files import preset_values
from pipeline.prompt import SIDES, Side, clean_text
from pipeline.resources import preset_names
from pipeline.safety import screen_words
from pipeline.stage_versions import VERSIONS
from render.errors import InputError
from worker.kinds import Plan, PlannedStage
from worker.screened_kind import ScreenedKind

if TYPE_CHECKING:
    from worker.runner import Work

IMAGES = ("image", "image2", "image3", "image4")
"""Names of the pictures among a job's inputs, without gaps."""
IMAGE = IMAGES[0]
PICTURE = "picture"
PICTURE_VERSION = 1
"""Of the cutting out; a part of its key, as `pipeline.stage_versions.VERSIONS` is of the others'."""


@dataclass(frozen=True)
class GenerateParams:
    """What `pipeline.generate` is told; see there."""

    prompt: str = ""
    negative: str = ""
    preset: str = "standard"
    """Name of a shipped preset."""
    views_preset: str | None = None
    """That whose views are drawn, when a draft is worked out; default: `preset`."""
    sides: tuple[Side, ...] = ()
    """Which the pictures show, in their order (`pipeline.prompt.SIDES`); default: in equal steps round it."""
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


class Generation(ScreenedKind):
    """The kind `generate`; its inputs `image`, `image2`, ... are pictures of one object, in
    equal steps round it, the front first, or of the `sides` that are named."""

    name = "generate"

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        asked = build(GenerateParams, dict(params))
        if inputs.keys() != set(IMAGES[: len(inputs)]):
            raise InputError(f"inputs: {', '.join(sorted(inputs))}; pictures are named {', '.join(IMAGES)}.")
        if asked.sides:
            _check_sides(asked.sides, len(inputs))
        text = _checked(asked, IMAGE in inputs)
        # By words alone: no weights are loaded where jobs are admitted. Later `views` asks the whole policy.
        screen_words(safety_of(asked.views_preset or asked.preset), text)
        made_by = revision(self.screening.name)
        return Plan(plain(asked), asked.seed, generation_stages(IMAGE in inputs), made_by)  # type: ignore[arg-type]

    def run(self, stage: str, work: Work) -> None:
        from worker.generation_stages import run_stage

        run_stage(stage, work, self.screening)


def _check_sides(sides: Sequence[Side], pictures: int) -> None:
    each_once = len(set(sides)) == len(sides) == pictures
    if not each_once or "front" not in sides:
        raise InputError(
            f"sides: {', '.join(sides)}; name one of {', '.join(SIDES)} for each of the {pictures} pictures, "
            "each once, the front among them."
        )


def _checked(asked: GenerateParams, with_image: bool) -> str:
    """The prompt, cleaned. `InputError` for what `pipeline.request.Request` and the preset would refuse."""
    for field, name in (("preset", asked.preset), ("views_preset", asked.views_preset or asked.preset)):
        if name not in preset_names():
            raise InputError(f"{field}: {name!r} is unknown. Known: {', '.join(preset_names())}.")
    text, _ = clean_text(asked.prompt), clean_text(asked.negative, "negative prompt")
    if not text and not with_image:
        raise InputError("The prompt is empty. Say what to make, such as: a wooden barrel, or give an image.")
    checked_range("seed", asked.seed, (0, MAX_SEED))
    checked_range("variants", asked.variants, (1, MAX_VARIANTS))
    checked_range("height_m", asked.height_m, HEIGHTS_M, " metres")
    if asked.polycount is not None:
        checked_range("polycount", asked.polycount, POLYCOUNTS)
    if asked.texture_size is not None:
        checked_range("texture_size", asked.texture_size, TEXTURE_SIZES)
    if asked.name is not None and not re.fullmatch(STEM, asked.name):
        raise InputError(f"name must be a short file name of a-z, 0-9, - and _, not {asked.name!r}.")
    checked_formats(asked.formats)
    return text


@cache
def safety_of(preset: str) -> str:
    """The policy that the shipped preset names."""
    return str(preset_values(preset).get("views", {}).get("safety", "offline"))


@cache
def revision(screening: str) -> str:
    """Of the code, the weights and the policy that let it pass. Read once: none changes in a process."""
    decides = [
        version("maquette"),
        sorted(VERSIONS.items()),
        PICTURE_VERSION,
        verified_model().hashes,
        screening,
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def generation_stages(with_image: bool) -> tuple[PlannedStage, ...]:
    """The tasks of a job; their parts of the time are `pipeline.progress_bar`'s."""
    from pipeline.progress_bar import SHARES

    gpu = ("views", "field")
    stages = [PlannedStage(name, "gpu" if name in gpu else "cpu", share) for name, share in SHARES.items()]
    picture = [PlannedStage(PICTURE, "cpu", 0.02)] if with_image else []
    return (*picture, *stages, PlannedStage("finish", "cpu", 0.01))
