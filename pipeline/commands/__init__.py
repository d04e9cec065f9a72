"""The commands, one file each: plain functions whose signature is the command line (typer).

What several of them need is here. Only typer and rich are imported at the top; torch and the rest
load inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from render.errors import CanceledError

if TYPE_CHECKING:
    from pipeline.progress_bar import StageBar

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the files; made if it is not there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Asset = Annotated[Path, typer.Argument(help="A GLB or a glTF with embedded buffers.")]


class Resumable:
    """Says how to go on after Ctrl-C."""

    def __init__(self, out: Path, command: str = "generate") -> None:
        self.out = out
        self.command = command

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt | CanceledError):
            raise CanceledError(
                "Stopped. Finished stages are kept; go on with: "
                f"maquette {self.command} --resume --out {self.out}"
            ) from None


def stage_bar(quiet: bool) -> StageBar:
    """Progress of the stages on stderr."""
    from pipeline.progress_bar import StageBar

    return StageBar(Console(stderr=True), quiet)


def names_of(text: str) -> tuple[str, ...]:
    """`a,b` as names."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def print_line(text: str) -> None:
    """A line on stdout, neither wrapped nor coloured."""
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def print_table(values: dict[str, Any], indent: str = "") -> None:
    """Nested values, one a line."""
    for key, value in values.items():
        if isinstance(value, dict):
            typer.echo(f"{indent}{key}:")
            print_table(value, indent + "  ")
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else value
            typer.echo(f"{indent}{key:<24} {shown}")
