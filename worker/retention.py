"""What is forgotten, and when: finished jobs, results, uploads, and bytes that nobody refers to.

Rows go first: a job takes its references with it, a result goes when no job has used it for a while. Then
artefacts are marked by what still refers to them, and swept when nobody has touched them for a grace.
The row of an artefact is locked while its bytes are deleted, and `queue.keep_artefacts` locks it before it
looks for the bytes: a commit either keeps the bytes from the sweep or finds them gone and says so.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, exists, select, union

from worker.database import Database, insert, now
from worker.schema import (
    ACTIVE_JOB_STATES,
    artefact,
    event,
    idempotency,
    job,
    job_artefact,
    job_result,
    result,
    result_file,
    stage,
    upload,
)
from worker.settings import Settings
from worker.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Swept:
    """What a sweep removed."""

    jobs: int
    results: int
    uploads: int
    artefacts: int
    bytes: int
    strangers: int
    """Bytes in the store that no row knew."""
    parts: int
    """Temporary files and folders of writers that died."""


def sweep(database: Database, store: Store, settings: Settings) -> Swept:
    """Forgets all whose time has come."""
    with database.write() as connection:
        jobs = _forget_jobs(connection, settings)
        results = connection.execute(
            delete(result).where(
                result.c.used < now() - settings.keep_results_s,
                ~exists().where(job_result.c.key == result.c.key),
            )
        ).rowcount
        uploads = connection.execute(delete(upload).where(upload.c.expires < now())).rowcount
        connection.execute(delete(idempotency).where(idempotency.c.expires < now()))
    gone, freed = _sweep_artefacts(database, store, settings.sweep_grace_s)
    strangers = _sweep_strangers(database, store, settings.sweep_grace_s)
    parts = store.sweep_parts(settings.sweep_grace_s) + _sweep_scratch(database, settings)
    swept = Swept(jobs, results, uploads, gone, freed, strangers, parts)
    log.info("swept: %s", swept)
    return swept


def _forget_jobs(connection: Connection, settings: Settings) -> int:
    """Jobs that ended long ago, and the steps of progress of all that ended."""
    ended = job.c.state.not_in(ACTIVE_JOB_STATES)
    gone = connection.execute(
        delete(job).where(ended, job.c.finished < now() - settings.keep_jobs_s)
    ).rowcount
    old = select(job.c.id).where(ended, job.c.finished < now() - settings.sweep_s)
    connection.execute(delete(event).where(event.c.type == "progress", event.c.job_id.in_(old)))
    return int(gone)


def _sweep_artefacts(database: Database, store: Store, grace_s: float) -> tuple[int, int]:
    """Artefacts that nothing refers to."""
    marked = union(
        select(job_artefact.c.sha256),
        select(result_file.c.sha256),
        select(upload.c.sha256),
        select(stage.c.checkpoint_sha).where(stage.c.checkpoint_sha.is_not(None)),
    )
    unused = and_(artefact.c.touched < now() - grace_s, artefact.c.sha256.not_in(marked))
    with database.read() as connection:
        found = connection.execute(select(artefact.c.sha256, artefact.c.bytes).where(unused)).all()
    gone = freed = 0
    for sha256, size in found:
        with database.write() as connection:
            same = and_(artefact.c.sha256 == sha256, unused)
            if connection.execute(delete(artefact).where(same)).rowcount:
                store.delete(sha256)
                gone, freed = gone + 1, freed + size
    return gone, freed


def _sweep_strangers(database: Database, store: Store, grace_s: float) -> int:
    """Bytes that were stored by writers that died before their commit."""
    gone = 0
    for stored in store.walk():
        if time.time() - stored.modified < grace_s:
            continue
        with database.read() as connection:
            if connection.execute(select(artefact.c.sha256).filter_by(sha256=stored.sha256)).first():
                continue
        with database.write() as connection:
            # The row is made for its lock; if somebody else makes it now, the bytes are theirs.
            mine = connection.execute(
                insert(connection, artefact)
                .values(sha256=stored.sha256, bytes=stored.bytes, mime="", created=now(), touched=now())
                .on_conflict_do_nothing()
                .returning(artefact.c.sha256)
            ).first()
            if mine is not None:
                store.delete(stored.sha256)
                connection.execute(delete(artefact).where(artefact.c.sha256 == stored.sha256))
                gone += 1
    return gone


def _sweep_scratch(database: Database, settings: Settings) -> int:
    """Folders of attempts that do not run any more."""
    gone = 0
    if not settings.scratch.is_dir():
        return 0
    with database.read() as connection:
        rows = connection.execute(
            select(stage.c.job_id, stage.c.seq, stage.c.epoch).where(stage.c.state == "running")
        )
        running = {f"{row.job_id}.{row.seq}.{row.epoch}" for row in rows}
    for folder in settings.scratch.iterdir():
        # One that was made after the look above is young.
        if folder.name not in running and time.time() - folder.stat().st_mtime > settings.lease_s:
            shutil.rmtree(folder, ignore_errors=True)
            gone += 1
    return gone
