"""What `maquette doctor` looks at. The store is asked for real: fifteen bytes are written and read back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from pipeline.models import verified_model
from render.errors import MaquetteError
from worker.database import Database, now
from worker.kinds import QUEUES
from worker.migrate import current, newest
from worker.schema import stage
from worker.settings import Settings
from worker.store import store_at
from worker.tasks import Bell

CLOCK_S = 5.0
"""Leases go by the database's clock and come to no harm; logs and links with a time in them do."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    state: Literal["ok", "warn", "wrong"]
    text: str


def examine(settings: Settings) -> list[Finding]:
    """All of it; what cannot be looked at is a finding too."""
    return [
        _looked(name, look, settings)
        for name, look in {
            "weights": _weights,
            "device": _device,
            "disk": _disk,
            "store": _store,
            "database": _database,
            "queue": _queue,
            "broker": _broker,
        }.items()
    ]


def _looked(name: str, look: Callable[[Settings], tuple[str, str]], settings: Settings) -> Finding:
    try:
        state, text = look(settings)
    except (MaquetteError, DBAPIError, OSError) as error:
        state, text = "wrong", " ".join(str(getattr(error, "orig", None) or error).split())
    return Finding(name, state, text)  # type: ignore[arg-type]


def _weights(settings: Settings) -> tuple[str, str]:
    model = verified_model()
    return "ok", f"{model.name}, {model.bytes / 1e6:.0f} MB, hashes as published"


def _device(settings: Settings) -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return "ok", f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    if settings.device == "cuda":
        return "wrong", "MAQUETTE_DEVICE is cuda, but torch finds no CUDA device here"
    return "ok", f"cpu, {torch.get_num_threads()} threads"


def _disk(settings: Settings) -> tuple[str, str]:
    place = settings.data
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free where {settings.data} lies"
    if free < settings.min_free_bytes:
        return "wrong", f"{text}; jobs are refused below {settings.min_free_bytes / 1e9:.1f} GB"
    return "ok", text


def _store(settings: Settings) -> tuple[str, str]:
    store = store_at(settings)
    probe = settings.data / ".doctor"
    settings.data.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b"maquette doctor")
    try:
        sha256 = store.put(probe)
        with store.open(sha256) as file:
            same = file.read() == b"maquette doctor"
    finally:
        probe.unlink()
    return ("ok" if same else "wrong"), f"{settings.store}{'' if same else ' gives other bytes than it took'}"


def _database(settings: Settings) -> tuple[str, str]:
    database = Database(settings.database)
    with database.read() as connection:
        before = time.time()
        skew = float(connection.execute(select(now())).scalar_one()) - before
        version = current(connection)
    name = database.engine.url.render_as_string(hide_password=True)
    if version is None:
        return "warn", f"{name} has no tables yet; maquette serve makes them"
    if version != newest():
        return "warn", f"{name} is at version {version}, this code at {newest()}; maquette serve updates it"
    if abs(skew) > CLOCK_S:
        return "warn", f"{name}: its clock and this machine's differ by {skew:.0f} s"
    return "ok", f"{name}, version {version}"


def _queue(settings: Settings) -> tuple[str, str]:
    database = Database(settings.database)
    with database.read() as connection:
        if current(connection) is None:
            return "ok", "empty"
        waiting = select(stage.c.state, func.count()).where(
            stage.c.state.in_(("ready", "delayed", "running"))
        )
        states = {str(state): int(n) for state, n in connection.execute(waiting.group_by(stage.c.state))}
        late = connection.execute(
            select(func.count()).where(stage.c.state == "running", stage.c.lease_until < now())
        ).scalar_one()
    text = ", ".join(f"{states.get(name, 0)} {name}" for name in ("ready", "delayed", "running"))
    if late:
        return "warn", f"{text}; {late} with a lease that is over: does a reaper run?"
    return "ok", text


def _broker(settings: Settings) -> tuple[str, str]:
    waiting = {name: Bell(settings).waiting(name) for name in QUEUES}
    if None in waiting.values():
        return "wrong", "the broker of MAQUETTE_BROKER_URL does not answer"
    bells = ", ".join(f"{count} for {name}" for name, count in waiting.items())
    return "ok", f"{'embedded' if not settings.broker_url else 'reached'}; bells waiting: {bells}"
