"""What front doors (HTTP, command line, batch) ask of the service: submit, look, cancel, retry, delete.

    jobs = open_jobs(settings)
    done = jobs.submit(Submission("generate", {"prompt": "a barrel", "preset": "draft"}), owner="me")
    jobs.get(done.job_id, owner="me").state

Everything is one transaction. An `owner` restricts to what is theirs (`UnknownJobError` otherwise); None is
the operator. Files are known by the sha256 of their bytes; `Jobs.store` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Row, and_, delete, select

from render.errors import InputError
from worker import queue
from worker.admission import BusyError, ConflictError, Submission, Submitted, admit, check_disk, planned
from worker.database import Database, insert, now
from worker.queue import FileRef
from worker.schema import (
    ACTIVE_JOB_STATES,
    JOB_STATES,
    artefact,
    attempt,
    event,
    idempotency,
    job,
    job_artefact,
    stage,
    upload,
)
from worker.settings import Settings
from worker.store import Store, store_at
from worker.transitions import UnknownJobError

__all__ = [
    "ArtefactInfo",
    "AttemptInfo",
    "BusyError",
    "ConflictError",
    "Event",
    "JobInfo",
    "Jobs",
    "StageInfo",
    "Submission",
    "Submitted",
    "UnknownJobError",
    "open_jobs",
]


@dataclass(frozen=True)
class StageInfo:
    """One stage of a job."""

    name: str
    queue: str
    state: str
    progress: float
    message: str
    attempts: int
    weight: float
    error_class: str | None


@dataclass(frozen=True)
class JobInfo:
    """A job as it is now. Times are seconds since 1970."""

    id: str
    owner: str
    kind: str
    params: dict[str, Any]
    client: dict[str, Any]
    seed: int
    device: str
    model_revisions: dict[str, str]
    state: str
    priority: int
    cancel_requested: bool
    created: float
    started: float | None
    finished: float | None
    expires: float | None
    updated: float
    events: int
    """Number of its last event."""
    error_class: str | None
    error: str | None
    stages: tuple[StageInfo, ...]

    @property
    def progress(self) -> float:
        """Done part in [0, 1], by the stages' weights."""
        if self.state == "succeeded":
            return 1.0
        total = sum(stage.weight for stage in self.stages) or 1.0
        shares = (stage.weight * (1.0 if stage.state == "done" else stage.progress) for stage in self.stages)
        return min(1.0, sum(shares) / total)

    @property
    def stage(self) -> StageInfo | None:
        """The first that is not done."""
        return next((stage for stage in self.stages if stage.state != "done"), None)


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job. Types: `job`, `stage`, `progress`, `warning`."""

    job_id: str
    seq: int
    """1, 2, 3 ... of the job, without gaps."""
    type: str
    data: dict[str, Any]
    created: float


@dataclass(frozen=True)
class ArtefactInfo:
    """A file of a job."""

    name: str
    role: str
    """One of `worker.schema.ROLES`."""
    stage: str | None
    """That made it; None for what was given."""
    sha256: str
    bytes: int
    mime: str


@dataclass(frozen=True)
class AttemptInfo:
    """One try at a stage."""

    stage: str
    epoch: int
    worker: str
    started: float
    ended: float | None
    outcome: str | None
    error: str | None


class Ringer(Protocol):
    """`worker.tasks.Bell`, or a stand-in."""

    def ring(self, queue: str, times: int = 1) -> bool: ...


class Jobs:
    """See the module. Cheap to make; safe to share between threads."""

    def __init__(
        self, database: Database, store: Store, settings: Settings, bell: Ringer | None = None
    ) -> None:
        self.database = database
        self.store = store
        self.settings = settings
        self.bell = bell

    def submit(self, submission: Submission, *, owner: str, key: str | None = None) -> Submitted:
        """Admits a job. With an idempotency `key`, a request that is repeated (even at the same moment)
        makes one job; another request with the same key is a `ConflictError`.

        `InputError` when the request is wrong, `BusyError` when there is no room now. A worker is woken by
        the `bell` that was given to `Jobs`; without one, by the next reaper.
        """
        done, to_ring = admit(self.database, self.store, self.settings, submission, owner, key)
        if to_ring is not None:
            self._ring(to_ring)
        return done

    def check(self, submission: Submission) -> None:
        """`InputError` when `submit` would refuse the request itself, whoever asks and whenever."""
        planned(self.settings, submission)

    def _ring(self, queue_name: str) -> None:
        if self.bell is not None:
            self.bell.ring(queue_name)

    def get(self, job_id: str, *, owner: str | None = None) -> JobInfo:
        """The job as it is now."""
        with self.database.read() as connection:
            row = _job_row(connection, job_id, owner)
            stages = connection.execute(
                select(stage).where(stage.c.job_id == job_id).order_by(stage.c.seq)
            ).all()
        return _info(row, stages)

    def find(
        self,
        *,
        owner: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        text: str | None = None,
        oldest_first: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> list[JobInfo]:
        """Jobs, newest first; `text` is looked for in the parameters (a prompt's words)."""
        if state is not None and state not in JOB_STATES:
            raise InputError(f"state must be one of {', '.join(JOB_STATES)}, not {state!r}.")
        query = select(job).limit(limit).offset(offset)
        query = query.order_by(
            *([job.c.created, job.c.id] if oldest_first else [job.c.created.desc(), job.c.id.desc()])
        )
        for column, value in ((job.c.owner, owner), (job.c.state, state), (job.c.kind, kind)):
            if value is not None:
                query = query.where(column == value)
        if text:
            query = query.where(job.c.params["prompt"].as_string().icontains(text, autoescape=True))
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            ids = [row.id for row in rows]
            found: dict[str, list[Row[Any]]] = {job_id: [] for job_id in ids}
            stages = select(stage).where(stage.c.job_id.in_(ids)).order_by(stage.c.job_id, stage.c.seq)
            for row in connection.execute(stages) if ids else ():
                found[row.job_id].append(row)
        return [_info(row, found[row.id]) for row in rows]

    def ids_beginning(self, beginning: str, limit: int = 2) -> list[str]:
        """Ids of jobs that begin so."""
        query = select(job.c.id).where(job.c.id.startswith(beginning, autoescape=True)).limit(limit)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    def request_cancel(self, job_id: str, *, owner: str | None = None) -> str:
        """Asks for the job's end; its state now. A job that has ended stays as it is."""
        with self.database.read() as connection:
            _job_row(connection, job_id, owner)
        return queue.cancel(self.database, job_id)

    def retry(self, job_id: str, *, owner: str | None = None) -> bool:
        """Puts a failed, canceled or expired job back in the queue, with the stages that it has; False for
        any other."""
        with self.database.read() as connection:
            _job_row(connection, job_id, owner)
        if not queue.retry(self.database, job_id):
            return False
        stage_now = self.get(job_id).stage
        if stage_now is not None:
            self._ring(stage_now.queue)
        return True

    def delete(self, job_id: str, *, owner: str | None = None) -> bool:
        """Forgets a job, and its files unless others have them too; one that is active is cancelled, and
        forgotten when it has ended (False)."""
        if self.request_cancel(job_id, owner=owner) in ACTIVE_JOB_STATES:
            return False
        with self.database.write() as connection:
            connection.execute(delete(idempotency).where(idempotency.c.job_id == job_id))
            connection.execute(delete(job).where(job.c.id == job_id))
        return True

    def events_since(
        self, job_id: str, after: int = 0, *, owner: str | None = None, limit: int = 500
    ) -> list[Event]:
        """A job's events after number `after`, oldest first."""
        with self.database.read() as connection:
            _job_row(connection, job_id, owner)
            rows = connection.execute(
                select(event)
                .where(event.c.job_id == job_id, event.c.seq > after)
                .order_by(event.c.seq)
                .limit(limit)
            ).all()
        return [Event(row.job_id, row.seq, row.type, row.data, row.created) for row in rows]

    def last_events(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Number of the last event of each job: one cheap query for many who wait."""
        with self.database.read() as connection:
            rows = connection.execute(select(job.c.id, job.c.events).where(job.c.id.in_(job_ids)))
            return {row.id: row.events for row in rows}

    def artefacts(self, job_id: str, *, owner: str | None = None) -> list[ArtefactInfo]:
        """The job's files so far."""
        with self.database.read() as connection:
            _job_row(connection, job_id, owner)
            rows = connection.execute(
                select(job_artefact, stage.c.name.label("stage"), artefact.c.bytes, artefact.c.mime)
                .join(artefact, artefact.c.sha256 == job_artefact.c.sha256)
                .outerjoin(stage, and_(stage.c.job_id == job_id, stage.c.seq == job_artefact.c.seq))
                .where(job_artefact.c.job_id == job_id)
                .order_by(job_artefact.c.seq, job_artefact.c.name)
            ).all()
        return [ArtefactInfo(row.name, row.role, row.stage, row.sha256, row.bytes, row.mime) for row in rows]

    def attempts(self, job_id: str, *, owner: str | None = None) -> list[AttemptInfo]:
        """Every try at every stage, oldest first."""
        with self.database.read() as connection:
            _job_row(connection, job_id, owner)
            rows = connection.execute(
                select(attempt, stage.c.name)
                .join(stage, and_(stage.c.job_id == attempt.c.job_id, stage.c.seq == attempt.c.seq))
                .where(attempt.c.job_id == job_id)
                .order_by(attempt.c.seq, attempt.c.epoch)
            ).all()
        return [
            AttemptInfo(row.name, row.epoch, row.worker, row.started, row.ended, row.outcome, row.error)
            for row in rows
        ]

    def add_upload(self, path: Path, *, owner: str, name: str, mime: str) -> str:
        """Takes a file that the front door has checked; its sha256, for `Submission.inputs`."""
        self.check_disk()
        sha256 = self.store.put(path)
        with self.database.write() as connection:
            file = FileRef(sha256, path.stat().st_size, mime)
            queue.keep_artefacts(connection, [file], self.store.has)
            values = {"name": name[:120], "expires": now() + self.settings.keep_uploads_s}
            connection.execute(
                insert(connection, upload)
                .values(owner=owner, sha256=sha256, **values)
                .on_conflict_do_update(index_elements=["owner", "sha256"], set_=values)
            )
        return sha256

    def check_disk(self) -> None:
        """`BusyError` when the disk of artefacts or database is nearly full."""
        check_disk(self.settings, self.database, self.store)


def open_jobs(settings: Settings) -> Jobs:
    """The jobs of the service that the settings name; its tables are brought to this code's version."""
    from worker.migrate import migrate
    from worker.tasks import Bell

    database = Database(settings.database)
    migrate(database)
    return Jobs(database, store_at(settings), settings, Bell(settings))


def _job_row(connection: Connection, job_id: str, owner: str | None) -> Row[Any]:
    row = connection.execute(select(job).where(job.c.id == job_id)).one_or_none()
    if row is None or (owner is not None and row.owner != owner):
        raise UnknownJobError(f"There is no job {job_id[:40]}.")
    return row


def _info(row: Row[Any], stages: Sequence[Row[Any]]) -> JobInfo:
    return JobInfo(
        id=row.id, owner=row.owner, kind=row.kind, params=row.params, client=row.client, seed=row.seed,
        device=row.device, model_revisions=row.model_revisions, state=row.state, priority=row.priority,
        cancel_requested=row.cancel_requested, created=row.created, started=row.started,
        finished=row.finished, expires=row.expires, updated=row.updated, events=row.events,
        error_class=row.error_class, error=row.error,
        stages=tuple(
            StageInfo(
                s.name, s.queue, s.state, s.progress, s.message, s.attempts, s.weight, s.error_class
            )
            for s in stages
        ),
    )  # fmt: skip
