"""`maquette bake`: the look of one asset on another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import Asset, Out, Quiet, names_of, print_line, stage_bar
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


def bake(
    asset: Asset,
    out: Out,
    source: Annotated[Path, typer.Option("--from", help="The GLB whose look is baked: dense, textured.")],
    maps: Annotated[
        str,
        typer.Option(help="Of base_color, metallic, roughness, normal, occlusion, emissive; with commas."),
    ] = "base_color,metallic,roughness,normal,occlusion,emissive",
    reach_m: Annotated[
        float | None, typer.Option("--reach-m", help="How far apart the two may lie.  [default: measured]")
    ] = None,
    formats: Formats = "glb",
    pivot: PivotAt = "keep",
    height_m: HeightM = None,
    lods: Lods = 1,
    lod_layout: Layout = "nodes",
    collider: Collider = False,
    textures: Textures = "png",
    compress: Compress = "plain",
    texture_size: TextureSize = None,
    quiet: Quiet = False,
) -> None:
    """Bake materials and relief of another asset onto the UVs of this one."""
    with stage_bar(quiet) as bar:
        from pipeline import tools

        options = package_options(
            formats, pivot, height_m, lods, lod_layout, collider, textures, compress, texture_size
        )
        from recon.transfer import ALL_MAPS
        from render.errors import InputError

        wanted = names_of(maps)
        for name in wanted:
            if name not in ALL_MAPS:
                raise InputError(f"--maps: {name!r} is unknown. Known: {', '.join(ALL_MAPS)}.")
        files = tools.bake(
            asset,
            source,
            out,
            options,
            maps=tuple(name for name in ALL_MAPS if name in wanted),
            reach=reach_m,
            progress=lambda done, text="": bar.progress("bake", done, text),
        )
    for file in files:
        print_line(str(file))
