"""What a job can be: a kind plans the stages of a job and runs one of them.

A kind's `plan` runs where jobs are admitted and refuses what is wrong with an `InputError`; its `run` runs
in a worker, in a process that may have run other jobs before.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from render.errors import InputError

if TYPE_CHECKING:
    from worker.runner import Work

Queue = Literal["gpu", "cpu"]
QUEUES: tuple[Queue, ...] = ("gpu", "cpu")


@dataclass(frozen=True)
class PlannedStage:
    """One task."""

    name: str
    queue: Queue
    weight: float
    """Part of the job's time, for its progress; any scale."""


@dataclass(frozen=True)
class Plan:
    """A request that was understood."""

    params: dict[str, Any]
    """Complete, plain: equal requests have equal params."""
    seed: int
    stages: tuple[PlannedStage, ...]
    revision: str = ""
    """What decides the bytes besides parameters and inputs: code, weights. A job that succeeded with the same
    is the answer to another. Empty: every job is made."""


@runtime_checkable
class Kind(Protocol):
    """See the module."""

    @property
    def name(self) -> str: ...

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        """The stages of a job with these parameters and these files (sha256 by name), to be made on
        `device` (`cpu` or `cuda`). `InputError` when something is wrong with them."""
        ...

    def run(self, stage: str, work: Work) -> None:
        """Runs one stage: reads what `work` gives, hands it what was made."""
        ...


def kind_named(
    name: str, extra: Sequence[str] = (), picture_policy: str = "offline", known_pictures: Path | None = None
) -> Kind:
    """The kind of that name: ours, or one of `extra` (`Settings.kinds`); it judges pictures by the policy
    (`Settings.picture_policy`)."""
    if name == "generate":
        from worker.generation import Generation

        return Generation(picture_policy, known_pictures)
    if name == "retexture":
        from worker.retexturing import Retexturing

        return Retexturing(picture_policy, known_pictures)
    if name == "rework":
        from worker.rework import Rework

        return Rework(picture_policy, known_pictures)
    for path in extra:
        module, _, attribute = path.partition(":")
        kind: Kind = getattr(importlib.import_module(module), attribute)
        if kind.name == name:
            return kind
    raise InputError(f"There is no kind of job named {name!r}.")
