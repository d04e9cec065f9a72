"""`maquette serve`: everything on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from render.errors import InputError


def serve(
    data: Annotated[Path | None, typer.Option(help="Folder of all that is kept.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="[default: 8000]")] = None,
) -> None:
    """Run the service on this machine: API, web page, workers; on SQLite unless the environment says else."""
    import contextlib
    import socket

    from worker.database import Database
    from worker.logs import set_up_logs
    from worker.migrate import migrate
    from worker.processes import api_program, environment_of, one_at_a_time, worker_programs
    from worker.settings import load_settings
    from worker.supervisor import Supervisor

    given = {"data": data, "host": host, "port": port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    set_up_logs(settings)
    with one_at_a_time(settings, "serve"):
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, settings.port))
            except OSError as error:
                raise InputError(
                    f"--port {settings.port} on {settings.host} cannot be listened on: {error.strerror}."
                ) from None
        migrate(Database(settings.database))
        programs = [*api_program(), *worker_programs(["gpu", "cpu"])]
        typer.echo(f"Maquette at http://{settings.host}:{settings.port}, files in {settings.data}", err=True)
        Supervisor(programs, environment_of(settings), settings.stop_grace_s + 10).run()
