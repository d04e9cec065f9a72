"""`maquette render`: a still and a turntable of any GLB."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands import Asset, Out, Quiet, names_of, print_line, stage_bar


def render(
    asset: Asset,
    out: Out,
    environment: Annotated[str, typer.Option(help="Light: studio, sunset or overcast.")] = "studio",
    mode: Annotated[str, typer.Option(help="shaded, clay, normals, wireframe or base_color.")] = "shaded",
    background: Annotated[str, typer.Option(help="gradient, transparent, or #rrggbb.")] = "gradient",
    renderer: Annotated[
        str, typer.Option(help="preview, or path: path-traced by Mitsuba 3 (extra 'path').")
    ] = "preview",
    samples: Annotated[int, typer.Option(help="Paths a pixel, with --renderer path.")] = 64,
    floor: Annotated[bool, typer.Option(help="The floor's shadow; --no-floor leaves it out.")] = True,
    size: Annotated[int, typer.Option(help="Pixels of the still.")] = 768,
    turntable_size: Annotated[int, typer.Option(help="Pixels of the turntable.")] = 512,
    frames: Annotated[int, typer.Option(help="Frames of the turntable; 0 for none.")] = 48,
    formats: Annotated[str, typer.Option(help="Of mp4, webp, gif, png; with commas.")] = "mp4",
    quiet: Quiet = False,
) -> None:
    """Make a still and a turntable of any GLB."""
    with stage_bar(quiet) as bar:
        from pipeline.rendering import render_asset

        files = render_asset(
            asset,
            out,
            environment=environment,
            background=background,
            mode=mode,
            size=size,
            turntable_size=turntable_size,
            frames=frames,
            formats=names_of(formats),
            renderer=renderer,
            samples=samples,
            floor=floor,
            progress=lambda fraction, message="": bar.progress("preview", fraction, message),
        )
    for file in files:
        print_line(str(file))
