"""What `maquette batch` costs by itself, and a thousand rows through a service whose stages are fast.

    python -m bench.batch --rows 1000 10000            # the command's own work; the maker copies files
    python -m bench.batch --service 1000 [--postgres]  # API, workers, command: killed, gone on with, changed

The first has no service and no models: rows are read, made (a picture and a small file each), written and
read again. Rows repeat each other's request one time in ten, one in a hundred fails.

The second starts `python -m worker.api`, two workers and a reaper as `maquette serve` does; only the stages'
insides are replaced, by ones that write files at once (`fast_stage`). Then `maquette batch --server` runs
in its own process: it is killed (SIGKILL) when a third of the rows is there and started again, then again
with nothing to do, with ten rows changed, and with a time cap that has passed. What must hold is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from render.errors import InputError
from tests.worker.servers import Postgres, free_port, listening
from tests.worker.stack import Stack, stack_at
from worker.batch import Batch, Listener, Made, RowResult
from worker.manifest import Planned, read_manifest
from worker.runner import Work

FAILS = "a thing that fails"
PICTURE_PX = 512
PROGRAM = "import bench.batch, sys; bench.batch.work(sys.argv[1])"


def write_manifest(path: Path, rows: int, changed: Sequence[int] = ()) -> int:
    """Rows of which one in ten repeats another's request and one in a hundred fails; how many differ."""
    asked: set[tuple[str, int]] = set()
    lines = []
    for i in range(rows):
        number = i - 1 if i % 10 == 9 else i
        prompt = f"{FAILS} {number}" if number % 100 == 50 else f"a wooden crate {number}"
        seed = 1 if i in changed else 0
        asked.add((prompt, seed))
        lines.append(json.dumps({"id": f"row-{i:05d}", "prompt": prompt, "preset": "draft", "seed": seed}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(asked)


def picture(text: str) -> Image.Image:
    """Some picture, of the size and about the weight of a preview."""
    shade = hash(text) % 200
    return Image.radial_gradient("L").resize((PICTURE_PX, PICTURE_PX)).point(lambda v: min(255, v + shade))


class Quiet:
    """A listener that says nothing."""

    def began(self, row: Planned) -> None: ...
    def progress(self, row: Planned, stage: str, fraction: float) -> None: ...
    def ended(self, row: Planned, result: RowResult, *, kept: bool) -> None: ...


class Copies:
    """A maker that has one asset for all rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "asset.glb").write_bytes(bytes(4096))
        picture("").save(folder / "preview.png")

    def make(
        self, rows: Sequence[Planned], work: Path, listener: Listener, may_start: Callable[[], str | None]
    ) -> Iterator[tuple[Planned, Made | Exception]]:
        for row in rows:
            if may_start() is not None:
                return
            if row.row.prompt.startswith(FAILS):
                yield row, InputError("It fails.")
                continue
            shutil.copytree(self.folder, work / row.key)
            yield row, Made(("asset.glb", "preview.png"), {"asset": {"triangles": 12}}, 1.0)


def overhead(folder: Path, rows: int) -> None:
    """Prints the processor's time of a first go, of one with nothing to do, and of one with ten changes."""
    manifest, out = folder / f"{rows}.jsonl", folder / f"out{rows}"
    for name, changed in (("all new", ()), ("nothing new", ()), ("ten changed", range(0, rows, rows // 10))):
        different = write_manifest(manifest, rows, changed)
        began = time.process_time()
        planned = read_manifest(manifest)
        read_s = time.process_time() - began
        maker = Copies(folder / f"maker {rows} {name}")
        results = Batch(planned, out, maker, Quiet()).run()
        spent = time.process_time() - began
        counts = Counter(result.state for result in results)
        print(
            f"{rows:>7,} rows ({different:,} different), {name}: {spent:.1f} s of processor, {read_s:.1f} of "
            f"them to read the manifest; {1000 * spent / rows:.1f} ms a row; {dict(counts)}",
            flush=True,
        )


def fast_stage(stage: str, work: Work) -> None:
    """In the place of `Generation.run`: files of a kind, at once."""
    text = str(work.claim.params["prompt"])
    if text.startswith(FAILS):
        raise InputError("It fails, as it was asked to.")
    folder = work.directory
    match stage:
        case "export":
            (folder / "asset.glb").write_bytes(f"{text} {work.claim.seed}".encode() * 100)
            work.deliver(folder / "asset.glb", "asset")
        case "preview":
            picture(text).save(folder / "preview.png")
            work.deliver(folder / "preview.png", "picture")
        case "finish":
            report = {"seed": work.claim.seed, "asset": {"triangles": 12, "watertight": True}, "stages": []}
            (folder / "report.json").write_text(json.dumps(report))
            work.deliver(folder / "report.json", "report")
        case _:
            work.progress(1.0, "")


def work(queue: str) -> None:
    """A worker whose stages are fast."""
    from worker import tasks
    from worker.generation import Generation

    Generation.run = lambda self, stage, given: fast_stage(stage, given)  # type: ignore[method-assign]
    sys.argv = ["worker.tasks", queue]
    tasks.main()


@contextlib.contextmanager
def service(data: Path, **given: Any) -> Iterator[tuple[Stack, str]]:
    """API, two workers and a reaper; the address."""
    port = free_port()
    times = {"lease_s": 60.0, "renew_s": 15.0, "tick_s": 0.5, "reap_s": 2.0, "ring_s": 30.0, "poll_s": 0.025}
    with stack_at(data, port=port, **times, **given) as stack:
        stack.jobs  # noqa: B018  makes the tables
        stack.start("api", "worker.api")
        stack.start("reaper", "worker.reaper")
        for queue in ("gpu", "cpu"):
            with (data / "log").open("ab") as log:
                stack.processes[queue] = subprocess.Popen(
                    [sys.executable, "-W", "ignore", "-c", PROGRAM, queue],
                    env={**os.environ, **stack.environment}, start_new_session=True, stderr=log, stdout=log,
                )  # fmt: skip
        listening(port, stack.processes["api"], 120)
        yield stack, f"http://127.0.0.1:{port}"


def states(out: Path) -> Counter[str]:
    """How many rows are how, by `results.csv`."""
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return Counter(row["state"] for row in csv.DictReader(file))


def by_a_service(folder: Path, rows: int, **given: Any) -> None:
    """The second part; see the module."""
    manifest, out = folder / "m.jsonl", folder / "out"
    different = write_manifest(manifest, rows)
    command = [
        sys.executable,
        "-m",
        "worker.cli",
        "batch",
        str(manifest),
        "--out",
        str(out),
        "--quiet",
        "--server",
    ]
    with service(folder / "data", **given) as (stack, address):

        def go(what: str, *options: str) -> Counter[str]:
            began = time.monotonic()
            before = os.times()
            done = subprocess.run([*command, address, *options], capture_output=True, text=True)
            after = os.times()
            own = after.children_user + after.children_system - before.children_user - before.children_system
            found = states(out)
            jobs = len(stack.jobs.find(limit=100_000))
            print(f"{what}: {time.monotonic() - began:.0f} s, {own:.1f} s of processor in the command; "
                  f"{dict(found)}, {jobs:,} jobs in all; exit {done.returncode}", flush=True)  # fmt: skip
            return found

        began = time.monotonic()
        first = subprocess.Popen([*command, address], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while len(list(out.glob("*/row.json"))) < rows // 3 and first.poll() is None:
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.wait()
        there = len(list(out.glob("*/row.json")))
        print(
            f"killed after {time.monotonic() - began:.0f} s with {there:,} of {rows:,} rows there", flush=True
        )
        failing = sum(FAILS in line for line in manifest.read_text().splitlines())
        made_at = {path: path.stat().st_mtime_ns for path in out.glob("*/asset.glb")}
        assert go("gone on with") == {"ready": rows - failing, "failed": failing}
        assert all(path.stat().st_mtime_ns == at for path, at in made_at.items()), (
            "ready rows were made again"
        )
        assert len(stack.jobs.find(limit=100_000)) == different, "jobs were asked for twice"
        assert len(list(out.glob("sheet-*.png"))) == -(-(rows - failing) // 60)
        go("again, nothing new", "--keep-failed")
        changed = range(0, rows, rows // 10)
        write_manifest(manifest, rows, changed)
        assert go("ten changed, time is over", "--keep-failed", "--max-hours", "1e-9")["skipped"] == len(
            changed
        )
        assert go("ten changed", "--keep-failed") == {"ready": rows - failing, "failed": failing}
        assert len(stack.jobs.find(limit=100_000)) == different + len(changed)
        for i in (i for i in changed if i % 100 != 50):
            assert (
                (out / f"row-{i:05d}" / "asset.glb").read_bytes().startswith(f"a wooden crate {i} 1".encode())
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    parser.add_argument("--service", type=int, default=0, metavar="ROWS")
    parser.add_argument("--postgres", action="store_true", help="with a private server; default: SQLite")
    given = parser.parse_args()
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        for rows in given.rows:
            overhead(folder, rows)
        if given.service:
            urls = {}
            if given.postgres:
                urls["database_url"] = opened.enter_context(Postgres.started()).new_database()
            by_a_service(folder, given.service, **urls)


if __name__ == "__main__":
    main()
