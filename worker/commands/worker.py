"""`maquette worker`: a machine that only works."""

from __future__ import annotations

from typing import Annotated

import typer

from render.errors import InputError


def worker(
    queue: Annotated[str, typer.Option(help="gpu, cpu, or both with a comma.")] = "gpu,cpu",
    processes: Annotated[int, typer.Option(min=1, help="Workers of each queue.")] = 1,
) -> None:
    """Work for a service: a worker for each queue, and a reaper, on the database and broker of the
    environment."""
    from pipeline.commands import names_of
    from worker.kinds import QUEUES
    from worker.logs import set_up_logs
    from worker.processes import environment_of, worker_programs
    from worker.settings import load_settings
    from worker.supervisor import Supervisor

    names = names_of(queue)
    if not names or set(names) - set(QUEUES):
        raise InputError(f"--queue must be gpu, cpu or gpu,cpu, not {queue!r}.")
    settings = load_settings()
    set_up_logs(settings)
    programs = worker_programs(names, processes)
    Supervisor(programs, environment_of(settings), settings.stop_grace_s + 10).run()
