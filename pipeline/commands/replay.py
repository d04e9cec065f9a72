"""`maquette replay`: an asset again from its receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import Out, Quiet, Resumable, print_line, stage_bar


def replay(
    receipt: Annotated[Path, typer.Argument(help="A receipt.json; with input.png beside it for images.")],
    out: Out,
    views: Annotated[
        Path | None,
        typer.Option(help="Of a reconstruction: the folder of its pictures.  [default: where they were]"),
    ] = None,
    asset: Annotated[
        Path | None, typer.Option(help="Of a new look or other work on a model: that model.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make an asset again from its receipt and compare the bytes."""
    with stage_bar(quiet) as bar, Resumable(out):
        from pipeline.replay import replay as replay_receipt

        replayed = replay_receipt(receipt, out, views=views, asset=asset, observer=bar)
    for name, same in replayed.same.items():
        print_line(f"{'same     ' if same else 'DIFFERENT'}  {name}")
    if all(replayed.same.values()):
        return
    for line in replayed.changes:
        print_line(f"  {line}")
    if not replayed.changes:
        print_line("  nothing of what the receipt records has changed")
    raise typer.Exit(1)
