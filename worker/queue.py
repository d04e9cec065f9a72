"""The queue: stages are claimed, renewed, committed, failed and given up here, and nowhere else.

What it guarantees, on SQLite and on Postgres, whatever dies when:

* **One holder.** A claim is one UPDATE that finds a ready row, makes it running and raises its epoch. Every
  later write of the holder names that epoch (`_held`); when the row has moved on, it matches nothing, the
  transaction is rolled back and the holder learns it by `LeaseLostError`.
* **Committed once.** A stage is done, its artefacts belong to the job, the next stage is ready and the event
  is written in one transaction. One that was committed although the answer got lost may be committed again.
* **Bytes before rows.** A commit refuses hashes whose bytes are not in the store; the sweep takes the same
  row first (see `worker.retention`).
* **Nobody is waited for.** A lease that was not renewed is given up by any reaper (`expire`); attempts are
  counted by the class of their end, and what has used them up is dead.
* **One end.** A job's row is locked before it or its stages change, and an end is never left.

The broker is no part of this: what it loses is rung again (`to_ring`), what it repeats claims nothing.
The job's row is always locked before its stages' rows, so that transactions wait for each other in one order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, delete, func, literal, select, update
from sqlalchemy.sql.elements import ColumnElement

from render.errors import MaquetteError
from worker.database import Database, insert, now
from worker.metrics import count
from worker.schema import (
    ACTIVE_JOB_STATES,
    artefact,
    attempt,
    event,
    job,
    job_artefact,
    job_result,
    result,
    result_file,
    stage,
    webhook_out,
)

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


class LeaseLostError(Exception):
    """The stage is no longer this worker's: whatever it did must not count."""


class MissingBytesError(Exception):
    """An artefact's bytes are not in the store, so it cannot be committed."""


@dataclass(frozen=True)
class Claim:
    """A stage that this worker holds, and the job it belongs to."""

    stage_id: int
    job_id: str
    seq: int
    name: str
    queue: str
    epoch: int
    attempts: int
    """Claims so far, this one among them."""
    memory_failures: int
    """How often the GPU's memory did not suffice for a stage of this job: work smaller by so much."""
    checkpoint_sha: str | None
    kind: str
    params: dict[str, Any]
    seed: int
    device: str
    inputs: dict[str, str]
    """sha256 of what was given, by name."""
    created: float
    traceparent: str | None


@dataclass(frozen=True)
class FileRef:
    """A file in the artefact store."""

    sha256: str
    bytes: int
    mime: str
    role: str = "asset"


@dataclass(frozen=True)
class StageResult:
    """A finished stage of the pipeline under its content key."""

    key: str
    name: str
    seconds: float
    peak_mb: float
    files: dict[str, FileRef]


@dataclass
class Outcome:
    """What a stage made."""

    files: dict[str, FileRef] = field(default_factory=dict)
    """What its job shows or delivers, by name."""
    results: list[StageResult] = field(default_factory=list)
    """For stages and jobs to come."""
    model_revisions: dict[str, str] = field(default_factory=dict)
    gpu_s: float | None = None
    peak_vram: int | None = None
    peak_mb: float | None = None


