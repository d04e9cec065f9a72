"""The command line with the service's commands: `maquette`."""

from __future__ import annotations

import typer

from pipeline.cli import app, main
from worker.commands import jobs, keys
from worker.commands.batch import batch
from worker.commands.doctor import doctor
from worker.commands.serve import serve
from worker.commands.worker import worker

__all__ = ["app", "main"]

app.command()(serve)
app.command()(worker)
app.command()(doctor)
app.command()(batch)
jobs_app = typer.Typer(help="The jobs of a service.", no_args_is_help=True)
jobs_app.command("list")(jobs.list_jobs)
jobs_app.command()(jobs.show)
jobs_app.command()(jobs.cancel)
jobs_app.command()(jobs.retry)
app.add_typer(jobs_app, name="jobs")
keys_app = typer.Typer(help="The API keys of a service.", no_args_is_help=True)
keys_app.command()(keys.create)
keys_app.command("list")(keys.list_keys)
keys_app.command()(keys.revoke)
app.add_typer(keys_app, name="keys")

if __name__ == "__main__":
    main()
