"""`maquette simplify`: fewer triangles."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands import Asset, Out, Quiet, print_line, stage_bar
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


def simplify(
    asset: Asset,
    out: Out,
    polycount: Annotated[int, typer.Option(help="Most triangles.")],
    remesh: Annotated[
        str | None,
        typer.Option(help="Remesh into even triangles or quads (extra 'remesh')."),
    ] = None,
    symmetrise: Annotated[
        bool,
        typer.Option(
            "--symmetrise", help="Make left and right, or front and back, equal where they nearly are."
        ),
    ] = False,
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
    """Reduce the triangles of an asset and bake its look onto what is left."""
    with stage_bar(quiet) as bar:
        from pipeline import tools

        options = package_options(
            formats, pivot, height_m, lods, lod_layout, collider, textures, compress, texture_size
        )
        made = tools.simplify(
            asset,
            out,
            polycount,
            options,
            remesh=remesh,
            symmetrise=symmetrise,
            progress=lambda done, text="": bar.progress("simplify", done, text),
        )
        if made.symmetry is not None and (warning := made.symmetry.warning()):
            bar.warning(warning)
    for file in made.files:
        print_line(str(file))
    print_line(f"{made.triangles_before:,} triangles to {made.triangles:,}; {made.fidelity.sentence()}")
