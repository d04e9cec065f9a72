"""What the queue costs: stages a second through the whole engine, and claims with few and many waiting.

    python -m bench.job_queue --postgres                                 # a private server
    python -m bench.job_queue                                            # SQLite, a temporary folder
    python -m bench.job_queue --database postgresql+psycopg://u@host/db  # an empty database

First `--jobs` probes of three stages wait in the queue and real workers, two of them, drain it: once with
stages that do nothing, once with stages that make a file (which is kept as a result, stored, synced and
delivered, as those of real jobs are). The rate is from the first claim to the last commit; the processor's
time is that of all processes between the first twentieth and the end, for a stage. Then one process claims
and commits with 100 to 100,000 stages ready, without workers: the claim's time should not grow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from tests.worker.servers import Postgres
from tests.worker.stack import stack_at
from worker import queue
from worker.admission import new_job_id
from worker.jobs import Jobs, Submission, open_jobs
from worker.queue import Outcome
from worker.schema import attempt, job, stage
from worker.settings import Settings, load_settings

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


@dataclass(frozen=True)
class Drained:
    """How a full queue was drained."""

    stages_s: float
    """Stages a second."""
    cpu_ms: dict[str, float]
    """Time of the processor for a stage, by kind of process."""


def drain(
    data: Path, number: int, kilobytes: int, server: Postgres | None, workers: int, **given: Any
) -> Drained:
    """Lets workers drain `number` probes of three stages, each of which makes so large a file, or nothing."""
    with stack_at(data, **given, max_active_per_owner=number, reap_s=2.0, ring_s=30.0) as stack:
        for i in range(number):
            stack.submit(seed=i, kilobytes=kilobytes, owner=f"owner{i % 5}", queues=["cpu"] * 3)
        stack.workers(["cpu"])
        for i in range(1, workers):
            stack.start(f"cpu {i + 1}", "worker.tasks", "cpu")
        done = (
            select(func.count(), func.min(attempt.c.started), func.max(attempt.c.ended))
            .select_from(attempt)
            .where(attempt.c.outcome == "done")
        )

        def cpu_s() -> dict[str, float]:
            found = {"reaper": processor_s(stack.processes["reaper"].pid)}
            found["workers"] = sum(processor_s(p.pid) for n, p in stack.processes.items() if n != "reaper")
            if server is not None and server.process is not None:
                found["database"] = processor_s(server.process.pid)
            return found

        before, first_count = {}, 0
        while True:
            time.sleep(0.2)
            with stack.database.read() as connection:
                stages, first, last = connection.execute(done).one()
            if not before and stages >= 3 * number / 20:
                before, first_count = cpu_s(), stages
            if stages == 3 * number:
                after = cpu_s()
                spent = {k: 1000 * (after[k] - before[k]) / (stages - first_count) for k in after}
                return Drained(stages / (last - first), spent)


def processor_s(pid: int) -> float:
    """Seconds of the processor that a process and its descendants took so far, dead ones among them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            p for task in Path(f"/proc/{pid}/task").glob("*/children") for p in task.read_text().split()
        ]
    except OSError:
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_s(int(child)) for child in children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postgres", action="store_true", help="start a private server, stopped afterwards")
    parser.add_argument("--database", default="", help="an empty database; default: SQLite")
    parser.add_argument("--broker", default="", help="default: the embedded one")
    parser.add_argument("--rows", type=int, nargs="*", default=[100, 10_000, 100_000])
    parser.add_argument("--jobs", type=int, default=1000, help="0: no workers")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with contextlib.ExitStack() as open_here:
        folder = Path(open_here.enter_context(tempfile.TemporaryDirectory()))
        server = open_here.enter_context(Postgres.started()) if given.postgres else None

        def urls() -> dict[str, str]:
            database = server.new_database() if server is not None else given.database
            return {"database_url": database, "broker_url": given.broker}

        for name, kilobytes in (("do nothing", 0), ("make a file", 1)) if given.jobs else ():
            found = drain(folder / name, given.jobs, kilobytes, server, given.workers, **urls())
            spent = " + ".join(f"{part} {ms:.1f}" for part, ms in found.cpu_ms.items())
            print(
                f"{3 * given.jobs:,} stages that {name}, {given.workers} workers: "
                f"{found.stages_s:.0f} a second, {sum(found.cpu_ms.values()):.1f} ms each ({spent})",
                flush=True,
            )
        settings = load_settings(
            data=folder / "claims", kinds=KINDS, min_free_bytes=0, max_active_jobs=10_000_000,
            max_active_per_owner=10_000_000, device="cpu", **urls(),
        )  # fmt: skip
        if given.rows:
            claims_with(settings, given.rows)


def claims_with(settings: Settings, numbers: list[int]) -> None:
    """Prints what a claim takes with so many ready stages."""
    jobs = open_jobs(settings)
    jobs.bell = None
    for rows in numbers:
        fill(jobs, rows)
        medians = claims(jobs)
        print(f"{rows:>8,} ready: " + ", ".join(f"{k} {v:.1f} ms" for k, v in medians.items()), flush=True)


if __name__ == "__main__":
    main()
