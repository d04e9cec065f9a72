"""The service's processes for tests: started for real, killed for real, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from tests.worker.probe import content
from worker import retention
from worker.database import Database
from worker.jobs import JobInfo, Jobs, Submission, open_jobs
from worker.schema import artefact, attempt, job_artefact, stage
from worker.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "lease_s": 2.0,
    "renew_s": 0.4,
    "tick_s": 0.1,
    "reap_s": 0.2,
    "ring_s": 1.0,
    "poll_s": 0.01,
    "cancel_grace_s": 2.0,
    "stop_grace_s": 3.0,
    "min_free_bytes": 0,
    "retry_s": 0.5,
    "preload": False,
}
"""Times of the tests: what takes minutes in the field takes seconds."""
KINDS = ("tests.worker.probe:PROBE", "tests.worker.fit_probe:FIT")


@dataclass
class Stack:
    """Processes of one service."""

    settings: Settings
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @cached_property
    def jobs(self) -> Jobs:
        return open_jobs(self.settings)

    @property
    def database(self) -> Database:
        return self.jobs.database

    def start(self, name: str, module: str, *arguments: str, **extra: str) -> subprocess.Popen[bytes]:
        """A process of the service, `python -m module`; `extra` goes to its environment."""
        self.settings.data.mkdir(parents=True, exist_ok=True)
        with (self.settings.data / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", module, *arguments],
                cwd=ROOT,
                env={**os.environ, **self.environment, **extra},
                start_new_session=True,
                stderr=log,
                stdout=log,
            )
        return self.processes[name]

    def workers(self, queues: Sequence[str] = ("gpu", "cpu"), reaper: bool = True) -> None:
        """A worker for each queue, and a reaper."""
        self.jobs  # noqa: B018  makes the tables
        for queue in queues:
            self.start(queue, "worker.tasks", queue)
        if reaper:
            self.start("reaper", "worker.reaper")

    def submit(self, owner: str = "me", priority: int = 0, **params: Any) -> str:
        """A probe."""
        return self.jobs.submit(Submission("probe", params, priority=priority), owner=owner).job_id

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        """A signal to a process alone, not to its children."""
        self.processes[name].send_signal(signal_number)
        if signal_number == signal.SIGKILL:
            self.processes.pop(name).wait()

    def kill_all(self) -> None:
        """kill -9 of everything at once."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def child_of(self, name: str) -> int:
        """The process in which a worker runs stages."""
        parent = self.processes[name].pid
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = [
                pid
                for path in Path(f"/proc/{parent}/task").glob("*/children")
                for pid in path.read_text().split()
            ]
            if found:
                return int(found[0])
            time.sleep(0.02)
        raise AssertionError("the worker has no child")

    def running(
        self, job_id: str, stage_name: str | None = None, progress: float = 0.0, timeout_s: float = 180.0
    ) -> Any:
        """Waits for a stage to run and be so far; its row."""

        def look() -> Any:
            with self.database.read() as connection:
                query = select(stage).where(stage.c.job_id == job_id, stage.c.state == "running")
                for row in connection.execute(query):
                    if stage_name in (None, row.name) and row.progress >= progress:
                        return row
            return None

        return wait_for(look, timeout_s, "the stage runs")

    def ended(self, job_id: str, timeout_s: float = 180.0) -> JobInfo:
        """Waits for a job's end."""

        def look() -> JobInfo | None:
            found = self.jobs.get(job_id)
            return found if found.finished is not None else None

        return wait_for(look, timeout_s, f"job {job_id} ends")

    def check(self, *job_ids: str, state: str = "succeeded") -> None:
        """What must hold after every fault."""
        with self.database.read() as connection:
            assert connection.execute(select(stage.c.id).where(stage.c.state == "running")).all() == []
            for job_id in job_ids:
                found = self.jobs.get(job_id)
                assert found.state == state, (found.state, found.error, self.jobs.attempts(job_id))
                done = connection.execute(
                    select(attempt.c.seq, func.count())
                    .where(attempt.c.job_id == job_id, attempt.c.outcome == "done")
                    .group_by(attempt.c.seq)
                ).all()
                if state == "succeeded":
                    assert sorted(map(tuple, done)) == [(i, 1) for i in range(len(found.stages))]
                else:
                    assert all(number == 1 for _, number in done)
                terminal = [e for e in self.jobs.events_since(job_id) if e.data.get("state") == state]
                assert len([e for e in terminal if e.type == "job"]) == 1
            files = connection.execute(
                select(job_artefact.c.job_id, job_artefact.c.name, artefact.c.sha256).join(artefact)
            ).all()
        for row in files:
            info = self.jobs.get(row.job_id)
            if info.kind == "probe":
                with self.jobs.store.open(row.sha256) as file:
                    number = int(row.name.removeprefix("stage").removesuffix(".bin"))
                    assert file.read() == content(info.seed, number, info.params["kilobytes"])

    def check_no_leftovers(self) -> None:
        """No temporary files after a sweep, and no bytes that nobody knows."""
        settings = self.settings.model_copy(update={"sweep_grace_s": 1e-9, "lease_s": 0.0})
        retention.sweep(self.database, self.jobs.store, settings)
        assert not list(self.settings.scratch.iterdir()) if self.settings.scratch.is_dir() else True
        assert [path for path in self.settings.data.rglob("*.part")] == []
        with self.database.read() as connection:
            known = set(connection.execute(select(artefact.c.sha256)).scalars())
        assert {stored.sha256 for stored in self.jobs.store.walk()} == known


def wait_for(look: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """What `look` finds, once it finds something."""
    until = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < until, f"in {timeout_s:.0f} s it was not so that {what}"
        time.sleep(0.02)


def wrong_clock(data: Path, hours: int) -> Path:
    """A folder for PYTHONPATH that sets a process's clock wrong."""
    folder = data / f"clock{hours:+d}"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        f"real, off = time.time, {3600 * hours}\n"
        "time.time = lambda: real() + off\n"
        "time.time_ns = lambda: int((real() + off) * 1e9)\n"
    )
    return folder


@contextlib.contextmanager
def stack_at(data: Path, **changes: Any) -> Iterator[Stack]:
    """A service in a folder; its processes are gone afterwards."""
    given = {**QUICK, "data": data, "kinds": KINDS, "device": "cpu", **changes}
    environment = {"MAQUETTE_KINDS": json.dumps(KINDS), "OMP_NUM_THREADS": "1"}
    environment |= {
        f"MAQUETTE_{name.upper()}": str(value) for name, value in given.items() if name != "kinds"
    }
    stack = Stack(load_settings(**given), environment)
    try:
        yield stack
    finally:
        stack.kill_all()
        if "jobs" in stack.__dict__:
            stack.database.close()
