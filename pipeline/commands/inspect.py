"""`maquette inspect`: what an asset is like."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands import Asset, print_table


def inspect(
    asset: Asset,
    json_output: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what an asset is like: watertight, triangles, UVs, textures."""
    import json

    from pipeline.config import plain
    from recon.inspect import inspect as inspect_scene
    from render.glb import load_scene

    found = plain(inspect_scene(load_scene(asset)))
    assert isinstance(found, dict)
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(found)
