"""A new look for an asset that exists: its shape stays, the model paints it after words or a picture.

    paint -> texture -> export -> preview

In: any GLB. `RetextureRun` is the order of the stages, each under a key of all that it depends on, as in
`pipeline.run_order`; `retexture` runs them in a folder that is gone afterwards.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline import retexture_stages as stages
from pipeline.checkpoints import Checkpoints, StageOutput, file_sha256, publish
from pipeline.config import plain
from pipeline.delivery import IMAGE_FILE
from pipeline.limits import MAX_SEED, checked_range, slug
from pipeline.models import revision_of
from pipeline.observer import Observer, Unobserved
from pipeline.output_directory import checked_directory, disk_errors
from pipeline.picture_safety import PicturePolicy, picture_policy
from pipeline.prompt import Prompt
from pipeline.receipt import Receipt, environment
from pipeline.retexture_stages import RetextureConfig
from pipeline.run import image_sha256
from pipeline.source import ModelSource
from pipeline.stage_versions import RETEXTURE_VERSIONS, RetextureStage
from pipeline.stages import SCREENING_FILE, load_verdict
from pipeline.stages import preview as preview_stage
from pipeline.tools import PackageOptions, read
from render.errors import InputError
from render.progress import Progress
from render.scene import Scene

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["RetextureConfig", "RetextureRequest", "RetextureRun", "retexture", "retexture_again"]


@dataclass(frozen=True)
class RetextureRequest:
    """Everything that decides what comes out."""

    text: str
    negative: str
    image_sha256: str | None
    """Of the cut-out's pixels."""
    asset_sha256: str
    """Of the GLB's bytes."""
    config: RetextureConfig
    options: PackageOptions
    seed: int
    stem: str
    """Name of the files, without suffix."""
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        checked_range("seed", self.seed, (0, MAX_SEED))


