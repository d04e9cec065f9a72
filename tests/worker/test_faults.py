"""The service survives: real processes, real kill -9 and SIGSTOP, on SQLite and Postgres, embedded broker.

After every fault each stage was committed exactly once, nothing is left running, the files are what they
should be, and a sweep leaves no temporary file (`Stack.check`). The faults are numbered as in
docs/service.md. Other brokers, and what only Postgres can suffer, are in test_servers.py; faults of the front
door (hostile files, requests, webhooks) in tests/worker/api.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.worker.memory_limit import memory_limit
from tests.worker.probe import STEPS
from tests.worker.servers import fill, free_port, listening
from tests.worker.stack import ROOT, Stack, stack_at, wait_for, wrong_clock
from worker.schema import stage
from worker.tasks import Bell

pytestmark = pytest.mark.fault


def steps_of(log: Path) -> Counter[str]:
    """How often every step was really done, over all attempts."""
    return Counter(" ".join(line.split()[:3]) for line in log.read_text().splitlines())


def test_01_kill_9_of_the_worker_at_half_of_a_stage_and_before_its_commit(stack: Stack):
    stack.workers()
    ids = [
        stack.submit(fault="kill", fault_stage=1, fault_step=step, seed=step, queues=["gpu", "cpu"])
        for step in (5, STEPS)
    ]
    for job_id in ids:
        assert stack.ended(job_id).state == "succeeded"
    stack.check(*ids)
    for job_id in ids:
        assert [a.outcome for a in stack.jobs.attempts(job_id)] == ["done", "worker_lost", "done"]
    stack.check_no_leftovers()


@pytest.mark.slow
def test_01_kill_9_of_the_worker_in_every_stage_at_every_part(stack: Stack):
    stack.workers()
    ids = [
        stack.submit(fault="kill", fault_stage=i, fault_step=step, seed=10 * i + step, step_s=0.01)
        for i in range(3)
        for step in (1, 5, 9, STEPS)
    ]
    for job_id in ids:
        assert stack.ended(job_id, 300).state == "succeeded"
    stack.check(*ids)
    stack.check_no_leftovers()


@pytest.mark.slow
def test_01_kill_9_of_parent_and_child_together(stack: Stack):
    stack.workers()
    job_id = stack.submit(step_s=0.1)
    for name, at in (("gpu", "stage0"), ("cpu", "stage1"), ("cpu", "stage2")):
        stack.running(job_id, at, 0.3)
        os.killpg(stack.processes[name].pid, signal.SIGKILL)
        stack.processes.pop(name).wait()
        stack.start(name, "worker.tasks", name)
    stack.ended(job_id)
    stack.check(job_id)
    stack.check_no_leftovers()


def test_02_kill_9_of_the_child_only_and_the_parent_takes_the_next_job(stack: Stack):
    stack.workers(["gpu"])
    first = stack.submit(queues=["gpu"], step_s=0.2, seed=1)
    stack.running(first, progress=0.2)
    child, parent = stack.child_of("gpu"), stack.processes["gpu"].pid
    os.kill(child, signal.SIGKILL)
    second = stack.submit(queues=["gpu"], seed=2)
    stack.ended(second)
    stack.ended(first)
    assert stack.processes["gpu"].poll() is None
    assert stack.processes["gpu"].pid == parent
    assert stack.child_of("gpu") != child
    stack.check(first, second)
    stack.check_no_leftovers()


@pytest.mark.slow
def test_03_sigstop_past_the_lease_and_the_stale_commit_is_refused(stack: Stack):
    stack.workers(["gpu"])
    job_id = stack.submit(queues=["gpu"], step_s=0.1)
    row = stack.running(job_id, progress=0.2)
    os.kill(row.pid, signal.SIGSTOP)
    stack.start("other", "worker.tasks", "gpu")
    wait_for(
        lambda: any(a.outcome == "worker_lost" for a in stack.jobs.attempts(job_id)), 30, "the lease is over"
    )
    stack.running(job_id)
    os.kill(row.pid, signal.SIGCONT)
    stack.ended(job_id)
    stack.check(job_id)
    # The worker that woke is well and takes the next.
    stack.kill("other", signal.SIGTERM)
    stack.processes["other"].wait(20)
    following = stack.submit(queues=["gpu"], seed=5)
    stack.ended(following)
    assert [a.worker.split("/")[2] for a in stack.jobs.attempts(following)] == [str(row.pid)]
    stack.check_no_leftovers()


def test_04_sigterm_in_a_long_stage_and_it_goes_on_from_its_checkpoint(stack: Stack, tmp_path: Path):
    stack.workers(["gpu"])
    log = tmp_path / "steps"
    job_id = stack.submit(queues=["gpu"], step_s=0.3, log=str(log))
    stack.running(job_id, progress=0.3)
    stack.kill("gpu", signal.SIGTERM)
    assert stack.processes["gpu"].wait(10) == 0
    with stack.database.read() as connection:
        row = connection.execute(select(stage).where(stage.c.job_id == job_id)).one()
    assert (row.state, row.attempts) == ("ready", 0)
    assert row.checkpoint_sha is not None
    stack.start("gpu", "worker.tasks", "gpu")
    stack.ended(job_id)
    stack.check(job_id)
    done = steps_of(log)
    assert set(done) == {f"stage0 step {i}" for i in range(STEPS)}
    assert sum(done.values()) <= STEPS + 1  # the step that was done when the signal came
    assert [a.outcome for a in stack.jobs.attempts(job_id)] == ["stopped", "done"]
    stack.check_no_leftovers()


@pytest.mark.slow
def test_04_a_real_fit_goes_on_inside_its_stage_after_sigterm_and_after_kill_9(
    database_url: str, tmp_path: Path
):
    from worker.jobs import Submission

    steps = 60

    def submit(name: str, step_s: float) -> str:
        params = {"steps": steps, "step_s": step_s, "log": str(tmp_path / name)}
        return stack.jobs.submit(Submission("fit", params), owner="me").job_id

    # The heart cannot beat while torch is imported, which takes longer than a short lease on a busy machine.
    patient = {"lease_s": 30.0, "renew_s": 1.0, "stop_grace_s": 20.0}
    with stack_at(tmp_path / "data", database_url=database_url, save_every_s=0.2, **patient) as stack:
        stack.workers(["gpu"])
        job_id = submit("stopped", 0.1)
        stack.running(job_id, progress=0.3)
        stack.kill("gpu", signal.SIGTERM)
        assert stack.processes["gpu"].wait(60) == 0
        stack.start("gpu", "worker.tasks", "gpu")
        row = stack.running(job_id, progress=0.6)
        os.kill(row.pid, signal.SIGKILL)
        stack.ended(job_id, 120)
        whole = submit("whole", 0.0)
        stack.ended(whole, 120)
        stack.check(job_id, whole)
        assert [a.outcome for a in stack.jobs.attempts(job_id)] == ["stopped", "worker_lost", "done"]
        done = [int(line) for line in (tmp_path / "stopped").read_text().split()]
        assert set(done) == set(range(steps))
        assert len(done) < steps + 20  # what was done after the last snapshot, twice
        ours, theirs = ({f.name: f.sha256 for f in stack.jobs.artefacts(j)} for j in (job_id, whole))
        assert ours == theirs
        stack.check_no_leftovers()


def test_05_the_broker_is_gone_with_its_data(stack: Stack):
    stack.workers()
    running = stack.submit(step_s=0.1, seed=1)
    stack.running(running)
    waiting = [stack.submit(seed=i) for i in range(2, 5)]
    shutil.rmtree(stack.settings.bells)
    for job_id in (running, *waiting):
        stack.ended(job_id)
    stack.check(running, *waiting)
    stack.check_no_leftovers()


@pytest.mark.parametrize("locked_s", [4.0, pytest.param(40.0, marks=pytest.mark.slow)])
def test_06_the_database_is_locked(tmp_path: Path, locked_s: float):
    """SQLite's; Postgres goes away in test_servers.py."""
    with stack_at(tmp_path / "data") as stack:
        stack.workers()
        job_id = stack.submit(step_s=0.1)
        stack.running(job_id, progress=0.2)
        blocker = sqlite3.connect(stack.settings.data / "maquette.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        time.sleep(locked_s)
        blocker.execute("ROLLBACK")
        blocker.close()
        stack.ended(job_id)
        stack.check(job_id)
        stack.check_no_leftovers()


@pytest.mark.slow
def test_07_the_whole_stack_is_killed_and_one_command_resumes_it(stack: Stack):
    def serve() -> None:
        port = free_port()
        arguments = ["serve", "--data", str(stack.settings.data), "--port", str(port)]
        listening(port, stack.start("serve", "worker.cli", *arguments))

    serve()
    ids = [stack.submit(step_s=0.1, seed=i) for i in range(3)]
    stack.running(ids[0], progress=0.3)
    found = {stack.processes["serve"].pid}
    while True:  # every process of it, in one stroke
        more = {
            int(pid)
            for parent in found
            for path in Path(f"/proc/{parent}/task").glob("*/children")
            for pid in path.read_text().split()
        }
        if more <= found:
            break
        found |= more
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    stack.processes.pop("serve").wait()
    assert stack.jobs.get(ids[0]).state == "running"
    serve()
    for job_id in ids:
        stack.ended(job_id, 120)
    stack.check(*ids)
    stack.kill("serve", signal.SIGTERM)
    assert stack.processes["serve"].wait(30) == 0
    stack.check_no_leftovers()


@pytest.mark.slow
def test_08_the_disk_of_artefacts_is_full(database_url: str, tmp_path: Path, small_disk: Path):
    store = str(small_disk / "store")
    with stack_at(tmp_path / "data", database_url=database_url, store_url=store) as stack:
        stack.workers()
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 3_900_000)
        job_id = stack.submit(kilobytes=512, queues=["gpu"])
        found = stack.ended(job_id)
        assert (found.state, found.error_class, found.error) == (
            "failed",
            "infrastructure",
            "The disk is full.",
        )
        assert jobs_files(small_disk) == []
        filler.unlink()
        assert stack.jobs.retry(job_id)
        stack.ended(job_id)
        stack.check(job_id)
        stack.check_no_leftovers()


