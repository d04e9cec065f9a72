"""Runs the stages of `rework` in a worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.config import build
from pipeline.limits import checked_formats, slug
from pipeline.picture_safety import PicturePolicy
from pipeline.rework import ReworkRequest, ReworkRun
from pipeline.stages import SCREENING_FILE, load_verdict
from pipeline.tools import PackageOptions
from worker.generation_stages import Told, role_of
from worker.presets import shipped_preset
from worker.retexturing import MODEL
from worker.rework import STAGES, ReworkParams
from worker.stored_checkpoints import StageReachedError

if TYPE_CHECKING:
    from worker.runner import Work


def run_stage(stage: str, work: Work, screening: PicturePolicy) -> None:
    """The order of `pipeline.rework` with the stage before `stage` brought from the store and none after it
    run. `finish` runs none and delivers what both made."""
    params = build(ReworkParams, work.claim.params)
    work.checkpoints.order = tuple(planned.name for planned in STAGES)
    work.checkpoints.last = stage
    request = ReworkRequest(
        operation=params.operation,
        asset_sha256=work.claim.inputs[MODEL],
        options=PackageOptions(
            formats=checked_formats(tuple(dict.fromkeys(("glb", *params.formats)))),
            height_m=params.height_m,
            texture_size=params.texture_size,
        ),
        preview=shipped_preset("draft").preview,
        stem=slug(params.name or "", 64) or "asset",
        polycount=params.polycount,
    )
    run = ReworkRun(request, work.input(MODEL), work.checkpoints, Told(stage, work, "rework"), screening)
    try:
        outputs = run.make()
    except StageReachedError:
        if stage == "preview":
            made = next(one for one in work.checkpoints.outputs if one.name == "preview")
            work.note([load_verdict(made / SCREENING_FILE)])
        return
    began = time.perf_counter() - max(0.0, time.time() - work.claim.created)
    for name, path in run.finish(outputs, work.directory, began).items():
        work.deliver(path, role_of(name))
