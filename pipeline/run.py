"""From a request to files: the stages in their order, each kept when it is finished.

    views -> field -> surface -> mesh -> texture -> export -> preview -> report and receipt

Stages are kept in `OUT/.stages`; a run that is repeated, or goes on after Ctrl-C, redoes only
what is not there or depends on what was changed. Final files are written under temporary names and
renamed together at the end, so a run that fails leaves the files of the one before as they were.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from PIL import Image

from pipeline import stages
from pipeline.checkpoints import Checkpoints, StageOutput, file_sha256, peak_memory_mb, publish
from pipeline.config import build, changed, plain
from pipeline.image import load_image
from pipeline.loras import LoraUse, use_lora
from pipeline.models import revision_of, verified_model
from pipeline.output_directory import STAGES_DIRECTORY, checked_directory, disk_errors, locked_stages
from pipeline.preset import Preset, load_preset
from pipeline.prompt import Prompt
from pipeline.receipt import Receipt, environment
from pipeline.report import Report, StageCost, Variant, domain_warning
from pipeline.request import Device, Request, checked_formats, slug
from pipeline.source import ModelSource, ViewModel
from pipeline.stages import VERSIONS, StageName
from render.errors import InputError
from render.gbuffer import ViewSet
from render.progress import Progress

REQUEST_FILE = "request.json"
IMAGE_FILE = "input.png"
VARIANTS_FILE = "variants.png"


@runtime_checkable
class Observer(Protocol):
    """Who is told how a run goes."""

    def progress(self, stage: str, fraction: float, message: str) -> None:
        """`fraction` in [0, 1] of a stage is done. May raise `CanceledError`."""

    def warning(self, message: str) -> None:
        """The user should know this; the run goes on."""


class Unobserved:
    """The `Observer` that tells nobody."""

    def progress(self, stage: str, fraction: float, message: str) -> None:
        pass

    def warning(self, message: str) -> None:
        pass


@dataclass(frozen=True)
class Result:
    """A finished run."""

    directory: Path
    files: dict[str, Path]
    """Final files by name."""
    report: Report
    receipt: Receipt

    @property
    def glb(self) -> Path | None:
        """The asset as GLB, when that format was asked for."""
        return self.files.get(f"{self.receipt.request.stem}.glb")


def generate(
    prompt: str = "",
    *,
    out: str | Path,
    image: str | Path | Image.Image | None = None,
    negative: str = "",
    preset: str | Path | Preset = "standard",
    seed: int = 0,
    variants: int = 1,
    polycount: int | None = None,
    texture_size: int | None = None,
    height_m: float = 1.0,
    formats: Sequence[str] = ("glb",),
    device: Device = "auto",
    lora: str | None = None,
    model: ViewModel | None = None,
    observer: Observer | None = None,
) -> Result:
    """Makes an asset of `prompt` (text, an image, or both) in the folder `out`.

    `polycount` (most triangles) and `texture_size` (pixels) change the preset; `height_m` is the height of
    the asset in metres. With `variants` N, seeds `seed` to `seed + N - 1` are drawn and the most consistent
    goes on. `lora` (`NAME` or `NAME:WEIGHT`, of `maquette finetune`) is added to the shipped weights; `model`
    takes their place. The same arguments give the same bytes on the
    same processor. Raises `InputError` for what a user can mend.
    """
    directory = Path(out)
    settings = preset if isinstance(preset, Preset) else load_preset(preset)
    settings = with_changes(settings, polycount=polycount, texture_size=texture_size)
    picture = prepare_image(image)
    asked = Prompt(prompt, picture, negative)
    request = Request(
        text=asked.text,
        negative=asked.negative,
        image_sha256=None if picture is None else image_sha256(picture),
        preset=settings,
        seed=seed,
        variants=variants,
        height_m=height_m,
        formats=checked_formats(formats),
        stem=slug(directory.resolve().name, 64) or slug(asked.text, 64) or "asset",
        device=resolved_device(device),
        lora=asked_lora(lora),
    )
    return run(request, directory, image=picture, model=model, observer=observer or Unobserved())


def run(
    request: Request,
    directory: Path,
    *,
    image: Image.Image | None = None,
    model: ViewModel | None = None,
    observer: Observer,
) -> Result:
    """Makes what `request` asks for in `directory`; `image` is its cut-out, if it has one."""
    started = time.perf_counter()
    prompt = Prompt(request.text, image, request.negative)
    source = ModelSource(model=model, device=request.device, lora=request.lora)
    directory = checked_directory(directory)
    with disk_errors(directory), locked_stages(directory) as kept:
        save_request(request, image, kept)
        checkpoints = Checkpoints(kept)
        runner = Runner(request, prompt, checkpoints, source, observer)
        drawn, winner, tried = runner.best_views()
        request = replace(request, seed=winner, variants=1)
        outputs = runner.make(drawn, winner)
        result = finish(request, directory, kept, outputs, tried, source.weights, started)
        checkpoints.prune()
        return result


@dataclass
class Runner:
    """The run order. Every method keeps its stage under a key of all that the stage depends on."""

    request: Request
    prompt: Prompt
    checkpoints: Checkpoints
    model: ModelSource
    observer: Observer

    def best_views(self) -> tuple[StageOutput, int, tuple[Variant, ...]]:
        """Views of every seed, the best of them, its seed, and all scores."""
        count = self.request.variants
        outputs: list[tuple[StageOutput, Variant]] = []
        for i in range(count):
            seed = self.request.seed + i

            def scaled(fraction: float, message: str = "", i: int = i) -> None:
                label = f"variant {i + 1} of {count}" if count > 1 else message
                self.observer.progress("views", (i + fraction) / count, label)

            output = self._views(seed, scaled)
            score = stages.load_drawn(output / "views.json").consistency.score
            outputs.append((output, Variant(seed, round(score, 4))))
        warning = domain_warning(stages.load_drawn(outputs[0][0] / "views.json"), self.request.text)
        if warning:
            self.observer.warning(warning)
        # The first of equal scores, so that the choice does not hang on the sort.
        best = max(outputs, key=lambda pair: (pair[1].score, -pair[1].seed))
        self._variants_sheet(outputs)
        return best[0], best[1].seed, tuple(variant for _, variant in outputs)

    def _variants_sheet(self, outputs: list[tuple[StageOutput, Variant]]) -> None:
        if len(outputs) < 2:
            return
        from pipeline.variants import variants_sheet

        labels = [f"seed {variant.seed}: {variant.score:.3f}" for _, variant in outputs]
        sheet = variants_sheet([ViewSet.load(output / stages.DRAWN_FILE) for output, _ in outputs], labels)
        sheet.save(self.checkpoints.directory / VARIANTS_FILE)

    def make(self, views: StageOutput, seed: int) -> dict[StageName, StageOutput]:
        """All stages after the views."""
        request, preset, prompt = self.request, self.request.preset, self.prompt
        guided = (
            {"prompt": _prompt_key(request), "seed": seed, "weights": dict(self.model.weights)}
            if preset.distillation is not None
            else {"seed": seed}
        )
        field = self.stage(
            "field",
            {
                "seeds": plain(preset.seeds),
                "fit": plain(preset.fit),
                "distillation": plain(preset.distillation),
                "guidance_scale": preset.views.guidance_scale,
                "guided": guided,
            },
            [views],
            lambda out, progress: stages.fit_field(
                out,
                views.directory,
                prompt,
                preset.seeds,
                preset.fit,
                preset.distillation,
                preset.views.guidance_scale,
                seed,
                self.model,
                progress=progress,
            ),
        )
        self.model.drop()
        surface = self.stage(
            "surface",
            {"surface": plain(preset.surface)},
            [views, field],
            lambda out, progress: stages.surface(
                out, views.directory, field.directory, preset.surface, progress=progress
            ),
        )
        mesh = self.stage(
            "mesh",
            {"mesh": plain(preset.mesh), "texture_size": preset.bake.texture_size},
            [surface],
            lambda out, progress: stages.mesh(
                out, surface.directory, preset.mesh, preset.bake.texture_size, progress=progress
            ),
        )
        texture = self.stage(
            "texture",
            {"bake": plain(preset.bake)},
            [views, field, mesh],
            lambda out, progress: stages.texture(
                out,
                views.directory,
                field.directory,
                mesh.directory,
                preset.bake,
                progress=progress,
            ),
        )
        provenance = _provenance(request, seed, self.model.weights)
        export = self.stage(
            "export",
            {
                "name": request.asset_name,
                "stem": request.stem,
                "height_m": self._height_m(mesh),
                "formats": list(request.formats),
                "provenance": plain(provenance),
            },
            [field, mesh, texture],
            lambda out, progress: stages.export_files(
                out,
                field.directory,
                mesh.directory,
                texture.directory,
                name=request.asset_name,
                stem=request.stem,
                height_m=self._height_m(mesh),
                formats=request.formats,
                provenance=provenance,
                progress=progress,
            ),
        )
        pictures = self.stage(
            "preview",
            {"preview": plain(preset.preview), "stem": request.stem},
            [views, export],
            lambda out, progress: stages.preview(
                out, views.directory, export / f"{request.stem}.glb", preset.preview, progress=progress
            ),
        )
        return {
            "views": views,
            "field": field,
            "surface": surface,
            "mesh": mesh,
            "texture": texture,
            "export": export,
            "preview": pictures,
        }

    def _height_m(self, mesh: StageOutput) -> float:
        """What was asked for; of a reconstruction the height that the object has in its views' world."""
        if self.request.scale_m is None:
            return self.request.height_m
        from pipeline.artifacts import load_mesh
        from recon.asset import height_of

        return self.request.scale_m * height_of(load_mesh(mesh / stages.MESH_FILE))

    def _views(self, seed: int, progress: Progress) -> StageOutput:
        config = self.request.preset.views
        return self.stage(
            "views",
            {
                "prompt": _prompt_key(self.request),
                "views": plain(config),
                "seed": seed,
                "device": self.request.device,
                "weights": dict(self.model.weights),
            },
            [],
            lambda out, _: stages.draw_views(out, self.prompt, config, seed, self.model, progress=progress),
            progress,
        )

    def stage(
        self,
        name: StageName,
        params: dict[str, object],
        inputs: list[StageOutput],
        function: Callable[[Path, Progress], None],
        progress: Progress | None = None,
    ) -> StageOutput:
        def report(fraction: float, message: str = "") -> None:
            self.observer.progress(name, fraction, message)

        tell = progress or report
        tell(0.0)
        output = self.checkpoints.run(
            name,
            VERSIONS[name],
            {k: plain(v) for k, v in params.items()},
            inputs,
            lambda out: function(out, tell),
        )
        tell(1.0, "kept from before" if output.reused else "")
        return output


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
    files = asset_files | {name: outputs["preview"] / name for name in outputs["preview"].hashes}
    if request.image_sha256 is not None:
        files[IMAGE_FILE] = kept / IMAGE_FILE
    if len(tried) > 1:
        files[VARIANTS_FILE] = kept / VARIANTS_FILE
    fitted = json.loads((outputs["field"] / "fit.json").read_text(encoding="utf-8"))
    drawn = stages.load_drawn(outputs["views"] / "views.json")
    warning = domain_warning(drawn, request.text)
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
    )
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


