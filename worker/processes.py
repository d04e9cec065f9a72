"""Which processes the service is made of."""

from __future__ import annotations

import fcntl
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from render.errors import InputError
from worker.settings import Settings
from worker.supervisor import Program


def worker_programs(queues: Sequence[str], each: int = 1) -> list[Program]:
    """Workers for queues, and a reaper."""
    workers = [
        Program(f"worker {queue} {i + 1}", "worker.tasks", (queue,)) for queue in queues for i in range(each)
    ]
    return [*workers, Program("reaper", "worker.reaper")]


def api_program() -> list[Program]:
    """The HTTP API: `python -m worker.api`, which reads host and port from the settings."""
    there = importlib.util.find_spec("worker.api") and importlib.util.find_spec("worker.api.__main__")
    return [Program("api", "worker.api")] if there else []


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give another process the same settings, as far as options changed them."""
    from worker.admission import admitted_device

    return {
        "MAQUETTE_DATA": str(settings.data),
        "MAQUETTE_HOST": settings.host,
        "MAQUETTE_PORT": str(settings.port),
        "MAQUETTE_DEVICE": admitted_device(settings.device),
    }


@contextmanager
def one_at_a_time(settings: Settings, name: str) -> Iterator[None]:
    """`InputError` when another process is in here with the same data folder."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        lock = (settings.data / f"{name}.lock").open("w")
    except OSError as error:
        raise InputError(f"--data {settings.data} cannot be written: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another maquette {name} runs on {settings.data}. Stop it, or give another --data."
            ) from None
        yield
