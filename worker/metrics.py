"""Numbers about the service for Prometheus, counted in the database so that no process's end loses them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from sqlalchemy import Connection, func, select

from worker.database import Database, at_the_end, now
from worker.schema import ACTIVE_JOB_STATES, artefact, job, stage, tally, webhook_out
from worker.statements import counted

ABOUT = {
    "jobs": "Jobs that were admitted.",
    "job_ends": "Jobs that ended, by state.",
    "job_seconds": "Seconds from their admission to their end.",
    "stage_ends": "Attempts at stages, by their outcome; worker_lost are leases that ran out.",
    "stage_seconds": "Seconds that attempts took.",
    "durations": "How long attempts at stages took, by their outcome.",
    "asset_quality": "Numbers of finished assets by model revision and preset; sum / count is the mean.",
}


QUALITY_SUM, QUALITY_COUNT = "asset_quality_sum", "asset_quality_count"
"""Counted by `worker.quality`."""
BUCKETS_S = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Upper bounds of the seconds that attempts took."""


def bucket_of(seconds: float) -> str:
    """The label `le` of the first bound that is not exceeded."""
    return next((f"{bound:g}" for bound in BUCKETS_S if seconds <= bound), "+Inf")


def count(connection: Connection, name: str, labels: Mapping[str, str], by: float = 1.0) -> None:
    """Adds to a counter, in the transaction of what is counted, at its end."""
    text = json.dumps(dict(labels), sort_keys=True, separators=(",", ":"))[:160]
    at_the_end(connection, _Counts).sums[name, text] += by


class _Counts:
    """What a transaction counted, by name and labels. Written in one order, so that two do not wait for each
    other; last, because all transactions share these rows."""

    place = 2

    def __init__(self) -> None:
        self.sums: defaultdict[tuple[str, str], float] = defaultdict(float)

    def write(self, connection: Connection) -> None:
        sums = sorted(self.sums.items())
        rows = [{"name": name, "labels": text, "value": by} for (name, text), by in sums]
        connection.execute(counted(connection.dialect.name), rows)


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
    sums: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    buckets: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for row in connection.execute(select(tally).order_by(tally.c.name, tally.c.labels)):
        labels = json.loads(row.labels)
        bound = labels.pop("le", None)
        key = tuple(sorted(labels.items()))
        own = sums.setdefault(row.name, {})
        own[key] = own.get(key, 0.0) + row.value
        if bound is not None:
            counted_in = buckets.setdefault(key, {})
            counted_in[bound] = counted_in.get(bound, 0.0) + row.value
    seconds = sums.get("stage_seconds", {})
    quality = {name: sums.pop(name, {}) for name in (QUALITY_SUM, QUALITY_COUNT)}
    for name, own in sums.items():
        about = ABOUT.get(name, name)
        family = CounterMetricFamily(f"maquette_{name}", about, labels=[k for k, _ in next(iter(own))])
        for key, value in own.items():
            family.add_metric([v for _, v in key], value)
        yield family
    if buckets:
        yield _durations(buckets, seconds)
    if quality[QUALITY_COUNT]:
        names = [k for k, _ in next(iter(quality[QUALITY_COUNT]))]
        assets = SummaryMetricFamily("maquette_asset_quality", ABOUT["asset_quality"], labels=names)
        for key, number in quality[QUALITY_COUNT].items():
            assets.add_metric([v for _, v in key], int(number), quality[QUALITY_SUM].get(key, 0.0))
        yield assets


def _durations(
    buckets: Mapping[tuple[tuple[str, str], ...], Mapping[str, float]],
    seconds: Mapping[tuple[tuple[str, str], ...], float],
) -> Metric:
    """Attempts by how long they took; each bucket has all that took less, as Prometheus wants it."""
    names = [k for k, _ in next(iter(buckets))]
    family = HistogramMetricFamily("maquette_stage_duration_seconds", ABOUT["durations"], labels=names)
    for key, own in buckets.items():
        total, rising = 0.0, []
        for bound in (*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"):
            total += own.get(bound, 0.0)
            rising.append((bound, total))
        family.add_metric([v for _, v in key], rising, seconds.get(key, 0.0))
    return family


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