def resume(
    out: str | Path,
    prompt: str | None = None,
    *,
    image: str | Path | Image.Image | None = None,
    negative: str | None = None,
    preset: str | Path | Preset | None = None,
    seed: int | None = None,
    variants: int | None = None,
    polycount: int | None = None,
    texture_size: int | None = None,
    height_m: float | None = None,
    formats: Sequence[str] | None = None,
    device: Device | None = None,
    lora: str | None = None,
    model: ViewModel | None = None,
    observer: Observer | None = None,
) -> Result:
    """Goes on with the last run in `out`; what is given here changes its request (see `generate`).

    `InputError` when there was no run.
    """
    directory = Path(out)
    request, picture = last_request(directory)
    if preset is not None:
        request = replace(request, preset=preset if isinstance(preset, Preset) else load_preset(preset))
    settings = with_changes(request.preset, polycount=polycount, texture_size=texture_size)
    if image is not None:
        picture = prepare_image(image)
    negative = request.negative if negative is None else negative
    asked = Prompt(request.text if prompt is None else prompt, picture, negative)
    request = replace(
        request,
        text=asked.text,
        negative=asked.negative,
        image_sha256=None if picture is None else image_sha256(picture),
        preset=settings,
        seed=request.seed if seed is None else seed,
        variants=request.variants if variants is None else variants,
        height_m=request.height_m if height_m is None else height_m,
        formats=request.formats if formats is None else checked_formats(formats),
        device=request.device if device is None else resolved_device(device),
        lora=request.lora if lora is None else asked_lora(lora),
    )
    return run(request, directory, image=picture, model=model, observer=observer or Unobserved())


