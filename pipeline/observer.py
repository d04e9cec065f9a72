"""Who is told how a run goes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Observer(Protocol):
    """Who is told how a run goes."""

    def progress(self, stage: str, fraction: float, message: str) -> None:
        """`fraction` in [0, 1] of a stage is done. May raise `CanceledError`."""

    def warning(self, message: str) -> None:
        """The user should know this; the run goes on."""


class Unobserved:
    """The `Observer` that tells nobody."""

    def progress(self, stage: str, fraction: float, message: str) -> None:
        pass

    def warning(self, message: str) -> None:
        pass
