"""What the queue costs: claims with few and many waiting, and stages a second through the whole engine.

    python -m bench.job_queue                                            # SQLite, a temporary folder
    python -m bench.job_queue --database postgresql+psycopg://u@host/db  # an empty database

First one process claims and commits with 100 to 100,000 stages ready, without workers: the claim's time
should not grow. Then `--jobs` probes of three stages that do nothing go through real workers, one of each
queue and a second of `cpu`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from tests.worker.stack import stack_at
from worker import queue
from worker.admission import new_job_id
from worker.jobs import Jobs, Submission, open_jobs
from worker.queue import Outcome
from worker.schema import attempt, job, stage
from worker.settings import load_settings

KINDS = ("tests.worker.probe:PROBE",)


def fill(jobs: Jobs, total: int) -> None:
    """As many ready stages, of copies of one job, by 50 owners."""
    template_id = jobs.submit(Submission("probe", {"queues": ["gpu"]}), owner="owner").job_id
    with jobs.database.write() as connection:
        one = connection.execute(select(job).where(job.c.id == template_id)).one()._asdict()
        its = connection.execute(select(stage).where(stage.c.job_id == template_id)).one()._asdict()
        del its["id"]
        have = connection.execute(select(func.count()).select_from(job)).scalar_one()
        for begin in range(have, total, 2000):
            numbers = range(begin, min(total, begin + 2000))
            ids = [new_job_id() for _ in numbers]
            owners = [f"owner{i % 50}" for i in numbers]
            turns = [i // 50 + 1 for i in numbers]
            connection.execute(
                job.insert(),
                [{**one, "id": a, "owner": b, "turn": c} for a, b, c in zip(ids, owners, turns, strict=True)],
            )
            connection.execute(
                stage.insert(), [{**its, "job_id": a, "turn": c} for a, c in zip(ids, turns, strict=True)]
            )
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE")


def claims(jobs: Jobs, number: int = 40) -> dict[str, float]:
    """Milliseconds of a claim and of a commit, the medians."""
    took: dict[str, list[float]] = {"claim": [], "commit": [], "submit": []}
    for i in range(number):
        start = time.perf_counter()
        held = queue.claim(jobs.database, "gpu", "bench", 1, 60)
        took["claim"].append(time.perf_counter() - start)
        assert held is not None
        start = time.perf_counter()
        queue.commit(jobs.database, held, Outcome(), lambda sha256: True)
        took["commit"].append(time.perf_counter() - start)
        start = time.perf_counter()
        jobs.submit(Submission("probe", {"queues": ["gpu"]}), owner=f"owner{i % 50}")
        took["submit"].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values) for name, values in took.items()}


def throughput(data: Path, number: int, **given: Any) -> float:
    """Stages a second."""
    with stack_at(data, **given, max_active_per_owner=100_000) as stack:
        for i in range(number):
            stack.submit(seed=i, kilobytes=1, owner=f"owner{i % 5}")
        stack.workers()
        stack.start("cpu 2", "worker.tasks", "cpu")
        done = (
            select(func.count(), func.min(attempt.c.started), func.max(attempt.c.ended))
            .select_from(attempt)
            .where(attempt.c.outcome == "done")
        )
        while True:
            time.sleep(0.5)
            with stack.database.read() as connection:
                stages, first, last = connection.execute(done).one()
            if stages == 3 * number:
                return float(stages / (last - first))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", default="", help="an empty database; default: SQLite")
    parser.add_argument("--broker", default="", help="default: the embedded one")
    parser.add_argument("--rows", type=int, nargs="*", default=[100, 10_000, 100_000])
    parser.add_argument("--jobs", type=int, default=300, help="0: no workers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = {"database_url": given.database, "broker_url": given.broker}
        settings = load_settings(
            data=Path(folder) / "claims", kinds=KINDS, min_free_bytes=0, max_active_jobs=10_000_000,
            max_active_per_owner=10_000_000, device="cpu", **urls,
        )  # fmt: skip
        if given.jobs:
            rate = throughput(Path(folder) / "engine", given.jobs, **urls)
            print(f"{rate:.0f} stages a second, {3 * given.jobs} stages, three workers")
        jobs = open_jobs(settings)
        jobs.bell = None
        for rows in given.rows:
            fill(jobs, rows)
            medians = claims(jobs)
            print(f"{rows:>8,} ready: " + ", ".join(f"{k} {v:.1f} ms" for k, v in medians.items()))


if __name__ == "__main__":
    main()
