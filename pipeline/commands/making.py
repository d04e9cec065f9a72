"""What the commands that make assets (`generate`, `reconstruct`) share: options, checks, printing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands import names_of, print_line
from render.errors import InputError

if TYPE_CHECKING:
    from pipeline.delivery import Result

PresetName = Annotated[
    str | None, typer.Option("--preset", help="draft, standard, high, or a .yaml file.  [default: standard]")
]
Polycount = Annotated[int | None, typer.Option(help="Most triangles.  [default: the preset's]")]
Symmetrise = Annotated[
    bool | None,
    typer.Option(
        "--symmetrise/--no-symmetrise",
        help="Make left and right, or front and back, equal where they nearly are.  "
        "[default: what is drawn from a text alone]",
    ),
]
MapSize = Annotated[int | None, typer.Option("--texture-size", help="In pixels.  [default: the preset's]")]
AssetFormats = Annotated[
    str | None,
    typer.Option(
        "--formats",
        help="Of glb, gltf, obj, usdz, fbx, blend, stl, 3mf, ply, splat, splat32, spz.  [default: glb]",
    ),
]
AssetPivot = Annotated[
    str | None,
    typer.Option(
        "--pivot",
        help="The origin: floor (middle of the lowest side), center, corner, keep.  [default: the preset's]",
    ),
]
AssetAlign = Annotated[
    bool | None,
    typer.Option(
        "--align/--no-align",
        help="Turn what is made of a picture until its walls are square with the axes.  [default: align]",
    ),
]
AssetLods = Annotated[
    int | None,
    typer.Option("--lods", help="Levels of detail, the finest included.  [default: the preset's]"),
]
AssetLayout = Annotated[
    str | None,
    typer.Option(
        "--lod-layout",
        help="nodes (NAME_LOD0, ...) or msft (the extension MSFT_lod).  [default: the preset's]",
    ),
]
AssetCollider = Annotated[
    bool | None, typer.Option("--collider/--no-collider", help="Convex hulls for physics engines.")
]
AssetTextures = Annotated[
    str | None,
    typer.Option("--textures", help="Of glb and gltf: png, webp or ktx2.  [default: the preset's]"),
]
AssetMeshes = Annotated[
    str | None,
    typer.Option(
        "--compress", help="Geometry of glb and gltf: plain, draco or meshopt.  [default: the preset's]"
    ),
]
PicturePolicyName = Annotated[
    str,
    typer.Option(
        "--picture-policy",
        envvar="MAQUETTE_PICTURE_POLICY",
        help="Screens pictures, given and made: offline, none, or module:function (docs/safety.md).",
    ),
]
KnownPictures = Annotated[
    Path | None,
    typer.Option(
        "--known-pictures",
        envvar="MAQUETTE_KNOWN_PICTURES",
        help="A list of hashes of pictures to refuse (docs/safety.md).",
    ),
]
DeviceName = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.  [default: auto]")]
Sign = Annotated[
    bool, typer.Option("--sign", help="Give every file content credentials (C2PA; see maquette verify).")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the last run in --out; options given here change it.")
]


def check_place(out: Path, device: str | None) -> None:
    """`InputError` for an unknown device, and a file where the folder would be."""
    if device not in (None, "auto", "cpu", "cuda"):
        raise InputError(f"--device must be auto, cpu or cuda, not {device!r}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder.")


def asked(
    out: Path,
    resume: bool,
    preset: str | None,
    formats: str | None,
    settings: dict[str, Any],
    **options: Any,
) -> dict[str, Any]:
    """What was given on the command line, as keywords of a run; the rest keeps its default.

    `settings` (`package.lods` and the like) change the preset: the named one, or when a run goes on, that of
    the last run in `out`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if formats is not None:
        given["formats"] = names_of(formats)
    changes = {name: value for name, value in settings.items() if value is not None}
    if not changes:
        return given if preset is None else {**given, "preset": preset}
    from pipeline.config import changed
    from pipeline.preset import load_preset
    from pipeline.run import last_request

    chosen = last_request(out)[0].preset if resume and preset is None else load_preset(preset or "standard")
    for name, value in changes.items():
        chosen = changed(chosen, name, value)
    return {**given, "preset": chosen}


def print_result(result: Result, *, sign: bool) -> None:
    """Signs the files of a run where that is asked for; prints them, and what the run cost."""
    report = result.report
    if len(report.variants) > 1:
        for variant in sorted(report.variants, key=lambda variant: -variant.score):
            mark = "  <- kept" if variant.seed == report.seed else ""
            print_line(f"seed {variant.seed}  score {variant.score:.3f}{mark}")
    for name in sorted(result.files):
        print_line(str(result.files[name]))
    print_line(f"seed {report.seed}, {report.total_s:.0f} s, {report.peak_mb:.0f} MB")
    if sign:
        from pipeline.credentials import sign_result

        for path in sign_result(result):
            print_line(f"signed {path}")
