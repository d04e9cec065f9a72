"""What the routes share: the jobs, the settings, the limits, and what a URL of this service looks like."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from fastapi import Request
from sqlalchemy import func, select

from worker import links
from worker.api.config import ApiConfig, writable_formats
from worker.api.errors import ApiError, too_many
from worker.api.rate_limits import RateLimits
from worker.database import now
from worker.fetching import FetchPolicy
from worker.jobs import BusyError, ConflictError, JobInfo, Jobs, Submission
from worker.keys import Quota
from worker.schema import ACTIVE_JOB_STATES, job
from worker.settings import DAY_S, Settings
from worker.tracing import request_traceparent

DECODED_AT_ONCE = 2
"""Pictures: 40 megapixels as RGBA, a copy, and the PNG that is made of them."""


@dataclass
class Service:
    """One API process."""

    jobs: Jobs
    settings: Settings
    config: ApiConfig
    secret: bytes
    limits: RateLimits
    keyless: bool
    """Who asks without a key is the user of this machine."""
    ring: Callable[[str], object]
    """Wakes a worker of a queue; may fail, for the reaper rings again."""

    def __post_init__(self) -> None:
        self.fetch_policy = FetchPolicy(private_hosts=frozenset(self.config.private_hosts))
        self.formats = writable_formats(self.config)
        self.decoding = threading.Semaphore(DECODED_AT_ONCE)
        """Held while a stranger's picture is in memory."""
        # Content never changes under its hash, so what was read once is right for ever.
        self._json = lru_cache(maxsize=512)(self._read_json)

    def submit(self, submission: Submission, owner: str, key: str | None = None) -> JobInfo:
        """Admits a job and rings for it; the job. Errors as `ApiError`."""
        try:
            traced = replace(submission, traceparent=request_traceparent.get())
            done = self.jobs.submit(traced, owner=owner, key=key)
        except BusyError as error:
            raise too_many(str(error), error.retry_after_s, "TooManyPendingTasks") from None
        except ConflictError as error:
            raise ApiError(409, str(error), "IdempotencyMismatch") from None
        made = self.jobs.get(done.job_id, owner=owner)
        if done.created and made.stages:
            self.ring(made.stages[0].queue)
        return made

    def check_quota(self, owner: str, quota: Quota, count: int = 1) -> None:
        """`ApiError` 429 when the owner has too many unfinished jobs or made too many in the last day."""
        created, active = job.c.created > now() - DAY_S, job.c.state.in_(ACTIVE_JOB_STATES)
        for limit, condition, what, wait_s in (
            (quota.unfinished_jobs, active, "unfinished jobs", 30.0),
            (quota.jobs_per_day, created, "jobs in a day", 3600.0),
        ):
            if limit is None:
                continue
            some = select(job.c.id).where(job.c.owner == owner, condition).limit(limit + 1).subquery()
            with self.jobs.database.read() as connection:
                has = connection.execute(select(func.count()).select_from(some)).scalar_one()
            if has + count > limit:
                raise too_many(f"This key may have {limit:,} {what}.", wait_s, "TooManyPendingTasks")

    def base_url(self, request: Request) -> str:
        """Where the client finds this service, without a slash at the end."""
        return (self.config.public_url or str(request.base_url)).rstrip("/")

    def artefact_url(self, base: str, sha256: str, name: str) -> str:
        """The address of a file: for ever the same without keys, signed and dated with them."""
        url = f"{base}/a/{sha256}/{quote(name)}"
        if self.keyless:
            return url
        return f"{url}?t={self._artefact_token(sha256, name)}"

    def _artefact_token(self, sha256: str, name: str) -> str:
        # Dates on a grid: the same link for hours, so that browsers find what they have kept.
        life = self.config.link_life_s
        expires = int((math.floor(time.time() / life) + 2) * life)
        return links.token("artefact", f"{sha256}/{name}", expires, self.secret)

    def share_token(self, job_id: str) -> str:
        """Lets everybody look at a job for a while."""
        expires = int(time.time() + self.config.share_life_s)
        return links.token("share", job_id, expires, self.secret)

    def _read_json(self, sha256: str) -> dict[str, Any]:
        try:
            with self.jobs.store.open(sha256) as file:
                data = json.loads(file.read(4 * 1024**2))
        except (FileNotFoundError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def report(self, job: JobInfo, sha256: str | None) -> dict[str, Any]:
        """What `report.json` says; empty when there is none (yet)."""
        return {} if sha256 is None else self._json(sha256)


def service_of(request: Request) -> Service:
    """The service of the application that got this request."""
    service: Service = request.app.state.service
    return service
