"""The HTTP application.

    app = create_app(load_settings(), load_config())

`python -m worker.api` serves it; any ASGI server can. Routes are in small files by resource; what they
share is `worker.api.service.Service`. Webhooks are delivered by a thread of this process.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pipeline.picture_safety import picture_policy
from worker.api import artefacts, batches, errors, health, jobs, page, session, tasks, uploads
from worker.api.body_limit import BodyLimit
from worker.api.config import ApiConfig, service_secret
from worker.api.events import EventHub
from worker.api.jobs_view import job_view
from worker.api.origin import LOOPBACK_HOSTS, OriginGuard
from worker.api.plain_address import PlainAddress
from worker.api.rate_limits import RateLimits
from worker.api.service import Service
from worker.api.tasks_view import task_of
from worker.api.trace_requests import TraceRequests
from worker.database import Database
from worker.jobs import Jobs
from worker.settings import Settings
from worker.store import store_at
from worker.tracing import Tracing, tracing_of
from worker.webhooks import WebhookSender

TITLE = "Maquette"
DESCRIPTION = """Text or a picture in, a game-ready 3D asset out.

Two dialects of one service: **tasks** follow Meshy's public task API, so that its clients work unchanged;
**jobs**, **batches** and **files** are native. Errors are `{"message", "code"}` everywhere.
"""


def create_app(
    settings: Settings,
    config: ApiConfig,
    *,
    ring: Callable[[str], object] | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The application on a database that is migrated. `ring` takes the place of the broker, `tracing` of what
    the settings say."""
    # A policy or a collector that cannot be had is said at the start, not to the first client.
    picture_policy(settings.picture_policy, settings.known_pictures)
    tracing = tracing or tracing_of(settings, "api")
    service = make_service(settings, config, ring)
    stop = threading.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.hub = EventHub(service.jobs, config.max_streams)
        sender = threading.Thread(target=_sender(service).run, args=(stop,), name="webhooks", daemon=True)
        sender.start()
        try:
            yield
        finally:
            stop.set()
            app.state.hub.close()
            sender.join(5)
            tracing.close()

    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version=_version(),
        lifespan=lifespan,
        openapi_url="/openapi.json" if config.docs else None,
        docs_url=None,  # the usual pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        # Shapes in the OpenAPI are those of answers: a default is always there.
        separate_input_output_schemas=True,
    )
    app.state.service = service
    errors.install(app)
    for module in (tasks, jobs, uploads, batches, artefacts, session, health):
        app.include_router(module.router)
    page.install(app)
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes)
    app.add_middleware(PlainAddress)
    app.add_middleware(OriginGuard, hosts=answered_hosts(settings, config), keyless=service.keyless)
    app.add_middleware(TraceRequests, tracing=tracing)
    app.openapi = lambda: _openapi(app, service.keyless)  # type: ignore[method-assign]
    return app


def make_service(
    settings: Settings, config: ApiConfig, ring: Callable[[str], object] | None = None
) -> Service:
    """What the routes share."""
    if ring is None:
        from worker.tasks import Bell

        ring = Bell(settings).ring
    return Service(
        jobs=Jobs(Database(settings.database), store_at(settings), settings),
        settings=settings,
        config=config,
        secret=service_secret(config, settings.data),
        limits=RateLimits(config.rate_storage),
        keyless=is_keyless(settings, config),
        ring=ring,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_keyless(settings: Settings, config: ApiConfig) -> bool:
    """Whether everybody who can connect is let in."""
    match config.keys:
        case "off":
            return True
        case "required":
            return False
        case "auto":
            return is_loopback(settings.host) and not config.public_url


def answered_hosts(settings: Settings, config: ApiConfig) -> frozenset[str] | None:
    """Host names that the service answers to; None: all."""
    if config.hosts:
        return frozenset(name.lower() for name in config.hosts) | LOOPBACK_HOSTS
    return LOOPBACK_HOSTS if is_loopback(settings.host) and not config.public_url else None


def _sender(service: Service) -> WebhookSender:
    base = service.config.public_url.rstrip("/") or f"http://{service.settings.host}:{service.settings.port}"

    def describe(job_id: str) -> dict[str, Any]:
        job = service.jobs.get(job_id)
        # In the dialect that the job was asked for in.
        if "type" in job.client:
            return task_of(service, job, base).model_dump(mode="json", by_alias=True)
        return job_view(service, job, base).model_dump(mode="json")

    return WebhookSender(
        service.jobs.database,
        service.secret,
        describe,
        private_hosts=frozenset(service.config.private_hosts),
    )


def _openapi(app: FastAPI, keyless: bool) -> dict[str, Any]:
    """The description, with the errors that every route may answer."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
        for operations in schema["paths"].values():
            for operation in operations.values():
                answers = operation["responses"]
                # The framework's own description of 422 is not what is answered here.
                if "422" in answers:
                    answers["422"] = {
                        "description": "A value is wrong; the message says which.",
                        "content": error,
                    }
                if "application/json" in operation.get("requestBody", {}).get("content", {}):
                    answers.setdefault(
                        "415", {"description": "The body is not sent as JSON.", "content": error}
                    )
                answers.setdefault("403", {"description": "Another site's page asks.", "content": error})
                answers.setdefault("421", {"description": "Not a name of this service.", "content": error})
                if keyless and "security" in operation:
                    operation["security"] = [*operation["security"], {}]
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("maquette")
    except PackageNotFoundError:
        return "0"
