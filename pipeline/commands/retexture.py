"""`maquette retexture`: a new look for an asset that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import Asset, Out, Quiet, print_line, stage_bar
from pipeline.commands.making import KnownPictures, PicturePolicyName
from pipeline.commands.packaging import (
    Collider,
    Compress,
    Formats,
    HeightM,
    Layout,
    Lods,
    PivotAt,
    Textures,
    TextureSize,
    package_options,
)
from render.errors import InputError


def retexture(
    asset: Asset,
    out: Out,
    prompt: Annotated[
        str | None, typer.Argument(help="The whole object in its new look, such as: a golden barrel.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="A picture of the look: PNG, JPEG or WebP; alone or with the prompt.")
    ] = None,
    negative: Annotated[str, typer.Option(help="What it should not be.")] = "",
    strength: Annotated[
        float, typer.Option(help="0.05 to 1: 1 forgets the old colours, 0.9 keeps traces of them.")
    ] = 1.0,
    grain: Annotated[float, typer.Option(help="0 to 1: how much of the old texture's grain is kept.")] = 1.0,
    new_uvs: Annotated[
        bool, typer.Option("--new-uvs", help="Unwrap anew although the UVs would do.")
    ] = False,
    preset: Annotated[str, typer.Option(help="draft, standard, high, or a YAML file.")] = "standard",
    seed: Annotated[int, typer.Option(help="Another seed, another look.")] = 0,
    formats: Formats = "glb",
    pivot: PivotAt = "keep",
    height_m: HeightM = None,
    lods: Lods = 1,
    lod_layout: Layout = "nodes",
    collider: Collider = False,
    textures: Textures = "png",
    compress: Compress = "plain",
    texture_size: TextureSize = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    picture_policy: PicturePolicyName = "offline",
    known_pictures: KnownPictures = None,
    quiet: Quiet = False,
) -> None:
    """Paint an asset anew after words, a picture, or both; its shape stays."""
    if not (prompt or "").strip() and image is None:
        raise InputError("The prompt is empty. Say what it shall look like, or give --image.")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device must be auto, cpu or cuda, not {device!r}.")
    with stage_bar(quiet) as bar:
        from pipeline.picture_safety import picture_policy as policy_named
        from pipeline.preset import load_preset
        from pipeline.retexture import RetextureConfig
        from pipeline.retexture import retexture as run
        from pipeline.run import prepare_image, resolved_device

        screening = policy_named(picture_policy, known_pictures)
        options = package_options(
            formats, pivot, height_m, lods, lod_layout, collider, textures, compress, texture_size
        )
        config = RetextureConfig(load_preset(preset), strength, grain, not new_uvs, texture_size)
        found = resolved_device("auto" if device == "auto" else "cpu" if device == "cpu" else "cuda")
        files = run(
            asset,
            prompt or "",
            out=out,
            image=prepare_image(image, screening),
            negative=negative,
            config=config,
            options=options,
            seed=seed,
            device=found,
            observer=bar,
            screening=screening,
        )
    for file in files:
        print_line(str(file))
