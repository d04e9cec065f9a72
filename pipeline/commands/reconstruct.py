"""`maquette reconstruct`: posed pictures to an asset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import Out, Quiet, Resumable, stage_bar
from pipeline.commands.making import (
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


def reconstruct(
    out: Out,
    views: Annotated[
        Path | None, typer.Argument(help="A folder with transforms.json, as nerfstudio or Blender have it.")
    ] = None,
    preset: PresetName = None,
    field: Annotated[str | None, typer.Option(help="gaussians or nerf.  [default: the preset's]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of the views.  [default: 0]")] = None,
    polycount: Polycount = None,
    symmetrise: Symmetrise = None,
    height_m: Annotated[
        float | None,
        typer.Option("--height-m", help="Height in metres.  [default: as in the views' world]"),
    ] = None,
    texture_size: MapSize = None,
    formats: AssetFormats = None,
    pivot: AssetPivot = None,
    lods: AssetLods = None,
    lod_layout: AssetLayout = None,
    collider: AssetCollider = None,
    textures: AssetTextures = None,
    compress: AssetMeshes = None,
    delight: Annotated[
        bool | None,
        typer.Option("--delight/--no-delight", help="Take the pictures' light out of the base colour."),
    ] = None,
    device: DeviceName = None,
    picture_policy: PicturePolicyName = "offline",
    known_pictures: KnownPictures = None,
    sign: Sign = False,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Make an asset of posed pictures (3 to 200, with known cameras)."""
    if views is None and not resume:
        raise InputError("Give the folder of the views, or --resume.")
    if field not in (None, "gaussians", "nerf"):
        raise InputError(f"--field must be gaussians or nerf, not {field!r}.")
    check_place(out, device)
    with stage_bar(quiet) as bar, Resumable(out, "reconstruct"):
        from pipeline import reconstruct as runs
        from pipeline.picture_safety import picture_policy as policy_named

        screening = policy_named(picture_policy, known_pictures)
        given = asked(
            out,
            resume,
            preset,
            formats,
            {"package.lods": lods, "package.collider": collider, "package.pivot": pivot,
             "package.lod_layout": lod_layout, "package.textures": textures, "package.meshes": compress,
             "mesh.symmetrise": symmetrise},
            field=field,
            delight=delight,
            seed=seed,
            polycount=polycount,
            height_m=height_m,
            texture_size=texture_size,
            device=device,
        )  # fmt: skip
        if resume:
            result = runs.resume(out, views, observer=bar, screening=screening, **given)
        else:
            assert views is not None
            result = runs.reconstruct(views, out=out, observer=bar, screening=screening, **given)
    print_result(result, sign=sign)