@pytest.mark.slow
def test_08_the_disk_of_checkpoints_is_full(database_url: str, tmp_path: Path, small_disk: Path):
    (tmp_path / "data").mkdir()
    (small_disk / "scratch").mkdir()
    (tmp_path / "data" / "scratch").symlink_to(small_disk / "scratch")
    with stack_at(tmp_path / "data", database_url=database_url) as stack:
        stack.workers()
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 3_900_000)
        job_id = stack.submit(kilobytes=512, queues=["gpu"], step_s=0.01)
        assert stack.ended(job_id).error == "The disk is full."
        filler.unlink()
        assert stack.jobs.retry(job_id)
        stack.ended(job_id)
        stack.check(job_id)
        stack.check_no_leftovers()


@pytest.mark.slow
def test_08_the_disk_of_the_database_is_full(small_disk: Path, tmp_path: Path):
    """SQLite's; that of Postgres is in test_servers.py."""
    url = f"sqlite:///{small_disk / 'maquette.db'}"
    with stack_at(tmp_path / "data", database_url=url) as stack:
        stack.workers()
        job_id = stack.submit(step_s=0.1)
        stack.running(job_id, progress=0.3)
        filler = fill(small_disk)
        time.sleep(4)
        filler.unlink()
        stack.ended(job_id)
        stack.check(job_id)
        stack.check_no_leftovers()


