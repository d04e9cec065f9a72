"""Runs the stages of `retexture` in a worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.config import build
from pipeline.delivery import IMAGE_FILE
from pipeline.limits import checked_formats, slug
from pipeline.picture_safety import PicturePolicy
from pipeline.prompt import Prompt, clean_text
from pipeline.retexture import RetextureRequest, RetextureRun
from pipeline.retexture_stages import RetextureConfig, domain_warning, load_painted
from pipeline.run import image_sha256
from pipeline.stages import DRAWN_FILE, SCREENING_FILE, load_verdict
from pipeline.tools import PackageOptions
from render.gbuffer import ViewSet
from worker.generation import IMAGE
from worker.generation_stages import CELL_PX, Told, cut_picture, role_of
from worker.presets import shipped_preset
from worker.retexturing import MODEL, RetextureParams, retexture_stages
from worker.stored_checkpoints import StageReachedError

if TYPE_CHECKING:
    from worker.runner import Work


def run_stage(stage: str, work: Work, screening: PicturePolicy) -> None:
    """The order of `pipeline.retexture` with the stages before `stage` brought from the store and none after
    it run. `finish` runs none and delivers what all of them made."""
    params = build(RetextureParams, work.claim.params)
    with_image = IMAGE in work.claim.inputs
    work.checkpoints.order = tuple(planned.name for planned in retexture_stages(with_image))
    work.checkpoints.last = stage
    text = clean_text(params.prompt)
    try:
        picture = cut_picture(work, screening) if with_image else None
        device = work.claim.device
        model = work.models.source(device)
        work.outcome.model_revisions = dict(model.weights)
        request = RetextureRequest(
            text=text,
            negative=clean_text(params.negative, "negative prompt"),
            image_sha256=None if picture is None else image_sha256(picture),
            asset_sha256=work.claim.inputs[MODEL],
            config=RetextureConfig(
                shipped_preset(params.preset),
                params.strength,
                params.grain,
                params.keep_uvs,
                params.texture_size,
            ),
            options=PackageOptions(checked_formats(params.formats), height_m=params.height_m),
            seed=params.seed,
            stem=params.name or slug(text, 64) or "asset",
            device="cuda" if device == "cuda" else "cpu",
        )
        prompt = Prompt(text, picture, request.negative)
        asset = work.input(MODEL)
        run = RetextureRun(
            request, prompt, asset, work.checkpoints, model, Told(stage, work, "paint"), screening
        )
        outputs = run.make()
    except StageReachedError:
        _show(stage, work, text)
        return
    directory = work.directory / "out"
    directory.mkdir()
    began = time.perf_counter() - max(0.0, time.time() - work.claim.created)
    for name, path in run.finish(outputs, directory, began).items():
        work.deliver(path, role_of(name))


def _show(stage: str, work: Work, text: str) -> None:
    """Pictures on the way, and what the safety policies said."""
    made = {output.name: output for output in work.checkpoints.outputs}
    if stage == "picture":
        work.deliver(made["picture"] / IMAGE_FILE, "picture")
    if stage == "preview":
        work.note([load_verdict(made["preview"] / SCREENING_FILE)])
    if stage == "paint":
        from render.contact_sheet import views_sheet

        painted = load_painted(made["paint"].directory)
        work.note(painted.safety)
        warning = domain_warning(painted, text)
        if warning:
            work.warn(warning)
        sheet = views_sheet(ViewSet.load(made["paint"] / DRAWN_FILE), cell_px=CELL_PX)
        work.deliver_picture(sheet, "views.png")
