"""Meshy's task API: create, get, list, delete and stream, for every kind of task under its usual path.

What the shipped model or the stages cannot do yet is refused (code `NotImplemented`) with a message that says
what is missing; it never makes something else than was asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from worker.api.auth import Caller, Reader, ServiceOf, Writer
from worker.api.errors import ApiError, not_found, responses
from worker.api.events import HEADERS, EventHub, last_event_id, past_end, sse
from worker.api.models import MODEL, model_of, on_model
from worker.api.service import Service
from worker.api.submissions import (
    asked_job,
    checked_callback,
    checked_formats,
    continued,
    finished_job,
    not_yet,
    picture_of,
)
from worker.api.tasks_schema import (
    Additions,
    Balance,
    Convert,
    Created,
    ImageTo3D,
    MultiImageTo3D,
    PreviewRequest,
    RefineRequest,
    Remesh,
    Resize,
    Retexture,
    Task,
    TextTo3D,
    UvUnwrap,
)
from worker.api.tasks_view import jobs_of_types, task_of, task_type
from worker.generation import IMAGE, IMAGES
from worker.jobs import Submission, UnknownJobError
from worker.schema import ACTIVE_JOB_STATES

router = APIRouter(tags=["tasks"])
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body make one task, however often they are sent, for a day.",
    ),
]
TaskIdPath = Annotated[str, Path(min_length=1, max_length=64)]
CREATE_ERRORS = responses(400, 401, 403, 404, 409, 413, 422, 429)

TEXT, IMAGE_TO_3D, MULTI = (
    "/openapi/v2/text-to-3d",
    "/openapi/v1/image-to-3d",
    "/openapi/v1/multi-image-to-3d",
)
REMESH, RETEXTURE, CONVERT = "/openapi/v1/remesh", "/openapi/v1/retexture", "/openapi/v1/convert"
RESIZE, UV_UNWRAP = "/openapi/v1/resize", "/openapi/v1/uv-unwrap"

TYPES: dict[str, tuple[str, ...]] = {
    TEXT: ("text-to-3d-preview", "text-to-3d-refine"),
    IMAGE_TO_3D: ("image-to-3d",),
    MULTI: ("multi-image-to-3d",),
    REMESH: ("remesh",),
    RETEXTURE: ("retexture",),
    CONVERT: ("convert",),
    RESIZE: ("resize",),
    UV_UNWRAP: ("uv-unwrap",),
}


def _created(service: Service, caller: Caller, submission: Submission, key: str | None) -> Created:
    service.limits.hit("creates", caller.key_id or caller.owner, caller.quota)
    service.check_quota(caller.owner, caller.quota)
    return Created(result=service.submit(submission, caller.owner, key).id)


def _refuse_shape(body: Any) -> None:
    """What would make another asset than the client expects."""
    if getattr(body, "topology", None) == "quad":
        raise not_yet("topology quad", "Meshes are made of triangles.")
    if getattr(body, "origin_at", None) == "center":
        raise not_yet("origin_at center", "The pivot is on the floor, under the asset's centre.")
    if getattr(body, "auto_size", None):
        raise not_yet("auto_size", "Give height_m, the asset's height in metres.")
    for name in ("texture_prompt", "texture_image_url"):
        if getattr(body, name, None):
            raise not_yet(name, "Colours and shape are drawn together; describe both in the prompt.")


def _additions(body: Additions, target_polycount: int | None, resolution: str | None) -> dict[str, Any]:
    values = {
        "negative": body.negative_prompt,
        "preset": body.preset,
        "seed": body.seed,
        "variants": body.variants,
        "polycount": target_polycount,
        "texture_size": body.texture_size or {"2k": 2048, "4k": 4096, "8k": 8192}.get(resolution or ""),
        "height_m": body.height_m,
    }
    return {name: value for name, value in values.items() if value is not None}


@router.post(TEXT, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="Text to 3D")
def create_text_to_3d(
    body: TextTo3D, service: ServiceOf, caller: Writer, key: IdempotencyKey = None
) -> Created:
    """`preview` makes a draft within seconds; `refine` works a finished preview out."""
    _refuse_shape(body)
    formats = checked_formats(service, body.target_formats)
    match body:
        case PreviewRequest():
            params = {
                "preset": "draft",
                **_additions(body, body.target_polycount, None),
                "prompt": body.prompt,
                "formats": formats,
            }
            submission = Submission(
                "generate",
                params,
                priority=body.priority,
                client={"type": "text-to-3d-preview"},
                callback_url=checked_callback(service, body.callback_url),
            )
        case RefineRequest():
            source = finished_job(service, caller, body.preview_task_id, "preview_task_id")
            if source.kind != "generate":
                raise ApiError(422, "preview_task_id: only what was generated can be refined.")
            changes = {
                "preset": "standard",
                **_additions(body, body.target_polycount, body.texture_resolution),
                "formats": formats,
            }
            changes.setdefault("views_preset", source.params.get("views_preset") or source.params["preset"])
            submission = continued(
                service,
                caller,
                source,
                changes,
                seed=body.seed,
                client={"type": "text-to-3d-refine"},
                priority=body.priority,
                callback_url=body.callback_url,
            )
    return _created(service, caller, submission, key)


@router.post(
    IMAGE_TO_3D, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="Image to 3D"
)
def create_image_to_3d(
    body: ImageTo3D, service: ServiceOf, caller: Writer, key: IdempotencyKey = None
) -> Created:
    """An asset of one picture, by address or data URI."""
    return _of_images(body, [body.image_url], "image-to-3d", service, caller, key)


@router.post(
    MULTI, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="Pictures to 3D"
)
def create_multi_image_to_3d(
    body: MultiImageTo3D, service: ServiceOf, caller: Writer, key: IdempotencyKey = None
) -> Created:
    """An asset of one to four pictures of one object, in equal steps round it: front and back; or front,
    right, back and left as seen from the front. `sides` says which they show where these are others."""
    return _of_images(body, body.image_urls, "multi-image-to-3d", service, caller, key, body.sides)


def _of_images(
    body: ImageTo3D | MultiImageTo3D,
    urls: list[str],
    kind: Literal["image-to-3d", "multi-image-to-3d"],
    service: Service,
    caller: Caller,
    key: str | None,
    sides: Sequence[str] | None = None,
) -> Created:
    _refuse_shape(body)
    formats = checked_formats(service, body.target_formats)
    callback_url = checked_callback(service, body.callback_url)
    pictures = [picture_of(service, caller.owner, url) for url in urls]
    params = {
        "preset": "standard",
        **_additions(body, body.target_polycount, body.texture_resolution),
        "prompt": body.prompt or "",
        "formats": formats,
        **({"sides": list(sides)} if sides else {}),
    }
    submission = Submission(
        "generate",
        params,
        dict(zip(IMAGES, pictures, strict=False)),
        priority=body.priority,
        client={"type": kind, "image": True},
        callback_url=callback_url,
    )
    return _created(service, caller, submission, key)


@router.post(REMESH, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="Remesh")
def create_remesh(body: Remesh, service: ServiceOf, caller: Writer, key: IdempotencyKey = None) -> Created:
    """A model with another budget, height or other formats."""
    changes = {
        "polycount": None if body.convert_format_only else body.target_polycount,
        "height_m": body.resize_height or None,
    }
    return _of_model(body, changes, body.target_formats, "remesh", service, caller, key)


@router.post(CONVERT, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="Convert")
def create_convert(body: Convert, service: ServiceOf, caller: Writer, key: IdempotencyKey = None) -> Created:
    """A model in other formats."""
    return _of_model(body, {}, body.target_formats, "convert", service, caller, key)


@router.post(RESIZE, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="Resize")
def create_resize(body: Resize, service: ServiceOf, caller: Writer, key: IdempotencyKey = None) -> Created:
    """A model at another height."""
    if body.resize_longest_side is not None or body.resize_height is None:
        raise not_yet("Resizing by anything but the height", "Give resize_height in metres.")
    return _of_model(body, {"height_m": body.resize_height}, None, "resize", service, caller, key)


def _of_model(
    body: Remesh | Convert | Resize,
    changes: dict[str, Any],
    formats: list[Any] | None,
    kind: str,
    service: Service,
    caller: Caller,
    key: str | None,
) -> Created:
    """What was generated here goes on from its own stages; any other model is worked on as it is."""
    _refuse_shape(body)
    wanted = None if formats is None else checked_formats(service, formats)
    if body.input_task_id is not None:
        job = finished_job(service, caller, body.input_task_id, "input_task_id")
        if job.kind == "generate":
            submission = continued(
                service,
                caller,
                job,
                {**changes, "formats": wanted},
                client={"type": kind},
                priority=body.priority,
                callback_url=body.callback_url,
            )
            return _created(service, caller, submission, key)
    model, source = model_of(service, caller, body.input_task_id, body.model_url)
    operation = "convert" if changes.get("polycount") is None else "simplify"
    submission = on_model(
        service,
        "rework",
        {"operation": operation, **changes, "formats": wanted},
        {MODEL: model},
        source,
        client={"type": kind},
        priority=body.priority,
        callback_url=body.callback_url,
    )
    return _created(service, caller, submission, key)


@router.post(RETEXTURE, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="Retexture")
def create_retexture(
    body: Retexture, service: ServiceOf, caller: Writer, key: IdempotencyKey = None
) -> Created:
    """A model in a new look, by words, a picture, or both. Its shape stays."""
    formats = checked_formats(service, body.target_formats)
    model, source = model_of(service, caller, body.input_task_id, body.model_url)
    inputs = {MODEL: model}
    client: dict[str, Any] = {"type": "retexture"}
    if body.image_style_url is not None:
        inputs[IMAGE] = picture_of(service, caller.owner, body.image_style_url)
        client["image"] = True
    params = {
        "prompt": body.text_style_prompt or "",
        "negative": body.negative_prompt,
        "preset": body.preset,
        "seed": body.seed,
        "strength": body.strength,
        "grain": body.grain,
        "keep_uvs": body.enable_original_uv,
        "texture_size": body.texture_size,
        "formats": formats,
    }
    submission = on_model(
        service,
        "retexture",
        params,
        inputs,
        source,
        client=client,
        priority=body.priority,
        callback_url=body.callback_url,
    )
    return _created(service, caller, submission, key)


@router.post(UV_UNWRAP, status_code=202, response_model=Created, responses=CREATE_ERRORS, summary="UV unwrap")
def create_uv_unwrap(
    body: UvUnwrap, service: ServiceOf, caller: Writer, key: IdempotencyKey = None
) -> Created:
    """A model unwrapped anew: all parts in one atlas, their materials baked into it."""
    formats = checked_formats(service, body.target_formats)
    model, source = model_of(service, caller, body.input_task_id, body.model_url)
    submission = on_model(
        service,
        "rework",
        {"operation": "unwrap", "texture_size": body.texture_size, "formats": formats},
        {MODEL: model},
        source,
        client={"type": "uv-unwrap"},
        priority=body.priority,
        callback_url=body.callback_url,
    )
    return _created(service, caller, submission, key)


@router.get("/openapi/v1/balance", response_model=Balance, responses=responses(401, 403, 429))
def balance(caller: Reader) -> Balance:
    """Nothing is sold here, and there is always enough of it."""
    return Balance(balance=1_000_000)


def _add_common(path: str) -> None:
    """Get, list, delete and stream of one kind of task."""
    name = path.rsplit("/", 1)[1].replace("-", "_")
    types = TYPES[path]

    def own(service: Service, caller: Caller, task_id: str) -> Any:
        job = asked_job(service, caller, task_id)
        if task_type(job) not in types:
            raise not_found("task", task_id)
        return job

    def list_tasks(
        request: Request,
        service: ServiceOf,
        caller: Reader,
        page_num: Annotated[int, Query(ge=1, le=100_000)] = 1,
        page_size: Annotated[int, Query(ge=1, le=50)] = 10,
        sort_by: Annotated[Literal["+created_at", "-created_at"], Query()] = "-created_at",
    ) -> list[Task]:
        """Your tasks, newest first."""
        jobs = jobs_of_types(
            service,
            types,
            caller.sees,
            limit=page_size,
            offset=(page_num - 1) * page_size,
            oldest_first=sort_by == "+created_at",
        )
        base = service.base_url(request)
        return [task_of(service, job, base, in_list=True) for job in jobs]

    def get_task(task_id: TaskIdPath, request: Request, service: ServiceOf, caller: Reader) -> Task:
        """The task as it is now."""
        return task_of(service, own(service, caller, task_id), service.base_url(request))

    def delete_task(task_id: TaskIdPath, service: ServiceOf, caller: Writer) -> Created:
        """Cancels a task that is not finished; forgets one that is, with its files."""
        job = own(service, caller, task_id)
        if job.state in ACTIVE_JOB_STATES:
            service.jobs.request_cancel(job.id, owner=caller.sees)
        else:
            service.jobs.delete(job.id, owner=caller.sees)
        return Created(result=job.id)

    async def stream_task(
        task_id: TaskIdPath,
        request: Request,
        service: ServiceOf,
        caller: Reader,
        last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    ) -> Response:
        """The task after every change, as `data:` lines, until it ends."""
        job = await run_sync(own, service, caller, task_id)
        after = last_event_id(last, None)
        base = service.base_url(request)
        if past_end(job) and after >= job.events > 0:
            return Response(status_code=204)  # tells EventSource not to come back
        hub: EventHub = request.app.state.hub

        def render(*_: Any) -> Task:
            return task_of(service, service.jobs.get(task_id, owner=caller.sees), base)

        return StreamingResponse(
            _messages(hub, task_id, after, caller.sees, render),
            media_type="text/event-stream",
            headers=HEADERS,
        )

    read_errors = responses(401, 403, 404, 422, 429)
    routes: list[tuple[str, str, Callable[..., Any], str, dict[str, Any]]] = [
        (
            "",
            "GET",
            list_tasks,
            "list",
            {"response_model": list[Task], "responses": responses(401, 403, 422, 429)},
        ),
        ("/{task_id}", "GET", get_task, "get", {"response_model": Task, "responses": read_errors}),
        (
            "/{task_id}",
            "DELETE",
            delete_task,
            "delete",
            {"response_model": Created, "responses": read_errors},
        ),
        (
            "/{task_id}/stream",
            "GET",
            stream_task,
            "stream",
            {
                "response_model": None,
                "responses": {
                    **read_errors,
                    200: {
                        "description": "The task after every change.",
                        "content": {"text/event-stream": {"schema": {"type": "string"}}},
                    },
                    204: {"description": "The task has ended and you have its last event."},
                },
            },
        ),
    ]
    for tail, method, function, verb, options in routes:
        router.add_api_route(
            path + tail,
            function,
            methods=[method],
            operation_id=f"{verb}_{name}",
            summary=f"{verb.title()} {name.replace('_', ' ')}",
            **options,
        )


async def _messages(
    hub: EventHub, job_id: str, after: int, owner: str | None, render: Callable[..., Task]
) -> AsyncIterator[bytes]:
    """The task at once, then after every change; changes that come together make one message."""
    yield sse((await run_sync(render)).model_dump(mode="json", by_alias=True), event="message")
    try:
        async for event, is_last in hub.subscribe(job_id, after, owner):
            if event is None:
                yield b": still here\n\n"
            elif is_last:
                task = await run_sync(render)
                yield sse(task.model_dump(mode="json", by_alias=True), event="message", number=event.seq)
    except UnknownJobError:
        return


for _path in TYPES:
    _add_common(_path)
