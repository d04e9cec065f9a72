"""`maquette unwrap`: new UVs for an asset."""

from __future__ import annotations

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


def unwrap(
    asset: Asset,
    out: Out,
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
    """Put all parts of an asset into one atlas and bake its materials there."""
    with stage_bar(quiet) as bar:
        from pipeline import tools

        options = package_options(
            formats, pivot, height_m, lods, lod_layout, collider, textures, compress, texture_size
        )
        files = tools.unwrap(
            asset, out, options, progress=lambda done, text="": bar.progress("unwrap", done, text)
        )
    for file in files:
        print_line(str(file))
