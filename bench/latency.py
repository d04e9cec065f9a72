"""How soon one sees something: from POST to the first event of progress, and to the page's first paint.

    python -m bench.latency                 # starts a service of its own in a temporary folder
    python -m bench.latency --jobs 20 --server http://127.0.0.1:8000

Workers are warm: a draft is made first, so that the model is loaded. Then jobs are asked for one after the
other, each is followed by its event stream, and the times from the request to the first event that says that
a stage runs, and to the first that says how far it is, are taken; each job is cancelled then. The page is
opened in headless Chromium anew each time, its cache empty; the time is that of its first contentful paint.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from worker.database import Database

BARS_MS = {"first event of progress": 300.0, "first paint": 1000.0}


@dataclass(frozen=True)
class Serving:
    """A service of a benchmark's own."""

    host: str
    pid: int
    data: Path

    def database(self) -> Database:
        return Database(f"sqlite:///{self.data / 'maquette.db'}")


@contextlib.contextmanager
def own_service() -> Iterator[Serving]:
    """`maquette serve` on a free port, its data in a folder that goes afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="maquette-bench-") as data:
        command = [sys.executable, "-m", "worker.cli", "serve", "--data", data, "--port", str(port)]
        log = Path(data) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                command, stderr=said, env={**os.environ, "MAQUETTE_MIN_FREE_BYTES": "0"}
            )
        host = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 120
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{host}/readyz").status_code == 200:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"The service does not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield Serving(host, process.pid, Path(data))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def finished(client: httpx.Client, job_id: str, limit_s: float) -> str:
    """The state that a job ends in."""
    until = time.monotonic() + limit_s
    while True:
        state = str(client.get(f"/v1/jobs/{job_id}").json()["state"])
        if state not in ("queued", "running"):
            return state
        if time.monotonic() > until:
            raise SystemExit(f"The job is {state} after {limit_s:.0f} s.")
        time.sleep(0.3)


def followed(client: httpx.Client, seed: int) -> dict[str, float]:
    """Milliseconds from the POST of a job to its first events."""
    found: dict[str, float] = {}
    began = time.perf_counter()
    made = client.post("/v1/jobs", json={"prompt": "a wooden crate", "preset": "draft", "seed": seed})
    made.raise_for_status()
    job_id = made.json()["id"]
    found["answer"] = 1e3 * (time.perf_counter() - began)
    kind = ""
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as events:
        for line in events.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: ") and '"state":"running"' in line and kind in ("stage", "progress"):
                name = "first event of a running stage" if kind == "stage" else "first event of progress"
                found.setdefault(name, 1e3 * (time.perf_counter() - began))
                if kind == "progress":
                    break
    client.post(f"/v1/jobs/{job_id}/cancel")
    finished(client, job_id, 60)
    return found


def paints(host: str, times: int) -> list[float]:
    """Milliseconds to the first contentful paint of the page; empty without Chromium."""
    from playwright.sync_api import Error, sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), None)
    found = []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error:
            return []
        for _ in range(times):
            page = browser.new_page()
            page.goto(host)
            page.get_by_role("heading", name="What shall it be?").wait_for()
            entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            found.append(float(page.evaluate(entry)))
            page.close()
        browser.close()
    return found


def told(name: str, values: list[float]) -> None:
    values = sorted(values)
    bar = BARS_MS.get(name)
    verdict = (
        "" if bar is None else f", bar {bar:.0f} ms: {'met' if values[len(values) // 2] <= bar else 'missed'}"
    )
    middle = values[len(values) // 2]
    print(f"{name}: median {middle:.0f} ms, most {values[-1]:.0f} ms of {len(values)}{verdict}")


def measure(host: str, jobs: int) -> None:
    with httpx.Client(base_url=host, timeout=600) as client:
        warm = client.post("/v1/jobs", json={"prompt": "a wooden crate", "preset": "draft"})
        warm.raise_for_status()
        state = finished(client, warm.json()["id"], 900)
        if state != "succeeded":
            raise SystemExit(f"The first job ended as {state}.")
        rows = [followed(client, seed) for seed in range(1, jobs + 1)]
    for name in rows[0]:
        told(name, [row[name] for row in rows if name in row])
    shown = paints(host, 5)
    if shown:
        told("first paint", shown)
    else:
        print("first paint: not measured, there is no Chromium")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", help="A running service without keys; by default one is started.")
    parser.add_argument("--jobs", type=int, default=10)
    options = parser.parse_args()
    if options.server:
        measure(options.server, options.jobs)
        return
    with own_service() as serving:
        measure(serving.host, options.jobs)


if __name__ == "__main__":
    main()
