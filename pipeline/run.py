"""From what a user asks to an asset's files: generate, run again, resume.

Stages are kept in `OUT/.stages`; a run that is repeated, or goes on after Ctrl-C, redoes only
what is not there or depends on what was changed. Final files are written under temporary names and
renamed together at the end, so a run that fails leaves the files of the one before as they were.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from pipeline.checkpoints import Checkpoints
from pipeline.config import build, changed, plain
from pipeline.delivery import IMAGE_FILE, Result, finish
from pipeline.image import load_image
from pipeline.loras import LoraUse, use_lora
from pipeline.models import revision_of, verified_model
from pipeline.observer import Observer, Unobserved
from pipeline.output_directory import STAGES_DIRECTORY, checked_directory, disk_errors, locked_stages
from pipeline.picture_safety import PicturePolicy, picture_policy, screen_pictures
from pipeline.preset import Preset, load_preset
from pipeline.prompt import MAX_PICTURES, SIDES, Prompt, Side
from pipeline.request import Device, Request, check_installed, checked_formats, slug
from pipeline.run_order import Runner
from pipeline.source import ModelSource, ViewModel
from render.errors import InputError

REQUEST_FILE = "request.json"

Picture = str | Path | Image.Image
"""A file, or pixels."""
Pictures = Picture | Sequence[Picture] | Mapping[Side, Picture]
"""Of one object: one; several, in equal steps round it; or by the sides that they show."""


def generate(
    prompt: str = "",
    *,
    out: str | Path,
    image: Pictures | None = None,
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
    screening: PicturePolicy | None = None,
    observer: Observer | None = None,
) -> Result:
    """Makes an asset of `prompt` (text, an image, or both) in the folder `out`. Several images are pictures
    of one object, by the sides that they show, or in equal steps round it, the front first.

    `polycount` (most triangles) and `texture_size` (pixels) change the preset; `height_m` is the height of
    the asset in metres. With `variants` N, seeds `seed` to `seed + N - 1` are drawn and the most consistent
    goes on. `lora` (`NAME` or `NAME:WEIGHT`, of `maquette finetune`) is added to the shipped weights; `model`
    takes their place. `screening` judges pictures, given and made (default: `picture_policy()`). The same
    arguments give the same bytes on the same processor. Raises `InputError` for what a user can mend.
    """
    directory = Path(out)
    settings = preset if isinstance(preset, Preset) else load_preset(preset)
    settings = with_changes(settings, polycount=polycount, texture_size=texture_size)
    picture = prepare_image(image, screening)
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
    return run(
        request,
        directory,
        image=picture,
        model=model,
        screening=screening,
        observer=observer or Unobserved(),
    )


def run(
    request: Request,
    directory: Path,
    *,
    image: Image.Image | None = None,
    model: ViewModel | None = None,
    source: ModelSource | None = None,
    screening: PicturePolicy | None = None,
    observer: Observer,
) -> Result:
    """Makes what `request` asks for in `directory`; `image` is its cut-out, if it has one. A `source` that
    several runs share takes the place of the request's device and LoRA."""
    started = time.perf_counter()
    prompt = Prompt(request.text, image, request.negative)
    source = source or ModelSource(model=model, device=request.device, lora=request.lora)
    directory = checked_directory(directory)
    check_installed(request)
    with disk_errors(directory), locked_stages(directory) as kept:
        save_request(request, image, kept)
        checkpoints = Checkpoints(kept)
        runner = Runner(request, prompt, checkpoints, source, observer, screening or picture_policy())
        drawn, winner, tried = runner.best_views()
        request = replace(request, seed=winner, variants=1)
        outputs = runner.make(drawn, winner)
        result = finish(request, directory, kept, outputs, tried, source.weights, started)
        checkpoints.prune()
        return result


def resume(
    out: str | Path,
    prompt: str | None = None,
    *,
    image: Pictures | None = None,
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
    screening: PicturePolicy | None = None,
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
        picture = prepare_image(image, screening)
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
    return run(
        request,
        directory,
        image=picture,
        model=model,
        screening=screening,
        observer=observer or Unobserved(),
    )


def last_request(directory: Path) -> tuple[Request, Image.Image | None]:
    """What the last run in `directory` was asked for, finished or not. `InputError` when there was none."""
    kept = directory / STAGES_DIRECTORY
    try:
        data = json.loads((kept / REQUEST_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is nothing to resume in {directory}. Give a prompt.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{kept / REQUEST_FILE} cannot be read: {error}") from None
    try:
        request = build(Request, data)
    except InputError as error:
        raise InputError(f"{kept / REQUEST_FILE} is not of this version of maquette: {error}") from None
    return request, saved_image(request.image_sha256, kept / IMAGE_FILE)


def asked_lora(text: str | None) -> LoraUse | None:
    """What `--lora` asks for, checked against the shipped model; none for no or empty text."""
    return use_lora(text, revision_of(verified_model().hashes)) if text else None


def saved_image(sha256: str | None, path: Path) -> Image.Image | None:
    """The cut-out that belongs to a saved request, its hash (None: it has no picture) checked."""
    if sha256 is None:
        return None
    image = load_image(path)
    if image_sha256(image) != sha256:
        raise InputError(f"{path} is not the image that the request was made with.")
    return image


def with_changes(preset: Preset, *, polycount: int | None, texture_size: int | None) -> Preset:
    """The preset with the user's own budget."""
    if polycount is not None:
        preset = changed(preset, "mesh.polycount", polycount)
    if texture_size is not None:
        preset = changed(preset, "bake.texture_size", texture_size)
    return preset


def prepare_image(image: Pictures | None, screening: PicturePolicy | None = None) -> Image.Image | None:
    """A user's picture, read, screened whole, and cut out; of several of one object the cut-outs side by
    side (`Prompt.image`). `RefusedError` when the policy refuses one."""
    if image is None:
        return None
    given: list[Picture | None]
    if isinstance(image, str | Path | Image.Image):
        given = [image]
    elif isinstance(image, Mapping):
        if "front" not in image or not set(image) <= set(SIDES):
            raise InputError(f"Give a picture of the front, and of others of {', '.join(SIDES)}.")
        given = [image.get(side) for side in SIDES] if len(image) > 1 else [image["front"]]
    else:
        given = list(image)
    if not 1 <= len(given) <= MAX_PICTURES:
        raise InputError(f"Give 1 to {MAX_PICTURES} pictures of the object, not {len(given)}.")
    policy = screening or picture_policy()
    return side_by_side([None if one is None else _screened_cut_out(one, policy) for one in given])


def _screened_cut_out(picture: Picture, screening: PicturePolicy) -> Image.Image:
    from pipeline.cutout import cut_out  # scikit-image takes half a second, and text needs none

    whole = picture if isinstance(picture, Image.Image) else load_image(Path(picture))
    screen_pictures(screening, [whole], "picture")
    return cut_out(whole).image


def side_by_side(pictures: Sequence[Image.Image | None]) -> Image.Image:
    """Square pictures in a row, all as large as the largest; empty where there is none."""
    if len(pictures) == 1 and pictures[0] is not None:
        return pictures[0]
    side = max(picture.height for picture in pictures if picture is not None)
    row = Image.new("RGBA", (side * len(pictures), side))
    for number, picture in enumerate(pictures):
        if picture is not None:
            row.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (number * side, 0))
    return row


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
