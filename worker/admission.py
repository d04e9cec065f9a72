"""Admission: a request becomes a job, or an answer that says why not.

Before the transaction the request is read and understood (`worker.kinds`), since that may take a while and
needs no row. In it, in this order: the idempotency key is taken, the limits are looked at, the job gets its
turn among the owners, its rows are written, and where the same was made before, its end. A refusal leaves
nothing.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, func, select, update

from render.errors import InputError, MaquetteError
from worker import verdicts
from worker.database import Database, insert, now
from worker.kinds import Plan, kind_named
from worker.metrics import count
from worker.queue import succeed_as
from worker.schema import ACTIVE_JOB_STATES, idempotency, job, job_artefact, stage, upload
from worker.settings import DAY_S, Settings
from worker.store import Store
from worker.transitions import write_event

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


def admit(
    database: Database, store: Store, settings: Settings, submission: Submission, owner: str, key: str | None
) -> tuple[Submitted, str | None]:
    """Admits a job; see `worker.jobs.Jobs.submit`. Also the queue whose bell is to be rung, if any."""
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
        with database.read() as connection:
            known = _known(connection, owner, key, request_hash)
        if known is not None:
            return known, None
    plan, device = planned(settings, submission)
    check_disk(settings, database, store)
    with database.write() as connection:
        job_id = new_job_id()
        if key is not None and not _claim_key(connection, owner, key, request_hash, job_id):
            known = _known(connection, owner, key, request_hash)
            assert known is not None
            return known, None
        _check_room(connection, settings, owner)
        turn = _turn(connection, owner, submission.priority)
        answer = _insert(connection, submission, plan, job_id, owner, device, turn)
        if answer is not None:
            succeed_as(connection, job_id, answer)
            verdicts.copy(connection, job_id, answer)
    return Submitted(job_id, True), plan.stages[0].queue if answer is None else None


def planned(settings: Settings, submission: Submission) -> tuple[Plan, str]:
    """A request as its kind understands it, and the device; nothing is written. `InputError` when it is wrong
    or refused."""
    device = admitted_device(submission.params.get("device") or settings.device)
    kind = kind_named(submission.kind, settings.kinds, settings.picture_policy, settings.known_pictures)
    return kind.plan(submission.params, submission.inputs, device), device


def _insert(
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
    connection.execute(update(stage).where(stage.c.job_id == job_id, stage.c.seq == 0).values(rung_at=now()))
    write_event(connection, job_id, "job", {"state": "queued"})
    count(connection, "jobs", {"kind": submission.kind})
    return answer


def check_disk(settings: Settings, database: Database, store: Store) -> None:
    """`BusyError` when the disk of artefacts or database is nearly full."""
    places = [store.folder, database.path.parent if database.path else None]
    for place in places:
        if place is None or not place.is_dir():
            continue
        free = shutil.disk_usage(place).free
        if free < settings.min_free_bytes:
            raise BusyError(f"The disk is nearly full ({free / 1e9:.1f} GB free). Try later.", 300.0)


def _check_room(connection: Connection, settings: Settings, owner: str) -> None:
    """Admission limits; counting stops at the limit."""
    active = job.c.state.in_(ACTIVE_JOB_STATES)
    for limit, condition, whose in (
        (settings.max_active_per_owner, and_(active, job.c.owner == owner), "of yours "),
        (settings.max_active_jobs, active, ""),
    ):
        some = select(job.c.id).where(condition).limit(limit).subquery()
        if connection.execute(select(func.count()).select_from(some)).scalar_one() >= limit:
            raise BusyError(f"{limit:,} jobs {whose}are queued or running. Try later.", 30.0)


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