def claim(database: Database, queue: str, worker: str, pid: int, lease_s: float) -> Claim | None:
    """Takes the first ready stage of a queue: highest priority, then the fair turn, then age."""
    with database.write() as connection:
        first = (
            select(stage.c.id)
            .join(job, job.c.id == stage.c.job_id)
            .where(stage.c.state == "ready", stage.c.queue == queue)
            .order_by(stage.c.priority.desc(), stage.c.turn, stage.c.id)
            .limit(1)
            # Both rows or neither, and without waiting: who cancels this very job has its row.
            .with_for_update(skip_locked=True)
        )
        taken = connection.execute(
            update(stage)
            .where(stage.c.id == first.scalar_subquery(), stage.c.state == "ready")
            .values(
                state="running",
                epoch=stage.c.epoch + 1,
                attempts=stage.c.attempts + 1,
                worker=worker,
                pid=pid,
                lease_until=now() + lease_s,
                progress=0.0,
                message="",
            )
            .returning(
                stage.c.id, stage.c.job_id, stage.c.seq, stage.c.name, stage.c.epoch, stage.c.attempts,
                stage.c.checkpoint_sha,
            )
        ).one_or_none()  # fmt: skip
        if taken is None:
            return None
        owner = connection.execute(select(job).where(job.c.id == taken.job_id)).one()
        if owner.state == "queued":
            connection.execute(
                update(job).where(job.c.id == owner.id).values(state="running", started=now(), expires=None)
            )
        connection.execute(
            attempt.insert().values(
                job_id=taken.job_id, seq=taken.seq, epoch=taken.epoch, worker=worker, started=now()
            )
        )
        write_event(
            connection, taken.job_id, "stage", {"stage": taken.name, "state": "running", "progress": 0.0}
        )
        inputs = connection.execute(
            select(job_artefact.c.name, job_artefact.c.sha256).where(
                job_artefact.c.job_id == owner.id, job_artefact.c.role == "input"
            )
        )
        return Claim(
            stage_id=taken.id,
            job_id=taken.job_id,
            seq=taken.seq,
            name=taken.name,
            queue=queue,
            epoch=taken.epoch,
            attempts=taken.attempts,
            memory_failures=connection.execute(
                select(func.count())
                .select_from(attempt)
                .where(attempt.c.job_id == owner.id, attempt.c.outcome == "gpu_memory")
            ).scalar_one(),
            checkpoint_sha=taken.checkpoint_sha,
            kind=owner.kind,
            params=owner.params,
            seed=owner.seed,
            device=owner.device,
            inputs={row.name: row.sha256 for row in inputs},
            created=owner.created,
            traceparent=owner.traceparent,
        )


def renew(
    database: Database, claim: Claim, *, lease_s: float | None, progress: float, message: str, tell: bool
) -> bool:
    """Says that the holder lives, and how far it is; True when the job should be cancelled.

    Without `lease_s` the lease is not prolonged. `tell` writes an event. `LeaseLostError` when the stage
    is no longer held.
    """
    with database.write() as connection:
        canceled = _locked_job(connection, claim.job_id).cancel_requested
        values: dict[str, Any] = {"progress": progress, "message": message[:200]}
        if lease_s is not None:
            values["lease_until"] = now() + lease_s
        _change_held(connection, claim, values)
        if tell:
            data = {"stage": claim.name, "state": "running", "progress": progress, "message": message[:200]}
            write_event(connection, claim.job_id, "progress", data)
        return bool(canceled)


def is_canceled(database: Database, claim: Claim) -> bool:
    """Whether the job should be cancelled; `LeaseLostError` when the stage is no longer held."""
    with database.read() as connection:
        found = connection.execute(
            select(job.c.cancel_requested).join(stage, stage.c.job_id == job.c.id).where(_held(claim))
        ).one_or_none()
    if found is None:
        raise LeaseLostError(f"stage {claim.name} of job {claim.job_id}, epoch {claim.epoch}")
    return bool(found.cancel_requested)


def save_checkpoint(database: Database, claim: Claim, file: FileRef, has: Callable[[str], bool]) -> None:
    """Notes how far the inside of the stage is, for the next attempt. The bytes are in the store."""
    with database.write() as connection:
        _locked_job(connection, claim.job_id)
        keep_artefact(connection, file, has)
        _change_held(connection, claim, {"checkpoint_sha": file.sha256})


