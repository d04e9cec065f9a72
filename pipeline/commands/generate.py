"""`maquette generate`: a prompt, an image, or both to an asset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands import Out, Quiet, Resumable, stage_bar
from pipeline.commands.making import (
    AssetAlign,
    AssetCollider,
    AssetFormats,
    AssetLayout,
    AssetLods,
    AssetMeshes,
    AssetPivot,
    AssetTextures,
    DeviceName,
    KnownPictures,
    MapSize,
    PicturePolicyName,
    Polycount,
    PresetName,
    Resume,
    Sign,
    Symmetrise,
    asked,
    check_place,
    print_result,
)
from render.errors import InputError

if TYPE_CHECKING:
    from pipeline.prompt import Side


def generate(
    out: Out,
    prompt: Annotated[str | None, typer.Argument(help="What to make, in English.")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="A picture of it: PNG, JPEG or WebP; alone or with the prompt. Up to four of them, in equal "
            "steps round it: front and back; or front, right, back and left as seen from the front."
        ),
    ] = None,
    right: Annotated[
        Path | None, typer.Option(help="A picture of what is on the right in --image, which shows the front.")
    ] = None,
    back: Annotated[Path | None, typer.Option(help="A picture of the back.")] = None,
    left: Annotated[Path | None, typer.Option(help="A picture of what is on the left in --image.")] = None,
    negative: Annotated[str | None, typer.Option(help="What it should not be.")] = None,
    preset: PresetName = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another asset.  [default: 0]")] = None,
    variants: Annotated[
        int | None, typer.Option(help="Draw this many seeds, go on with the most consistent.  [default: 1]")
    ] = None,
    polycount: Polycount = None,
    symmetrise: Symmetrise = None,
    height_m: Annotated[
        float | None, typer.Option("--height-m", help="Height of the asset in metres.  [default: 1.0]")
    ] = None,
    texture_size: MapSize = None,
    formats: AssetFormats = None,
    pivot: AssetPivot = None,
    align: AssetAlign = None,
    lods: AssetLods = None,
    lod_layout: AssetLayout = None,
    collider: AssetCollider = None,
    textures: AssetTextures = None,
    compress: AssetMeshes = None,
    device: DeviceName = None,
    lora: Annotated[
        str | None, typer.Option(help="A LoRA of maquette finetune: NAME or NAME:WEIGHT, weight 0 to 2.")
    ] = None,
    picture_policy: PicturePolicyName = "offline",
    known_pictures: KnownPictures = None,
    sign: Sign = False,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Make an asset of a prompt, an image, or both."""
    if not resume and not (prompt or "").strip() and not image:
        raise InputError("The prompt is empty. Say what to make, such as: a wooden barrel, or give --image.")
    check_place(out, device)
    pictures = _pictures(image or [], {"right": right, "back": back, "left": left})
    with stage_bar(quiet) as bar, Resumable(out):
        from pipeline import run
        from pipeline.picture_safety import picture_policy as policy_named

        given = asked(
            out,
            resume,
            preset,
            formats,
            {"package.lods": lods, "package.collider": collider, "package.pivot": pivot,
             "package.lod_layout": lod_layout, "package.textures": textures, "package.meshes": compress,
             "package.align": align, "mesh.symmetrise": symmetrise},
            image=pictures,
            negative=negative,
            seed=seed,
            variants=variants,
            polycount=polycount,
            height_m=height_m,
            texture_size=texture_size,
            device=device,
            lora=lora,
            screening=policy_named(picture_policy, known_pictures),
        )  # fmt: skip
        if resume:
            result = run.resume(out, prompt=prompt, observer=bar, **given)
        else:
            result = run.generate(prompt or "", out=out, observer=bar, **given)
    print_result(result, sign=sign)


def _pictures(images: list[Path], others: Mapping[Side, Path | None]) -> list[Path] | dict[Side, Path] | None:
    """What `pipeline.run` is given; None where there are no pictures."""
    sides = {side: path for side, path in others.items() if path is not None}
    if not sides:
        return images or None
    if len(images) != 1:
        raise InputError(
            f"--{next(iter(sides))} goes with one --image, which shows the front; there "
            + ("is none." if not images else f"are {len(images)}.")
        )
    return {"front": images[0], **sides}
