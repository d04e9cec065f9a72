"""`maquette finetune`: a LoRA of a user's own assets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import Quiet, print_line, stage_bar
from render.errors import CanceledError


def finetune(
    assets: Annotated[list[Path], typer.Argument(help="GLB files of your own, such as MY_PACK/*.glb.")],
    name: Annotated[str, typer.Option(help="What to call it; for generate --lora NAME.")],
    captions: Annotated[
        Path | None, typer.Option(help="CSV: path,caption. Without it, the files' names are the captions.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 10.0,
    steps: Annotated[
        int | None, typer.Option(help="Train this many steps instead of minutes: repeatable.")
    ] = None,
    rank: Annotated[int, typer.Option(help="Size of the LoRA.")] = 16,
    seed: Annotated[int, typer.Option(help="Another seed, another LoRA.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Its folder.  [default: in the user's data folder]")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of the model.  [default: the shipped]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped training.")] = False,
    quiet: Quiet = False,
) -> None:
    """Teach the model your own assets' style: a LoRA (needs the extra `train`)."""
    with stage_bar(quiet) as bar:
        from pipeline.training.finetune import FinetuneConfig
        from pipeline.training.finetune import finetune as make

        config = FinetuneConfig(minutes=minutes, steps=steps, rank=rank, seed=seed)
        try:
            card = make(
                assets,
                name,
                captions=captions,
                out=out,
                config=config,
                resume=resume,
                model=model,
                progress=lambda fraction, message="": bar.progress("finetune", fraction, message),
            )
        except (KeyboardInterrupt, CanceledError):
            raise CanceledError("Stopped. Go on with the same command and --resume.") from None
    count, held = len(card.objects), len(card.held_out)
    print_line(f"{card.name}: {card.steps} steps on {count - held} assets, {held} held out")
    print_line(f"velocity loss on those: {card.loss_before:.4f} without, {card.loss_after:.4f} with the LoRA")
    if card.loss_after > card.loss_before:
        print_line("It is worse on what it has not seen: give it more assets, or fewer minutes.")
    print_line(f"use it: maquette generate PROMPT --lora {card.name if out is None else out}")