def jobs_files(disk: Path) -> list[Path]:
    """What writers left in a store."""
    return [path for path in (disk / "store").rglob("*") if path.is_file()]


def test_09_a_worker_that_is_killed_for_memory_ends_dead_at_the_cap(stack: Stack):
    stack.workers(["gpu"])
    job_id = stack.submit(fault="kill", fault_attempts=99, queues=["gpu"])
    found = stack.ended(job_id)
    assert (found.state, found.error_class) == ("failed", "worker_lost")
    assert [a.outcome for a in stack.jobs.attempts(job_id)] == ["worker_lost"] * 3
    other = stack.submit(queues=["gpu"])
    assert stack.ended(other).state == "succeeded"
    stack.check(other)
    stack.check(job_id, state="failed")
    stack.check_no_leftovers()


@pytest.mark.slow
def test_09_the_kernel_kills_a_stage_for_memory(stack: Stack):
    """A real end of memory: in a group of processes that may have 400 MB, a stage asks for 4 GB."""
    with memory_limit(400) as limit:
        try:
            stack.workers(["gpu"])
            limit.add(stack.processes["gpu"].pid)
            job_id = stack.submit(fault="memory_hog", fault_attempts=99, queues=["gpu"])
            found = stack.ended(job_id, 120)
            assert (found.state, found.error_class) == ("failed", "worker_lost")
            assert [a.outcome for a in stack.jobs.attempts(job_id)] == ["worker_lost"] * 3
            assert limit.kills() == 3
            other = stack.submit(queues=["gpu"])
            assert stack.ended(other).state == "succeeded"
            stack.check(other)
            stack.check(job_id, state="failed")
            stack.check_no_leftovers()
        finally:
            stack.kill_all()


