"""Numbers about the service for Prometheus, counted in the database so that no process's end loses them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select

from worker.database import Database, insert, now
from worker.schema import ACTIVE_JOB_STATES, artefact, job, stage, tally, webhook_out

ABOUT = {
    "jobs": "Jobs that were admitted.",
    "job_ends": "Jobs that ended, by state.",
    "job_seconds": "Seconds from their admission to their end.",
    "stage_ends": "Attempts at stages, by their outcome; worker_lost are leases that ran out.",
    "stage_seconds": "Seconds that attempts took.",
}


def count(connection: Connection, name: str, labels: Mapping[str, str], by: float = 1.0) -> None:
    """Adds to a counter, in the transaction of what is counted."""
    text = json.dumps(dict(labels), sort_keys=True, separators=(",", ":"))[:160]
    connection.execute(
        insert(connection, tally)
        .values(name=name, labels=text, value=by)
        .on_conflict_do_update(index_elements=["name", "labels"], set_={"value": tally.c.value + by})
    )


def exposition(database: Database) -> bytes:
    """All numbers in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Numbers(database))
    return generate_latest(registry)


class _Numbers:
    """A collector that asks the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        with self._database.read() as connection:
            yield from _counters(connection)
            yield from _gauges(connection)


def _counters(connection: Connection) -> Iterator[Metric]:
    found: dict[str, CounterMetricFamily] = {}
    for row in connection.execute(select(tally).order_by(tally.c.name, tally.c.labels)):
        labels = json.loads(row.labels)
        if row.name not in found:
            about = ABOUT.get(row.name, row.name)
            found[row.name] = CounterMetricFamily(f"maquette_{row.name}", about, labels=sorted(labels))
        found[row.name].add_metric([labels[name] for name in sorted(labels)], row.value)
    yield from found.values()


def _gauges(connection: Connection) -> Iterator[Metric]:
    waiting = select(stage.c.queue, stage.c.state, func.count()).where(
        stage.c.state.in_(("ready", "delayed", "running"))
    )
    stages = GaugeMetricFamily("maquette_stages", "Stages by queue and state.", labels=["queue", "state"])
    for queue, state, number in connection.execute(waiting.group_by(stage.c.queue, stage.c.state)):
        stages.add_metric([queue, state], number)
    yield stages
    age = GaugeMetricFamily(
        "maquette_queue_age_seconds", "How long the oldest ready stage's job has waited.", labels=["queue"]
    )
    oldest = (
        select(stage.c.queue, now() - func.min(job.c.created))
        .join(job, job.c.id == stage.c.job_id)
        .where(stage.c.state == "ready")
        .group_by(stage.c.queue)
    )
    for queue, seconds in connection.execute(oldest):
        age.add_metric([queue], max(0.0, seconds))
    yield age
    jobs = GaugeMetricFamily("maquette_jobs_active", "Jobs by state.", labels=["state"])
    active = select(job.c.state, func.count()).where(job.c.state.in_(ACTIVE_JOB_STATES))
    for state, number in connection.execute(active.group_by(job.c.state)):
        jobs.add_metric([state], number)
    yield jobs
    hooks = GaugeMetricFamily("maquette_webhooks", "Webhooks by state.", labels=["state"])
    asked = select(webhook_out.c.state, func.count()).group_by(webhook_out.c.state)
    for state, number in connection.execute(asked):
        hooks.add_metric([state], number)
    yield hooks
    held = connection.execute(select(func.count(), func.coalesce(func.sum(artefact.c.bytes), 0))).one()
    yield GaugeMetricFamily("maquette_artefacts", "Files in the artefact store.", value=held[0])
    yield GaugeMetricFamily("maquette_artefact_bytes", "Their size.", value=float(held[1]))
