"""The queue: stages are claimed, renewed, committed and failed here, and jobs cancelled and retried.

Beside it, `worker.admission` makes the rows, `worker.overdue` gives up what its holder left and rings what
nobody heard, and `worker.transitions` has the steps that all share; nothing else changes a stage. What they
guarantee, on SQLite and on Postgres, whatever dies when:

* **One holder.** A claim is one UPDATE that finds a ready row, makes it running and raises its epoch. Every
  later write of the holder names that epoch (`_held`); when the row has moved on, it matches nothing, the
  transaction is rolled back and the holder learns it by `LeaseLostError`.
* **Committed once.** A stage is done, its artefacts belong to the job, the next stage is ready and the event
  is written in one transaction. One that was committed although the answer got lost may be committed again.
* **Bytes before rows.** A commit refuses hashes whose bytes are not in the store; the sweep takes the same
  row first (see `worker.retention`).
* **Nobody is waited for.** A lease that was not renewed is given up by any reaper (`overdue.expire`);
  attempts are counted by the class of their end, and what has used them up is dead
  (`transitions.again_or_dead`).
* **One end.** A job's row is locked before it or its stages change, and an end is never left
  (`transitions.end_job`).

The broker is no part of this: what it loses is rung again (`overdue.to_ring`), what it repeats claims
nothing. The job's row is always locked before its stages' rows, so that transactions wait for each other
in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, func, literal, select, update
from sqlalchemy.sql.elements import ColumnElement

from worker.database import Database, insert, now
from worker.schema import (
    ACTIVE_JOB_STATES,
    artefact,
    attempt,
    job,
    job_artefact,
    job_result,
    result,
    result_file,
    stage,
)
from worker.transitions import (
    ErrorClass,
    again_or_dead,
    end_attempt,
    end_job,
    locked_job,
    write_event,
)


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
        canceled = locked_job(connection, claim.job_id).cancel_requested
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
        locked_job(connection, claim.job_id)
        keep_artefact(connection, file, has)
        _change_held(connection, claim, {"checkpoint_sha": file.sha256})


def commit(database: Database, claim: Claim, outcome: Outcome, has: Callable[[str], bool]) -> str | None:
    """The stage is done: all of it, or nothing. `has` says whether the store holds the bytes of a hash.
    The queue of the stage that is ready now, which is to be rung.

    Called again after an error that leaves open whether the transaction went through, it finds out.
    """
    with database.write() as connection:
        owner = locked_job(connection, claim.job_id)
        try:
            _change_held(connection, claim, {"state": "done", "progress": 1.0, "checkpoint_sha": None})
        except LeaseLostError:
            if _was_committed(connection, claim):
                return None
            raise
        end_attempt(
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
            end_job(connection, claim.job_id, "canceled")
            return None
        following = connection.execute(
            update(stage)
            .where(stage.c.job_id == claim.job_id, stage.c.seq == claim.seq + 1, stage.c.state == "blocked")
            .values(state="ready", rung_at=now())
            .returning(stage.c.queue)
        ).scalar_one_or_none()
        if following is None:
            end_job(connection, claim.job_id, "succeeded")
        return following


def fail(
    database: Database, claim: Claim, error_class: ErrorClass, message: str, retry_s: float = 5.0
) -> None:
    """The attempt failed: another follows, or the stage is dead and with it the job."""
    with database.write() as connection:
        locked_job(connection, claim.job_id)
        _change_held(connection, claim, {"error_class": error_class})
        end_attempt(connection, claim, error_class, error=message)
        again_or_dead(connection, claim.stage_id, error_class, message, retry_s)


def release(database: Database, claim: Claim) -> None:
    """The worker is told to stop: the stage is ready again, and the attempt does not count."""
    with database.write() as connection:
        owner = locked_job(connection, claim.job_id)
        _change_held(connection, claim, {"state": "ready", "attempts": stage.c.attempts - 1, "rung_at": None})
        end_attempt(connection, claim, "stopped")
        if owner.cancel_requested:
            end_job(connection, claim.job_id, "canceled")


def canceled(database: Database, claim: Claim) -> None:
    """The holder has stopped because the job is to be cancelled."""
    with database.write() as connection:
        locked_job(connection, claim.job_id)
        _change_held(connection, claim, {"state": "canceled"})
        end_attempt(connection, claim, "canceled")
        end_job(connection, claim.job_id, "canceled")


def cancel(database: Database, job_id: str) -> str:
    """Asks for a job's end and answers its state now: `canceled` at once when nobody works on it."""
    with database.write() as connection:
        owner = locked_job(connection, job_id)
        if owner.state not in ACTIVE_JOB_STATES:
            return str(owner.state)
        connection.execute(update(job).where(job.c.id == job_id).values(cancel_requested=True))
        works = connection.execute(
            select(stage.c.id).where(stage.c.job_id == job_id, stage.c.state == "running")
        ).first()
        if works is None:
            end_job(connection, job_id, "canceled")
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
    end_job(connection, job_id, "succeeded")


def retry(database: Database, job_id: str) -> bool:
    """Puts a failed, canceled or expired job back in the queue where it stopped; False when it is neither."""
    with database.write() as connection:
        owner = locked_job(connection, job_id)
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


def warn(database: Database, claim: Claim, message: str) -> None:
    """Something that the user should know."""
    with database.write() as connection:
        locked_job(connection, claim.job_id)
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