def test_10_gpu_out_of_memory_gets_one_smaller_retry(stack: Stack):
    stack.workers(["gpu"])
    once = stack.submit(fault="gpu_memory", queues=["gpu"], seed=1)
    always = stack.submit(fault="gpu_memory", fault_attempts=99, queues=["gpu"], seed=2)
    host = stack.submit(fault="memory", queues=["gpu"], seed=3)
    after = stack.submit(queues=["gpu"], seed=4)
    for job_id in (once, host, after):
        assert stack.ended(job_id).state == "succeeded"
    assert [a.outcome for a in stack.jobs.attempts(once)] == ["gpu_memory", "done"]
    assert [a.outcome for a in stack.jobs.attempts(host)] == ["worker_lost", "done"]
    found = stack.ended(always)
    assert (found.error_class, found.error) == ("gpu_memory", "The GPU's memory does not suffice.")
    stack.check(once, host, after)
    stack.check_no_leftovers()


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-1, 1])
def test_13_a_worker_whose_clock_is_an_hour_off(stack: Stack, hours: int):
    stack.workers([])
    stack.start("gpu", "worker.tasks", "gpu", PYTHONPATH=str(wrong_clock(stack.settings.data, hours)))
    stack.start("cpu", "worker.tasks", "cpu")
    ids = [stack.submit(step_s=0.3, seed=i) for i in range(2)]
    for job_id in ids:
        stack.ended(job_id)
    stack.check(*ids)
    assert all(a.outcome == "done" for job_id in ids for a in stack.jobs.attempts(job_id))
    stack.check_no_leftovers()


def test_14_cancel_frees_the_device_even_from_a_stage_that_hangs(stack: Stack):
    stack.workers(["gpu"])
    working = stack.submit(queues=["gpu"], step_s=0.3, seed=1)
    stack.running(working)
    asked = time.monotonic()
    stack.jobs.request_cancel(working)
    assert stack.ended(working).state == "canceled"
    assert time.monotonic() - asked < 3
    hanging = stack.submit(queues=["gpu"], fault="hang", fault_attempts=99, seed=2)
    row = stack.running(hanging)
    asked = time.monotonic()
    stack.jobs.request_cancel(hanging)
    assert stack.ended(hanging).state == "canceled"
    wait_for(lambda: not Path(f"/proc/{row.pid}").exists(), 10, "the process is gone")
    assert time.monotonic() - asked < 10
    after = stack.submit(queues=["gpu"], seed=3)
    assert stack.ended(after).state == "succeeded"
    stack.check(after)
    stack.check(working, hanging, state="canceled")
    stack.check_no_leftovers()


