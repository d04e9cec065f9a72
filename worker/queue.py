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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, func, literal, select, update
from sqlalchemy.sql.elements import ColumnElement

from worker import statements
from worker.database import Database, now
from worker.schema import ACTIVE_JOB_STATES, attempt, job, job_artefact, stage
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
        taken = connection.execute(
            statements.CLAIM,
            {"of_queue": queue, "by_worker": worker, "by_pid": pid, "by_lease_s": lease_s},
        ).one_or_none()
        if taken is None:
            return None
        data = {"stage": taken.name, "state": "running", "progress": 0.0}
        owner = write_event(connection, taken.job_id, "stage", data, statement=statements.BEGUN)
        values = {"job_id": taken.job_id, "seq": taken.seq, "epoch": taken.epoch, "worker": worker}
        connection.execute(statements.ATTEMPT, values)
        return Claim(
            stage_id=taken.id,
            job_id=taken.job_id,
            seq=taken.seq,
            name=taken.name,
            queue=queue,
            epoch=taken.epoch,
            attempts=taken.attempts,
            memory_failures=owner.memory_failures,
            checkpoint_sha=taken.checkpoint_sha,
            kind=owner.kind,
            params=owner.params,
            seed=owner.seed,
            device=owner.device,
            inputs=owner.inputs,
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
        values: dict[str, Any] = {"progress": progress, "message": message[:200]}
        if tell:
            data = {"stage": claim.name, "state": "running", **values}
            owner = write_event(connection, claim.job_id, "progress", data)
        else:
            owner = locked_job(connection, claim.job_id)
        if lease_s is not None:
            values["lease_until"] = now() + lease_s
        _change_held(connection, claim, values)
        return bool(owner.cancel_requested)


def is_canceled(database: Database, claim: Claim) -> bool:
    """Whether the job should be cancelled; `LeaseLostError` when the stage is no longer held."""
    with database.read() as connection:
        found = connection.execute(
            select(job.c.cancel_requested).join(stage, stage.c.job_id == job.c.id).where(_held(claim))
        ).one_or_none()
    if found is None:
        raise _lost(claim)
    return bool(found.cancel_requested)


def save_checkpoint(database: Database, claim: Claim, file: FileRef, has: Callable[[str], bool]) -> None:
    """Notes how far the inside of the stage is, for the next attempt. The bytes are in the store."""
    with database.write() as connection:
        locked_job(connection, claim.job_id)
        keep_artefacts(connection, [file], has)
        _change_held(connection, claim, {"checkpoint_sha": file.sha256})


def commit(database: Database, claim: Claim, outcome: Outcome, has: Callable[[str], bool]) -> str | None:
    """The stage is done: all of it, or nothing. `has` says whether the store holds the bytes of a hash.
    The queue of the stage that is ready now, which is to be rung.

    Called again after an error that leaves open whether the transaction went through, it finds out.
    """
    try:
        with database.write() as connection:
            return _commit(connection, claim, outcome, has)
    except LeaseLostError:
        with database.read() as connection:
            if _was_committed(connection, claim):
                return None
        raise


def _commit(connection: Connection, claim: Claim, outcome: Outcome, has: Callable[[str], bool]) -> str | None:
    data = {"stage": claim.name, "state": "done", "progress": 1.0, "files": sorted(outcome.files)}
    changes = {"model_revisions": outcome.model_revisions} if outcome.model_revisions else {}
    owner = write_event(connection, claim.job_id, "stage", data, changes)  # the job's row is locked now
    following = _done(connection, claim, follow=not owner.cancel_requested)
    end_attempt(
        connection, claim, "done",
        gpu_s=outcome.gpu_s, peak_vram=outcome.peak_vram, peak_mb=outcome.peak_mb,
    )  # fmt: skip
    _keep(connection, claim, outcome, has)
    if owner.cancel_requested:
        end_job(connection, claim.job_id, "canceled")
    elif following is None:
        end_job(connection, claim.job_id, "succeeded")
    return following


def _done(connection: Connection, claim: Claim, follow: bool) -> str | None:
    """The held stage is done and, with `follow`, the next one ready: its queue, if there is one."""
    if not follow:
        _change_held(connection, claim, {"state": "done", "progress": 1.0, "checkpoint_sha": None})
        return None
    changed = connection.execute(
        statements.DONE,
        {"of_job": claim.job_id, "of_seq": claim.seq, "of_epoch": claim.epoch, "of_next": claim.seq + 1},
    )
    queues = {row.seq: str(row.queue) for row in changed}
    if claim.seq not in queues:
        raise _lost(claim)
    return queues.get(claim.seq + 1)


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


def _lost(claim: Claim) -> LeaseLostError:
    return LeaseLostError(f"stage {claim.name} of job {claim.job_id}, epoch {claim.epoch}")


def _change_held(connection: Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    if connection.execute(update(stage).where(_held(claim)).values(**values)).rowcount != 1:
        raise _lost(claim)


def _was_committed(connection: Connection, claim: Claim) -> bool:
    row = connection.execute(
        select(attempt.c.outcome).where(
            attempt.c.job_id == claim.job_id, attempt.c.seq == claim.seq, attempt.c.epoch == claim.epoch
        )
    ).one_or_none()
    return row is not None and row.outcome == "done"


def keep_artefacts(connection: Connection, files: Iterable[FileRef], has: Callable[[str], bool]) -> None:
    """The rows of artefacts whose bytes are in the store. A row is locked before its bytes are looked for, as
    the sweep locks it before it deletes them: neither misses the other. Rows are locked in one order."""
    known = {file.sha256: file for file in files}
    if not known:
        return
    rows = [{"sha256": sha256, "bytes": f.bytes, "mime": f.mime} for sha256, f in sorted(known.items())]
    connection.execute(statements.kept_artefacts(connection.dialect.name), rows)
    for sha256 in known:
        if not has(sha256):
            raise MissingBytesError(sha256)


def _keep(connection: Connection, claim: Claim, outcome: Outcome, has: Callable[[str], bool]) -> None:
    """The files of a stage, and its results by their content keys. Another job may have made the same: the
    first one's stay."""
    results = sorted(outcome.results, key=lambda made: made.key)
    keep_artefacts(
        connection, [*outcome.files.values(), *(f for made in results for f in made.files.values())], has
    )
    dialect = connection.dialect.name
    if outcome.files:
        rows = [
            {"job_id": claim.job_id, "name": name, "seq": claim.seq, "role": f.role, "sha256": f.sha256}
            for name, f in outcome.files.items()
        ]
        connection.execute(statements.kept_files(dialect), rows)
    if not results:
        return
    rows = [{"key": r.key, "name": r.name, "seconds": r.seconds, "peak_mb": r.peak_mb} for r in results]
    connection.execute(statements.kept_results(dialect), rows)
    rows = [{"key": r.key, "name": name, "sha256": f.sha256} for r in results for name, f in r.files.items()]
    if rows:
        connection.execute(statements.kept_result_files(dialect), rows)
    rows = [{"job_id": claim.job_id, "key": r.key, "seq": claim.seq} for r in results]
    connection.execute(statements.kept_for_job(dialect), rows)
