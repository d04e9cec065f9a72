"""The reaper's half of the queue: what nobody comes for by itself.

Leases that ended, retries whose time has come, jobs that waited too long, doorbells that were not heard.
Each is looked for without a lock, then looked at again with the job's row locked and changed in the same
transaction: any number of reapers may do this at once and beside the holders, whose commits are refused once
their stage was given up (the row is no longer `running` at their epoch; see `worker.queue`).
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import and_, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from worker.database import Database, now
from worker.schema import job, stage
from worker.transitions import again_or_dead, end_attempt, end_job, locked_job


def expire(
    database: Database,
    *,
    dead_worker: Callable[[str, int], bool] | None = None,
    retry_s: float = 5.0,
) -> int:
    """Gives up the stages whose lease is over, or whose worker `dead_worker(worker, pid)` knows to be dead;
    how many."""
    over = stage.c.lease_until < now()
    with database.read() as connection:
        rows = connection.execute(
            select(stage, over.label("over")).where(stage.c.state == "running").limit(10_000)
        ).all()
    found = 0
    for row in rows:
        dead = dead_worker is not None and dead_worker(row.worker, row.pid)
        if not (row.over or dead):
            continue
        with database.write() as connection:
            owner = locked_job(connection, row.job_id)
            still: ColumnElement[bool] = and_(
                stage.c.id == row.id, stage.c.epoch == row.epoch, stage.c.state == "running"
            )
            if not dead:
                still = and_(still, over)  # it may have been renewed in between
            if connection.execute(select(stage.c.id).where(still).with_for_update()).first() is None:
                continue
            found += 1
            message = f"{row.worker} died." if dead else f"{row.worker} was not heard of in time."
            end_attempt(connection, row, "worker_lost", error=message)
            if owner.cancel_requested:
                end_job(connection, row.job_id, "canceled")
            else:
                again_or_dead(connection, row.id, "worker_lost", message, retry_s)
    return found


def ready_delayed(database: Database) -> int:
    """Stages whose time to be tried again has come are ready; how many."""
    with database.write() as connection:
        done = connection.execute(
            update(stage)
            .where(stage.c.state == "delayed", stage.c.not_before <= now())
            .values(state="ready", rung_at=None)
        )
        return int(done.rowcount)


def expire_queued(database: Database) -> int:
    """Ends the jobs that were to begin by now; how many."""
    late = and_(job.c.state == "queued", job.c.expires < now())
    with database.read() as connection:
        found = connection.execute(select(job.c.id).where(late).limit(1000)).scalars().all()
    for job_id in found:
        with database.write() as connection:
            if locked_job(connection, job_id).state == "queued":
                end_job(connection, job_id, "expired", "infrastructure", "It waited longer than it was to.")
    return len(found)


def to_ring(database: Database, queue: str, ring_s: float, most: int = 64) -> int:
    """How many doorbells a queue is owed: stages that are ready and were not rung for `ring_s`."""
    with database.write() as connection:
        silent = (
            select(stage.c.id)
            .where(_silent(queue, ring_s))
            .order_by(stage.c.priority.desc(), stage.c.turn, stage.c.id)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        rung = connection.execute(update(stage).where(stage.c.id.in_(silent)).values(rung_at=now()))
        return int(rung.rowcount)


def is_ready(database: Database, queue: str, ring_s: float) -> bool:
    """Whether a queue is owed a doorbell."""
    with database.read() as connection:
        found = connection.execute(select(stage.c.id).where(_silent(queue, ring_s)).limit(1))
        return found.first() is not None


def _silent(queue: str, ring_s: float) -> ColumnElement[bool]:
    """Ready stages of a queue that were not rung for `ring_s`."""
    rung = func.coalesce(stage.c.rung_at, 0.0)
    return and_(stage.c.state == "ready", stage.c.queue == queue, rung < now() - ring_s)
