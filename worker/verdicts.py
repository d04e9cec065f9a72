"""What safety policies said of a job: of its prompt, picture, drawn views and finished asset.

Stored beside the job as soon as it is said, whether it passed or not; a stage that is run again says it
again. Times of the database; no lease guards this, since a verdict is about pictures and not about who holds
a stage.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, literal, select

from pipeline.safety import Verdict
from worker.database import Database, insert, now
from worker.schema import verdict as table

SUBJECTS = ("prompt", "picture", "views", "asset")
"""In the order of the work."""


def note(database: Database, job_id: str, verdicts: Iterable[Verdict]) -> None:
    """Stores verdicts of a job; one of the same subject that was there is replaced."""
    with database.write() as connection:
        for one in verdicts:
            values = {
                "allowed": one.allowed,
                "screened": one.screened,
                "policy": one.policy[:80],
                "category": None if one.category is None else one.category[:40],
                "reason": one.reason[:300],
                "score": float(one.score),
                "created": now(),
            }
            connection.execute(
                insert(connection, table)
                .values(job_id=job_id, subject=one.subject, **values)
                .on_conflict_do_update(index_elements=["job_id", "subject"], set_=values)
            )


def of(database: Database, job_id: str) -> list[Verdict]:
    """The verdicts of a job so far, in the order of the work."""
    with database.read() as connection:
        rows = connection.execute(select(table).where(table.c.job_id == job_id)).all()
    found = [Verdict(r.allowed, r.policy, r.category, r.reason, r.score, r.screened, r.subject) for r in rows]
    return sorted(found, key=lambda one: SUBJECTS.index(one.subject))


def copy(connection: Connection, job_id: str, other_id: str) -> None:
    """Gives a new job the verdicts of the one that made the same before."""
    names = [column.name for column in table.columns if column.name != "job_id"]
    kept = select(literal(job_id), *(table.c[name] for name in names)).where(table.c.job_id == other_id)
    connection.execute(table.insert().from_select(["job_id", *names], kept))
