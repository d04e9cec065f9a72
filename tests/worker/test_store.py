"""Content-addressed bytes in a folder: whole or not there; and what the sweep may take."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from render.errors import InputError
from worker import queue, retention
from worker.database import now
from worker.jobs import Jobs, Submission
from worker.queue import FileRef, MissingBytesError, Outcome, StageResult
from worker.schema import artefact, job, result, upload
from worker.settings import load_settings
from worker.store import DamagedError, FolderStore, Store, store_at

DAY_S = 86_400


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def file_with(folder: Path, content: bytes) -> Path:
    path = folder / hashlib.md5(content).hexdigest()
    path.write_bytes(content)
    return path


def test_bytes_come_back(store: FolderStore, tmp_path: Path):
    assert isinstance(store, Store)
    sha256 = store.put(file_with(tmp_path, b"a barrel"))
    assert sha256 == hashlib.sha256(b"a barrel").hexdigest()
    assert (store.has(sha256), store.size(sha256)) == (True, 8)
    with store.open(sha256, start=2) as file:
        assert file.read() == b"barrel"
    store.fetch(sha256, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"a barrel"
    assert [stored.sha256 for stored in store.walk()] == [sha256]
    store.delete(sha256)
    assert not store.has(sha256)
    assert (tmp_path / "back").read_bytes() == b"a barrel"
    for ask in (store.open, store.size, lambda name: store.fetch(name, tmp_path / "x")):
        with pytest.raises(FileNotFoundError):
            ask(sha256)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 63, "A" * 64, "", "/" * 64])
def test_only_hashes_are_names(store: FolderStore, name: str):
    with pytest.raises(FileNotFoundError):
        store.open(name)


def test_many_writers_of_the_same_bytes(store: FolderStore, tmp_path: Path):
    path = file_with(tmp_path, os.urandom(300_000))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: store.put(path), range(16)))) == 1
    assert len(list(store.walk())) == 1
    assert not list((tmp_path / "store").rglob("*.part"))


def test_a_write_that_fails_leaves_nothing(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.put(file_with(tmp_path, b"x"))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_hash_that_is_given_is_checked(store: FolderStore, tmp_path: Path):
    path, right = file_with(tmp_path, b"a barrel"), hashlib.sha256(b"a barrel").hexdigest()
    with pytest.raises(DamagedError, match="changed since"):
        store.put(path, hashlib.sha256(b"a crate").hexdigest())
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert store.put(path, right) == store.put(path) == right


def test_a_half_written_file_is_no_artefact_and_is_swept(store: FolderStore, tmp_path: Path):
    path = file_with(tmp_path, b"whole")
    sha256 = store.put(path)
    store.path(sha256).write_bytes(b"who")  # a disk that lied
    assert store.put(path) == sha256
    assert store.size(sha256) == 5
    part = store.path(sha256).parent / ".left.part"
    part.write_bytes(b"x")
    assert store.sweep_parts(60) == 0
    assert store.sweep_parts(0) == 1
    assert not part.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MAQUETTE_STORE_URL"):
        store_at(load_settings(store_url=str(tmp_path / "file" / "store")))


def put(jobs: Jobs, content: bytes, tmp_path: Path) -> FileRef:
    path = file_with(tmp_path, content)
    return FileRef(jobs.store.put(path), len(content), "x")


def finished_job(jobs: Jobs, files: dict[str, FileRef], results: list[StageResult]) -> str:
    job_id = jobs.submit(Submission("probe", {"queues": ["gpu"]}), owner="me").job_id
    held = queue.claim(jobs.database, "gpu", "w", 1, 60)
    assert held is not None
    queue.commit(jobs.database, held, Outcome(files, results), jobs.store.has)
    return job_id


def age(jobs: Jobs, table: Any, column: str, seconds: float) -> None:
    with jobs.database.write() as connection:
        connection.execute(update(table).values({column: now() - seconds}))


def age_files(jobs: Jobs, seconds: float) -> None:
    store = jobs.store
    assert isinstance(store, FolderStore)
    for stored in store.walk():
        os.utime(store.path(stored.sha256), (stored.modified - seconds, stored.modified - seconds))


def sweep(jobs: Jobs) -> retention.Swept:
    return retention.sweep(jobs.database, jobs.store, jobs.settings)


def test_retention_marks_what_is_used_and_sweeps_the_rest(jobs: Jobs, tmp_path: Path):
    asset, middle, shared = (put(jobs, text, tmp_path) for text in (b"asset", b"middle", b"shared"))
    made = StageResult("k1", "views", 1.0, 1.0, {"m": middle, "s": shared})
    finished_job(jobs, {"a.glb": asset, "s.bin": shared}, [made])
    age(jobs, artefact, "touched", 2 * DAY_S)
    age_files(jobs, 2 * DAY_S)
    assert sweep(jobs).artefacts == 0
    age(jobs, result, "used", 8 * DAY_S)
    swept = sweep(jobs)
    assert (swept.results, swept.artefacts, swept.bytes) == (1, 1, 6)
    assert [jobs.store.has(file.sha256) for file in (asset, middle, shared)] == [True, False, True]
    age(jobs, job, "finished", 31 * DAY_S)
    swept = sweep(jobs)
    assert (swept.jobs, swept.artefacts) == (1, 2)
    assert list(jobs.store.walk()) == []


def test_strangers_go_after_the_grace_and_uploads_after_theirs(jobs: Jobs, tmp_path: Path):
    stranger = put(jobs, b"stored by a worker that died before its commit", tmp_path)
    given = file_with(tmp_path, b"a picture")
    sha256 = jobs.add_upload(given, owner="me", name="a.png", mime="image/png")
    assert sweep(jobs).strangers == 0
    age_files(jobs, 2 * DAY_S)
    assert sweep(jobs).strangers == 1
    assert not jobs.store.has(stranger.sha256)
    age(jobs, upload, "expires", 1)
    age(jobs, artefact, "touched", 2 * DAY_S)
    swept = sweep(jobs)
    assert (swept.uploads, swept.artefacts) == (1, 1)
    assert not jobs.store.has(sha256)


def test_a_commit_after_the_sweep_finds_the_bytes_gone(jobs: Jobs, tmp_path: Path):
    job_id = jobs.submit(Submission("probe", {"queues": ["gpu"]}), owner="me").job_id
    held = queue.claim(jobs.database, "gpu", "w", 1, 60)
    assert held is not None
    file = put(jobs, b"stored, then slept for two days", tmp_path)
    age_files(jobs, 2 * DAY_S)
    assert sweep(jobs).strangers == 1
    with pytest.raises(MissingBytesError):
        queue.commit(jobs.database, held, Outcome({"a": file}), jobs.store.has)
    with jobs.database.read() as connection:
        assert connection.execute(select(artefact)).all() == []
    assert jobs.get(job_id).state == "running"


def test_a_touch_keeps_what_is_about_to_be_used(jobs: Jobs, tmp_path: Path):
    file = put(jobs, b"made before", tmp_path)
    with jobs.database.write() as connection:
        queue.keep_artefacts(connection, [file], jobs.store.has)
    age(jobs, artefact, "touched", 2 * DAY_S)
    with jobs.database.write() as connection:
        queue.keep_artefacts(connection, [file], jobs.store.has)
    assert sweep(jobs).artefacts == 0
