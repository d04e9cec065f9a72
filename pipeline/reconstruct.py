"""From posed pictures to the asset that `generate` makes of a prompt.

    read views -> field -> surface -> mesh -> texture -> export -> preview -> report and receipt

All stages but the first are those of `pipeline.run`; so are checkpoints, final files, report and receipt.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pipeline import stages
from pipeline.checkpoints import Checkpoints, file_sha256
from pipeline.config import changed, plain
from pipeline.delivery import Result, finish
from pipeline.observer import Observer, Unobserved
from pipeline.output_directory import STAGES_DIRECTORY, checked_directory, disk_errors, locked_stages
from pipeline.picture_safety import PicturePolicy, picture_policy
from pipeline.posed_views import frames_of
from pipeline.preset import Preset, load_preset
from pipeline.prompt import Prompt
from pipeline.request import Device, Request, check_installed, checked_formats, slug
from pipeline.run import last_request, resolved_device, save_request, with_changes
from pipeline.run_order import Runner
from pipeline.source import ModelSource, ViewModel
from pipeline.transforms_json import PosedSet, read_transforms
from render.errors import InputError

SOURCE_FILE = "source.json"


def reconstruct(
    views: str | Path,
    *,
    out: str | Path,
    preset: str | Path | Preset = "standard",
    field: Literal["gaussians", "nerf"] | None = None,
    seed: int = 0,
    polycount: int | None = None,
    texture_size: int | None = None,
    height_m: float | None = None,
    formats: Sequence[str] = ("glb",),
    delight: bool | None = None,
    device: Device = "auto",
    observer: Observer | None = None,
    screening: PicturePolicy | None = None,
) -> Result:
    """Makes an asset of the posed pictures in the folder `views` (see `pipeline.transforms_json`) in `out`.

    `field`, `delight` (take the pictures' light out of the base colour) and the budget change the preset.
    Without `height_m` the asset has the size that the object has in the views' world, taken as metres.
    `screening` judges pictures of the finished asset (default: `picture_policy()`). Raises `InputError` for
    what a user can mend.
    """
    directory, source = Path(out), Path(views)
    posed = read_transforms(source)
    settings = preset if isinstance(preset, Preset) else load_preset(preset)
    settings = with_changes(settings, polycount=polycount, texture_size=texture_size)
    settings = _with_field_and_light(settings, field, delight)
    stem = slug(directory.resolve().name, 64) or "asset"
    request = Request(
        text="",
        negative="",
        image_sha256=None,
        # Nothing is distilled: there is no prompt that a model could have an opinion with.
        preset=replace(settings, distillation=None),
        seed=seed,
        variants=1,
        height_m=1.0 if height_m is None else height_m,
        formats=checked_formats(formats),
        stem=stem,
        device=resolved_device(device),
        views_sha256=views_sha256(posed),
        scale_m=1.0 if height_m is None else None,
    )
    return run(request, posed, source, directory, observer=observer or Unobserved(), screening=screening)


def resume(
    out: str | Path,
    views: str | Path | None = None,
    *,
    preset: str | Path | Preset | None = None,
    field: Literal["gaussians", "nerf"] | None = None,
    seed: int | None = None,
    polycount: int | None = None,
    texture_size: int | None = None,
    height_m: float | None = None,
    formats: Sequence[str] | None = None,
    delight: bool | None = None,
    device: Device | None = None,
    observer: Observer | None = None,
    screening: PicturePolicy | None = None,
) -> Result:
    """Goes on with the last reconstruction in `out`; what is given here changes its request."""
    directory = Path(out)
    request, _ = last_request(directory)
    if request.views_sha256 is None:
        raise InputError(
            f"The last run in {directory} was no reconstruction; use maquette generate --resume."
        )
    source = Path(views) if views is not None else _last_source(directory)
    settings = request.preset
    if preset is not None:
        settings = preset if isinstance(preset, Preset) else load_preset(preset)
    settings = with_changes(settings, polycount=polycount, texture_size=texture_size)
    settings = _with_field_and_light(settings, field, delight)
    posed = read_transforms(source)
    request = replace(
        request,
        preset=replace(settings, distillation=None),
        seed=request.seed if seed is None else seed,
        height_m=request.height_m if height_m is None else height_m,
        scale_m=request.scale_m if height_m is None else None,
        formats=request.formats if formats is None else checked_formats(formats),
        device=request.device if device is None else resolved_device(device),
        views_sha256=views_sha256(posed),
    )
    return run(request, posed, source, directory, observer=observer or Unobserved(), screening=screening)


def _with_field_and_light(preset: Preset, field: str | None, delight: bool | None) -> Preset:
    if field is not None:
        preset = changed(preset, "fit.field", field)
    return preset if delight is None else changed(preset, "reconstruct.delight", delight)


def reconstruct_again(
    request: Request, out: Path, views: Path | None, made_in: Path, *, observer: Observer
) -> Result:
    """What a receipt's `request` asks for, in `out`, of the same pictures: those in `views`, or in the folder
    that the run in `made_in` read. `InputError` when that is unknown or its bytes are others."""
    if views is None:
        try:
            views = _last_source(made_in)
        except InputError:
            raise InputError(
                f"{made_in} does not say where its posed pictures are; give their folder: --views"
            ) from None
    posed = read_transforms(views)
    if views_sha256(posed) != request.views_sha256:
        raise InputError(
            f"{views} is not the set that the asset was made of: its poses or pictures are others."
        )
    return run(request, posed, views, out, observer=observer)


def run(
    request: Request,
    posed: PosedSet,
    source: Path,
    directory: Path,
    *,
    observer: Observer,
    screening: PicturePolicy | None = None,
) -> Result:
    """Makes what `request` asks for, of the set `posed` that was read from `source`."""
    started = time.perf_counter()
    if request.preset.reconstruct.delight and posed.unlit:
        raise InputError(f"{source}: its pictures are base colour without light; leave --delight out.")
    directory = checked_directory(directory)
    check_installed(request)
    with disk_errors(directory), locked_stages(directory) as kept:
        save_request(request, None, kept)
        part = kept / f".{SOURCE_FILE}.part"
        part.write_text(json.dumps({"views": str(source.resolve())}), encoding="utf-8")
        part.replace(kept / SOURCE_FILE)
        checkpoints = Checkpoints(kept)
        model = _NoModel()
        runner = Runner(
            request, Prompt("posed views"), checkpoints, model, observer, screening or picture_policy()
        )
        views = runner.stage(
            "views",
            {"posed": request.views_sha256, "reconstruct": plain(request.preset.reconstruct)},
            [],
            lambda out, progress: stages.read_views(
                out, posed, request.preset.reconstruct, progress=progress
            ),
        )
        found = json.loads((views / stages.POSED_FILE).read_text(encoding="utf-8"))
        for warning in found["warnings"]:
            observer.warning(warning)
        if request.scale_m is not None:
            runner.request = replace(request, scale_m=found["radius"])
        outputs = runner.make(views, request.seed)
        result = finish(request, directory, kept, outputs, (), model.weights, started)
        checkpoints.prune()
        return result


class _NoModel(ModelSource):
    """Of runs that no model takes part in."""

    def __init__(self) -> None:
        self._model = None
        self._folder = None
        self.weights = {}

    def load(self) -> ViewModel:
        raise RuntimeError("a run without a model asked for it")


def views_sha256(posed: PosedSet) -> str:
    """Hash of the set: poses, intrinsics and the bytes of all files that are read, not their paths."""
    digest = hashlib.sha256()
    for frame in posed.frames:
        described = (
            frame.c2w.tolist(),
            frame.intrinsics,
            frame.angles_rad,
            frame.size,
            frame.distortion,
            [
                path is not None
                for path in (frame.mask, frame.depth, frame.normal, frame.material, frame.emissive)
            ],
        )
        digest.update(json.dumps(described).encode())
    for path in frames_of(posed):
        digest.update(file_sha256(path).encode())
    rest = (posed.projection, posed.depth_unit, posed.normal_space, posed.unlit, posed.up, posed.tone_map)
    digest.update(json.dumps(rest).encode())
    return digest.hexdigest()


def _last_source(directory: Path) -> Path:
    path = directory / STAGES_DIRECTORY / SOURCE_FILE
    try:
        return Path(str(json.loads(path.read_text(encoding="utf-8"))["views"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} cannot be read; give the folder of the views.") from None
