"""The reaper: gives up stages whose worker is gone, rings again what was not heard, sweeps.

Everything it does is idempotent and may be done by several at once.

    python -m worker.reaper      # without supervisor
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import Any

from sqlalchemy.exc import DBAPIError

from worker import overdue, retention
from worker.database import Database
from worker.identity import die_with_parent, is_dead
from worker.kinds import QUEUES
from worker.settings import Settings, load_settings
from worker.store import Store, store_at
from worker.tasks import Bell

log = logging.getLogger(__name__)


class Reaper:
    """One pass at a time."""

    def __init__(self, settings: Settings, database: Database, store: Store, bell: Bell) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._bell = bell
        self._swept: float | None = None

    def pass_once(self) -> None:
        """Looks once at everything."""
        lost = overdue.expire(self._database, dead_worker=is_dead, retry_s=self._settings.retry_s)
        if lost:
            log.warning("%d stages were given up by their workers", lost)
        overdue.ready_delayed(self._database)
        overdue.expire_queued(self._database)
        for name in QUEUES:
            self._ring(name)
        if self._swept is None or time.monotonic() - self._swept > self._settings.sweep_s:
            self._swept = time.monotonic()
            retention.sweep(self._database, self._store, self._settings)

    def _ring(self, name: str) -> None:
        """Rings for stages that nobody came for. While bells wait to be answered the workers are only busy,
        and more bells would only make more to answer."""
        if not overdue.is_ready(self._database, name, self._settings.ring_s):
            return
        if self._bell.waiting(name) != 0:
            return
        if owed := overdue.to_ring(self._database, name, self._settings.ring_s):
            self._bell.ring(name, owed)


def run_reaper(settings: Settings) -> int:
    """Passes until SIGTERM."""
    from worker.logs import set_up_logs

    set_up_logs(settings)
    stopping = threading.Event()

    def stop(*_: Any) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    reaper = Reaper(settings, Database(settings.database), store_at(settings), Bell(settings))
    while not stopping.is_set():
        try:
            reaper.pass_once()
        except (DBAPIError, OSError) as error:
            log.warning("a pass was broken off: %s", error)
        stopping.wait(settings.reap_s)
    return 0


def main() -> None:
    die_with_parent()
    raise SystemExit(run_reaper(load_settings()))


if __name__ == "__main__":
    main()
