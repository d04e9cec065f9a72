"""Runs the stages of `rework` in a worker."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import tools
from pipeline.checkpoints import StageOutput
from pipeline.config import build, plain
from pipeline.limits import checked_formats
from pipeline.preset import load_preset
from pipeline.stages import SCREENING_FILE, load_verdict
from render.progress import Progress
from worker.generation_stages import role_of
from worker.retexturing import MODEL
from worker.rework import REWORK_VERSION, ReworkParams

if TYPE_CHECKING:
    from pipeline.picture_safety import PicturePolicy
    from worker.runner import Work

INSPECTION_FILE = "inspection.json"


def run_stage(stage: str, work: Work, screening: PicturePolicy) -> None:
    """`rework` makes the files, `preview` their pictures, `finish` delivers both with a report."""
    from pipeline.asset_pictures import asset_pictures
    from worker.runner import StageReachedError

    params = build(ReworkParams, work.claim.params)
    stem = params.name or "asset"
    work.checkpoints.order = ("rework", "preview", "finish")
    work.checkpoints.last = stage

    def told(name: str) -> Progress:
        return lambda done, text="": work.progress(done if name == stage else 0.0, text)

    try:
        made = work.checkpoints.run(
            "rework",
            REWORK_VERSION,
            {"params": plain(params), "model": work.claim.inputs[MODEL]},
            [],
            lambda out: _rework(out, work.input(MODEL), params, stem, told("rework")),
        )
        pictures = work.checkpoints.run(
            "preview",
            REWORK_VERSION,
            {"stem": stem, "screening": screening.name},
            [made],
            lambda out: asset_pictures(
                out,
                made / f"{stem}.glb",
                load_preset("draft").preview,
                screening=screening,
                progress=told("preview"),
            ),
        )
    except StageReachedError:
        if stage == "preview":
            output = next(one for one in work.checkpoints.outputs if one.name == "preview")
            work.note([load_verdict(output / SCREENING_FILE)])
        return
    files = {name: made / name for name in made.hashes if name != INSPECTION_FILE}
    files |= {name: pictures / name for name in sorted(pictures.hashes.keys() - {SCREENING_FILE})}
    files["report.json"] = _report(work, params, made, pictures)
    for name, path in files.items():
        work.deliver(path, role_of(name))


def _rework(out: Path, model: Path, params: ReworkParams, stem: str, progress: Progress) -> None:
    """Writes the asset's files, always a GLB among them, and `inspection.json`."""
    from recon.inspect import inspect
    from render.glb import load_scene

    options = tools.PackageOptions(
        formats=checked_formats(tuple(dict.fromkeys(("glb", *params.formats)))),
        height_m=params.height_m,
        texture_size=params.texture_size,
    )
    source = model.with_name(f"{stem}.glb")  # the files are named after it
    source.hardlink_to(model)
    try:
        match params.operation:
            case "convert":
                tools.convert(source, out, options, progress=progress)
            case "unwrap":
                tools.unwrap(source, out, options, progress=progress)
            case "simplify":
                assert params.polycount is not None
                tools.simplify(source, out, params.polycount, options, progress=progress)
    finally:
        source.unlink()
    inspection = json.dumps(plain(inspect(load_scene(out / f"{stem}.glb"))), indent=1)
    (out / INSPECTION_FILE).write_text(inspection, encoding="utf-8")


def _report(work: Work, params: ReworkParams, made: StageOutput, pictures: StageOutput) -> Path:
    report = {
        "operation": params.operation,
        "source_sha256": work.claim.inputs[MODEL],
        "asset": json.loads((made / INSPECTION_FILE).read_text(encoding="utf-8")),
        "stages": [
            {"name": one.name, "seconds": round(one.seconds, 3), "reused": one.reused}
            for one in (made, pictures)
        ],
        "total_s": round(max(0.0, time.time() - work.claim.created), 3),
        "files": {name: (made / name).stat().st_size for name in made.hashes if name != INSPECTION_FILE},
        "warnings": [],
        "safety": [plain(load_verdict(pictures / SCREENING_FILE))],
    }
    path = work.directory / "report.json"
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return path
