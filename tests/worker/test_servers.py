"""The same faults on Postgres, with Redis, RabbitMQ and the embedded broker, and with an S3 store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.worker.servers import Postgres, RabbitMq, Redis
from tests.worker.stack import Stack, stack_at, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@dataclass
class Servers:
    """A service on servers, and how its broker dies and comes back."""

    stack: Stack
    broker_dies: Callable[[], None]
    broker_comes_back: Callable[[], None]


def nothing() -> None:
    pass


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
    if "postgres" in names:
        changes["database_url"] = request.getfixturevalue("postgres").new_database()
    if "redis" in names:
        with (
            Redis.started(tmp_path_factory.mktemp("redis")) as redis,
            stack_at(tmp_path / "data", **changes, broker_url=redis.url) as stack,
        ):
            yield Servers(stack, redis.kill, redis.start)
    elif "rabbitmq" in names:
        with (
            RabbitMq.started(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq,
            stack_at(tmp_path / "data", **changes, broker_url=rabbitmq.url) as stack,
        ):
            yield Servers(stack, rabbitmq.kill, rabbitmq.start)
    else:
        with stack_at(tmp_path / "data", **changes) as stack:
            yield Servers(stack, nothing, nothing)


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


@pytest.mark.postgres
def test_sigstop_past_the_lease(postgres: Postgres, tmp_path: Path):
    """Fault 3 on Postgres."""
    with stack_at(tmp_path / "data", database_url=postgres.new_database()) as stack:
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


@pytest.mark.postgres
def test_the_database_goes_away(tmp_path: Path):
    """Fault 6: for longer than the lease, in the middle of stages."""
    with (
        Postgres.started() as server,
        stack_at(tmp_path / "data", database_url=server.new_database()) as stack,
    ):
        stack.workers()
        ids = [stack.submit(seed=i, step_s=0.1) for i in range(2)]
        stack.running(ids[0], progress=0.3)
        server.stop()
        time.sleep(6)
        server.start()
        for job_id in ids:
            stack.ended(job_id, 120)
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
