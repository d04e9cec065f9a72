"""The name of a worker process, and whether the process of a name is dead.

A name holds the machine's boot, the namespace of process numbers (a container has its own) and the
process's number and start time, so it never means another process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
from pathlib import Path


def machine() -> str | None:
    """This boot of this machine, as far as process numbers are shared; None where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:12]


def worker_name() -> str:
    """Of this process: `host/machine/pid/start`."""
    host = "".join(c for c in os.uname().nodename if c.isalnum() or c in "-.")[:60] or "host"
    return f"{host}/{machine() or '-'}/{os.getpid()}/{_started(os.getpid()) or '-'}"


def is_dead(worker: str, pid: int) -> bool:
    """True when the process of that name certainly runs no more; False when it does or nobody here knows."""
    parts = worker.split("/")
    if len(parts) != 4 or parts[1] == "-" or parts[1] != machine() or parts[3] == "-":
        return False
    return _started(pid) != parts[3]


def die_with_parent(signal_number: int = signal.SIGTERM) -> None:
    """Asks the kernel to send this process a signal when its parent is gone, or none with 0 (Linux; elsewhere
    nothing)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os.kill(os.getpid(), signal_number)


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; None when there is none, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
