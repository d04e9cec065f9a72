"""`maquette reconstruct`: posed pictures to an asset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands import Out, Quiet, Resumable, names_of, stage_bar
from pipeline.commands.generate import print_result
from render.errors import InputError


def reconstruct(
    out: Out,
    views: Annotated[
        Path | None, typer.Argument(help="A folder with transforms.json, as nerfstudio or Blender have it.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="draft, standard, high, or a .yaml file.  [default: standard]"),
    ] = None,
    field: Annotated[str | None, typer.Option(help="gaussians or nerf.  [default: the preset's]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of the views.  [default: 0]")] = None,
    polycount: Annotated[int | None, typer.Option(help="Most triangles.  [default: the preset's]")] = None,
    height_m: Annotated[
        float | None,
        typer.Option("--height-m", help="Height in metres.  [default: as in the views' world]"),
    ] = None,
    texture_size: Annotated[int | None, typer.Option(help="In pixels.  [default: the preset's]")] = None,
    formats: Annotated[
        str | None, typer.Option(help="Of glb, obj, stl, ply, splat; with commas.  [default: glb]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.  [default: auto]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last run in --out; options given here change it.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make an asset of posed pictures (3 to 200, with known cameras)."""
    if views is None and not resume:
        raise InputError("Give the folder of the views, or --resume.")
    if device not in (None, "auto", "cpu", "cuda"):
        raise InputError(f"--device must be auto, cpu or cuda, not {device!r}.")
    if field not in (None, "gaussians", "nerf"):
        raise InputError(f"--field must be gaussians or nerf, not {field!r}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder.")
    options: dict[str, Any] = {
        "preset": preset,
        "field": field,
        "seed": seed,
        "polycount": polycount,
        "height_m": height_m,
        "texture_size": texture_size,
        "formats": None if formats is None else names_of(formats),
        "device": device,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with stage_bar(quiet) as bar, Resumable(out, "reconstruct"):
        from pipeline import reconstruct as runs

        if resume:
            result = runs.resume(out, views, observer=bar, **given)
        else:
            assert views is not None
            result = runs.reconstruct(views, out=out, observer=bar, **given)
    print_result(result)
