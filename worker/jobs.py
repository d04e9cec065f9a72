"""What front doors (HTTP, command line, batch) ask of the service: submit, look, cancel, retry, delete.

    jobs = open_jobs(settings)
    done = jobs.submit(Submission("generate", {"prompt": "a barrel", "preset": "draft"}), owner="me")
    jobs.get(done.job_id, owner="me").state

Everything is one transaction. An `owner` restricts to what is theirs (`UnknownJobError` otherwise); None is
the operator. Files are known by the sha256 of their bytes; `Jobs.store` has them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Row, and_, delete, func, select, update

from render.errors import InputError, MaquetteError
from worker import queue
from worker.database import Database, insert, now
from worker.kinds import Plan, kind_named
from worker.metrics import count
from worker.queue import FileRef, UnknownJobError
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
from worker.settings import DAY_S, Settings
from worker.store import Store, store_at

KEY_LIFE_S = DAY_S
"""How long an idempotency key is remembered."""
PRIORITIES = (-100, 100)
MAX_PARAMS_BYTES = 256 * 1024


class ConflictError(MaquetteError):
    """The idempotency key was used for another request."""

    exit_code = 2


class BusyError(MaquetteError):
    """Not now: too much is queued, or the disk is full. The second argument is when to ask again, seconds."""

    def __init__(self, message: str, retry_after_s: float = 30.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Submission:
    """A request for a job."""

    kind: str
    params: Mapping[str, Any]
    """The kind's own; see its module (`worker.generation.GenerateParams`)."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """sha256 of uploads (`Jobs.add_upload`) by the name that the kind knows them by, such as `image`."""
    priority: int = 0
    client: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that the front door wants to find again; no part of the request's identity."""
    callback_url: str | None = None
    """Gets a webhook at the job's end: a row of `webhook_out`."""
    wait_s: float | None = None
    """The job ends as `expired` when no worker began it for so long."""
    traceparent: str | None = None


@dataclass(frozen=True)
class Submitted:
    """The answer to a submission."""

    job_id: str
    created: bool
    """False: the key was used before for the same request, and this is the job it made."""


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
    """One thing that happened to a job. Types: `job`, `stage`, `progress`."""

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
        low, high = PRIORITIES
        if not low <= submission.priority <= high:
            raise InputError(f"priority must be between {low} and {high}, not {submission.priority}.")
        if key is not None and not 1 <= len(key) <= 255:
            raise InputError(f"The idempotency key must have 1 to 255 characters, not {len(key)}.")
        asked = canonical({"kind": submission.kind, "params": submission.params, "inputs": submission.inputs})
        if len(asked) > MAX_PARAMS_BYTES:
            raise InputError(f"The request has {len(asked):,} bytes; at most {MAX_PARAMS_BYTES:,} are read.")
        request_hash = hashlib.sha256(asked).hexdigest()
        if key is not None:
            with self.database.read() as connection:
                known = _known(connection, owner, key, request_hash)
            if known is not None:
                return known
        device = admitted_device(submission.params.get("device") or self.settings.device)
        kind = kind_named(submission.kind, self.settings.kinds)
        plan = kind.plan(submission.params, submission.inputs, device)
        self.check_disk()
        with self.database.write() as connection:
            job_id = new_job_id()
            if key is not None and not _claim_key(connection, owner, key, request_hash, job_id):
                known = _known(connection, owner, key, request_hash)
                assert known is not None
                return known
            self._check_room(connection, owner)
            turn = _turn(connection, owner, submission.priority)
            answer = self._insert(connection, submission, plan, job_id, owner, device, turn)
            if answer is not None:
                queue.succeed_as(connection, job_id, answer)
        if answer is None:
            self._ring(plan.stages[0].queue)
        return Submitted(job_id, True)

    def _ring(self, queue_name: str) -> None:
        if self.bell is not None:
            self.bell.ring(queue_name)

    def _insert(
        self,
        connection: Connection,
        submission: Submission,
        plan: Plan,
        job_id: str,
        owner: str,
        device: str,
        turn: int,
    ) -> str | None:
        """The rows of a job; the id of one that made the same before, if any."""
        described = canonical({"kind": submission.kind, "params": plan.params, "inputs": submission.inputs})
        params_hash = hashlib.sha256(described).hexdigest()
        code_version = plan.revision or version("maquette")
        same = select(job.c.id).where(
            job.c.params_hash == params_hash,
            job.c.code_version == code_version,
            job.c.device == device,
            job.c.state == "succeeded",
        )
        answer = connection.execute(same.limit(1)).scalar_one_or_none() if plan.revision else None
        connection.execute(
            job.insert().values(
                id=job_id, owner=owner, kind=submission.kind, params=plan.params,
                params_hash=params_hash, client=dict(submission.client),
                seed=plan.seed, device=device, code_version=code_version, model_revisions={},
                state="queued", priority=submission.priority, turn=turn, cancel_requested=False, events=0,
                created=now(), updated=now(),
                expires=None if submission.wait_s is None else now() + submission.wait_s,
                callback_url=submission.callback_url, traceparent=submission.traceparent,
            )
        )  # fmt: skip
        for name, sha256 in submission.inputs.items():
            given = connection.execute(
                select(upload.c.sha256).where(upload.c.owner == owner, upload.c.sha256 == sha256)
            ).first()
            if given is None:
                raise InputError(f"{name}: there is no upload {sha256[:16]}. Upload the file first.")
            connection.execute(
                job_artefact.insert().values(job_id=job_id, name=name, seq=-1, role="input", sha256=sha256)
            )
        rows = [
            {
                "job_id": job_id, "seq": seq, "name": planned.name, "queue": planned.queue,
                "weight": planned.weight, "priority": submission.priority, "turn": turn,
                "state": "blocked" if seq else "ready", "epoch": 0, "attempts": 0, "progress": 0.0,
                "message": "",
            }
            for seq, planned in enumerate(plan.stages)
        ]  # fmt: skip
        connection.execute(stage.insert(), rows)
        connection.execute(
            update(stage).where(stage.c.job_id == job_id, stage.c.seq == 0).values(rung_at=now())
        )
        queue.write_event(connection, job_id, "job", {"state": "queued"})
        count(connection, "jobs", {"kind": submission.kind})
        return answer

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
            queue.keep_artefact(connection, file, self.store.has)
            values = {"name": name[:120], "expires": now() + self.settings.keep_uploads_s}
            connection.execute(
                insert(connection, upload)
                .values(owner=owner, sha256=sha256, **values)
                .on_conflict_do_update(index_elements=["owner", "sha256"], set_=values)
            )
        return sha256

    def check_disk(self) -> None:
        """`BusyError` when the disk of artefacts or database is nearly full."""
        places = [self.store.folder, self.database.path.parent if self.database.path else None]
        for place in places:
            if place is None or not place.is_dir():
                continue
            free = shutil.disk_usage(place).free
            if free < self.settings.min_free_bytes:
                raise BusyError(f"The disk is nearly full ({free / 1e9:.1f} GB free). Try later.", 300.0)

    def _check_room(self, connection: Connection, owner: str) -> None:
        """Admission limits; counting stops at the limit."""
        active = job.c.state.in_(ACTIVE_JOB_STATES)
        for limit, condition, whose in (
            (self.settings.max_active_per_owner, and_(active, job.c.owner == owner), "of yours "),
            (self.settings.max_active_jobs, active, ""),
        ):
            some = select(job.c.id).where(condition).limit(limit).subquery()
            if connection.execute(select(func.count()).select_from(some)).scalar_one() >= limit:
                raise BusyError(f"{limit:,} jobs {whose}are queued or running. Try later.", 30.0)


