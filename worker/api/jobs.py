"""The native API of jobs: submit, look, follow, cancel, retry, change, share, forget."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from worker import links, webhooks
from worker.api.auth import Caller, Reader, ServiceOf, Writer
from worker.api.errors import ApiError, not_found, responses
from worker.api.events import HEADERS, EventHub, last_event_id, past_end, sse
from worker.api.jobs_schema import (
    Asked,
    Changes,
    DeliveryView,
    JobList,
    JobRequest,
    JobView,
    NewLook,
    Pick,
    Share,
    SharedView,
    State,
    WebhookSecret,
)
from worker.api.jobs_view import files_of, job_view, report_of
from worker.api.models import MODEL, model_of_job, on_model
from worker.api.service import Service
from worker.api.submissions import (
    asked_job,
    checked_callback,
    checked_formats,
    continued,
    finished_job,
    picture_of,
)
from worker.api.tasks import CREATE_ERRORS, IdempotencyKey
from worker.generation import IMAGE
from worker.jobs import Submission, UnknownJobError
from worker.schema import ACTIVE_JOB_STATES

router = APIRouter(prefix="/v1", tags=["jobs"])
JobId = Annotated[str, Path(min_length=1, max_length=64)]
READ_ERRORS = responses(401, 403, 404, 422, 429)
GUEST_ROLES = ("picture", "asset")


def submission_of(
    service: Service,
    caller: Caller,
    asked: Asked,
    *,
    client: dict[str, Any],
    priority: int,
    callback_url: str | None = None,
    wait_s: float | None = None,
) -> Submission:
    """A native request as the queue takes it."""
    params = asked.model_dump(
        include={
            "prompt", "negative", "preset", "seed", "variants", "polycount", "texture_size", "height_m",
        },
        exclude_none=True,
    )  # fmt: skip
    params["formats"] = checked_formats(service, asked.formats)
    picture = asked.image
    if asked.image_url is not None:
        picture = picture_of(service, caller.owner, asked.image_url)
    return Submission(
        "generate",
        params,
        {} if picture is None else {IMAGE: picture},
        priority=priority,
        client={**client, **({"image": True} if picture is not None else {})},
        callback_url=checked_callback(service, callback_url),
        wait_s=wait_s,
    )


def admit(service: Service, caller: Caller, submission: Submission, key: str | None, base: str) -> JobView:
    """Submits within the caller's limits."""
    service.limits.hit("creates", caller.key_id or caller.owner, caller.quota)
    service.check_quota(caller.owner, caller.quota)
    return job_view(service, service.submit(submission, caller.owner, key), base)


@router.post("/jobs", status_code=202, responses=CREATE_ERRORS)
def create_job(
    body: JobRequest,
    request: Request,
    response: Response,
    service: ServiceOf,
    caller: Writer,
    key: IdempotencyKey = None,
) -> JobView:
    """Asks for an asset."""
    submission = submission_of(
        service,
        caller,
        body,
        client={"name": body.name} if body.name else {},
        priority=body.priority,
        callback_url=body.callback_url,
        wait_s=body.wait_s,
    )
    view = admit(service, caller, submission, key, service.base_url(request))
    response.headers["Location"] = f"/v1/jobs/{view.id}"
    return view


