"""From what clients ask to what the queue takes: pictures become uploads, tasks on tasks become new jobs
that share stages with the old ones.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.picture_safety import picture_policy, screen_pictures
from worker.api.auth import Caller
from worker.api.errors import ApiError, not_found, too_many
from worker.api.images import image_of_url
from worker.api.service import Service
from worker.api.tasks_view import REPORT, kept_seed, sha_of
from worker.fetching import FetchError, checked_target
from worker.generation import IMAGE
from worker.jobs import BusyError, JobInfo, Submission, UnknownJobError


def not_yet(what: str, instead: str) -> ApiError:
    """What is missing and what to do. 422 rather than 501: clients try again what answers 5xx."""
    return ApiError(422, f"{what} is not possible yet. {instead}", "NotImplemented")


def checked_formats(service: Service, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Formats for the workers, GLB always first: the page shows it."""
    missing = [name for name in asked or () if name not in service.formats]
    if missing:
        known = ", ".join(sorted(service.formats))
        raise not_yet(f"Writing {missing[0]}", f"This service writes {known}.")
    return tuple(dict.fromkeys(("glb", *(asked or ()))))


def checked_callback(service: Service, url: str | None) -> str | None:
    """A receiver's address that may be called; `ApiError` 422 names what is wrong with it."""
    if url is None:
        return None
    try:
        checked_target(url, service.fetch_policy)
    except FetchError as error:
        raise ApiError(422, f"callback_url: {error}") from None
    return url


def keep_picture(service: Service, owner: str, png: bytes) -> str:
    """Stores a clean picture as an upload, unless the policy refuses it; its sha256."""
    screen_at_the_door(service, png)
    with tempfile.TemporaryDirectory(prefix="maquette-upload-") as folder:
        path = Path(folder) / "picture.png"
        path.write_bytes(png)
        try:
            return service.jobs.add_upload(path, owner=owner, name="picture.png", mime="image/png")
        except BusyError as error:
            raise too_many(str(error), error.retry_after_s) from None


def picture_of(service: Service, owner: str, url: str) -> str:
    """The picture at an address or in a data URI as an upload."""
    return keep_picture(service, owner, image_of_url(url, service.fetch_policy, service.decoding))


def screen_at_the_door(service: Service, png: bytes) -> None:
    """Asks a light picture policy at once (`RefusedError`); any other is asked where the stages run."""
    screening = picture_policy(service.settings.picture_policy, service.settings.known_pictures)
    if screening.light:
        with Image.open(io.BytesIO(png)) as picture:
            screen_pictures(screening, [picture], "picture")


def asked_job(service: Service, caller: Caller, job_id: str) -> JobInfo:
    """A job of the caller's; 404 when it is not there or somebody else's."""
    try:
        return service.jobs.get(job_id, owner=caller.sees)
    except UnknownJobError:
        raise not_found("task", job_id) from None


def finished_job(service: Service, caller: Caller, job_id: str, field: str) -> JobInfo:
    """A job to go on from."""
    job = asked_job(service, caller, job_id)
    if job.state != "succeeded":
        raise ApiError(409, f"{field}: the task {job_id} is {job.state}; it must have succeeded.")
    return job


def continued(
    service: Service,
    caller: Caller,
    job: JobInfo,
    changes: dict[str, Any],
    *,
    seed: int | None = None,
    client: dict[str, Any],
    priority: int = 0,
    callback_url: str | None = None,
) -> Submission:
    """The job's request with changes, on the seed that it kept."""
    files = service.jobs.artefacts(job.id)
    params = {name: value for name, value in job.params.items() if value is not None}
    if job.kind != "rework":
        if seed is None:
            seed = kept_seed(job, service.report(job, sha_of(files, REPORT)))
        if seed is None:
            raise ApiError(409, "The variant that was kept is not known; give a seed.")
        params["seed"] = seed
    if job.kind == "generate":
        params["variants"] = 1
    params |= {name: value for name, value in changes.items() if value is not None}
    inputs = {file.name: file.sha256 for file in files if file.role == "input"}
    mimes = {file.name: file.mime for file in files}
    for name, sha256 in inputs.items():
        renew_upload(service, caller.owner, name, sha256, mimes[name])
    return Submission(
        job.kind,
        params,
        inputs,
        priority=priority,
        client={"from": job.id, **({"image": True} if IMAGE in inputs else {}), **client},
        callback_url=checked_callback(service, callback_url),
    )


def renew_upload(service: Service, owner: str, name: str, sha256: str, mime: str) -> None:
    """A file of an old job as an upload again, which had its own, shorter life."""
    with tempfile.TemporaryDirectory(prefix="maquette-upload-") as folder:
        path = Path(folder) / "input"
        try:
            service.jobs.store.fetch(sha256, path)
        except FileNotFoundError:
            raise ApiError(409, f"The {name} of that task is no longer kept. Upload it again.") from None
        service.jobs.add_upload(path, owner=owner, name=name, mime=mime)
