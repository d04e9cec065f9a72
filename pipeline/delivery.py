"""The end of a run: its report and receipt, and all final files at their names."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import stages
from pipeline.checkpoints import StageOutput, file_sha256, peak_memory_mb, publish
from pipeline.receipt import Receipt, environment
from pipeline.report import Report, StageCost, Variant, prompt_warning
from pipeline.request import Request
from pipeline.run_order import VARIANTS_FILE
from pipeline.stage_versions import StageName
from render.errors import InputError

IMAGE_FILE = "input.png"


@dataclass(frozen=True)
class Result:
    """A finished run."""

    directory: Path
    files: dict[str, Path]
    """Final files by name."""
    report: Report
    receipt: Receipt[Request]

    @property
    def glb(self) -> Path | None:
        """The asset as GLB, when that format was asked for."""
        return self.files.get(f"{self.receipt.request.stem}.glb")


def finish(
    request: Request,
    directory: Path,
    kept: Path,
    outputs: dict[StageName, StageOutput],
    tried: tuple[Variant, ...],
    weights: dict[str, str],
    started: float,
) -> Result:
    """Report, receipt, and all final files at their names."""
    asset_files = {
        name: outputs["export"] / name
        for name in outputs["export"].hashes
        if name != "inspection.json" and ("glb" in request.formats or not name.endswith(".glb"))
    }
    pictures = outputs["preview"].hashes.keys() - {stages.SCREENING_FILE}
    files = asset_files | {name: outputs["preview"] / name for name in sorted(pictures)}
    if request.image_sha256 is not None:
        files[IMAGE_FILE] = kept / IMAGE_FILE
    if len(tried) > 1:
        files[VARIANTS_FILE] = kept / VARIANTS_FILE
    fitted = json.loads((outputs["field"] / "fit.json").read_text(encoding="utf-8"))
    drawn = stages.load_drawn(outputs["views"] / "views.json")
    warning = prompt_warning(drawn, request.text)
    costs = tuple(StageCost.of(output) for output in outputs.values())
    report = Report(
        prompt=request.text,
        seed=request.seed,
        preset=request.preset.name,
        asset=json.loads((outputs["export"] / "inspection.json").read_text(encoding="utf-8")),
        views=drawn,
        fit={name: value for name, value in fitted.items() if not isinstance(value, list)},
        variants=tried,
        stages=costs,
        total_s=round(time.perf_counter() - started, 3),
        peak_mb=round(max(peak_memory_mb(), *(cost.peak_mb for cost in costs if not cost.reused), 0.0), 1),
        files={name: path.stat().st_size for name, path in files.items()},
        warnings=(warning,) if warning else (),
        safety=(
            *((drawn.safety,) if drawn.safety is not None else ()),
            *drawn.screenings,
            stages.load_verdict(outputs["preview"] / stages.SCREENING_FILE),
        ),
    )
    if (light := outputs["texture"].told(stages.LIGHT_FILE)) is not None:
        report = replace(report, light=light)
    lost = outputs["mesh"].told(stages.LOST_FILE) or {"warning": None}
    if line := lost.pop("warning"):
        report = replace(report, warnings=(*report.warnings, line))
    symmetry = outputs["mesh"].told(stages.SYMMETRY_FILE)
    if symmetry is not None and (line := symmetry.pop("warning")):
        report = replace(report, warnings=(*report.warnings, line))
    report = replace(report, lost=lost, symmetry=symmetry)
    if stages.POSED_FILE in outputs["views"].hashes:
        posed = json.loads((outputs["views"] / stages.POSED_FILE).read_text(encoding="utf-8"))
        report = replace(report, reconstruction=posed, warnings=(*report.warnings, *posed["warnings"]))
    receipt = Receipt(
        request,
        environment(weights),
        {name: file_sha256(path) for name, path in files.items()},
        {str(variant.seed): variant.score for variant in tried},
    )
    report.save(kept / "report.json")
    receipt.save(kept / "receipt.json")
    files |= {name: kept / name for name in ("report.json", "receipt.json")}
    stale = _files_of_last_run(directory) - files.keys()
    publish(files, directory)
    for name in stale:
        (directory / name).unlink(missing_ok=True)
    return Result(directory, {name: directory / name for name in files}, report, receipt)


def _files_of_last_run(directory: Path) -> set[str]:
    """Names of files of the run before that are still as it made them: they would look like this run's."""
    try:
        last = Receipt.load(directory / "receipt.json")
    except InputError:
        return set()
    return {
        name
        for name, digest in last.outputs.items()
        if Path(name).name == name
        and (directory / name).is_file()
        and file_sha256(directory / name) == digest
    }