def commit(database: Database, claim: Claim, outcome: Outcome, has: Callable[[str], bool]) -> str | None:
    """The stage is done: all of it, or nothing. `has` says whether the store holds the bytes of a hash.
    The queue of the stage that is ready now, which is to be rung.

    Called again after an error that leaves open whether the transaction went through, it finds out.
    """
    with database.write() as connection:
        owner = _locked_job(connection, claim.job_id)
        try:
            _change_held(connection, claim, {"state": "done", "progress": 1.0, "checkpoint_sha": None})
        except LeaseLostError:
            if _was_committed(connection, claim):
                return None
            raise
        _end_attempt(
            connection, claim, "done",
            gpu_s=outcome.gpu_s, peak_vram=outcome.peak_vram, peak_mb=outcome.peak_mb,
        )  # fmt: skip
        for name, file in outcome.files.items():
            keep_artefact(connection, file, has)
            row = {"job_id": claim.job_id, "name": name, "seq": claim.seq, "role": file.role}
            values = {**row, "sha256": file.sha256}
            connection.execute(
                insert(connection, job_artefact)
                .values(values)
                .on_conflict_do_update(index_elements=["job_id", "name"], set_=values)
            )
        for made in outcome.results:
            _keep_result(connection, claim, made, has)
        if outcome.model_revisions:
            connection.execute(
                update(job).where(job.c.id == claim.job_id).values(model_revisions=outcome.model_revisions)
            )
        write_event(
            connection, claim.job_id, "stage",
            {"stage": claim.name, "state": "done", "progress": 1.0, "files": sorted(outcome.files)},
        )  # fmt: skip
        if owner.cancel_requested:
            _end_job(connection, claim.job_id, "canceled")
            return None
        following = connection.execute(
            update(stage)
            .where(stage.c.job_id == claim.job_id, stage.c.seq == claim.seq + 1, stage.c.state == "blocked")
            .values(state="ready", rung_at=now())
            .returning(stage.c.queue)
        ).scalar_one_or_none()
        if following is None:
            _end_job(connection, claim.job_id, "succeeded")
        return following


def fail(
    database: Database, claim: Claim, error_class: ErrorClass, message: str, retry_s: float = 5.0
) -> None:
    """The attempt failed: another follows, or the stage is dead and with it the job."""
    with database.write() as connection:
        _locked_job(connection, claim.job_id)
        _change_held(connection, claim, {"error_class": error_class})
        _end_attempt(connection, claim, error_class, error=message)
        _again_or_dead(connection, claim.stage_id, error_class, message, retry_s)


def release(database: Database, claim: Claim) -> None:
    """The worker is told to stop: the stage is ready again, and the attempt does not count."""
    with database.write() as connection:
        owner = _locked_job(connection, claim.job_id)
        _change_held(connection, claim, {"state": "ready", "attempts": stage.c.attempts - 1, "rung_at": None})
        _end_attempt(connection, claim, "stopped")
        if owner.cancel_requested:
            _end_job(connection, claim.job_id, "canceled")


def canceled(database: Database, claim: Claim) -> None:
    """The holder has stopped because the job is to be cancelled."""
    with database.write() as connection:
        _locked_job(connection, claim.job_id)
        _change_held(connection, claim, {"state": "canceled"})
        _end_attempt(connection, claim, "canceled")
        _end_job(connection, claim.job_id, "canceled")


def cancel(database: Database, job_id: str) -> str:
    """Asks for a job's end and answers its state now: `canceled` at once when nobody works on it."""
    with database.write() as connection:
        owner = _locked_job(connection, job_id)
        if owner.state not in ACTIVE_JOB_STATES:
            return str(owner.state)
        connection.execute(update(job).where(job.c.id == job_id).values(cancel_requested=True))
        works = connection.execute(
            select(stage.c.id).where(stage.c.job_id == job_id, stage.c.state == "running")
        ).first()
        if works is None:
            _end_job(connection, job_id, "canceled")
            return "canceled"
        write_event(connection, job_id, "job", {"state": owner.state, "cancel_requested": True})
        return str(owner.state)


def succeed_as(connection: Connection, job_id: str, other_id: str) -> None:
    """Ends a new job with the files of one that made the same before, in the transaction that admits it."""
    files = select(
        literal(job_id), job_artefact.c.name, job_artefact.c.seq, job_artefact.c.role, job_artefact.c.sha256
    ).where(job_artefact.c.job_id == other_id, job_artefact.c.role != "input")
    connection.execute(job_artefact.insert().from_select(["job_id", "name", "seq", "role", "sha256"], files))
    made = connection.execute(select(job.c.model_revisions).where(job.c.id == other_id)).scalar_one()
    connection.execute(
        update(job).where(job.c.id == job_id).values(model_revisions=made, started=job.c.created)
    )
    connection.execute(
        update(stage).where(stage.c.job_id == job_id).values(state="done", progress=1.0, message="kept")
    )
    _end_job(connection, job_id, "succeeded")


