"""How a long function reports progress and learns that it should stop.

A stage receives one callable. It calls it with the finished fraction, often
enough for a user who pressed Ctrl-C (at least twice a second), and lets what it
raises (`CanceledError`) pass through.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    def __call__(self, fraction: float, message: str = "") -> None:
        """Report `fraction` in [0, 1]; raises `CanceledError` when the run is to stop."""


def silent(fraction: float, message: str = "") -> None:
    """The `Progress` that tells nobody and never cancels."""


def part_of(progress: Progress, start: float, end: float) -> Progress:
    """The `Progress` of a part of the work: its 0 to 1 is `start` to `end` of the whole."""
    return lambda fraction, message="": progress(start + (end - start) * fraction, message)
