"""Options of the commands that write assets: formats, size, levels of detail, collider, compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from pipeline.commands import names_of
from render.errors import InputError

if TYPE_CHECKING:
    from pipeline.tools import PackageOptions

Formats = Annotated[
    str, typer.Option(help="Of glb, gltf, obj, usdz, fbx, blend, stl, 3mf, ply; with commas.")
]
PivotAt = Annotated[
    str, typer.Option("--pivot", help="The origin: keep, floor (middle of the lowest side), center, corner.")
]
HeightM = Annotated[
    float | None, typer.Option("--height-m", help="Scale to this height in metres.  [default: as it is]")
]
Lods = Annotated[int, typer.Option("--lods", help="Levels of detail, the finest included: 1 to 8.")]
Layout = Annotated[
    str, typer.Option("--lod-layout", help="nodes (NAME_LOD0, ...) or msft (the extension MSFT_lod).")
]
Collider = Annotated[
    bool, typer.Option("--collider", help="Add convex hulls UCX_NAME_00, ... (extra 'collider').")
]
Textures = Annotated[str, typer.Option(help="Textures of glb and gltf: png, webp or ktx2 (program basisu).")]
Compress = Annotated[
    str, typer.Option(help="Geometry of glb and gltf: plain, draco or meshopt (extras of these names).")
]
TextureSize = Annotated[
    int | None, typer.Option(help="Of baked maps: 512 to 4096.  [default: the original's]")
]


def package_options(
    formats: str,
    pivot: str,
    height_m: float | None,
    lods: int,
    lod_layout: str,
    collider: bool,
    textures: str,
    compress: str,
    texture_size: int | None,
) -> PackageOptions:
    """The options, checked; `InputError` names the one that is wrong, or what has to be installed for it."""
    from pipeline.request import checked_formats
    from pipeline.tools import PackageOptions
    from recon.asset import LodLayout, Pivot
    from recon.export.gltf import MeshFormat, TextureFormat
    from recon.needs import require_all

    def chosen(option: str, value: str, kind: Any) -> Any:
        known = get_args(kind)
        if value not in known:
            raise InputError(f"{option} must be one of {', '.join(known)}, not {value!r}.")
        return value

    options = PackageOptions(
        formats=checked_formats(names_of(formats)),
        pivot=chosen("--pivot", pivot, Pivot),
        height_m=height_m,
        lods=lods,
        lod_layout=chosen("--lod-layout", lod_layout, LodLayout),
        collider=collider,
        textures=chosen("--textures", textures, TextureFormat),
        meshes=chosen("--compress", compress, MeshFormat),
        texture_size=texture_size,
    )
    require_all(options.formats, options.textures, options.meshes, collider=collider)
    return options