def retry(database: Database, job_id: str) -> bool:
    """Puts a failed, canceled or expired job back in the queue where it stopped; False when it is neither."""
    with database.write() as connection:
        owner = _locked_job(connection, job_id)
        if owner.state not in ("failed", "canceled", "expired"):
            return False
        connection.execute(
            update(job)
            .where(job.c.id == job_id)
            .values(
                state="queued", cancel_requested=False, finished=None, expires=None,
                error=None, error_class=None,
            )
        )  # fmt: skip
        unfinished = and_(stage.c.job_id == job_id, stage.c.state != "done")
        first = connection.execute(select(func.min(stage.c.seq)).where(unfinished)).scalar_one()
        connection.execute(
            update(stage)
            .where(unfinished)
            .values(state="blocked", attempts=0, error_class=None, progress=0.0, message="")
        )
        connection.execute(
            update(stage)
            .where(stage.c.job_id == job_id, stage.c.seq == first)
            .values(state="ready", rung_at=None)
        )
        write_event(connection, job_id, "job", {"state": "queued"})
        return True


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
            owner = _locked_job(connection, row.job_id)
            still: ColumnElement[bool] = and_(
                stage.c.id == row.id, stage.c.epoch == row.epoch, stage.c.state == "running"
            )
            if not dead:
                still = and_(still, over)  # it may have been renewed in between
            if connection.execute(select(stage.c.id).where(still).with_for_update()).first() is None:
                continue
            found += 1
            message = f"{row.worker} died." if dead else f"{row.worker} was not heard of in time."
            _end_attempt(connection, row, "worker_lost", error=message)
            if owner.cancel_requested:
                _end_job(connection, row.job_id, "canceled")
            else:
                _again_or_dead(connection, row.id, "worker_lost", message, retry_s)
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
            if _locked_job(connection, job_id).state == "queued":
                _end_job(connection, job_id, "expired", "infrastructure", "It waited longer than it was to.")
    return len(found)


