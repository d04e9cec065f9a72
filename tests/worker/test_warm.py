"""What a worker loads before its first stage."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import os, sys
from worker.warm import load_modules
load_modules()
assert {"torch", "open3d", "numba", "worker.generation_stages"} <= set(sys.modules)
import torch
assert not torch.cuda.is_initialized()
assert len(os.listdir("/proc/self/task")) == 1, "a thread would not survive the fork"
"""


def test_modules_are_there_before_the_fork_and_nothing_else():
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", LOADED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
