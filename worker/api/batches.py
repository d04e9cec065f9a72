"""Batches: many rows in one request, a job for every different one.

A batch is nothing but rows and the jobs that they share; it has no state of its own. The request may be
repeated with its `Idempotency-Key` when it broke off: rows that have their job keep it.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Row, func, select, update

from render.errors import InputError
from worker.admission import canonical, new_job_id
from worker.api.auth import Caller, Reader, ServiceOf, Writer
from worker.api.errors import ApiError, not_found, responses, wrong_input
from worker.api.jobs import submission_of
from worker.api.jobs_schema import BatchRequest, BatchRows, BatchRowView, BatchView
from worker.api.service import Service
from worker.api.tasks import CREATE_ERRORS, IdempotencyKey
from worker.database import insert, now
from worker.schema import ACTIVE_JOB_STATES, batch, batch_row, job

router = APIRouter(prefix="/v1", tags=["batches"])
BatchId = Annotated[str, Path(min_length=1, max_length=64)]
READ_ERRORS = responses(401, 403, 404, 422, 429)


@router.post("/batches", status_code=202, responses=CREATE_ERRORS)
def create_batch(
    body: BatchRequest,
    response: Response,
    service: ServiceOf,
    caller: Writer,
    key: IdempotencyKey = None,
) -> BatchView:
    """Asks for up to 1,000 assets. All rows are checked before the first is admitted."""
    service.limits.hit("creates", caller.key_id or caller.owner, caller.quota)
    service.check_quota(caller.owner, caller.quota, len(body.rows))
    batch_id = _batch_id(caller.owner, key)
    submissions = []
    checked: set[str] = set()
    for row in body.rows:
        try:
            submission = submission_of(
                service, caller, row, client={"batch": batch_id, "name": row.id}, priority=body.priority
            )
            identity = canonical([submission.kind, dict(submission.params), dict(submission.inputs)])
            content = hashlib.sha256(identity).hexdigest()
            if content not in checked:
                service.jobs.check(submission)
                checked.add(content)
        except (ApiError, InputError) as caught:
            error = caught if isinstance(caught, ApiError) else wrong_input(caught)
            raise ApiError(
                error.status, f"row {row.id!r}: {error.message}", error.code, error.headers
            ) from None
        submissions.append((row.id, content, submission))
    with service.jobs.database.write() as connection:
        connection.execute(
            insert(connection, batch)
            .values(id=batch_id, owner=caller.owner, name=body.name, created=now(), canceled=False)
            .on_conflict_do_nothing()
        )
    made: dict[str, str] = {}
    for position, (name, content, submission) in enumerate(submissions):
        if content not in made:
            made[content] = service.submit(submission, caller.owner, f"batch/{batch_id}/{content}").id
        values = {"name": name, "key": content, "job_id": made[content]}
        with service.jobs.database.write() as connection:
            connection.execute(
                insert(connection, batch_row)
                .values(batch_id=batch_id, position=position, **values)
                .on_conflict_do_update(index_elements=["batch_id", "position"], set_=values)
            )
    response.headers["Location"] = f"/v1/batches/{batch_id}"
    return _view(service, _asked(service, caller, batch_id))


def _batch_id(owner: str, key: str | None) -> str:
    """Of a key always the same."""
    if key is None:
        return new_job_id()
    return hashlib.sha256(f"batch\n{owner}\n{key}".encode()).hexdigest()[:32]


@router.get("/batches", responses=responses(401, 403, 422, 429))
def list_batches(
    service: ServiceOf,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> list[BatchView]:
    """Your batches, newest first."""
    query = select(batch).order_by(batch.c.created.desc(), batch.c.id).limit(limit).offset(offset)
    if caller.sees is not None:
        query = query.where(batch.c.owner == caller.sees)
    with service.jobs.database.read() as connection:
        rows = connection.execute(query).all()
    return [_view(service, row) for row in rows]


@router.get("/batches/{batch_id}", responses=READ_ERRORS)
def get_batch(batch_id: BatchId, service: ServiceOf, caller: Reader) -> BatchView:
    """How many rows are in which state."""
    return _view(service, _asked(service, caller, batch_id))


@router.get("/batches/{batch_id}/rows", responses=READ_ERRORS)
def list_rows(
    batch_id: BatchId,
    service: ServiceOf,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> BatchRows:
    """The rows in their order, each with its job."""
    _asked(service, caller, batch_id)
    with service.jobs.database.read() as connection:
        rows = connection.execute(
            select(batch_row.c.name, batch_row.c.job_id, job.c.state, job.c.error)
            .outerjoin(job, job.c.id == batch_row.c.job_id)
            .where(batch_row.c.batch_id == batch_id)
            .order_by(batch_row.c.position)
            .limit(limit + 1)
            .offset(offset)
        ).all()
    views = [
        BatchRowView(id=row.name, job=row.job_id, state=row.state or "deleted", error=row.error)
        for row in rows[:limit]
    ]
    return BatchRows(rows=views, more=len(rows) > limit)


@router.post("/batches/{batch_id}/cancel", responses=READ_ERRORS)
def cancel_batch(batch_id: BatchId, service: ServiceOf, caller: Writer) -> BatchView:
    """Cancels what is not finished."""
    _asked(service, caller, batch_id)
    with service.jobs.database.write() as connection:
        connection.execute(update(batch).where(batch.c.id == batch_id).values(canceled=True))
        unfinished = (
            connection.execute(
                select(batch_row.c.job_id)
                .join(job, job.c.id == batch_row.c.job_id)
                .where(batch_row.c.batch_id == batch_id, job.c.state.in_(ACTIVE_JOB_STATES))
                .distinct()
            )
            .scalars()
            .all()
        )
    for job_id in unfinished:
        service.jobs.request_cancel(job_id)
    return _view(service, _asked(service, caller, batch_id))


def _asked(service: Service, caller: Caller, batch_id: str) -> Row[Any]:
    with service.jobs.database.read() as connection:
        row = connection.execute(select(batch).where(batch.c.id == batch_id)).one_or_none()
    if row is None or caller.sees not in (None, row.owner):
        raise not_found("batch", batch_id)
    return row


def _view(service: Service, row: Row[Any]) -> BatchView:
    state = func.coalesce(job.c.state, "deleted")
    with service.jobs.database.read() as connection:
        found = connection.execute(
            select(state, func.count())
            .select_from(batch_row.outerjoin(job, job.c.id == batch_row.c.job_id))
            .where(batch_row.c.batch_id == row.id)
            .group_by(state)
        ).all()
        assets = connection.execute(
            select(func.count(batch_row.c.job_id.distinct())).where(batch_row.c.batch_id == row.id)
        ).scalar_one()
    states = {str(name): int(number) for name, number in found}
    return BatchView(
        id=row.id,
        name=row.name,
        created=row.created,
        canceled=row.canceled,
        rows=sum(states.values()),
        assets=assets,
        states=states,
        done=not states.keys() & set(ACTIVE_JOB_STATES),
    )