def open_jobs(settings: Settings) -> Jobs:
    """The jobs of the service that the settings name; its tables are brought to this code's version."""
    from worker.migrate import migrate
    from worker.tasks import Bell

    database = Database(settings.database)
    migrate(database)
    return Jobs(database, store_at(settings), settings, Bell(settings))


def canonical(value: Any) -> bytes:
    """JSON that is equal for equal values."""
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The request is not made of plain values: {error}.") from None


def _plain(value: Any) -> Any:
    return {str(key): _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def new_job_id() -> str:
    """A UUID of version 7: jobs sort by age."""
    value = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | secrets.randbits(76)
    value = value & ~(0xC << 60) | 0x8 << 60
    text = f"{value & (1 << 128) - 1:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def admitted_device(device: str) -> str:
    """`cpu` or `cuda`; `auto` is what this machine has."""
    if device in ("cpu", "cuda"):
        return device
    if device != "auto":
        raise InputError(f"device must be auto, cpu or cuda, not {device!r}.")
    return "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"


def _turn(connection: Connection, owner: str, priority: int) -> int:
    """The start tag of a job by start-time fair queueing (Goyal, Vin, Cheng 1996), every job costing one.

    It comes after all of its owner's jobs, but not after those of others who asked for many: two owners
    with queues are served in turn, and who comes late does not wait for the whole queue of who came early.
    """
    active = and_(job.c.state.in_(ACTIVE_JOB_STATES), job.c.priority == priority)
    served = connection.execute(select(func.min(job.c.turn)).where(active)).scalar_one()
    own = connection.execute(select(func.max(job.c.turn)).where(active, job.c.owner == owner)).scalar_one()
    if own is not None:
        return int(own) + 1
    return 1 if served is None else int(served)


def _claim_key(connection: Connection, owner: str, key: str, request_hash: str, job_id: str) -> bool:
    """Takes an idempotency key for a job; False when another has it. A key that is too old is free."""
    values = {"request_hash": request_hash, "job_id": job_id, "expires": now() + KEY_LIFE_S}
    taken = connection.execute(
        insert(connection, idempotency)
        .values(owner=owner, key=key, **values)
        .on_conflict_do_update(
            index_elements=["owner", "key"], set_=values, where=idempotency.c.expires < now()
        )
        .returning(idempotency.c.job_id)
    ).scalar_one_or_none()
    return taken == job_id


def _known(connection: Connection, owner: str, key: str, request_hash: str) -> Submitted | None:
    row = connection.execute(
        select(idempotency).where(
            idempotency.c.owner == owner, idempotency.c.key == key, idempotency.c.expires >= now()
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request_hash != request_hash:
        raise ConflictError("The idempotency key was used for another request. Use a new one.")
    return Submitted(row.job_id, False)


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
