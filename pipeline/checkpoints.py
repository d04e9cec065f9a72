"""Finished stages on disk, so that a run goes on where it stopped.

A stage is a function that writes files into an empty folder. Its key is the hash of its name,
the version of its code, its parameters and the hashes of the files it reads; when a finished
folder with that key is there and its files are whole, the function is not called. A folder
gets its final name only when the function is done, so what has a name is complete. A long stage
keeps its inside beside that folder (`Checkpoints.keeper`) until it is finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Plain
from render.errors import InputError

if TYPE_CHECKING:
    from recon.keeper import Keeper

RECORD = "stage.json"
SNAPSHOT = ".snapshot"
KEEP_EVERY_S = 10.0
"""Between two snapshots of a stage's inside."""


@dataclass(frozen=True)
class StageOutput:
    """A finished stage: its folder and what it cost."""

    name: str
    key: str
    directory: Path
    hashes: dict[str, str]
    """sha256 of every file, by its name."""
    seconds: float
    """Wall time when it ran; of the earlier run when it was kept."""
    peak_mb: float
    reused: bool

    def __truediv__(self, file: str) -> Path:
        """The path of one of its files."""
        return self.directory / file

    def told(self, file: str) -> dict[str, Any] | None:
        """What one of its JSON files says; None where it wrote no such file."""
        return load_told(self / file) if file in self.hashes else None


def load_told(path: Path) -> dict[str, Any] | None:
    """What a stage's JSON file says; None where it wrote no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def file_sha256(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_key(name: str, version: int, params: Plain, inputs: Sequence[StageOutput]) -> str:
    """Hash of all that a stage's output depends on."""
    described = {
        "stage": name,
        "version": version,
        "params": params,
        "inputs": [[source.name, sorted(source.hashes.items())] for source in inputs],
    }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save_record(
    folder: Path, name: str, key: str, hashes: Mapping[str, str], seconds: float, peak_mb: float
) -> None:
    """Makes a folder that holds all files of a stage known as its output."""
    record = {"stage": name, "key": key, "files": dict(hashes), "seconds": seconds, "peak_mb": peak_mb}
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


class Checkpoints:
    """The folder of finished stages of one output directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.used: set[str] = set()
        """Names of the folders that this run made or reused."""

    def folder(self, name: str, key: str) -> Path:
        """Where the output of a stage lies once it is finished."""
        return self.directory / f"{name}-{key[:16]}"

    def keeper(self, out: Path) -> Keeper:
        """For the stage that `run` has write into `out`: holds what an attempt that was stopped kept."""
        from pipeline.kept_snapshot import KeptSnapshot

        return KeptSnapshot(out.with_suffix(SNAPSHOT), out.stem, KEEP_EVERY_S)

    def run(
        self,
        name: str,
        version: int,
        params: Mapping[str, Plain],
        inputs: Sequence[StageOutput],
        function: Callable[[Path], None],
    ) -> StageOutput:
        """The output of `function`, made now in an empty folder or kept from before."""
        key = stage_key(name, version, dict(params), inputs)
        folder = self.folder(name, key)
        self.used.add(folder.name)
        kept = self._load(name, key, folder)
        if kept is not None:
            return kept
        part = self.directory / f".{folder.name}.part"
        for stale in (part, folder):
            if stale.exists():
                shutil.rmtree(stale)
        part.mkdir(parents=True)
        reset_peak_memory()
        start = time.perf_counter()
        try:
            function(part)
            seconds, peak_mb = time.perf_counter() - start, peak_memory_mb()
            hashes = {file.name: self.sha256(file) for file in sorted(part.iterdir())}
            save_record(part, name, key, hashes, seconds, peak_mb)
            part.rename(folder)
            part.with_suffix(SNAPSHOT).unlink(missing_ok=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return StageOutput(name, key, folder, hashes, seconds, peak_mb, reused=False)

    def prune(self) -> None:
        """Forget stages that this run did not use, and the inside of stages that were never finished."""
        for left in self.directory.glob(f".*{SNAPSHOT}"):
            left.unlink(missing_ok=True)
        for folder in self.directory.iterdir():
            if folder.is_dir() and folder.name not in self.used:
                shutil.rmtree(folder, ignore_errors=True)

    def sha256(self, path: Path) -> str:
        """Of a file of a finished stage."""
        return file_sha256(path)

    def _load(self, name: str, key: str, folder: Path) -> StageOutput | None:
        """The finished stage in `folder`; None when there is none or its files are not what was written."""
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            hashes = {str(file): str(digest) for file, digest in record["files"].items()}
            whole = record["key"] == key and all(
                self.sha256(folder / file) == digest for file, digest in hashes.items()
            )
            if not whole:
                return None
            return StageOutput(
                name, key, folder, hashes, float(record["seconds"]), float(record["peak_mb"]), reused=True
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def publish(files: Mapping[str, Path], directory: Path) -> None:
    """Copies files to their final names in `directory`: all under temporary names first, then all renamed.

    A copy that fails (no space left) leaves what was there before untouched.
    """
    parts: list[tuple[Path, Path]] = []
    try:
        for name, source in files.items():
            part = directory / f".{name}.part"
            parts.append((part, directory / name))
            shutil.copyfile(source, part)
        for _, final in parts:
            if final.is_dir():
                raise InputError(f"{final} is a folder, but the result needs a file of that name.")
        for part, final in parts:
            os.replace(part, final)
    finally:
        for part, _ in parts:
            part.unlink(missing_ok=True)


def reset_peak_memory() -> None:
    """Starts a new peak (Linux; elsewhere the peak stays that of the whole process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_memory_mb() -> float:
    """Largest resident size in MB since `reset_peak_memory`."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
