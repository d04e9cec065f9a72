"""A job as the native API and the web page see it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from worker import verdicts
from worker.api.jobs_schema import FileView, JobError, JobView, StageView, VerdictView
from worker.api.service import Service
from worker.api.tasks_view import REPORT, error_message, preceding, sha_of
from worker.jobs import ArtefactInfo, JobInfo


def files_of(service: Service, base: str, files: list[ArtefactInfo]) -> list[FileView]:
    """With their addresses."""
    return [
        FileView(
            name=file.name,
            role=file.role,  # type: ignore[arg-type]
            stage=file.stage,
            bytes=file.bytes,
            mime=file.mime,
            sha256=file.sha256,
            url=service.artefact_url(base, file.sha256, file.name),
        )
        for file in files
    ]


def report_of(service: Service, job: JobInfo, files: list[ArtefactInfo]) -> dict[str, Any] | None:
    """Its report, once it has succeeded."""
    return service.report(job, sha_of(files, REPORT)) or None if job.state == "succeeded" else None


def safety_of(service: Service, job: JobInfo) -> list[VerdictView]:
    """What the policies said of it so far."""
    return [VerdictView(**asdict(one)) for one in verdicts.of(service.jobs.database, job.id)]


def job_view(service: Service, job: JobInfo, base: str, *, in_list: bool = False) -> JobView:
    """The whole job; in a list without report and place in the queue."""
    files = service.jobs.artefacts(job.id)
    code = job.error_class or ("expired" if job.state == "expired" else None)
    failed = job.state in ("failed", "expired")
    return JobView(
        id=job.id,
        kind=job.kind,
        name=str(job.client.get("name") or ""),
        state=job.state,  # type: ignore[arg-type]
        cancel_requested=job.cancel_requested,
        progress=job.progress,
        prompt=str(job.params.get("prompt") or ""),
        params=job.params,
        priority=job.priority,
        preceding=0 if in_list else preceding(service, job),
        created=job.created,
        started=job.started,
        finished=job.finished,
        expires=job.expires,
        events=job.events,
        stages=[
            StageView(
                name=stage.name,
                state=stage.state,  # type: ignore[arg-type]
                progress=stage.progress,
                message=stage.message,
                attempts=stage.attempts,
                error_class=stage.error_class,
            )
            for stage in job.stages
        ],
        files=files_of(service, base, files),
        error=JobError(code=code or "bug", message=error_message(job)) if failed else None,
        report=None if in_list else report_of(service, job, files),
        safety=[] if in_list else safety_of(service, job),
        from_job=job.client.get("from"),
        batch=job.client.get("batch"),
    )
