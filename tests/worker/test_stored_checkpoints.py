"""Hashes of files that a process has read: kept for links to the same bytes, forgotten with a change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.checkpoints import file_sha256
from worker import stored_checkpoints
from worker.stored_checkpoints import KnownHashes


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(stored_checkpoints, "file_sha256", noted)
    return names


def test_a_link_is_not_read_again_but_a_change_is(tmp_path: Path, read: list[str]):
    known, file, link = KnownHashes(), tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"a barrel")
    os.link(file, link)
    assert {known.sha256(file), known.sha256(link), known.sha256(file)} == {sha256_of(b"a barrel")}
    assert read == ["file"]
    with link.open("r+b") as damaged:  # of the same size, in the same place
        damaged.write(b"A")
    assert known.sha256(file) == sha256_of(b"A barrel")
    copy = tmp_path / "copy"
    copy.write_bytes(b"a barrel")
    assert known.sha256(copy) == sha256_of(b"a barrel")
    assert read == ["file", "file", "copy"]


def test_not_more_are_kept_than_are_allowed(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stored_checkpoints, "MAX_KNOWN", 2)
    known = KnownHashes()
    files = [tmp_path / str(number) for number in range(3)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
        assert known.sha256(file) == sha256_of(bytes([number]))
    assert len(known._found) <= 2
    assert known.sha256(files[0]) == sha256_of(b"\0")