@router.get("/jobs", responses=responses(401, 403, 422, 429))
def list_jobs(
    request: Request,
    service: ServiceOf,
    caller: Reader,
    state: Annotated[State | None, Query()] = None,
    q: Annotated[str | None, Query(max_length=200, description="Words of the prompt.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 24,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> JobList:
    """Your jobs, newest first."""
    found = service.jobs.find(owner=caller.sees, state=state, text=q, limit=limit + 1, offset=offset)
    base = service.base_url(request)
    views = [job_view(service, job, base, in_list=True) for job in found[:limit]]
    return JobList(jobs=views, more=len(found) > limit)


@router.get("/jobs/{job_id}", responses=READ_ERRORS)
def get_job(job_id: JobId, request: Request, service: ServiceOf, caller: Reader) -> JobView:
    """The job as it is now."""
    return job_view(service, asked_job(service, caller, job_id), service.base_url(request))


@router.delete("/jobs/{job_id}", status_code=204, responses={**READ_ERRORS, **responses(409)})
def delete_job(job_id: JobId, service: ServiceOf, caller: Writer) -> Response:
    """Forgets a finished job and its files. One that is not finished is cancelled first: 409 until it is."""
    job = asked_job(service, caller, job_id)
    if not service.jobs.delete(job.id, owner=caller.sees):
        raise ApiError(409, "The job is being cancelled. Delete it when it is.")
    return Response(status_code=204)


@router.post("/jobs/{job_id}/cancel", responses=READ_ERRORS)
def cancel_job(job_id: JobId, request: Request, service: ServiceOf, caller: Writer) -> JobView:
    """Asks for the job's end. Asking again, or after its end, changes nothing."""
    job = asked_job(service, caller, job_id)
    service.jobs.request_cancel(job.id, owner=caller.sees)
    return job_view(service, service.jobs.get(job.id), service.base_url(request))


@router.post("/jobs/{job_id}/retry", responses={**READ_ERRORS, **responses(409)})
def retry_job(job_id: JobId, request: Request, service: ServiceOf, caller: Writer) -> JobView:
    """Puts a failed, cancelled or expired job back in the queue; what it has finished is kept."""
    job = asked_job(service, caller, job_id)
    if not service.jobs.retry(job.id, owner=caller.sees):
        raise ApiError(409, f"The job is {job.state}; only failed, cancelled and expired ones are retried.")
    job = service.jobs.get(job.id)
    if job.stage is not None:
        service.ring(job.stage.queue)
    return job_view(service, job, service.base_url(request))


@router.post("/jobs/{job_id}/pick", status_code=202, responses=CREATE_ERRORS)
def pick_variant(
    job_id: JobId,
    body: Pick,
    request: Request,
    service: ServiceOf,
    caller: Writer,
    key: IdempotencyKey = None,
) -> JobView:
    """Goes on with another of the variants that were drawn: a new job, whose views are there already. The
    old one is cancelled if it still runs."""
    job = asked_job(service, caller, job_id)
    first, count = job.seed, int(job.params.get("variants", 1))
    if not first <= body.seed < first + count:
        raise ApiError(422, f"seed: the variants of this job are {first} to {first + count - 1}.")
    client = {"from": job.id, **({"name": job.client["name"]} if job.client.get("name") else {})}
    submission = continued(service, caller, job, {}, seed=body.seed, client=client, priority=job.priority)
    view = admit(service, caller, submission, key, service.base_url(request))
    if job.state in ACTIVE_JOB_STATES:
        service.jobs.request_cancel(job.id, owner=caller.sees)
    return view


@router.post("/jobs/{job_id}/again", status_code=202, responses=CREATE_ERRORS)
def change_job(
    job_id: JobId,
    body: Changes,
    request: Request,
    service: ServiceOf,
    caller: Writer,
    key: IdempotencyKey = None,
) -> JobView:
    """The same asset with changes: a new job that reuses every stage that does not depend on them."""
    job = asked_job(service, caller, job_id)
    changes = body.model_dump(exclude_none=True, exclude={"seed", "formats"})
    if body.formats is not None:
        changes["formats"] = checked_formats(service, body.formats)
    if body.preset is not None and body.seed is None and job.kind == "generate":
        changes["views_preset"] = job.params.get("views_preset") or job.params["preset"]
    submission = continued(
        service, caller, job, changes, seed=body.seed, client={"from": job.id}, priority=job.priority
    )
    return admit(service, caller, submission, key, service.base_url(request))


@router.post("/jobs/{job_id}/retexture", status_code=202, responses=CREATE_ERRORS)
def retexture_job(
    job_id: JobId,
    body: NewLook,
    request: Request,
    service: ServiceOf,
    caller: Writer,
    key: IdempotencyKey = None,
) -> JobView:
    """The same shape in a new look: a new job on the asset's GLB."""
    job = finished_job(service, caller, job_id, "job_id")
    inputs = {MODEL: model_of_job(service, caller, job)}
    if body.image is not None:
        inputs[IMAGE] = body.image
    params = body.model_dump(exclude={"image", "formats"})
    submission = on_model(
        service,
        "retexture",
        {**params, "formats": checked_formats(service, body.formats)},
        inputs,
        job,
        client={"image": True} if body.image is not None else {},
        priority=job.priority,
        callback_url=None,
    )
    return admit(service, caller, submission, key, service.base_url(request))


@router.get(
    "/jobs/{job_id}/events",
    response_model=None,
    responses={
        **READ_ERRORS,
        200: {
            "description": "Events `job`, `stage` and `progress`, each with its number as id.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The job has ended and you have its last event."},
    },
)
async def follow_job(
    job_id: JobId,
    request: Request,
    service: ServiceOf,
    caller: Reader,
    after: Annotated[int | None, Query(ge=0, le=10**9, description="As Last-Event-ID.")] = None,
    last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """What happens to the job, from event `after` on, until it ends."""
    number = last_event_id(last, after)
    job = await run_sync(asked_job, service, caller, job_id)
    if past_end(job) and number >= job.events > 0:
        return Response(status_code=204)  # tells EventSource not to come back
    hub: EventHub = request.app.state.hub
    return StreamingResponse(
        _events(hub, job.id, number, caller.sees), media_type="text/event-stream", headers=HEADERS
    )


async def _events(hub: EventHub, job_id: str, after: int, owner: str | None) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    try:
        async for event, _ in hub.subscribe(job_id, after, owner):
            if event is None:
                yield b": still here\n\n"
            else:
                data = {**event.data, "at": event.created}
                yield sse(data, event=event.type, number=event.seq)
    except UnknownJobError:
        return


@router.get("/jobs/{job_id}/webhooks", responses=READ_ERRORS)
def list_deliveries(job_id: JobId, service: ServiceOf, caller: Reader) -> list[DeliveryView]:
    """How the job's webhooks went."""
    job = asked_job(service, caller, job_id)
    return [DeliveryView(**row) for row in webhooks.log_of(service.jobs.database, job.id)]


@router.get("/webhooks/secret", responses=responses(401, 403, 429))
def webhook_secret(service: ServiceOf, caller: Writer) -> WebhookSecret:
    """What your webhooks are signed with."""
    return WebhookSecret(secret=webhooks.signing_secret(caller.owner, service.secret))


@router.post("/jobs/{job_id}/share", responses=READ_ERRORS)
def share_job(job_id: JobId, request: Request, service: ServiceOf, caller: Writer) -> Share:
    """A link for looking at the asset, for everybody who has it."""
    job = asked_job(service, caller, job_id)
    token = service.share_token(job.id)
    return Share(url=f"{service.base_url(request)}/share/{job.id}?t={token}")


@router.get("/shared/{job_id}", responses=responses(404, 422))
def get_shared(
    job_id: JobId,
    request: Request,
    service: ServiceOf,
    t: Annotated[str, Query(max_length=200, description="The link's token.")],
) -> SharedView:
    """What a guest sees."""
    if not links.valid_token("share", job_id, t, time.time(), service.secret):
        raise not_found("shared asset", job_id)
    try:
        job = service.jobs.get(job_id)
    except UnknownJobError:
        raise not_found("shared asset", job_id) from None
    files = service.jobs.artefacts(job.id)
    shown = [file for file in files if file.role in GUEST_ROLES]
    return SharedView(
        prompt=str(job.params.get("prompt") or ""),
        state=job.state,  # type: ignore[arg-type]
        created=job.created,
        files=files_of(service, service.base_url(request), shown),
        report=report_of(service, job, files),
    )
