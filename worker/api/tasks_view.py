"""A job as Meshy's clients read it, and the numbers that only the finished asset knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, or_, select

from worker.api.service import Service
from worker.api.tasks_schema import ModelUrls, Status, Task, TaskError, TaskType, TextureUrls
from worker.jobs import ArtefactInfo, JobInfo
from worker.schema import job as job_table
from worker.schema import stage as stage_table

STATUS: dict[str, Status] = {
    "queued": "PENDING",
    "running": "IN_PROGRESS",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "canceled": "CANCELED",
    "expired": "FAILED",
}
SUFFIXES = (
    (".splat.ply", "splat"),
    (".glb", "glb"),
    (".gltf", "gltf"),
    (".fbx", "fbx"),
    (".obj", "obj"),
    (".mtl", "mtl"),
    (".usdz", "usdz"),
    (".stl", "stl"),
    (".3mf", "three_mf"),
    (".blend", "blend"),
    (".spz", "spz"),
    (".ply", "ply"),
)
MAPS = ("base_color", "metallic", "roughness", "normal", "emission")
PREVIEW, TURNTABLE, REPORT, RECEIPT = "preview.png", "turntable.mp4", "report.json", "receipt.json"


def task_type(job: JobInfo) -> TaskType:
    """What kind of task made the job; jobs of the native API look like their nearest relative."""
    known: TaskType | None = job.client.get("type")
    if known is None and job.kind != "generate":
        return "retexture" if job.kind == "retexture" else "convert"
    return known or ("image-to-3d" if job.client.get("image") else "text-to-3d-preview")


def error_message(job: JobInfo) -> str:
    """For people; empty while nothing went wrong."""
    if job.state == "failed":
        return job.error or "The task failed."
    if job.state == "expired":
        return "No worker was free in the time that it was to wait."
    return ""


def kept_seed(job: JobInfo, report: dict[str, Any]) -> int | None:
    """The seed of the asset: of several variants only the report says which was kept."""
    if isinstance(report.get("seed"), int):
        return int(report["seed"])
    return job.seed if job.params.get("variants", 1) == 1 else None


def sha_of(files: Sequence[ArtefactInfo], name: str) -> str | None:
    return next((file.sha256 for file in files if file.name == name), None)


def preceding(service: Service, job: JobInfo) -> int:
    """Jobs whose first stage is claimed before this one's. Counting stops at 10,000."""
    if job.state != "queued":
        return 0
    waiting = stage_table.c
    own = select(waiting.priority, waiting.turn, waiting.id).where(waiting.job_id == job.id, waiting.seq == 0)
    with service.jobs.database.read() as connection:
        row = connection.execute(own).one_or_none()
        if row is None:
            return 0
        before = or_(
            waiting.priority > row.priority,
            (waiting.priority == row.priority) & (waiting.turn < row.turn),
            (waiting.priority == row.priority) & (waiting.turn == row.turn) & (waiting.id < row.id),
        )
        some = (
            select(waiting.id)
            .where(waiting.seq == 0, waiting.state.in_(("ready", "delayed")), before)
            .limit(10_000)
            .subquery()
        )
        return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def task_of(service: Service, job: JobInfo, base: str, *, in_list: bool = False) -> Task:
    """The whole task; in a list without the place in the queue."""
    files = service.jobs.artefacts(job.id)
    urls = {file.name: service.artefact_url(base, file.sha256, file.name) for file in files}
    report = service.report(job, sha_of(files, REPORT)) if job.state == "succeeded" else {}
    models: dict[str, str] = {}
    textures: dict[str, str] = {}
    if job.state == "succeeded":
        for file in files:
            if file.role != "asset":
                continue
            suffix = next((key for end, key in SUFFIXES if file.name.endswith(end)), None)
            if suffix is not None:
                models.setdefault(suffix, urls[file.name])
            for name in MAPS:
                if file.mime.startswith("image/") and name in file.name:
                    textures.setdefault(name, urls[file.name])
    asset = report.get("asset", {})
    running = job.stage if job.state == "running" else None
    progress = 100 if job.state == "succeeded" else min(99, int(job.progress * 100))
    return Task(
        id=job.id,
        type=task_type(job),
        name=str(job.client.get("name") or ""),
        prompt=str(job.params.get("prompt") or ""),
        negative_prompt=str(job.params.get("negative") or ""),
        status=STATUS[job.state],
        progress=progress,
        created_at=_ms(job.created),
        started_at=_ms(job.started),
        finished_at=_ms(job.finished),
        expires_at=_ms(job.expires) if job.state not in ("queued", "running") else 0,
        preceding_tasks=0 if in_list else preceding(service, job),
        model_urls=ModelUrls(**models),
        texture_urls=[TextureUrls(**textures)] if textures else [],
        thumbnail_url=urls.get(PREVIEW, ""),
        video_url=urls.get(TURNTABLE, ""),
        consumed_credits=0,
        task_error=TaskError(message=error_message(job)),
        seed=kept_seed(job, report),
        preset=str(job.params.get("preset") or ""),
        stage=running.name if running is not None else "",
        vertex_count=asset.get("vertices"),
        face_count=asset.get("triangles"),
        report_url=urls.get(REPORT, ""),
        receipt_url=urls.get(RECEIPT, ""),
        priority=job.priority,
    )


def jobs_of_types(
    service: Service,
    types: Sequence[str],
    owner: str | None,
    *,
    limit: int,
    offset: int,
    oldest_first: bool,
) -> list[JobInfo]:
    """Jobs that were made by the endpoints of these types."""
    made_by = job_table.c.client["type"].as_string()
    order = (job_table.c.created, job_table.c.id)
    query = (
        select(job_table.c.id)
        .where(made_by.in_(types))
        .order_by(*(order if oldest_first else (column.desc() for column in order)))
        .limit(limit)
        .offset(offset)
    )
    if owner is not None:
        query = query.where(job_table.c.owner == owner)
    with service.jobs.database.read() as connection:
        ids = connection.execute(query).scalars().all()
    return [service.jobs.get(job_id, owner=owner) for job_id in ids]


def _ms(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * 1000)
