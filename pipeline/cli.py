"""The command line: `maquette COMMAND`; the commands are in `pipeline/commands/`.

Errors are one line on stderr: exit code 2 for what the user can mend, 1 for
anything else, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys

import typer

from pipeline.commands.bake import bake
from pipeline.commands.convert import convert
from pipeline.commands.finetune import finetune
from pipeline.commands.generate import generate
from pipeline.commands.inspect import inspect
from pipeline.commands.models import models
from pipeline.commands.reconstruct import reconstruct
from pipeline.commands.render import render
from pipeline.commands.replay import replay
from pipeline.commands.retexture import retexture
from pipeline.commands.screen import screen
from pipeline.commands.simplify import simplify
from pipeline.commands.train import train
from pipeline.commands.unwrap import unwrap
from pipeline.commands.verify import verify
from pipeline.commands.views import views
from render.errors import MaquetteError

app = typer.Typer(
    name="maquette",
    help="Text or an image to a textured, game-ready 3D asset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    generate,
    reconstruct,
    render,
    views,
    inspect,
    convert,
    simplify,
    unwrap,
    bake,
    retexture,
    replay,
    verify,
    train,
    finetune,
    models,
    screen,
):
    app.command()(command)


def invoke(arguments: list[str] | None = None) -> int:
    """Runs the command line (of the process, unless `arguments` are given); its exit code."""
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except MaquetteError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("Stopped.", 130)
    except BrokenPipeError:
        return 1
    except typer.TyperException as error:
        # A mistake in the options. Without a command typer has printed the help, and has no message.
        message = error.format_message().rstrip(".")
        return _complain(f"{message}. See: maquette --help", 2) if message else 2


def main() -> None:
    """The console script."""
    code = invoke()
    sys.stdout.flush()
    sys.stderr.flush()
    # Leaving torch and Open3D in order costs up to a second and frees nothing that the system does not.
    os._exit(code)


def _complain(message: str, code: int) -> int:
    typer.echo(" ".join(message.split()), err=True)
    return code


if __name__ == "__main__":
    main()
