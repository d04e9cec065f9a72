"""The service's numbers in Prometheus' text format: counters as they were counted in the database, and the
queue as it is now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from sqlalchemy import func, select

from worker.database import Database, now
from worker.schema import job, stage, tally, webhook_out

PREFIX = "maquette_"
HELP = {
    "jobs": "Jobs that were admitted.",
    "job_ends": "Jobs that ended, by kind and state.",
    "job_seconds": "Time from submission to end of those.",
    "stage_ends": "Attempts at stages that ended, by outcome.",
    "stage_seconds": "Time that those took.",
    "lease_expiries": "Leases that ran out: workers that died or hung.",
}
_GAUGES = {
    "stages": "Stages that are ready, delayed or running.",
    "queue_age_seconds": "Age of the oldest ready stage.",
    "active_jobs": "Jobs that are queued or running.",
    "webhooks": "Webhooks by state.",
}


def exposition(database: Database) -> str:
    """All of it."""
    with database.read() as connection:
        counters = connection.execute(select(tally).order_by(tally.c.name, tally.c.labels)).all()
        states = connection.execute(
            select(stage.c.queue, stage.c.state, func.count())
            .where(stage.c.state.in_(("ready", "delayed", "running")))
            .group_by(stage.c.queue, stage.c.state)
        ).all()
        ages = connection.execute(
            select(stage.c.queue, func.max(now() - job.c.updated))
            .join(job, job.c.id == stage.c.job_id)
            .where(stage.c.state == "ready")
            .group_by(stage.c.queue)
        ).all()
        active = connection.execute(
            select(job.c.state, func.count())
            .where(job.c.state.in_(("queued", "running")))
            .group_by(job.c.state)
        ).all()
        hooks = connection.execute(
            select(webhook_out.c.state, func.count()).group_by(webhook_out.c.state)
        ).all()
    lines: list[str] = []
    names = list(dict.fromkeys(row.name for row in counters))
    for name in names:
        rows = [(json.loads(row.labels), row.value) for row in counters if row.name == name]
        lines += _family(f"{name}_total", "counter", HELP.get(name, name.replace("_", " ")), rows)
    lines += _family(
        "stages", "gauge", _GAUGES["stages"], [({"queue": q, "state": s}, n) for q, s, n in states]
    )
    lines += _family(
        "queue_age_seconds",
        "gauge",
        _GAUGES["queue_age_seconds"],
        [({"queue": q}, max(0.0, float(age))) for q, age in ages],
    )
    lines += _family("active_jobs", "gauge", _GAUGES["active_jobs"], [({"state": s}, n) for s, n in active])
    lines += _family("webhooks", "gauge", _GAUGES["webhooks"], [({"state": s}, n) for s, n in hooks])
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, rows: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    lines = [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]
    for labels, value in rows:
        inside = ",".join(f'{key}="{_escaped(str(label))}"' for key, label in sorted(labels.items()))
        lines.append(
            f"{PREFIX}{name}{{{inside}}} {float(value):.17g}" if inside else f"{PREFIX}{name} {value:.17g}"
        )
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
