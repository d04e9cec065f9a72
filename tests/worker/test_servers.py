"""The same faults with Redis and RabbitMQ, what only a server can suffer, and an S3 store."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.worker.servers import Postgres, RabbitMq, Redis, disk_of, fill
from tests.worker.stack import Stack, stack_at, wait_for, wrong_clock
from worker.database import TRUSTED_S
from worker.tasks import Bell

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def nothing() -> None:
    pass


@dataclass
class Servers:
    """A service on servers, and how they die and come back."""

    stack: Stack
    broker_dies: Callable[[], None]
    broker_comes_back: Callable[[], None]
    database_dies: Callable[[], None] = nothing
    database_comes_back: Callable[[], None] = nothing


@pytest.fixture(
    params=[
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("postgres redis", marks=[pytest.mark.postgres, pytest.mark.redis]),
        pytest.param("postgres rabbitmq", marks=[pytest.mark.postgres, pytest.mark.rabbitmq]),
        pytest.param("sqlite redis", marks=pytest.mark.redis),
    ]
)
def servers(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    names = request.param.split()
    changes: dict[str, Any] = {}
    database = (nothing, nothing)
    if "postgres" in names:
        postgres = request.getfixturevalue("postgres")
        changes["database_url"] = postgres.new_database()
        database = (postgres.stop, postgres.start)
    if "redis" in names:
        with (
            Redis.started(tmp_path_factory.mktemp("redis")) as redis,
            stack_at(tmp_path / "data", **changes, broker_url=redis.url) as stack,
        ):
            yield Servers(stack, redis.kill, redis.start, *database)
    elif "rabbitmq" in names:
        with (
            RabbitMq.started(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq,
            stack_at(tmp_path / "data", **changes, broker_url=rabbitmq.url) as stack,
        ):
            yield Servers(stack, rabbitmq.kill, rabbitmq.start, *database)
    else:
        with stack_at(tmp_path / "data", **changes) as stack:
            yield Servers(stack, nothing, nothing, *database)


def test_kills_and_a_dead_broker(servers: Servers):
    """Faults 1, 2, 5 and 15 at once: what is asked for is done, once."""
    stack = servers.stack
    stack.workers()
    ids = [stack.submit(seed=i, step_s=0.02) for i in range(4)]
    ids += [
        stack.submit(fault="kill", fault_stage=i, fault_step=step, seed=10 * i + step, step_s=0.02)
        for i in range(3)
        for step in (2, 10)
    ]
    stack.running(ids[1])
    bell = Bell(stack.settings)
    assert bell.ring("gpu", 20)  # for nothing
    assert bell.ring("cpu", 20)
    os.kill(stack.child_of("gpu"), signal.SIGKILL)
    servers.broker_dies()
    time.sleep(1.0)
    servers.broker_comes_back()
    os.killpg(stack.processes["cpu"].pid, signal.SIGKILL)
    stack.processes.pop("cpu").wait()
    stack.start("cpu", "worker.tasks", "cpu")
    for job_id in ids:
        assert stack.ended(job_id, 240).state == "succeeded"
    stack.check(*ids)
    stack.check_no_leftovers()


def test_cancel_and_stop(servers: Servers):
    """Faults 4 and 14."""
    stack = servers.stack
    stack.workers(["gpu"])
    canceled = stack.submit(queues=["gpu"], step_s=0.3, seed=1)
    stack.running(canceled)
    stack.jobs.request_cancel(canceled)
    assert stack.ended(canceled).state == "canceled"
    job_id = stack.submit(queues=["gpu"], step_s=0.3, seed=2)
    stack.running(job_id, progress=0.2)
    stack.kill("gpu", signal.SIGTERM)
    assert stack.processes["gpu"].wait(20) == 0
    stack.start("gpu", "worker.tasks", "gpu")
    stack.ended(job_id)
    assert [a.outcome for a in stack.jobs.attempts(job_id)] == ["stopped", "done"]
    stack.check(job_id)
    stack.check_no_leftovers()


def test_sigstop_past_the_lease(servers: Servers):
    """Fault 3: what the broker thinks of a consumer that is stopped does not matter either."""
    stack = servers.stack
    stack.workers(["gpu"])
    job_id = stack.submit(queues=["gpu"], step_s=0.1)
    row = stack.running(job_id, progress=0.2)
    os.kill(row.pid, signal.SIGSTOP)
    stack.start("other", "worker.tasks", "gpu")
    lost = lambda: any(a.outcome == "worker_lost" for a in stack.jobs.attempts(job_id))  # noqa: E731
    wait_for(lost, 120, "the lease is over")
    os.kill(row.pid, signal.SIGCONT)
    stack.ended(job_id)
    stack.check(job_id)
    stack.check_no_leftovers()


def test_everything_is_killed_at_once(servers: Servers):
    """Faults 7 and 13: workers, reaper, database and broker; all are started again and go on unattended, one
    worker with its clock an hour ahead."""
    stack = servers.stack
    stack.workers()
    ids = [stack.submit(seed=i, step_s=0.1) for i in range(3)]
    stack.running(ids[0], progress=0.3)
    servers.broker_dies()
    servers.database_dies()
    stack.kill_all()
    servers.database_comes_back()
    servers.broker_comes_back()
    stack.workers(["cpu"])
    stack.start("gpu", "worker.tasks", "gpu", PYTHONPATH=str(wrong_clock(stack.settings.data, hours=1)))
    for job_id in ids:
        stack.ended(job_id)
    stack.check(*ids)
    stack.check_no_leftovers()


@pytest.mark.postgres
@pytest.mark.parametrize("gone_s", [6, 35])
def test_the_database_goes_away(tmp_path: Path, gone_s: float):
    """Fault 6: for longer than the lease, in the middle of stages."""
    with (
        Postgres.started() as server,
        stack_at(tmp_path / "data", database_url=server.new_database()) as stack,
    ):
        stack.workers()
        ids = [stack.submit(seed=i, step_s=0.1) for i in range(2)]
        stack.running(ids[0], progress=0.3)
        server.stop()
        time.sleep(gone_s)
        server.start()
        for job_id in ids:
            stack.ended(job_id)
        stack.check(*ids)
        stack.check_no_leftovers()


@pytest.mark.postgres
def test_the_disk_of_the_database_is_full(tmp_path: Path):
    """Fault 8: so full that Postgres cannot even write its log, and ends."""
    # Not in pytest's folder, which is root's alone.
    place = Path(tempfile.gettempdir()) / f"maquette-disk-{secrets.token_hex(4)}"
    with (
        disk_of(150, place) as disk,
        Postgres.started(disk) as server,
        stack_at(tmp_path / "data", database_url=server.new_database()) as stack,
    ):
        stack.workers()
        ids = [stack.submit(seed=i, step_s=0.1) for i in range(2)]
        stack.running(ids[0], progress=0.3)
        filler = fill(disk)
        server.use_up_log()
        time.sleep(TRUSTED_S + 1)
        filler.unlink()
        server.stop()
        server.start()
        for job_id in ids:
            stack.ended(job_id)
        stack.check(*ids)
        stack.check_no_leftovers()


def test_artefacts_in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Faults 1 and 4 with an object store; moto stands in for one."""
    from moto.server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        import boto3

        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="assets")
        with stack_at(tmp_path / "data", store_url="s3://assets/made", s3_endpoint=endpoint) as stack:
            stack.workers()
            ids = [stack.submit(fault="kill", fault_stage=1, fault_step=step, seed=step) for step in (5, 10)]
            for job_id in ids:
                assert stack.ended(job_id).state == "succeeded"
            stack.check(*ids)
            stack.check_no_leftovers()
    finally:
        server.stop()