@pytest.mark.slow
def test_14_a_stage_that_makes_no_progress_is_stuck_although_its_heart_beats(
    database_url: str, tmp_path: Path
):
    with stack_at(tmp_path / "data", database_url=database_url, progress_deadline_s=6.0) as stack:
        stack.workers(["gpu"])
        job_id = stack.submit(queues=["gpu"], fault="hang", step_s=0.05)
        assert stack.ended(job_id).state == "succeeded"
        assert [a.outcome for a in stack.jobs.attempts(job_id)] == ["stuck", "done"]
        stack.check(job_id)
        stack.check_no_leftovers()


def test_15_poison_and_doorbells_that_are_repeated_dropped_and_false(stack: Stack):
    poison = [
        stack.submit(fault=fault, fault_attempts=99, queues=["gpu"], seed=i)
        for i, fault in enumerate(("bug", "input", "disk"))
    ]
    good = [stack.submit(seed=10 + i) for i in range(4)]
    bell = Bell(stack.settings)
    assert bell.ring("gpu", 30)
    assert bell.ring("cpu", 10)
    assert (bell.waiting("gpu"), bell.waiting("cpu")) == (30 + 7, 10)  # submitting rings too
    stack.workers()
    for job_id in good:
        assert stack.ended(job_id).state == "succeeded"
        for path in stack.settings.bells.rglob("*"):
            if path.is_file():
                path.unlink(missing_ok=True)
    tries = {"bug": 2, "input": 1, "infrastructure": 4}
    for job_id in poison:
        found = stack.ended(job_id)
        assert found.state == "failed"
        assert len(stack.jobs.attempts(job_id)) == tries[str(found.error_class)]
        assert "/" not in str(found.error)
    stack.check(*good)
    stack.check(*poison, state="failed")
    stack.check_no_leftovers()


@pytest.mark.slow
def test_a_real_draft_survives_the_death_of_its_worker_and_is_reused(tmp_path: Path):
    from worker.jobs import Submission

    with stack_at(tmp_path / "data", lease_s=120.0, renew_s=2.0, preload=True) as stack:
        stack.workers()
        submission = Submission("generate", {"prompt": "a mossy rock", "preset": "draft", "seed": 3})
        job_id = stack.jobs.submit(submission, owner="me").job_id
        row = stack.running(job_id, "field", timeout_s=600)
        os.kill(row.pid, signal.SIGKILL)
        found = stack.ended(job_id, 600)
        assert found.state == "succeeded", found.error
        stack.check(job_id)
        names = {file.name for file in stack.jobs.artefacts(job_id)}
        assert {"a-mossy-rock.glb", "preview.png", "views.png", "turntable.mp4", "report.json"} <= names
        started = time.monotonic()
        again = stack.jobs.submit(submission, owner="you").job_id
        stack.ended(again)
        seconds = time.monotonic() - started
        files = {file.name: file.sha256 for file in stack.jobs.artefacts(job_id)}
        same = {file.name: file.sha256 for file in stack.jobs.artefacts(again)}
        assert files == same
        assert seconds < 1, f"a repeated request took {seconds:.1f} s"
        fewer = Submission("generate", {**submission.params, "polycount": 900})
        third = stack.jobs.submit(fewer, owner="me").job_id
        stack.ended(third, 300)
        assert stack.jobs.get(third).state == "succeeded"
        stack.check_no_leftovers()


def test_what_generate_makes_is_what_the_service_makes() -> None:
    """The engine's stages are those of `pipeline.run_order`, in its order."""
    from typing import get_args

    from pipeline.stage_versions import StageName
    from worker.generation import Generation

    plan = Generation().plan({"prompt": "a barrel"}, {}, "cpu")
    assert [planned.name for planned in plan.stages] == [*get_args(StageName), "finish"]
    assert Counter(planned.queue for planned in plan.stages) == {"gpu": 2, "cpu": 6}


assert sys.platform.startswith("linux")
assert ROOT.is_dir()
