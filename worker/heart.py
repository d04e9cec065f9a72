"""The heart of a running stage: a thread that renews the lease, tells progress and listens for a stop.

The stage itself only calls `progress`, which never waits for the database. A stage that does not hear (a
kernel that hangs) is ended with its process when the grace is over: its device is free again, and the
parent process starts another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType

from sqlalchemy.exc import DBAPIError

from render.errors import CanceledError
from worker import queue
from worker.database import Database
from worker.queue import Claim, LeaseLostError
from worker.settings import Settings

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.02
"""A stage's first news are told so soon after it said them: one that is over by then is not worth a
transaction. The beats after that follow each other sooner too, from this doubling to the tick."""
NOTHING = (0.0, "")
"""How far a stage is, and a message, before it has said anything."""


class StoppedError(Exception):
    """The worker is told to stop; the stage goes on elsewhere."""


def end_process() -> None:
    """The end that no hanging kernel can delay."""
    os.kill(os.getpid(), signal.SIGKILL)


class Heart:
    """Beats while it is entered."""

    def __init__(
        self,
        database: Database,
        claim: Claim,
        settings: Settings,
        stopping: threading.Event,
        end: Callable[[], None] = end_process,
    ) -> None:
        self._database = database
        self._claim = claim
        self._settings = settings
        self._stopping = stopping
        self._end = end
        self._wake = threading.Event()
        """Set by the first news, and when the stage is over."""
        self._over = False
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self._news = NOTHING
        self._moved = self._renewed = time.monotonic()
        self._asked: float | None = None
        """When the stage was first asked to stop."""
        self.canceled = False
        self.lost = False

    def progress(self, fraction: float, message: str = "") -> None:
        """For the stage: how far it is. Raises what tells it to stop."""
        news = (min(max(fraction, 0.0), 1.0), message)
        if self._news == NOTHING != news:
            self._wake.set()
        self._news = news
        self._moved = time.monotonic()
        self.check()

    def check(self) -> None:
        """Raises `LeaseLostError`, `CanceledError` or `StoppedError` when the stage is to stop."""
        if self.lost:
            raise LeaseLostError(f"stage {self._claim.name} of job {self._claim.job_id}")
        if self.canceled:
            raise CanceledError("The job was cancelled.")
        if self._stopping.is_set():
            raise StoppedError

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        told = NOTHING
        wait_s = tick_s = self._settings.tick_s
        while True:
            first = self._wake.wait(wait_s)
            self._wake.clear()
            if first and not self._over:
                wait_s = FIRST_WAIT_S
                self._wake.wait(wait_s)
            if self._over:
                return
            wait_s = min(2 * wait_s, tick_s)
            at, news = time.monotonic(), self._news
            due = at - self._renewed >= self._settings.renew_s
            try:
                if due or news != told:
                    self.canceled |= queue.renew(
                        self._database,
                        self._claim,
                        lease_s=self._settings.lease_s,
                        progress=news[0],
                        message=news[1],
                        tell=news != told,
                    )
                    self._renewed, told = at, news
                else:
                    self.canceled |= queue.is_canceled(self._database, self._claim)
            except LeaseLostError:
                self.lost = True
            except DBAPIError as error:
                log.warning("the database does not answer: %s", error.orig)
                # By now others may have the stage; only the database could say.
                self.lost |= time.monotonic() - self._renewed > self._settings.lease_s
            self._enforce()

    def _enforce(self) -> None:
        """Ends the process when the stage does not hear."""
        at = time.monotonic()
        if at - self._moved > self._settings.progress_deadline_s:
            message = f"No progress for {self._settings.progress_deadline_s:.0f} s."
            log.error("stage %s of job %s is stuck", self._claim.name, self._claim.job_id)
            retry_s = self._settings.retry_s
            self._last_words(lambda: queue.fail(self._database, self._claim, "stuck", message, retry_s))
        if not (self.lost or self.canceled or self._stopping.is_set()):
            return
        self._asked = self._asked or at
        stopping = not (self.lost or self.canceled)
        if at - self._asked > (self._settings.stop_grace_s if stopping else self._settings.cancel_grace_s):
            log.error("stage %s of job %s does not stop", self._claim.name, self._claim.job_id)
            if self.canceled:
                self._last_words(lambda: queue.canceled(self._database, self._claim))
            elif stopping:
                self._last_words(lambda: queue.release(self._database, self._claim))
            else:
                self._end()

    def _last_words(self, write: Callable[[], None]) -> None:
        with contextlib.suppress(LeaseLostError, DBAPIError):
            write()
        self._end()