def last_request(directory: Path) -> tuple[Request, Image.Image | None]:
    """What the last run in `directory` was asked for, finished or not. `InputError` when there was none."""
    kept = directory / STAGES_DIRECTORY
    try:
        data = json.loads((kept / REQUEST_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is nothing to resume in {directory}. Give a prompt.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{kept / REQUEST_FILE} cannot be read: {error}") from None
    request = build(Request, data)
    return request, saved_image(request, kept / IMAGE_FILE)


def asked_lora(text: str | None) -> LoraUse | None:
    """What `--lora` asks for, checked against the shipped model; none for no or empty text."""
    return use_lora(text, revision_of(verified_model().hashes)) if text else None


def saved_image(request: Request, path: Path) -> Image.Image | None:
    """The cut-out that belongs to a saved request, its hash checked."""
    if request.image_sha256 is None:
        return None
    image = load_image(path)
    if image_sha256(image) != request.image_sha256:
        raise InputError(f"{path} is not the image that the request was made with.")
    return image


def with_changes(preset: Preset, *, polycount: int | None, texture_size: int | None) -> Preset:
    """The preset with the user's own budget."""
    if polycount is not None:
        preset = changed(preset, "mesh.polycount", polycount)
    if texture_size is not None:
        preset = changed(preset, "bake.texture_size", texture_size)
    return preset


def prepare_image(image: str | Path | Image.Image | None) -> Image.Image | None:
    """A user's picture, read and cut out."""
    if image is None:
        return None
    from pipeline.cutout import cut_out  # scikit-image takes half a second, and text needs none

    return cut_out(image if isinstance(image, Image.Image) else load_image(Path(image))).image


def image_sha256(image: Image.Image) -> str:
    """Hash of size and pixels: the same picture in another file format has the same hash."""
    header = f"{image.mode} {image.width} {image.height}\n".encode()
    return hashlib.sha256(header + image.tobytes()).hexdigest()


def resolved_device(device: Device) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda`. `InputError` when a GPU is asked for and none is there."""
    if device == "cpu":
        return "cpu"
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError("--device cuda: torch finds no CUDA device here. Use --device cpu or auto.")
    return "cuda" if available else "cpu"


def save_request(request: Request, image: Image.Image | None, kept: Path) -> None:
    """For `--resume`, before anything can fail."""
    if image is not None:
        part = kept / f".{IMAGE_FILE}.part"
        image.save(part, format="PNG")
        part.replace(kept / IMAGE_FILE)
    part = kept / f".{REQUEST_FILE}.part"
    part.write_text(json.dumps(plain(request), indent=1), encoding="utf-8")
    part.replace(kept / REQUEST_FILE)


def _prompt_key(request: Request) -> dict[str, str | None]:
    return {"text": request.text, "negative": request.negative, "image": request.image_sha256}


def _provenance(request: Request, seed: int, weights: dict[str, str]) -> dict[str, str | int | float]:
    """What the asset says of its making: no clock, no path."""
    from importlib.metadata import version

    digest = hashlib.sha256(json.dumps(sorted(weights.items())).encode()).hexdigest()
    out: dict[str, str | int | float] = {
        "generator": f"maquette {version('maquette')}",
        "prompt": request.text,
        "seed": seed,
        "preset": request.preset.name,
        "weights": digest[:16],
    }
    if request.image_sha256 is not None:
        out["image"] = request.image_sha256[:16]
    if request.views_sha256 is not None:
        out["views"] = request.views_sha256[:16]
    if request.negative:
        out["negative"] = request.negative
    return out


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
