"""The command line with the service's commands: `maquette`."""

from __future__ import annotations

import typer

from pipeline.cli import app, main
from worker.commands import jobs
from worker.commands.doctor import doctor
from worker.commands.serve import serve
from worker.commands.worker import worker

__all__ = ["app", "main"]

app.command()(serve)
app.command()(worker)
app.command()(doctor)
jobs_app = typer.Typer(help="The jobs of a service.", no_args_is_help=True)
jobs_app.command("list")(jobs.list_jobs)
jobs_app.command()(jobs.show)
jobs_app.command()(jobs.cancel)
jobs_app.command()(jobs.retry)
app.add_typer(jobs_app, name="jobs")

if __name__ == "__main__":
    main()
