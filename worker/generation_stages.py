"""Runs the stages of `generate` in a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.checkpoints import StageOutput
from pipeline.config import build, changed, plain
from pipeline.delivery import IMAGE_FILE, finish
from pipeline.image import load_image
from pipeline.picture_safety import PicturePolicy
from pipeline.preset import Preset
from pipeline.prompt import Prompt, Side, clean_text
from pipeline.report import Variant
from pipeline.request import Request, checked_formats, slug
from pipeline.run import image_sha256, prepare_image, with_changes
from pipeline.run_order import VARIANTS_FILE, Runner
from pipeline.stages import DRAWN_FILE, SCREENING_FILE, load_drawn, load_verdict
from render.gbuffer import ViewSet
from worker.generation import IMAGE, IMAGES, PICTURE, PICTURE_VERSION, GenerateParams, generation_stages
from worker.presets import shipped_preset
from worker.stage_pictures import stage_picture
from worker.stored_checkpoints import StageReachedError

if TYPE_CHECKING:
    from worker.runner import Work


CELL_PX = 96
"""Of the sheet that is shown as soon as the views are drawn; `preview` makes a larger one."""


def run_stage(stage: str, work: Work, screening: PicturePolicy) -> None:
    """The whole order of `pipeline.run` with the stages before `stage` brought from the store and none
    after it run. `finish` runs none and delivers what all of them made."""
    params = build(GenerateParams, work.claim.params)
    work.checkpoints.order = tuple(planned.name for planned in generation_stages(IMAGE in work.claim.inputs))
    work.checkpoints.last = stage
    order: _Order | None = None
    try:
        picture = cut_picture(work, screening, params.sides) if IMAGE in work.claim.inputs else None
        request = _request(params, picture, work)
        prompt = Prompt(request.text, picture, request.negative)
        model = work.models.source(request.device)
        work.outcome.model_revisions = dict(model.weights)
        order = _Order(request, prompt, work.checkpoints, model, Told(stage, work, "views"), screening)
        drawn, winner, tried = order.best_views()
        order.request = replace(request, seed=winner, variants=1)
        outputs = order.make(drawn, winner)
    except StageReachedError:
        _show(stage, work, order)
        return
    kept, directory = work.checkpoints.directory, work.directory / "out"
    directory.mkdir()
    if picture is not None:
        picture.save(kept / IMAGE_FILE, format="PNG")
    order.variants_sheet()
    began = time.perf_counter() - max(0.0, time.time() - work.claim.created)
    result = finish(order.request, directory, kept, outputs, tried, model.weights, began)
    for name, path in result.files.items():
        work.deliver(path, role_of(name))
    told = plain(result.report)
    assert isinstance(told, dict)
    work.report = told


def _request(params: GenerateParams, picture: Image.Image | None, work: Work) -> Request:
    preset = _preset(params)
    if work.claim.memory_failures and preset.distillation is not None:
        # The GPU's memory did not suffice: the guidance looks through half as many cameras at a time.
        preset = changed(preset, "fit.guidance_views", max(1, preset.fit.guidance_views // 2))
    return _asked(
        params, preset, None if picture is None else image_sha256(picture), work.claim.device == "cuda"
    )


def _preset(params: GenerateParams) -> Preset:
    views_preset = params.views_preset or params.preset
    preset = with_changes(
        shipped_preset(params.preset), polycount=params.polycount, texture_size=params.texture_size
    )
    if views_preset == params.preset:
        return preset
    return replace(preset, views=shipped_preset(views_preset).views)


def _asked(params: GenerateParams, preset: Preset, image: str | None, cuda: bool) -> Request:
    """The request of the pipeline."""
    text = clean_text(params.prompt)
    return Request(
        text=text,
        negative=clean_text(params.negative, "negative prompt"),
        image_sha256=image,
        preset=preset,
        seed=params.seed,
        variants=params.variants,
        height_m=params.height_m,
        formats=checked_formats(params.formats),
        stem=params.name or slug(text, 64) or "asset",
        device="cuda" if cuda else "cpu",
    )


def cut_picture(work: Work, screening: PicturePolicy, sides: Sequence[Side] = ()) -> Image.Image:
    """The job's pictures, of `sides`, if these are named, cut out: a stage of its own, so that it is done
    once."""
    names = [name for name in IMAGES if name in work.claim.inputs]

    def cut(out: Path) -> None:
        work.progress(0.0, "cutting out")
        pictures = [work.input(name) for name in names]
        picture = prepare_image(dict(zip(sides, pictures, strict=True)) if sides else pictures, screening)
        assert picture is not None
        picture.save(out / IMAGE_FILE, format="PNG")

    given = {name: work.claim.inputs[name] for name in names} | {"screening": screening.name}
    if sides:
        given["sides"] = ",".join(sides)
    output = work.checkpoints.run(PICTURE, PICTURE_VERSION, given, [], cut)
    return load_image(output / IMAGE_FILE)


def _show(stage: str, work: Work, order: _Order | None) -> None:
    """Pictures on the way; of several variants each has one, `variant-SEED.png`, so that a user may pick."""
    made = {output.name: output for output in work.checkpoints.outputs}
    if stage == PICTURE:
        work.deliver(made[PICTURE] / IMAGE_FILE, "picture")
    if stage == "preview":
        work.note([load_verdict(made["preview"] / SCREENING_FILE)])
    picture = stage_picture(stage, made)
    if picture is not None:
        work.deliver_picture(picture, f"{stage}.png")
    if stage == "views" and order is not None:
        from render.contact_sheet import views_sheet

        drawn = order.drawn
        for output, _ in drawn:
            said = load_drawn(output / "views.json")
            work.note([*([said.safety] if said.safety else []), *said.screenings])
        kept = max(drawn, key=lambda pair: (pair[1].score, -pair[1].seed))[0]
        sheet = views_sheet(ViewSet.load(kept / DRAWN_FILE), cell_px=CELL_PX)
        work.deliver_picture(sheet, "views.png")
        for output, variant in drawn if len(drawn) > 1 else []:
            shown = _variant_picture(ViewSet.load(output / DRAWN_FILE))
            work.deliver_picture(shown, f"variant-{variant.seed}.png")


def role_of(name: str) -> str:
    """What a file is to its job."""
    if name in ("report.json", "receipt.json"):
        return "report"
    pictures = ("preview.png", "turntable.mp4", "views.png", VARIANTS_FILE, IMAGE_FILE)
    return "picture" if name in pictures else "asset"


def _variant_picture(views: ViewSet) -> Image.Image:
    """Four sides of what was drawn, base colour, in a square."""
    import numpy as np

    from render.contact_sheet import channel_pictures

    sides = channel_pictures(views[list(range(0, min(len(views), 8), 2))])
    pictures = sides.get("base_color_srgb", sides.get("rgb_srgb"))
    assert pictures is not None
    four = [pictures[i % len(pictures)] for i in range(4)]
    return Image.fromarray(np.vstack([np.hstack(four[:2]), np.hstack(four[2:])]))


class _Order(Runner):
    """The order of the pipeline; the sheet of variants is drawn once, at the end."""

    drawn: list[tuple[StageOutput, Variant]]

    def _variants_sheet(self, outputs: list[tuple[StageOutput, Variant]]) -> None:
        self.drawn = outputs

    def variants_sheet(self) -> None:
        super()._variants_sheet(self.drawn)


@dataclass
class Told:
    """Passes on what is said about the one stage that runs here."""

    stage: str
    work: Work
    warns: str
    """The stage whose warnings are passed on; the others would repeat them."""

    def progress(self, stage: str, fraction: float, message: str) -> None:
        self.work.progress(fraction if stage == self.stage else 0.0, message if stage == self.stage else "")

    def warning(self, message: str) -> None:
        if self.stage == self.warns:
            self.work.warn(message)
