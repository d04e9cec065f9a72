"""A kind of job whose stages only wait, write and fail as they are told: what the fault tests run.

Every stage writes files that depend on nothing but the job's parameters, in steps, and keeps a checkpoint
after each. Faults are parameters of one stage's attempts, and what they do is real: a signal to the own
process, memory that is not there, a disk that is full.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.config import build, plain
from render.errors import InputError
from worker.kinds import Plan, PlannedStage, Queue

if TYPE_CHECKING:
    from worker.runner import Work

STEPS = 10


@dataclass(frozen=True)
class ProbeParams:
    """What to do."""

    queues: tuple[str, ...] = ("gpu", "cpu", "cpu")
    step_s: float = 0.0
    seed: int = 0
    kilobytes: int = 16
    """Of the file that each stage makes; 0: it makes none, and does nothing at all."""
    fault: str = ""
    """kill, input, bug, memory, memory_hog, gpu_memory, disk or hang."""
    fault_stage: int = 0
    fault_step: int = 5
    fault_attempts: int = 1
    """The first so many attempts have it."""
    device: str | None = None
    log: str = ""
    """A file that gets a line for each step that is really done."""


@dataclass
class Probe:
    """See the module."""

    name: str = "probe"

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        asked = build(ProbeParams, dict(params))
        stages = tuple(
            PlannedStage(f"stage{i}", cast(Queue, queue), 1.0) for i, queue in enumerate(asked.queues)
        )
        return Plan(cast(dict[str, Any], plain(asked)), asked.seed, stages)

    def run(self, stage: str, work: Work) -> None:
        params = build(ProbeParams, work.claim.params)
        if params.kilobytes == 0:
            return
        number = int(stage.removeprefix("stage"))
        work.checkpoints.order = tuple(f"stage{i}" for i in range(len(params.queues)))

        def make(out: Path) -> None:
            self._steps(out, number, params, work)

        given: dict[str, Any] = {"seed": params.seed, "kilobytes": params.kilobytes, "stage": number}
        if params.fault:
            given["job"] = work.claim.job_id  # a fault is to be met, not taken from another job
        output = work.checkpoints.run(stage, 1, given, [], make)
        work.deliver(output / f"{stage}.bin", "asset")
        at_end = params.fault_step == STEPS and number == params.fault_stage
        if params.fault and at_end and work.claim.attempts <= params.fault_attempts:
            _fail(params.fault, work.directory)  # the bytes are in the store, and not committed

    def _steps(self, out: Path, number: int, params: ProbeParams, work: Work) -> None:
        saved = work.saved()
        first = int(saved.read_text()) if saved is not None else 0
        for step in range(first, STEPS):
            if (
                params.fault
                and number == params.fault_stage
                and step == params.fault_step
                and work.claim.attempts <= params.fault_attempts
            ):
                _fail(params.fault, out)
            time.sleep(params.step_s)
            work.progress((step + 1) / STEPS, f"step {step + 1}")
            _say(params, f"stage{number} step {step} epoch {work.claim.epoch}")
            if params.step_s:
                state = work.directory / "state"
                state.write_text(str(step + 1))
                work.save(state)
        (out / f"stage{number}.bin").write_bytes(content(params.seed, number, params.kilobytes))


def content(seed: int, stage: int, kilobytes: int) -> bytes:
    """What a stage writes."""
    block = hashlib.sha512(f"{seed} {stage}".encode()).digest()
    return block * (kilobytes * 1024 // len(block))


def _say(params: ProbeParams, text: str) -> None:
    if params.log:
        with Path(params.log).open("a") as file:
            file.write(f"{text} pid {os.getpid()}\n")


def _fail(fault: str, out: Path) -> None:
    match fault:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "input":
            raise InputError("The probe does not like its input.")
        case "bug":
            raise ValueError("a bug")
        case "memory":
            raise MemoryError
        case "gpu_memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        case "disk":
            (out / "half").write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "memory_hog":
            held = [bytearray(b"x") * (16 << 20) for _ in range(256)]
            raise AssertionError(f"nobody minds {len(held) // 64} GB")
        case "hang":
            time.sleep(3600)
        case _:
            return


PROBE = Probe()
