"""Models to work on: a former task's GLB, or one that came over the wire as an address or a data URI.

What comes from elsewhere is kept as it is, once its container and its JSON were read within the limits of
`render.gltf_file`; meshes and pictures inside are read where the stages run, and what is wrong with them ends
the job with a message.
"""

from __future__ import annotations

import binascii
import tempfile
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

from render.errors import InputError
from worker.api.auth import Caller
from worker.api.errors import ApiError, too_many
from worker.api.service import Service
from worker.api.submissions import checked_callback, finished_job, renew_upload
from worker.fetching import FetchError, fetch
from worker.jobs import BusyError, JobInfo, Submission

MODEL = "model"
"""Name of the model among a job's inputs."""
MIME = "model/gltf-binary"
MAX_MODEL_BYTES = 64 * 1024 * 1024
_DATA_URI_TYPES = (MIME, "application/octet-stream")


def model_of(
    service: Service, caller: Caller, task_id: str | None, url: str | None
) -> tuple[str, JobInfo | None]:
    """The sha256 of the model as an upload of the caller's, and the job that it comes from."""
    if task_id is not None:
        job = finished_job(service, caller, task_id, "input_task_id")
        return model_of_job(service, caller, job), job
    assert url is not None
    return keep_model(service, caller.owner, _bytes_of_url(service, url)), None


def model_of_job(service: Service, caller: Caller, job: JobInfo) -> str:
    """The job's GLB as an upload of the caller's."""
    files = service.jobs.artefacts(job.id)
    found = next((file for file in files if file.role == "asset" and file.name.endswith(".glb")), None)
    if found is None:
        raise ApiError(409, f"The task {job.id} has no GLB.")
    renew_upload(service, caller.owner, "model", found.sha256, MIME)
    return found.sha256


def keep_model(service: Service, owner: str, data: bytes) -> str:
    """Stores a GLB as an upload; its sha256. `ApiError` 413 or 422 says what is wrong with it."""
    from render.gltf_bounds import check_bounds
    from render.gltf_file import read_gltf

    if len(data) > MAX_MODEL_BYTES:
        raise ApiError(413, f"model_url: the model has more than {MAX_MODEL_BYTES // 2**20} MB.")
    with tempfile.TemporaryDirectory(prefix="maquette-model-") as folder:
        path = Path(folder) / "model.glb"
        path.write_bytes(data)
        if data[:4] != b"glTF":
            raise ApiError(422, "model_url: this is no GLB. Other formats are not read; export it as .glb.")
        try:
            check_bounds(read_gltf(path))
        except InputError as error:
            raise ApiError(422, f"model_url: {str(error).replace('model.glb: ', '', 1)}") from None
        try:
            return service.jobs.add_upload(path, owner=owner, name="model.glb", mime=MIME)
        except BusyError as error:
            raise too_many(str(error), error.retry_after_s) from None


def on_model(
    service: Service,
    kind: str,
    params: dict[str, Any],
    inputs: dict[str, str],
    source: JobInfo | None,
    *,
    client: dict[str, Any],
    priority: int,
    callback_url: str | None,
) -> Submission:
    """A job on a model, which remembers where that comes from."""
    if source is not None:
        name = source.params.get("prompt") or source.client.get("name") or ""
        client = {"from": source.id, **({"name": name} if name else {}), **client}
    return Submission(
        kind,
        {name: value for name, value in params.items() if value is not None},
        inputs,
        priority=priority,
        client=client,
        callback_url=checked_callback(service, callback_url),
    )


def _bytes_of_url(service: Service, url: str) -> bytes:
    if url[:5].lower() != "data:":
        policy = replace(service.fetch_policy, max_bytes=MAX_MODEL_BYTES, timeout_s=60.0)
        try:
            return fetch(url, policy, accept=f"{MIME}, application/octet-stream").body
        except FetchError as error:
            raise ApiError(422, f"model_url: {error}") from None
    head, comma, body = url.partition(",")
    kind, _, encoding = head[5:].lower().partition(";")
    if not comma or encoding != "base64" or kind not in _DATA_URI_TYPES:
        raise ApiError(422, f"model_url: the data URI must begin with data:{MIME};base64,")
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(422, "model_url: the data URI's base64 is damaged.") from None
