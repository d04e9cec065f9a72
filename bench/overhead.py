"""What the service costs a job: the same drafts by a warm service, by warm code without it, by the command.

    python -m bench.overhead                  # three seeds, each made three ways, one after the other
    python -m bench.overhead --jobs 1 --preset standard

By code: `pipeline.run.run` in this process, its model loaded before, as in a worker. By the command:
`maquette generate` in a process of its own, which loads everything. By the service: from the POST to the end
of the job at `maquette serve`; a job was made before, so that its workers are warm. Seconds of processor are
those of all processes of the service without what they take when nothing is asked; they tell more than the
clock on a machine that others use. The GLBs must be the same bytes.

Where a stage's time goes is told by the service's own tables: `work` is what the pipeline took, `around` the
rest between claim and commit (earlier stages are brought, pictures drawn, files stored and synced), `between`
is from the stage before (its commit, and the bell's way where the queue changes).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import select

from bench.job_queue import processor_s
from bench.latency import Serving, finished, own_service
from bench.stages import command, describe_machine
from pipeline.checkpoints import file_sha256
from pipeline.limits import slug
from pipeline.observer import Unobserved
from pipeline.preset import load_preset
from pipeline.request import Request
from pipeline.run import run
from worker.database import Database
from worker.schema import attempt, job, stage
from worker.warm import WarmModel

PROMPT = "a wooden crate"
STEM = slug(PROMPT)
BAR_STAGE_MS, BAR_SHARE = 50.0, 0.01


@dataclass(frozen=True)
class Cost:
    """Of one asset."""

    wall_s: float
    cpu_s: float
    glb: str
    """sha256."""


@dataclass(frozen=True)
class StageTimes:
    """Of one stage of one job, in seconds."""

    work: float
    around: float
    between: float


def by_code(seed: int, preset: str, model: WarmModel, folder: Path) -> Cost:
    request = Request(
        text=PROMPT, negative="", image_sha256=None, preset=load_preset(preset), seed=seed, variants=1,
        height_m=1.0, formats=("glb",), stem=STEM, device="cpu",
    )  # fmt: skip
    began, cpu = time.perf_counter(), time.process_time()
    run(request, folder, source=model, observer=Unobserved())
    return Cost(time.perf_counter() - began, time.process_time() - cpu, file_sha256(folder / f"{STEM}.glb"))


def by_command(seed: int, preset: str, folder: Path) -> Cost:
    out = folder / STEM
    began, before = time.perf_counter(), os.times()
    asked = ["generate", PROMPT, "--preset", preset, "--seed", str(seed), "--out", str(out), "--quiet"]
    subprocess.run(command(*asked), check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, cpu, file_sha256(out / f"{STEM}.glb"))


def by_service(seed: int, preset: str, serving: Serving, idle: float) -> tuple[Cost, dict[str, StageTimes]]:
    """What it took, and its stages; `idle` is processor seconds a second."""
    with httpx.Client(base_url=serving.host, timeout=600) as client:
        cpu = processor_s(serving.pid)
        began = time.perf_counter()
        answer = client.post("/v1/jobs", json={"prompt": PROMPT, "preset": preset, "seed": seed})
        job_id = answer.raise_for_status().json()["id"]
        state = finished(client, job_id, 3600)
        spent = processor_s(serving.pid) - cpu - idle * (time.perf_counter() - began)
        if state != "succeeded":
            raise SystemExit(f"The job ended as {state}.")
        files = {one["name"]: one for one in client.get(f"/v1/jobs/{job_id}").json()["files"]}
        report = client.get(files["report.json"]["url"]).json()
    database = serving.database()
    with database.read() as connection:
        made = connection.execute(select(job).where(job.c.id == job_id)).one()
    work = {one["name"]: one["seconds"] for one in report["stages"]}
    cost = Cost(made.finished - made.created, spent, files[f"{STEM}.glb"]["sha256"])
    return cost, stage_times(database, job_id, work)


def stage_times(database: Database, job_id: str, work: dict[str, float]) -> dict[str, StageTimes]:
    """Of the stages of a job that went through at the first try; `work` is their seconds by its report."""
    with database.read() as connection:
        asked_at = connection.execute(select(job.c.created).where(job.c.id == job_id)).scalar_one()
        tasks = connection.execute(
            select(stage.c.name, stage.c.seq, attempt.c.started, attempt.c.ended)
            .join(attempt, (attempt.c.job_id == stage.c.job_id) & (attempt.c.seq == stage.c.seq))
            .where(stage.c.job_id == job_id)
            .order_by(stage.c.seq)
        ).all()
    found, before = {}, asked_at
    for row in tasks:
        seconds = work.get(row.name, 0.0)
        found[row.name] = StageTimes(seconds, row.ended - row.started - seconds, row.started - before)
        before = row.ended
    return found


def told(costs: dict[str, list[Cost]], stages: list[dict[str, StageTimes]]) -> None:
    print("\n| way | wall s | processor s |\n|---|---|---|")
    for way, made in costs.items():
        wall = statistics.median(one.wall_s for one in made)
        cpu = statistics.median(one.cpu_s for one in made)
        print(f"| {way} | {wall:.2f} | {cpu:.2f} |")
    print("\n| stage | work ms | around ms | between ms |\n|---|---|---|---|")
    engine = 0.0
    for name in stages[0]:
        rows = [one[name] for one in stages]
        work, around, between = (
            1e3 * statistics.median(getattr(row, part) for row in rows)
            for part in ("work", "around", "between")
        )
        engine += around + between
        print(f"| {name} | {work:.0f} | {around:.0f} | {between:.0f} |")
    each = engine / len(stages[0])
    met = "met" if each <= BAR_STAGE_MS else "missed"
    print(f"\naround and between the stages: {engine:.0f} ms, {each:.0f} ms a stage", end="")
    print(f" (bar {BAR_STAGE_MS:.0f} ms: {met})")
    for what in ("wall_s", "cpu_s"):
        shares = [
            getattr(service, what) / getattr(code, what) - 1
            for service, code in zip(costs["service"], costs["code"], strict=True)
        ]
        share = statistics.median(shares)
        met = "met" if share <= BAR_SHARE else "missed"
        name = "clock" if what == "wall_s" else "processor"
        print(f"service over code, {name}: {100 * share:+.1f} % of {[f'{100 * one:+.1f}' for one in shares]}"
              f" (bar {100 * BAR_SHARE:.0f} %: {met})")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=3, help="seeds, each made in all ways")
    parser.add_argument("--preset", default="draft")
    given = parser.parse_args()
    print(describe_machine(), flush=True)
    costs: dict[str, list[Cost]] = {"service": [], "code": [], "command": []}
    stages = []
    with own_service() as serving, tempfile.TemporaryDirectory() as folder:
        model = WarmModel(device="cpu")
        by_service(0, given.preset, serving, 0.0)
        by_code(0, given.preset, model, Path(folder) / "warm")
        before, began = processor_s(serving.pid), time.perf_counter()
        time.sleep(5.0)
        idle = (processor_s(serving.pid) - before) / (time.perf_counter() - began)
        print(f"idle, the service takes {1e3 * idle:.0f} ms of processor a second", flush=True)
        for seed in range(1, given.jobs + 1):
            work = Path(folder) / str(seed)
            costs["code"].append(by_code(seed, given.preset, model, work / "code"))
            cost, times = by_service(seed, given.preset, serving, idle)
            costs["service"].append(cost)
            stages.append(times)
            costs["command"].append(by_command(seed, given.preset, work))
            last = [made[-1] for made in costs.values()]
            ways = zip(costs, last, strict=True)
            print(f"seed {seed}: " + ", ".join(f"{way} {one.wall_s:.1f} s, {one.cpu_s:.2f} s of processor"
                                               for way, one in ways), flush=True)  # fmt: skip
            if len({one.glb for one in last}) > 1:
                print(f"The GLBs are not the same bytes: {[one.glb[:8] for one in last]}")
    told(costs, stages)


if __name__ == "__main__":
    main()
