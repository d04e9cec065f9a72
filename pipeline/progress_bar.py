"""Progress on a terminal: one bar for the run, the stage and the time left beside it."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

SHARES = {
    "views": 0.30,
    "field": 0.25,
    "surface": 0.12,
    "mesh": 0.08,
    "texture": 0.08,
    "export": 0.05,
    "preview": 0.12,
}
"""Part of the time that each stage takes, as bench/stages.py prints it for `standard`; only the time left
depends on it."""


class StageBar:
    """The `Observer` of the command line; a context manager."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console = console
        self._live = console.is_terminal and not quiet
        self._log = not console.is_terminal and not quiet
        self._stage = ""
        self._started = time.perf_counter()
        self._progress = Progress(
            TextColumn("{task.fields[stage]:<8}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("run", total=1.0, stage="start", left="", note="")

    def __enter__(self) -> StageBar:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def progress(self, stage: str, fraction: float, message: str) -> None:
        done = min(max(fraction, 0.0), 1.0)
        if stage in SHARES:
            names = list(SHARES)
            before = sum(SHARES[name] for name in names[: names.index(stage)])
            done = before + SHARES[stage] * done
        elapsed = time.perf_counter() - self._started
        left = f"{elapsed / done - elapsed:.0f} s left" if done > 0.03 else ""
        self._progress.update(self._task, completed=done, stage=stage, left=left, note=message)
        if self._log and stage != self._stage:
            # A log file gets a line for each stage, not a bar.
            self._console.print(f"{elapsed:6.1f} s  {stage}", highlight=False)
        self._stage = stage

    def warning(self, message: str) -> None:
        self._console.print(f"Warning: {message}", style="yellow", highlight=False, soft_wrap=True)
