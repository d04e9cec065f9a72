"""`maquette batch`: a manifest of many assets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.commands import Out, Quiet, print_line
from render.errors import CanceledError, InputError, MaquetteError

if TYPE_CHECKING:
    from worker.batch import RowResult
    from worker.manifest import Planned

LAST = 8
"""Rows that ended, in the table."""


def batch(
    manifest: Annotated[Path, typer.Argument(help="A .jsonl or .csv file, one asset a row.")],
    out: Out,
    server: Annotated[
        str | None, typer.Option(help="Address of a service; without it the assets are made here.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="MAQUETTE_KEY", help="Its API key.", show_default=False)
    ] = None,
    max_hours: Annotated[float | None, typer.Option(help="Start no row after so long.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Start no row after so much is spent.")] = None,
    price_per_hour: Annotated[float, typer.Option(help="What an hour of work costs.")] = 0.0,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Do not try again what failed before.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; without --server.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Make every asset of a manifest; run it again to go on, or to redo only what changed."""
    from worker.batch import Batch, Caps, LocalMaker, Maker
    from worker.manifest import read_manifest

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device must be auto, cpu or cuda, not {device!r}.")
    rows = read_manifest(manifest)
    maker: Maker
    if server is not None:
        from worker.batch_remote import RemoteMaker

        maker = RemoteMaker(server, key)
    else:
        maker = LocalMaker(device)  # type: ignore[arg-type]
    caps = Caps(max_hours, max_cost, price_per_hour)
    with Board(Console(stderr=True), rows, quiet) as board:
        try:
            results = Batch(rows, out, maker, board, caps, retry_failed=not keep_failed).run()
        except (KeyboardInterrupt, CanceledError):
            raise CanceledError(
                f"Stopped. What is ready is kept; go on with the same command. See {out / 'results.csv'}."
            ) from None
    counts = {state: sum(r.state == state for r in results) for state in ("ready", "failed", "skipped")}
    made = len({r.key for r in results if r.state == "ready"})
    print_line(
        f"{counts['ready']:,} of {len(results):,} rows ready ({made:,} different), "
        f"{counts['failed']:,} failed, {counts['skipped']:,} skipped"
    )
    print_line(str(out / "results.csv"))
    if counts["failed"]:
        raise MaquetteError(f"{counts['failed']:,} rows failed; results.csv says why.")


class Board:
    """The table on a terminal; a line a row in a log."""

    def __init__(self, console: Console, rows: list[Planned], quiet: bool) -> None:
        self.console = console
        self.quiet = quiet
        self.total = len(rows)
        self.ended_rows: list[RowResult] = []
        self.kept = 0
        self.running: dict[str, tuple[str, float, float]] = {}
        self.started = time.monotonic()
        live = console.is_terminal and not quiet
        self.live = Live(get_renderable=self._table, console=console, refresh_per_second=4) if live else None

    def __enter__(self) -> Board:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def began(self, row: Planned) -> None:
        self.running[row.row.id] = ("waiting", 0.0, time.monotonic())

    def progress(self, row: Planned, stage: str, fraction: float) -> None:
        began = self.running.get(row.row.id, ("", 0.0, time.monotonic()))[2]
        self.running[row.row.id] = (stage, fraction, began)

    def ended(self, row: Planned, result: RowResult, *, kept: bool) -> None:
        self.running.pop(row.row.id, None)
        self.ended_rows.append(result)
        self.kept += kept
        if self.live is None and not self.quiet and not kept:
            note = result.reason or (f"as {result.copy_of}" if result.copy_of else f"{result.seconds:.0f} s")
            self.console.print(
                f"{len(self.ended_rows):>6}/{self.total}  {result.state:<7} {result.id}  {note}",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip

    def _table(self) -> Group:
        done, failed = len(self.ended_rows), sum(r.state == "failed" for r in self.ended_rows)
        fresh, passed = done - self.kept, time.monotonic() - self.started
        left = (
            f", about {_time(passed / fresh * (self.total - done))} left"
            if fresh and done < self.total
            else ""
        )
        head = Text(f"{done:,} of {self.total:,} rows, {self.kept:,} from before, {failed:,} failed; "
                    f"{_time(passed)}{left}")  # fmt: skip
        table = Table(box=None, pad_edge=False, show_header=False)
        for column in ("row", "state", "note"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for result in self.ended_rows[-LAST:]:
            style = {"ready": "green", "failed": "red", "skipped": "yellow"}[result.state]
            note = result.reason or (f"as {result.copy_of}" if result.copy_of else f"{result.seconds:.0f} s")
            table.add_row(Text(result.id), Text(result.state, style), Text(note, "dim"))
        for name, (stage, fraction, began) in list(self.running.items())[:LAST]:
            table.add_row(
                Text(name),
                Text(f"{stage} {fraction:.0%}", "cyan"),
                Text(_time(time.monotonic() - began), "dim"),
            )
        return Group(head, ProgressBar(total=self.total, completed=done, width=60), table)


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )
