"""`maquette jobs`: look at the jobs of a service, cancel them, try them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from render.errors import InputError

if TYPE_CHECKING:
    from worker.jobs import Jobs

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or the beginning of it.")]


def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed, canceled or expired.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """The newest jobs."""
    from pipeline.commands import print_line

    for job in _jobs().find(state=state, limit=limit):
        stage = job.stage
        where = job.state if stage is None or job.finished else f"{job.state} ({stage.name})"
        text = str(job.params.get("prompt") or job.kind)
        print_line(f"{job.id}  {where:<20} {job.progress:4.0%}  {_time(job.created)}  {job.owner:<12} {text}")


def show(job_id: JobId) -> None:
    """One job: its stages, attempts, files."""
    from pipeline.commands import print_line

    jobs = _jobs()
    job = jobs.get(_whole(jobs, job_id))
    print_line(f"{job.id}  {job.state}  {job.progress:.0%}  of {job.owner}, {_time(job.created)}")
    for name, value in job.params.items():
        if value not in (None, "", []):
            print_line(f"  {name}: {value}")
    if job.error:
        print_line(f"  error: {job.error} ({job.error_class})")
    attempts = jobs.attempts(job.id)
    for stage in job.stages:
        print_line(f"{stage.name:<10} {stage.state:<9} {stage.progress:4.0%}  {stage.message}".rstrip())
        for attempt in attempts:
            if attempt.stage != stage.name:
                continue
            seconds = "" if attempt.ended is None else f"{attempt.ended - attempt.started:.1f} s"
            error = f": {attempt.error}" if attempt.error else ""
            print_line(f"    {attempt.outcome or 'running':<14} {seconds:>8}  {attempt.worker}{error}")
    for file in jobs.artefacts(job.id):
        print_line(f"  {file.role:<8} {file.name:<24} {file.bytes:>10,}  {file.sha256[:16]}")


def cancel(job_id: JobId) -> None:
    """Ask for a job's end."""
    from pipeline.commands import print_line

    jobs = _jobs()
    whole = _whole(jobs, job_id)
    print_line(f"{whole}  {jobs.request_cancel(whole)}")


def retry(job_id: JobId) -> None:
    """Put a failed or canceled job back in the queue; finished stages are kept."""
    from pipeline.commands import print_line

    jobs = _jobs()
    whole = _whole(jobs, job_id)
    if not jobs.retry(whole):
        state = jobs.get(whole).state
        raise InputError(f"Job {whole} is {state}; only failed, canceled and expired jobs are tried again.")
    print_line(f"{whole}  queued")


def _jobs() -> Jobs:
    from worker.jobs import open_jobs
    from worker.settings import load_settings

    return open_jobs(load_settings())


def _whole(jobs: Jobs, beginning: str) -> str:
    found = jobs.ids_beginning(beginning)
    if len(found) != 1:
        raise InputError(
            f"{'No job has' if not found else 'Several jobs have'} an id that begins {beginning!r}."
        )
    return found[0]


def _time(at: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
