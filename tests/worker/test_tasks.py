"""The doorbells when their broker is away; `test_servers.py` has the same with real brokers."""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from kombu.transport import redis as transport
from redis.exceptions import ConnectionError as RedisConnectionError

from worker import tasks
from worker.settings import load_settings
from worker.tasks import Bell, celery_app


def test_a_task_that_ends_while_redis_is_away_leaves_the_worker_hearing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """kombu does not try an acknowledgement again. One that counted against the prefetch of one for good
    would make the worker deaf."""
    client = MagicMock()
    monkeypatch.setattr(transport.Channel, "_create_client", lambda *_, **__: client)
    monkeypatch.setattr(transport.Channel, "_disconnect_pools", lambda _: None)
    app = celery_app(load_settings(data=tmp_path, broker_url="redis://localhost:1/0"))
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.basic_qos(0, 1, False)
        taken = channel.prepare_message("gpu")
        taken["properties"]["delivery_info"] = {"exchange": "maquette", "routing_key": "gpu"}
        taken["properties"]["delivery_tag"] = "bell"
        message = channel.message_to_python(taken)
        channel.qos.append(message, "bell")
        assert not channel.qos.can_consume()  # busy
        client.pipeline.side_effect = RedisConnectionError("Redis is away")
        message.ack_log_error(logging.getLogger(__name__), channel.connection_errors)
        assert channel.qos.can_consume()
        client.pipeline.side_effect = None


def test_a_broker_that_says_nothing_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It takes connections, as a stopped process or a cut network does."""
    monkeypatch.setattr(tasks, "BROKER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        bell = Bell(load_settings(data=tmp_path, broker_url=url))
        answers: list[object] = []

        def ask() -> None:
            answers.append(bell.waiting("gpu"))
            answers.append(bell.ring("gpu"))

        asking = threading.Thread(target=ask, daemon=True)
        begun = time.monotonic()
        asking.start()
        asking.join(60)
        assert not asking.is_alive(), f"still waits after {time.monotonic() - begun:.0f} s"
    assert answers == [None, False]
