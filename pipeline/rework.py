"""A GLB converted, simplified or unwrapped, with pictures, a report and a receipt: what the service does with
a model that it is given, and `maquette replay` makes again.

In: a `ReworkRequest` and the GLB that it names the hash of. Out: files in a folder, all of them or none.

    rework -> preview

The first stage is one of `pipeline.tools`; the second draws what it made.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline import tools
from pipeline.asset_pictures import asset_pictures
from pipeline.checkpoints import Checkpoints, StageOutput, file_sha256, publish
from pipeline.config import plain
from pipeline.limits import slug
from pipeline.observer import Observer, Unobserved
from pipeline.output_directory import checked_directory, disk_errors
from pipeline.picture_safety import PicturePolicy, picture_policy
from pipeline.preset import PreviewConfig
from pipeline.receipt import Receipt, environment
from pipeline.stage_versions import REWORK_VERSIONS, ReworkStage
from pipeline.stages import SCREENING_FILE, load_verdict
from pipeline.tools import PackageOptions
from render.errors import InputError
from render.progress import Progress

INSPECTION_FILE = "inspection.json"

Rework = Literal["convert", "simplify", "unwrap"]
"""`convert` keeps mesh and materials; the others bake them onto fewer triangles, or onto new UVs."""


@dataclass(frozen=True)
class ReworkRequest:
    """Everything that decides what comes out."""

    operation: Rework
    asset_sha256: str
    """Of the GLB's bytes."""
    options: PackageOptions
    """A GLB is always among its formats."""
    preview: PreviewConfig
    stem: str
    """Name of the files, without suffix."""
    polycount: int | None = None
    """Most triangles, of `simplify`."""

    def __post_init__(self) -> None:
        if (self.operation == "simplify") != (self.polycount is not None):
            raise InputError("polycount belongs to the operation simplify, and is needed there.")
        if "glb" not in self.options.formats:
            raise InputError("formats must have a GLB among them.")
        if slug(self.stem, 64) != self.stem:
            raise InputError(f"stem must be a file name of a-z, 0-9 and -, not {self.stem!r}.")


@dataclass
class ReworkRun:
    """The order of the stages."""

    request: ReworkRequest
    asset: Path
    checkpoints: Checkpoints
    observer: Observer
    screening: PicturePolicy = field(default_factory=picture_policy)
    """Judges the pictures of what was made."""

    def make(self) -> dict[ReworkStage, StageOutput]:
        """All stages. `InputError` for what a user can mend, `RefusedError` from the policy."""
        request = self.request
        made = self.checkpoints.run(
            "rework",
            REWORK_VERSIONS["rework"],
            {
                "operation": request.operation,
                "polycount": request.polycount,
                "asset": request.asset_sha256,
                "options": plain(request.options),
                "stem": request.stem,
            },
            [],
            lambda out: self._rework(out, self._told("rework")),
        )
        pictures = self.checkpoints.run(
            "preview",
            REWORK_VERSIONS["preview"],
            {"preview": plain(request.preview), "stem": request.stem, "screening": self.screening.name},
            [made],
            lambda out: asset_pictures(
                out,
                made / f"{request.stem}.glb",
                request.preview,
                screening=self.screening,
                progress=self._told("preview"),
            ),
        )
        return {"rework": made, "preview": pictures}

    def finish(self, outputs: dict[ReworkStage, StageOutput], kept: Path, began: float) -> dict[str, Path]:
        """The final files by name; report and receipt among them, which are written into `kept`. `began` is
        of `time.perf_counter`."""
        request, made, pictures = self.request, outputs["rework"], outputs["preview"]
        files = {name: made / name for name in made.hashes if name != INSPECTION_FILE}
        report = {
            "operation": request.operation,
            "source_sha256": request.asset_sha256,
            "asset": json.loads((made / INSPECTION_FILE).read_text(encoding="utf-8")),
            "stages": [
                {"name": one.name, "seconds": round(one.seconds, 3), "reused": one.reused}
                for one in outputs.values()
            ],
            "total_s": round(time.perf_counter() - began, 3),
            "files": {name: path.stat().st_size for name, path in files.items()},
            "warnings": [],
            "safety": [plain(load_verdict(pictures / SCREENING_FILE))],
        }
        (kept / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        files |= {name: pictures / name for name in sorted(pictures.hashes.keys() - {SCREENING_FILE})}
        hashes = {name: file_sha256(path) for name, path in files.items()}
        Receipt(request, environment({}), hashes, {}, "rework").save(kept / "receipt.json")
        return files | {name: kept / name for name in ("report.json", "receipt.json")}

    def _told(self, stage: ReworkStage) -> Progress:
        return lambda done, text="": self.observer.progress(stage, done, text)

    def _rework(self, out: Path, progress: Progress) -> None:
        """Writes the asset's files and `inspection.json`."""
        from recon.inspect import inspect
        from render.glb import load_scene

        request = self.request
        progress(0.0, request.operation)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"{request.stem}.glb"  # the files are named after it
            source.symlink_to(self.asset.resolve())
            match request.operation:
                case "convert":
                    tools.convert(source, out, request.options, progress=progress)
                case "unwrap":
                    tools.unwrap(source, out, request.options, progress=progress)
                case "simplify":
                    assert request.polycount is not None
                    tools.simplify(source, out, request.polycount, request.options, progress=progress)
        inspection = json.dumps(plain(inspect(load_scene(out / f"{request.stem}.glb"))), indent=1)
        (out / INSPECTION_FILE).write_text(inspection, encoding="utf-8")


def rework_again(
    request: ReworkRequest,
    asset: Path,
    out: str | Path,
    *,
    observer: Observer | None = None,
    screening: PicturePolicy | None = None,
) -> list[Path]:
    """What `request` asks for, of the GLB that it names the hash of, in `out`; the paths of the files. The
    same request gives the same bytes on the same processor."""
    began = time.perf_counter()
    directory = checked_directory(Path(out))
    with disk_errors(directory), tempfile.TemporaryDirectory(dir=directory, prefix=".maquette-") as folder:
        run = ReworkRun(
            request, asset, Checkpoints(Path(folder)), observer or Unobserved(), screening or picture_policy()
        )
        files = run.finish(run.make(), Path(folder), began)
        publish(files, directory)
    return [directory / name for name in sorted(files)]