@dataclass
class RetextureRun:
    """The order of the stages."""

    request: RetextureRequest
    prompt: Prompt
    asset: Path
    checkpoints: Checkpoints
    model: ModelSource
    observer: Observer
    screening: PicturePolicy = field(default_factory=picture_policy)
    _scene: Scene | None = None

    def make(self) -> dict[RetextureStage, StageOutput]:
        """All stages."""
        request, config = self.request, self.request.config
        painted = self._stage(
            "paint",
            {
                "prompt": {"text": request.text, "negative": request.negative, "image": request.image_sha256},
                "asset": request.asset_sha256,
                "views": plain(config.preset.views),
                "strength": config.strength,
                "seed": request.seed,
                "device": request.device,
                "weights": dict(self.model.weights),
                "screening": self.screening.name,
            },
            [],
            lambda out, progress: stages.paint(
                out,
                self._read(),
                self.prompt,
                config,
                request.seed,
                self.model,
                screening=self.screening,
                progress=progress,
            ),
        )
        self.model.drop()
        textured = self._stage(
            "texture",
            {
                "asset": request.asset_sha256,
                "texture_size": config.texture_size,
                "preset_size": config.preset.bake.texture_size,
                "keep_uvs": config.keep_uvs,
                "grain": config.grain,
            },
            [painted],
            lambda out, progress: stages.texture(
                out, self._read(), painted.directory, config, progress=progress
            ),
        )
        provenance = self._provenance()
        name = slug(request.text) or request.stem
        exported = self._stage(
            "export",
            {
                "options": plain(request.options),
                "name": name,
                "stem": request.stem,
                "provenance": plain(provenance),
            },
            [textured],
            lambda out, progress: stages.export_files(
                out,
                textured.directory,
                request.options,
                name=name,
                stem=request.stem,
                provenance=provenance,
                progress=progress,
            ),
        )
        pictures = self._stage(
            "preview",
            {
                "preview": plain(config.preset.preview),
                "stem": request.stem,
                "screening": self.screening.name,
                "text": request.text,
            },
            [painted, exported],
            lambda out, progress: preview_stage(
                out,
                painted.directory,
                exported / f"{request.stem}.glb",
                config.preset.preview,
                text=request.text,
                screening=self.screening,
                progress=progress,
            ),
        )
        return {"paint": painted, "texture": textured, "export": exported, "preview": pictures}

    def finish(self, outputs: dict[RetextureStage, StageOutput], kept: Path, began: float) -> dict[str, Path]:
        """The final files by name; report, receipt and the picture of the look among them, which are written
        into `kept`. `began` is of `time.perf_counter`."""
        request = self.request
        files = {
            name: outputs["export"] / name
            for name in outputs["export"].hashes
            if name != stages.INSPECTION_FILE
        }
        inspection = json.loads((outputs["export"] / stages.INSPECTION_FILE).read_text(encoding="utf-8"))
        pictures = sorted(outputs["preview"].hashes.keys() - {SCREENING_FILE})
        files |= {name: outputs["preview"] / name for name in pictures}
        if self.prompt.image is not None:
            files[IMAGE_FILE] = kept / IMAGE_FILE
            self.prompt.image.save(files[IMAGE_FILE], format="PNG")
        painted = stages.load_painted(outputs["paint"].directory)
        warning = stages.domain_warning(painted, request.text)
        verdicts = (*painted.safety, load_verdict(outputs["preview"] / SCREENING_FILE))
        report = {
            "operation": "retexture",
            "prompt": request.text,
            "seed": request.seed,
            "preset": request.config.preset.name,
            "strength": request.config.strength,
            "grain": request.config.grain,
            "source_sha256": request.asset_sha256,
            "asset": inspection,
            "views": {
                "domain_score": painted.domain_score,
                "nearest": list(painted.nearest),
                "in_domain": painted.in_domain,
            },
            "stages": [
                {"name": one.name, "seconds": round(one.seconds, 3), "reused": one.reused}
                for one in outputs.values()
            ],
            "total_s": round(time.perf_counter() - began, 3),
            "files": {name: path.stat().st_size for name, path in files.items()},
            "warnings": [warning] if warning else [],
            "safety": plain(verdicts),
        }
        (kept / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        hashes = {name: file_sha256(path) for name, path in files.items()}
        receipt = Receipt(request, environment(self.model.weights), hashes, {}, "retexture")
        receipt.save(kept / "receipt.json")
        return files | {name: kept / name for name in ("report.json", "receipt.json")}

    def warning(self, outputs: dict[RetextureStage, StageOutput]) -> str | None:
        """What the user should know of the prompt."""
        return stages.domain_warning(stages.load_painted(outputs["paint"].directory), self.request.text)

    def _read(self) -> Scene:
        if self._scene is None:
            self._scene = read(self.asset)
        return self._scene

    def _provenance(self) -> dict[str, str | int | float]:
        from importlib.metadata import version

        request = self.request
        out: dict[str, str | int | float] = {
            "generator": f"maquette {version('maquette')}",
            "operation": "retexture",
            "source": request.asset_sha256[:16],
            "prompt": request.text,
            "seed": request.seed,
            "preset": request.config.preset.name,
            "strength": request.config.strength,
            "grain": request.config.grain,
            "weights": revision_of(self.model.weights),
        }
        if request.image_sha256 is not None:
            out["image"] = request.image_sha256[:16]
        if request.negative:
            out["negative"] = request.negative
        return out

    def _stage(
        self,
        name: RetextureStage,
        params: dict[str, object],
        inputs: list[StageOutput],
        function: Callable[[Path, Progress], None],
    ) -> StageOutput:
        def report(fraction: float, message: str = "") -> None:
            self.observer.progress(name, fraction, message)

        report(0.0)
        values = {key: plain(value) for key, value in params.items()}
        output = self.checkpoints.run(
            name, RETEXTURE_VERSIONS[name], values, inputs, lambda out: function(out, report)
        )
        report(1.0)
        return output


def retexture(
    asset: str | Path,
    prompt: str = "",
    *,
    out: str | Path,
    image: Image.Image | None = None,
    negative: str = "",
    config: RetextureConfig | None = None,
    options: PackageOptions | None = None,
    seed: int = 0,
    model: ModelSource | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    observer: Observer | None = None,
    screening: PicturePolicy | None = None,
) -> list[Path]:
    """Writes the asset in its new look, `preview.png`, `turntable.mp4`, `views.png`, `report.json` and
    `receipt.json` into `out`; the paths of the files. `image` is a cut-out (`pipeline.run.prepare_image`).

    The same arguments give the same bytes on the same processor. `InputError` for what a user can mend; then
    nothing is written.
    """
    asset = Path(asset)
    asked = Prompt(prompt, image, negative)
    read(asset)  # before anything is loaded or made
    stem = slug(asset.stem, 64) or "asset"
    if Path(out).resolve() == asset.resolve().parent and f"{stem}.glb" == asset.name:
        raise InputError(f"--out {out}: the result would replace {asset.name} itself; choose another folder.")
    request = RetextureRequest(
        text=asked.text,
        negative=asked.negative,
        image_sha256=None if image is None else image_sha256(image),
        asset_sha256=file_sha256(asset),
        config=config or RetextureConfig(),
        options=options or PackageOptions(),
        seed=seed,
        stem=stem,
        device=device,
    )
    return retexture_again(
        request, asset, out, image=image, model=model, observer=observer, screening=screening
    )


def retexture_again(
    request: RetextureRequest,
    asset: Path,
    out: str | Path,
    *,
    image: Image.Image | None = None,
    model: ModelSource | None = None,
    observer: Observer | None = None,
    screening: PicturePolicy | None = None,
) -> list[Path]:
    """What `request` asks for, of the GLB that it names the hash of, in `out`."""
    began = time.perf_counter()
    observer = observer or Unobserved()
    directory = checked_directory(Path(out))
    with disk_errors(directory), tempfile.TemporaryDirectory(dir=directory, prefix=".maquette-") as folder:
        run = RetextureRun(
            request,
            Prompt(request.text, image, request.negative),
            asset,
            Checkpoints(Path(folder)),
            model or ModelSource(device=request.device),
            observer,
            screening or picture_policy(),
        )
        outputs = run.make()
        warning = run.warning(outputs)
        if warning:
            observer.warning(warning)
        files = run.finish(outputs, Path(folder), began)
        publish(files, directory)
    return [directory / name for name in sorted(files)]
