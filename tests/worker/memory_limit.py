"""A group of processes that may have only so much memory: the kernel kills in it as on a full host."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


@dataclass
class MemoryLimit:
    """A cgroup below this process's own."""

    folder: Path
    kills_in: str

    def add(self, pid: int) -> None:
        """Puts a process and its children to come into the group."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """How many processes of the group the kernel has killed for memory."""
        lines = (self.folder / self.kills_in).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def memory_limit(megabytes: int) -> Iterator[MemoryLimit]:
    """Cgroups of version 1 or 2; the test is skipped where this user may make none."""
    own = {line.split(":")[1]: line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().split()}
    name = f"maquette-{secrets.token_hex(4)}"
    if "memory" in own:
        folder = ROOT / "memory" / own["memory"].strip("/") / name
        limit, kills_in = "memory.limit_in_bytes", "memory.oom_control"
    else:
        folder = ROOT / own.get("", "").strip("/") / name
        limit, kills_in = "memory.max", "memory.events"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this user may make no memory cgroup")
    try:
        try:
            (folder / limit).write_text(str(megabytes << 20))
            with suppress(OSError):
                (folder / "memory.swap.max").write_text("0")
        except OSError:
            pytest.skip("this user may limit no memory")
        yield MemoryLimit(folder, kills_in)
    finally:
        until = time.monotonic() + 10
        while folder.is_dir():
            with suppress(OSError):  # its last processes are about to be gone
                folder.rmdir()
            assert time.monotonic() < until, f"{folder} cannot be removed"
            time.sleep(0.05)
