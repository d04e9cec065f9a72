"""Keeps a few processes running: starts them, starts them again when they end, ends them together.

A process that ends again and again is started more and more seldom. Processes are in sessions of their own,
so that Ctrl-C reaches the supervisor alone, and end by themselves when the supervisor is killed
(`worker.identity.die_with_parent`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

LOOK_S = 0.1
FIRST_WAIT_S = 0.5
MOST_WAIT_S = 30.0
HEALTHY_S = 30.0
"""A process that ran for so long starts with a clean slate."""


@dataclass(frozen=True)
class Program:
    """A process to keep running: a module, started with `python -m`."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()


@dataclass
class _Kept:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    wait_s: float = FIRST_WAIT_S


@dataclass
class Supervisor:
    """See the module. `environment` is that of all processes, over this one's."""

    programs: Sequence[Program]
    environment: Mapping[str, str]
    stop_s: float
    """How long the processes may take to end, before they are killed."""
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until SIGTERM, SIGINT, or `stopping`."""
        self._listen()
        kept = [_Kept(program) for program in self.programs]
        try:
            while not self.stopping.is_set():
                for one in kept:
                    self._look(one)
                self.stopping.wait(LOOK_S)
        finally:
            self._end([one.process for one in kept if one.process is not None])

    def _listen(self) -> None:
        def stop(*_: Any) -> None:
            self.stopping.set()

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)

    def _look(self, one: _Kept) -> None:
        at = time.monotonic()
        if one.process is not None:
            code = one.process.poll()
            if code is None:
                return
            if at - one.started > HEALTHY_S:
                one.wait_s = FIRST_WAIT_S
            log.error("%s ended (%s); again in %.1f s", one.program.name, code, one.wait_s)
            one.process, one.start_at = None, at + one.wait_s
            one.wait_s = min(MOST_WAIT_S, 2 * one.wait_s)
        if at >= one.start_at:
            command = [sys.executable, "-m", one.program.module, *one.program.arguments]
            one.process = subprocess.Popen(
                command, env={**os.environ, **self.environment}, start_new_session=True
            )
            one.started = at

    def _end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        until = time.monotonic() + self.stop_s
        for process in processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
