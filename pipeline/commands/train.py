"""`maquette train`: the multi-view model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A recipe, as configs/train/*.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the multi-view model (needs the data that the recipe names)."""
    from pipeline.training.train import run as train_run

    train_run(config, out=out, resume=resume, device=device)
