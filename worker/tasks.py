"""Celery: tasks that run stages. A message says only that there is something to do in a queue; which stage,
the worker finds in the database (`worker.queue.claim`). A task goes on to the next stage while one is ready
(`worker.runner.Runner.run_ready`), so that a full queue is drained without a message for each stage.

Messages are acknowledged late, with a prefetch of one: a busy worker then holds no bell that an idle one
could answer. A message that is delivered twice or lost because of that does no harm: RabbitMQ may deliver
one again, Redis and the embedded broker forget it when it is taken.

    python -m worker.tasks gpu      # a worker, without supervisor: see `maquette worker`
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from kombu import Exchange, Queue

from worker import bells
from worker.kinds import QUEUES
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.runner import Runner

log = logging.getLogger(__name__)

TASK = "maquette.stage"
STOP_SIGNAL = signal.SIGUSR2
"""From the worker's parent process to its child: stop soon. (Celery uses SIGTERM and SIGUSR1 itself.)"""
CONSUMER_TIMEOUT_MS = 24 * 3600 * 1000
"""RabbitMQ closes the channel of a consumer that holds a message for longer; its default is half an hour."""

BROKER_TIMEOUT_S = 4.0
"""A broker that takes a connection and then says nothing is given up after so long."""


def celery_app(settings: Settings) -> Celery:
    """The Celery application, which rings and hears the bells."""
    app = Celery("maquette", set_as_current=False)
    embedded = not settings.broker_url
    options: dict[str, Any] = {}
    if embedded:
        bells.register()
        options = {"folder": str(settings.bells), "polling_interval": settings.poll_s}
    elif settings.broker_url.startswith("redis"):
        # Without acknowledgements in Redis: one that fails because Redis is away is not tried again, the
        # message counts against the prefetch for good, and the worker hears no bell any more.
        options = {
            "ack_emulation": False,
            "health_check_interval": 30,
            "socket_timeout": BROKER_TIMEOUT_S,
            "socket_connect_timeout": BROKER_TIMEOUT_S,
        }
    arguments = (
        {"x-consumer-timeout": CONSUMER_TIMEOUT_MS} if settings.broker_url.startswith("amqp") else None
    )
    app.conf.update(
        broker_url=f"{bells.SCHEME}://localhost" if embedded else settings.broker_url,
        broker_transport_options=options,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=BROKER_TIMEOUT_S,
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_serializer="json",
        accept_content=["json"],
        task_queues=[
            Queue(
                f"maquette.{name}", Exchange("maquette", durable=True), routing_key=name,
                durable=True, queue_arguments=arguments,
            )
            for name in QUEUES
        ],
        task_default_exchange="maquette",
        task_default_delivery_mode="transient",
        task_create_missing_queues=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_proc_alive_timeout=60.0,
        worker_lost_wait=0.5,
        timezone="UTC",
    )  # fmt: skip
    return app


class Bell:
    """The way to wake a worker. Safe to share between threads; fails silently, for the reaper rings again."""

    def __init__(self, settings: Settings) -> None:
        self._app = celery_app(settings)
        self._lock = threading.Lock()

    def ring(self, queue: str, times: int = 1) -> bool:
        """A message to a queue (`gpu` or `cpu`), or several; False when the broker cannot be reached."""
        try:
            with self._lock, self._app.producer_pool.acquire(block=True, timeout=5) as producer:
                for _ in range(times):
                    self._app.send_task(
                        TASK, args=[queue], queue=f"maquette.{queue}", producer=producer, retry=False
                    )
            return True
        except Exception as error:
            log.warning("the doorbell of %s cannot be rung: %r", queue, error)
            self._app.pool.force_close_all()
            self._app.amqp._producer_pool = None
            return False

    def waiting(self, queue: str) -> int | None:
        """Bells that nobody has answered; None when the broker cannot be reached."""
        try:
            with self._lock, self._app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, timeout=4)
                found = self._app.amqp.queues[f"maquette.{queue}"](connection.default_channel)
                return int(found.queue_declare().message_count)
        except Exception as error:
            log.warning("the broker does not answer: %r", error)
            return None


class _Child:
    """The process that runs stages: made in the fork, at its first task."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner: Runner | None = None
        self.stopping = threading.Event()

    def begin(self, **_: Any) -> None:
        """After the fork."""
        from worker.identity import die_with_parent

        die_with_parent(0)  # Celery asked for the kernel's signal; see below
        threading.Thread(target=self._outlive_nobody, args=(os.getppid(),), daemon=True).start()

    @staticmethod
    def _outlive_nobody(parent: int) -> None:
        """Ends this process when its parent is gone: a new worker will want the device. The kernel's own
        signal for that comes when the thread ends that forked, and the pool's ends before a stop is over."""
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    def runner(self) -> Runner:
        if self._runner is None:
            from worker.runner import Runner

            # Not in `begin`: after it billiard sets handlers of its own for all signals that it knows.
            signal.signal(STOP_SIGNAL, lambda *_: self.stopping.set())
            self._runner = Runner(self._settings, stopping=self.stopping)
        return self._runner


def run_worker(settings: Settings, queue: str) -> int:
    """A Celery worker of one child process for a queue, until SIGTERM; its exit code."""
    from worker.logs import set_up_logs

    set_up_logs(settings)
    if settings.preload:
        from worker.warm import load_modules

        load_modules()
    app = celery_app(settings)
    bell = Bell(settings)
    child = _Child(settings)

    @app.task(name=TASK)
    def stage(queue: str) -> None:
        child.runner().run_ready(queue, bell.ring)

    def stop(**_: Any) -> None:
        from billiard import active_children

        for process in active_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, STOP_SIGNAL)

    def leave_logs_alone(**_: Any) -> None:
        """Celery sets up no logging where somebody listens for that."""

    signals.setup_logging.connect(leave_logs_alone, weak=False)
    signals.worker_process_init.connect(child.begin, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    worker = app.Worker(
        pool="prefork",
        concurrency=1,
        queues=[f"maquette.{queue}"],
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        optimization="fair",
        loglevel="WARNING",
        hostname=f"{queue}-{os.getpid()}@%h",
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def main() -> None:
    from worker.identity import die_with_parent

    die_with_parent()
    raise SystemExit(run_worker(load_settings(), sys.argv[1]))


if __name__ == "__main__":
    main()
