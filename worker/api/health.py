"""Is it alive, is it ready, and its numbers."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import select

from worker.api.auth import ServiceOf, Watcher
from worker.api.errors import ApiError, responses
from worker.jobs import BusyError
from worker.metrics import exposition
from worker.schema import job

router = APIRouter(tags=["operations"])


class Alive(BaseModel):
    status: str


@router.get("/healthz")
def healthz() -> Alive:
    """The process answers. Says nothing of what it needs: restarting it would not mend that."""
    return Alive(status="ok")


@router.get("/readyz", responses=responses(503))
def readyz(service: ServiceOf) -> Alive:
    """New tasks are taken: the database answers and the disk has room."""
    try:
        with service.jobs.database.read() as connection:
            connection.execute(select(job.c.id).limit(1)).first()
        service.jobs.check_disk()
    except BusyError as error:
        raise ApiError(503, str(error), headers={"Retry-After": "300"}) from None
    except Exception:
        raise ApiError(503, "The database does not answer.", headers={"Retry-After": "5"}) from None
    return Alive(status="ok")


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        **responses(401, 403, 429),
        200: {"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
)
def metrics(service: ServiceOf, caller: Watcher) -> Response:
    """Counters and gauges in Prometheus' text format."""
    return Response(exposition(service.jobs.database), media_type="text/plain; version=0.0.4; charset=utf-8")
