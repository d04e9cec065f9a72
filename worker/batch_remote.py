"""A batch's assets by a service: rows are sent ahead, followed and downloaded.

A row's request has an idempotency key from what it asks for, so that a batch that goes on finds its
jobs again instead of asking twice. Answers 429 and 503 are waited out as `Retry-After` says.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from render.errors import InputError, MaquetteError
from worker.batch import Listener, Made
from worker.manifest import Planned

AHEAD = 32
"""Jobs that are asked for and not yet downloaded."""
POLL_S = 1.0
TRIES = 8
MIMES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class RemoteMaker:
    """See the module. `key` is an API key; None for a service that asks for none."""

    def __init__(
        self,
        server: str,
        key: str | None = None,
        *,
        client: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"--server {server}: give an address such as http://127.0.0.1:8000.")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.client = client or httpx.Client(base_url=server.rstrip("/"), timeout=60.0)
        self.client.headers.update(headers)
        self.sleep = sleep

    def make(
        self, rows: Sequence[Planned], work: Path, listener: Listener, may_start: Callable[[], str | None]
    ) -> Iterator[tuple[Planned, Made | Exception]]:
        waiting = list(reversed(rows))
        running: dict[str, Planned] = {}
        while waiting or running:
            while waiting and len(running) < AHEAD and may_start() is None:
                row = waiting.pop()
                listener.began(row)
                try:
                    running[self._submit(row)] = row
                except InputError as error:
                    yield row, error
            if not running:
                return
            for job_id, row in list(running.items()):
                job = self._ask("GET", f"/v1/jobs/{job_id}")
                if job["state"] in ("queued", "running"):
                    stage = next((s["name"] for s in job["stages"] if s["state"] == "running"), "waiting")
                    listener.progress(row, stage, job["progress"])
                    continue
                del running[job_id]
                if job["state"] == "succeeded":
                    yield row, self._download(job, work / row.key)
                else:
                    reason = (job["error"] or {}).get("message") or f"The job was {job['state']}."
                    yield row, InputError(reason)
            if running:
                self.sleep(POLL_S)

    def _submit(self, row: Planned) -> str:
        asked = row.row
        body: dict[str, Any] = {
            "prompt": asked.prompt, "negative": asked.negative, "preset": asked.preset, "seed": asked.seed,
            "variants": asked.variants, "polycount": asked.polycount, "texture_size": asked.texture_size,
            "height_m": asked.height_m, "formats": list(asked.formats), "name": asked.id, "priority": -1,
        }  # fmt: skip
        if row.image is not None:
            kind = MIMES.get(row.image.suffix.lower())
            if kind is None:
                raise InputError(f"{row.image} is not a PNG, JPEG or WebP image.")
            data = row.image.read_bytes()
            body["image"] = self._ask("POST", "/v1/uploads", content=data, headers={"Content-Type": kind})[
                "id"
            ]
        key = hashlib.sha256(f"batch\n{row.key}".encode()).hexdigest()
        job = self._ask("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})
        if job["state"] in ("failed", "canceled", "expired"):
            # What an earlier go asked for, and did not get.
            job = self._ask("POST", f"/v1/jobs/{job['id']}/retry")
        return str(job["id"])

    def _download(self, job: dict[str, Any], folder: Path) -> Made:
        folder.mkdir(parents=True, exist_ok=True)
        names = []
        for file in job["files"]:
            if file["role"] == "input":
                continue
            name = Path(file["name"]).name
            if name != file["name"] or name.startswith("."):
                raise MaquetteError(f"The service names a file {file['name']!r}.")
            content = self._bytes(file["url"])
            if hashlib.sha256(content).hexdigest() != file["sha256"]:
                raise MaquetteError(f"{name} came damaged from the service.")
            (folder / name).write_bytes(content)
            names.append(name)
        report = job["report"] or {}
        seconds = sum(stage["seconds"] for stage in report.get("stages", ()))
        return Made(tuple(names), report, seconds)

    def _bytes(self, url: str) -> bytes:
        # Only the path: the key belongs to the service that was named, whatever it answers.
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return self._send("GET", path).content

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return self._send(method, path, **options).json()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        reason = ""
        for attempt in range(TRIES):
            wait = min(60.0, 2.0**attempt)
            try:
                answer = self.client.request(method, path, **options)
            except httpx.TransportError as error:
                reason = type(error).__name__
            else:
                if answer.status_code < 400:
                    return answer
                if answer.status_code not in (429, 500, 502, 503, 504):
                    raise _refused(answer)
                reason = f"it answers {answer.status_code}"
                after = answer.headers.get("retry-after", "")
                wait = min(600.0, float(after)) if after.isdigit() else wait
            self.sleep(wait)
        raise MaquetteError(f"The service at {self.client.base_url} cannot be reached: {reason}.")


def _refused(answer: httpx.Response) -> InputError:
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = f"The service answered {answer.status_code}."
    if answer.status_code in (401, 403):
        message = f"{message} Give the key in MAQUETTE_KEY."
    return InputError(str(message))
