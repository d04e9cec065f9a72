"""`maquette views`: a posed set of pictures of any GLB."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands import Asset, Out, Quiet, names_of, print_line, stage_bar
from render.errors import InputError


def views(
    asset: Asset,
    out: Out,
    rig: Annotated[str, typer.Option(help="orbit, rings, sphere or turntable.")] = "sphere",
    count: Annotated[int, typer.Option(help="Views.")] = 32,
    size: Annotated[int, typer.Option(help="Side of the pictures, pixels.")] = 256,
    fov_deg: Annotated[float, typer.Option(help="Full angle of view.")] = 40.0,
    orthographic: Annotated[bool, typer.Option("--orthographic", help="Parallel projection.")] = False,
    elevation_deg: Annotated[float, typer.Option(help="Of orbit and turntable.")] = 20.0,
    elevations_deg: Annotated[
        str, typer.Option(help="Of the rings, with commas; write --elevations-deg=-30,5 for one below.")
    ] = "-30,5,35,65",
    turn_deg: Annotated[float, typer.Option(help="Turns the rig about the vertical.")] = 0.0,
    color: Annotated[str, typer.Option(help="shaded or base_color (no light).")] = "shaded",
    channels: Annotated[
        str, typer.Option(help="Besides RGBA: of mask, depth, normal, material, emissive; or none.")
    ] = "depth,normal",
    environment: Annotated[str, typer.Option(help="Light: studio, sunset or overcast.")] = "studio",
    quiet: Quiet = False,
) -> None:
    """Render a posed set of views (transforms.json, as nerfstudio reads it) of any GLB."""
    try:
        rings = tuple(float(part) for part in elevations_deg.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--elevations-deg must be numbers with commas, not {elevations_deg!r}.") from None
    if color not in ("shaded", "base_color"):
        raise InputError(f"--color must be shaded or base_color, not {color!r}.")
    with stage_bar(quiet) as bar:
        from pipeline.posed_set import CHANNELS, render_views
        from render.glb import load_scene
        from render.rigs import RIGS, RigConfig

        names = names_of(channels)
        for name in names:
            if name != "none" and name not in CHANNELS:
                raise InputError(f"--channels: {name!r} is unknown. Known: {', '.join(CHANNELS)}, none.")
        if rig not in RIGS:
            raise InputError(f"--rig must be one of {', '.join(RIGS)}, not {rig!r}.")
        config = RigConfig(
            rig=next(known for known in RIGS if known == rig),
            count=count,
            size_px=size,
            fov_deg=None if orthographic else fov_deg,
            elevation_deg=elevation_deg,
            elevations_deg=rings,
            turn_deg=turn_deg,
        )
        path = render_views(
            load_scene(asset),
            out,
            config,
            color="shaded" if color == "shaded" else "base_color",
            channels=[known for known in CHANNELS if known in names],
            environment=environment,
            progress=lambda fraction, message="": bar.progress("views", fraction, message),
        )
    print_line(str(path))
