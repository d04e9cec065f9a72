"""Time and memory of each stage and of start-up, on this machine.

    python bench/stages.py                       # draft and standard, the barrel of the README
    python bench/stages.py --preset high --repeat 1

Every run is a process of its own, as a user starts it, into a fresh folder. The first run of a preset
is a warm-up (compiled kernels, disk cache) and is shown, but not in the median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a wooden barrel with iron bands"
BARS_S = {"draft": 20.0, "standard": 90.0}
BAR_MB = 3072.0
BAR_HELP_S = 0.5


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", *arguments]


def timed(arguments: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident MB of a process and its children."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(arguments)} failed with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def describe_machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    load = os.getloadavg()[0]
    return f"{model}, {len(os.sched_getaffinity(0))} usable cores, load {load:.1f} before the first run"


def run(preset: str, repeat: int, seed: int) -> None:
    print(f"\n## {preset}\n")
    totals, peaks = [], []
    stages: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    for i in range(repeat + 1):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "barrel"
            seconds, peak = timed(
                command(
                    "generate", PROMPT, "--preset", preset, "--seed", str(seed), "--out", str(out), "--quiet"
                )
            )
            report = json.loads((out / "report.json").read_text())
        if i == 0:
            print(f"warm-up run: {seconds:.1f} s\n")
            if repeat:
                continue
        totals.append(seconds)
        peaks.append(peak)
        for stage in report["stages"]:
            stages.setdefault(stage["name"], []).append(stage["seconds"])
            memory[stage["name"]] = max(memory.get(stage["name"], 0.0), stage["peak_mb"])
        outside = seconds - sum(stage["seconds"] for stage in report["stages"])
        stages.setdefault("start-up and the rest", []).append(outside)
    print("| stage | seconds | peak MB |\n|---|---|---|")
    for name, values in stages.items():
        peak_text = f"{memory[name]:.0f}" if name in memory else ""
        print(f"| {name} | {statistics.median(values):.2f} | {peak_text} |")
    total, peak = statistics.median(totals), max(peaks)
    bar = BARS_S.get(preset)
    print(f"| **whole command** | **{total:.1f}** | **{peak:.0f}** |\n")
    if bar is not None:
        print(f"bar {bar:.0f} s: {'kept' if total <= bar else 'MISSED'}; ", end="")
    print(f"bar {BAR_MB:.0f} MB: {'kept' if peak <= BAR_MB else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", action="append", help="may be given more than once")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{describe_machine()}; Python {platform.python_version()}; prompt {PROMPT!r}, seed {arguments.seed}"
    )
    helps = [timed(command("--help"))[0] for _ in range(7)]
    imports = [timed([sys.executable, "-c", "import pipeline.cli"])[0] for _ in range(7)]
    generate = [timed([sys.executable, "-c", "import pipeline.run"])[0] for _ in range(3)]
    kept = "kept" if statistics.median(helps) <= BAR_HELP_S else "MISSED"
    print(f"\nmaquette --help: {statistics.median(helps):.2f} s (bar {BAR_HELP_S} s: {kept})")
    print(
        f"import pipeline.cli: {statistics.median(imports):.2f} s; import pipeline.run: {generate[-1]:.2f} s"
    )
    for preset in arguments.preset or ["draft", "standard"]:
        run(preset, arguments.repeat, arguments.seed)


if __name__ == "__main__":
    main()
