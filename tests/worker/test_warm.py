"""What a worker loads before its first stage."""

from __future__ import annotations

import os
import subprocess
import sys

LOADED = """
import os, sys
from worker.warm import load_modules
load_modules()
assert {"torch", "open3d", "numba", "worker.generation_stages"} <= set(sys.modules)
import torch
assert not torch.cuda.is_initialized()
"""

ALONE = """
assert len(os.listdir("/proc/self/task")) == 1, "a thread would not survive the fork"
"""

FORKED = """
import numpy, scipy.linalg
child = os.fork()
if not child:
    numpy.linalg.inv(numpy.eye(200)), scipy.linalg.inv(numpy.eye(200)), torch.randn(200, 200).inverse()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def test_modules_are_there_before_the_fork_and_nothing_else():
    # NumPy's and SciPy's OpenBLAS begin threads when they are imported, and see to forks themselves.
    found = run(LOADED + ALONE, OPENBLAS_NUM_THREADS="1")
    assert found.returncode == 0, found.stderr


def test_a_fork_of_what_was_loaded_computes():
    found = run(LOADED + FORKED, OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert found.returncode == 0, found.stderr
