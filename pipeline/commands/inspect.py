"""`maquette inspect`: what an asset is like."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands import Asset, print_table


def inspect(
    asset: Asset,
    json_output: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what an asset is like: watertight, triangles, UVs, textures, levels, collider, thin parts."""
    import json

    from pipeline.config import plain
    from recon.inspect import inspect as inspect_scene
    from recon.thickness import thickness
    from render.glb import load_scene
    from render.scene import merged

    scene = load_scene(asset)
    found = plain(inspect_scene(scene))
    assert isinstance(found, dict)
    everything = load_scene(asset, everything=True)
    # What the scene leaves out: coarser levels of detail, and hulls, by their nodes' names.
    hidden = everything.parts[len(scene.parts) :]
    found |= {
        "parts": len(scene.parts),
        "coarser_levels": [
            f"{part.name}: {len(part.mesh.faces)} triangles"
            for part in hidden
            if not part.name.startswith("UCX_")
        ],
        "collider_hulls": sum(part.name.startswith("UCX_") for part in hidden),
        "thickness": plain(thickness(merged(scene))),
        "file_bytes": asset.stat().st_size,
    }
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(found)
