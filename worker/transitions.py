"""The steps that the writers of the queue share: how an attempt, a stage and a job end, and what is told.

`worker.queue` (the holder of a stage, the owner of a job) and `worker.overdue` (the reaper) decide when;
these say what it means, inside the transaction of the caller:

* Who changes a job or its stages has the job's row first (`locked_job`), so transactions wait for each other
  in one order, and of two that would end a job the second sees the end of the first.
* An end is never left: `end_job` matches active jobs alone, and with it nothing of the job can be claimed.
* Attempts are counted by the class of their end; what has used them up is dead (`again_or_dead`).
* Events are numbered by the job's row, without gaps, in the order of the commits (`write_event`).

A stage costs a worker a dozen round trips to the database; `python -m bench.job_queue` says what that makes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, select, update
from sqlalchemy.sql.selectable import TypedReturnsRows

from render.errors import MaquetteError
from worker.database import at_the_end, now
from worker.metrics import bucket_of, count
from worker.schema import attempt, job, stage, webhook_out
from worker.statements import ATTEMPT_ENDED, EVENTS, JOB_ENDED, RESULTS_LEFT, TOLD

ErrorClass = Literal["input", "gpu_memory", "infrastructure", "worker_lost", "stuck", "bug"]

RETRIES: dict[ErrorClass, int] = {
    "input": 0,
    "gpu_memory": 1,  # once more, smaller
    "infrastructure": 3,
    "worker_lost": 2,
    "stuck": 1,
    "bug": 1,
}
"""How often a stage is tried again after it ended so."""
DELAYS: dict[ErrorClass, float] = {"infrastructure": 1.0, "worker_lost": 0.2, "stuck": 0.2, "bug": 0.2}
"""Before the first of these, in units of `Settings.retry_s`; doubles with each, and is spread by half."""


class UnknownJobError(MaquetteError):
    """No such job, or not this owner's."""

    exit_code = 2


def locked_job(connection: Connection, job_id: str) -> Row[Any]:
    """The job's row, this transaction's until its end."""
    found = connection.execute(select(job).where(job.c.id == job_id).with_for_update()).one_or_none()
    if found is None:
        raise UnknownJobError(f"There is no job {job_id}.")
    return found


def again_or_dead(
    connection: Connection, stage_id: int, error_class: ErrorClass, message: str, retry_s: float
) -> None:
    row = connection.execute(select(stage).where(stage.c.id == stage_id)).one()
    ended = _ends(connection, row, error_class)
    if ended <= RETRIES[error_class]:
        delay = retry_s * DELAYS.get(error_class, 0.0) * 2.0 ** (ended - 1) * random.uniform(0.5, 1.5)
        connection.execute(
            update(stage)
            .where(stage.c.id == stage_id)
            .values(state="delayed", not_before=now() + delay, error_class=error_class)
        )
        data = {"stage": row.name, "state": "delayed", "error_class": error_class, "message": message}
        write_event(connection, row.job_id, "stage", data)
        return
    connection.execute(
        update(stage).where(stage.c.id == stage_id).values(state="dead", error_class=error_class)
    )
    end_job(connection, row.job_id, "failed", error_class, message)


def _ends(connection: Connection, row: Any, error_class: ErrorClass) -> int:
    """How many attempts of a stage ended so, since it was submitted or retried."""
    return connection.execute(
        select(func.count())
        .select_from(attempt)
        .where(
            attempt.c.job_id == row.job_id,
            attempt.c.seq == row.seq,
            attempt.c.epoch > row.epoch - row.attempts,
            attempt.c.outcome == error_class,
        )
    ).scalar_one()


def end_attempt(connection: Connection, row: Any, outcome: str, **values: Any) -> None:
    """Closes the attempt of a claim or of a stage's row, and counts it."""
    ended = connection.execute(
        ATTEMPT_ENDED,
        {"of_job": row.job_id, "of_seq": row.seq, "of_epoch": row.epoch, "outcome": outcome, **values},
    ).scalar_one()
    bucket = bucket_of(ended)
    count(connection, "stage_ends", {"stage": row.name, "outcome": outcome, "le": bucket})
    count(connection, "stage_seconds", {"stage": row.name, "outcome": outcome}, max(0.0, ended))


def end_job(
    connection: Connection,
    job_id: str,
    state: str,
    error_class: str | None = None,
    message: str | None = None,
) -> None:
    """The job's one end: nothing of it is to be claimed any more, and who asked is told."""
    ended = connection.execute(
        JOB_ENDED, {"of_job": job_id, "state": state, "error_class": error_class, "error": message}
    ).one_or_none()
    if ended is None:
        return
    kind, callback_url, seq, seconds = ended
    if state != "succeeded":  # then all stages are done
        connection.execute(
            update(stage)
            .where(stage.c.job_id == job_id, stage.c.state.not_in(("done", "dead")))
            .values(state="canceled", checkpoint_sha=None)
        )
    connection.execute(RESULTS_LEFT, {"of_job": job_id})
    data = {"state": state, "error_class": error_class, "message": message}
    at_the_end(connection, _Events).add(job_id, seq, "job", data)
    if callback_url:
        values = {"job_id": job_id, "url": callback_url, "tries": 0, "next_at": now(), "state": "pending"}
        connection.execute(webhook_out.insert().values(**values))
    count(connection, "job_ends", {"kind": kind, "state": state})
    count(connection, "job_seconds", {"kind": kind, "state": state}, max(0.0, seconds))


def write_event(
    connection: Connection,
    job_id: str,
    type: str,
    data: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    statement: TypedReturnsRows[Any] = TOLD,
) -> Row[Any]:
    """Writes an event at the transaction's end, and now its number and `changes` into the job's row: what
    `statement` (`statements.TOLD` or `BEGUN`) returns of it. The row counts events and is locked by it: their
    order is that of the commits, and who begins with an event needs no `locked_job`."""
    told = connection.execute(statement, {"of_job": job_id, **(changes or {})}).one_or_none()
    if told is None:
        raise UnknownJobError(f"There is no job {job_id}.")
    at_the_end(connection, _Events).add(job_id, told.events, type, data)
    return told


class _Events:
    """Events of a transaction."""

    place = 1

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, job_id: str, seq: int, type: str, data: Mapping[str, Any]) -> None:
        self.rows.append({"job_id": job_id, "seq": seq, "type": type, "data": dict(data)})

    def write(self, connection: Connection) -> None:
        connection.execute(EVENTS, self.rows)