def to_ring(database: Database, queue: str, ring_s: float, most: int = 64) -> int:
    """How many doorbells a queue is owed: stages that are ready and were not rung for `ring_s`."""
    with database.write() as connection:
        silent = (
            select(stage.c.id)
            .where(
                stage.c.state == "ready",
                stage.c.queue == queue,
                func.coalesce(stage.c.rung_at, 0.0) < now() - ring_s,
            )
            .order_by(stage.c.priority.desc(), stage.c.turn, stage.c.id)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        rung = connection.execute(update(stage).where(stage.c.id.in_(silent)).values(rung_at=now()))
        return int(rung.rowcount)


def is_ready(database: Database, queue: str, ring_s: float) -> bool:
    """Whether a queue is owed a doorbell."""
    with database.read() as connection:
        found = connection.execute(
            select(stage.c.id)
            .where(
                stage.c.state == "ready",
                stage.c.queue == queue,
                func.coalesce(stage.c.rung_at, 0.0) < now() - ring_s,
            )
            .limit(1)
        )
        return found.first() is not None


def warn(database: Database, claim: Claim, message: str) -> None:
    """Something that the user should know."""
    with database.write() as connection:
        _locked_job(connection, claim.job_id)
        write_event(connection, claim.job_id, "warning", {"stage": claim.name, "message": message[:500]})


def _held(claim: Claim) -> ColumnElement[bool]:
    """The row, as long as it is this holder's."""
    return and_(
        stage.c.id == claim.stage_id, stage.c.epoch == claim.epoch, stage.c.state == literal("running")
    )


def _change_held(connection: Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    if connection.execute(update(stage).where(_held(claim)).values(**values)).rowcount != 1:
        raise LeaseLostError(f"stage {claim.name} of job {claim.job_id}, epoch {claim.epoch}")


def _was_committed(connection: Connection, claim: Claim) -> bool:
    row = connection.execute(
        select(attempt.c.outcome).where(
            attempt.c.job_id == claim.job_id, attempt.c.seq == claim.seq, attempt.c.epoch == claim.epoch
        )
    ).one_or_none()
    return row is not None and row.outcome == "done"


def _locked_job(connection: Connection, job_id: str) -> Row[Any]:
    """The job's row, this transaction's until its end."""
    found = connection.execute(select(job).where(job.c.id == job_id).with_for_update()).one_or_none()
    if found is None:
        raise UnknownJobError(f"There is no job {job_id}.")
    return found


class UnknownJobError(MaquetteError):
    """No such job, or not this owner's."""

    exit_code = 2


def _again_or_dead(
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
    _end_job(connection, row.job_id, "failed", error_class, message)


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


def _end_attempt(connection: Connection, row: Any, outcome: str, **values: Any) -> None:
    """Closes the attempt of a claim or of a stage's row, and counts it."""
    ended = connection.execute(
        update(attempt)
        .where(attempt.c.job_id == row.job_id, attempt.c.seq == row.seq, attempt.c.epoch == row.epoch)
        .values(ended=now(), outcome=outcome, **values)
        .returning(attempt.c.ended - attempt.c.started)
    ).scalar_one()
    count(connection, "stage_ends", {"stage": row.name, "outcome": outcome})
    count(connection, "stage_seconds", {"stage": row.name, "outcome": outcome}, max(0.0, ended))


def _end_job(
    connection: Connection,
    job_id: str,
    state: str,
    error_class: str | None = None,
    message: str | None = None,
) -> None:
    """The job's one end: nothing of it is to be claimed any more, and who asked is told."""
    ended = connection.execute(
        update(job)
        .where(job.c.id == job_id, job.c.state.in_(ACTIVE_JOB_STATES))
        .values(state=state, finished=now(), expires=None, error_class=error_class, error=message)
        .returning(job.c.kind, job.c.callback_url, job.c.finished - job.c.created)
    ).one_or_none()
    if ended is None:
        return
    kind, callback_url, seconds = ended
    connection.execute(
        update(stage)
        .where(stage.c.job_id == job_id, stage.c.state.not_in(("done", "dead")))
        .values(state="canceled", checkpoint_sha=None)
    )
    connection.execute(delete(job_result).where(job_result.c.job_id == job_id))
    write_event(connection, job_id, "job", {"state": state, "error_class": error_class, "message": message})
    if callback_url:
        values = {"job_id": job_id, "url": callback_url, "tries": 0, "next_at": now(), "state": "pending"}
        connection.execute(webhook_out.insert().values(**values))
    count(connection, "job_ends", {"kind": kind, "state": state})
    count(connection, "job_seconds", {"kind": kind, "state": state}, max(0.0, seconds))


def write_event(connection: Connection, job_id: str, type: str, data: Mapping[str, Any]) -> None:
    """Writes an event. The job's row counts them, and is locked by it: the order is that of the commits."""
    seq = connection.execute(
        update(job)
        .where(job.c.id == job_id)
        .values(events=job.c.events + 1, updated=now())
        .returning(job.c.events)
    ).scalar_one()
    connection.execute(
        event.insert().values(job_id=job_id, seq=seq, type=type, data=dict(data), created=now())
    )


def keep_artefact(connection: Connection, file: FileRef, has: Callable[[str], bool]) -> None:
    """The row of an artefact whose bytes are in the store. The row is locked before the bytes are looked
    for, as the sweep locks it before it deletes them: neither misses the other."""
    values = {"sha256": file.sha256, "bytes": file.bytes, "mime": file.mime}
    connection.execute(
        insert(connection, artefact)
        .values(**values, created=now(), touched=now())
        .on_conflict_do_update(index_elements=["sha256"], set_={"touched": now()})
    )
    if not has(file.sha256):
        raise MissingBytesError(file.sha256)


def _keep_result(connection: Connection, claim: Claim, made: StageResult, has: Callable[[str], bool]) -> None:
    """A result by its content key. Another job may have made the same: the first one's stays."""
    row = {"key": made.key, "name": made.name, "seconds": made.seconds, "peak_mb": made.peak_mb}
    connection.execute(
        insert(connection, result)
        .values(**row, created=now(), used=now())
        .on_conflict_do_update(index_elements=["key"], set_={"used": now()})
    )
    for name, file in made.files.items():
        keep_artefact(connection, file, has)
        values = {"key": made.key, "name": name, "sha256": file.sha256}
        connection.execute(
            insert(connection, result_file)
            .values(values)
            .on_conflict_do_update(index_elements=["key", "name"], set_={"sha256": file.sha256})
        )
    connection.execute(
        insert(connection, job_result)
        .values(job_id=claim.job_id, key=made.key, seq=claim.seq)
        .on_conflict_do_nothing()
    )
