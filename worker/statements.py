"""The statements that every stage of every job needs, made once: a stage's engine time is mostly the
database's round trips and the making of what they send.

Parameters that are no columns begin with `of_` and `by_`; those that are columns are given by their names and
are set. `python -m bench.job_queue` measures what a stage costs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, case, delete, func, or_, select, update

from worker.database import insert_of, json_object_of, now
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
    tally,
)

_OF_JOB: BindParameter[str] = bindparam("of_job")
_OF_SEQ: BindParameter[int] = bindparam("of_seq")
_OF_EPOCH: BindParameter[int] = bindparam("of_epoch")

_first_ready = (
    select(stage.c.id)
    .join(job, job.c.id == stage.c.job_id)
    .where(stage.c.state == "ready", stage.c.queue == bindparam("of_queue"))
    .order_by(stage.c.priority.desc(), stage.c.turn, stage.c.id)
    .limit(1)
    # Both rows or neither, and without waiting: who cancels this very job has its row.
    .with_for_update(skip_locked=True)
)
CLAIM = (
    update(stage)
    .where(stage.c.id == _first_ready.scalar_subquery(), stage.c.state == "ready")
    .values(
        state="running",
        epoch=stage.c.epoch + 1,
        attempts=stage.c.attempts + 1,
        worker=bindparam("by_worker"),
        pid=bindparam("by_pid"),
        lease_until=now() + bindparam("by_lease_s", type_=stage.c.lease_until.type),
        progress=0.0,
        message="",
    )
    .returning(
        stage.c.id, stage.c.job_id, stage.c.seq, stage.c.name, stage.c.epoch, stage.c.attempts,
        stage.c.checkpoint_sha,
    )
)  # fmt: skip
"""Takes the first ready stage of a queue."""

TOLD = (
    update(job)
    .where(job.c.id == _OF_JOB)
    .values(events=job.c.events + 1, updated=now())
    .returning(job.c.events, job.c.cancel_requested)
)
"""Counts an event of a job, and locks its row."""

BEGUN = (
    update(job)
    .where(job.c.id == _OF_JOB)
    .values(
        events=job.c.events + 1,
        updated=now(),
        state="running",
        started=case((job.c.state == "queued", now()), else_=job.c.started),
        expires=None,
    )
    .returning(
        job.c.events, job.c.kind, job.c.params, job.c.seed, job.c.device, job.c.created, job.c.traceparent,
        select(json_object_of(job_artefact.c.name, job_artefact.c.sha256))
        .where(job_artefact.c.job_id == job.c.id, job_artefact.c.role == "input")
        .scalar_subquery()
        .label("inputs"),
        select(func.count())
        .select_from(attempt)
        .where(attempt.c.job_id == job.c.id, attempt.c.outcome == "gpu_memory")
        .scalar_subquery()
        .label("memory_failures"),
    )
)  # fmt: skip
"""The same when a stage of it was claimed, and all that a claim says of its job."""

ATTEMPT = attempt.insert().values(started=now())
EVENTS = event.insert().values(created=now())

_held = stage.c.seq == _OF_SEQ
DONE = (
    update(stage)
    .where(
        stage.c.job_id == _OF_JOB,
        or_(
            and_(_held, stage.c.epoch == _OF_EPOCH, stage.c.state == "running"),
            and_(stage.c.seq == bindparam("of_next"), stage.c.state == "blocked"),
        ),
    )
    .values(
        state=case((_held, "done"), else_="ready"),
        progress=case((_held, 1.0), else_=stage.c.progress),
        checkpoint_sha=case((_held, None), else_=stage.c.checkpoint_sha),
        rung_at=case((_held, stage.c.rung_at), else_=now()),
    )
    .returning(stage.c.seq, stage.c.queue)
)
"""A held stage is done and the next one ready; both rows, or that of the next one when it is not held."""

ATTEMPT_ENDED = (
    update(attempt)
    .where(attempt.c.job_id == _OF_JOB, attempt.c.seq == _OF_SEQ, attempt.c.epoch == _OF_EPOCH)
    .values(ended=now())
    .returning(attempt.c.ended - attempt.c.started)
)

JOB_ENDED = (
    update(job)
    .where(job.c.id == _OF_JOB, job.c.state.in_(ACTIVE_JOB_STATES))
    .values(events=job.c.events + 1, updated=now(), finished=now(), expires=None)
    .returning(job.c.kind, job.c.callback_url, job.c.events, job.c.finished - job.c.created)
)
KNOWN_RESULT = select(result).where(result.c.key == bindparam("of_key"))
RESULTS_LEFT = delete(job_result).where(job_result.c.job_id == _OF_JOB)


@cache
def counted(dialect: str) -> Any:
    """Adds to counters."""
    new = insert_of(dialect, tally)
    return new.on_conflict_do_update(
        index_elements=["name", "labels"], set_={"value": tally.c.value + new.excluded.value}
    )


@cache
def kept_artefacts(dialect: str) -> Any:
    """Rows of artefacts, made or locked."""
    new = insert_of(dialect, artefact).values(created=now(), touched=now())
    return new.on_conflict_do_update(index_elements=["sha256"], set_={"touched": now()})


@cache
def kept_files(dialect: str) -> Any:
    """Files of a job, under their names."""
    new = insert_of(dialect, job_artefact)
    changes = {name: new.excluded[name] for name in ("seq", "role", "sha256")}
    return new.on_conflict_do_update(index_elements=["job_id", "name"], set_=changes)


@cache
def kept_results(dialect: str) -> Any:
    """Results by their content keys. Another job may have made the same: the first one's stay."""
    new = insert_of(dialect, result).values(created=now(), used=now())
    return new.on_conflict_do_update(index_elements=["key"], set_={"used": now()})


@cache
def kept_result_files(dialect: str) -> Any:
    """Files of results."""
    new = insert_of(dialect, result_file)
    return new.on_conflict_do_update(index_elements=["key", "name"], set_={"sha256": new.excluded.sha256})


@cache
def kept_for_job(dialect: str) -> Any:
    """Results that a job stands on."""
    return insert_of(dialect, job_result).on_conflict_do_nothing()
