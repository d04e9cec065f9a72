"""Where artefacts' bytes are: content-addressed, written once, never changed.

A folder has `sha256/ab/cd/<hash>`: a file is written beside its place under a temporary name, synced,
renamed, and its folder synced, so a hash that is there is whole. S3 is in `worker.object_store`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from render.errors import InputError
from worker.settings import Settings

PART = ".part"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """One object of a store."""

    sha256: str
    bytes: int
    modified: float


class DamagedError(Exception):
    """Bytes that do not have the hash they are stored under."""


@runtime_checkable
class Store(Protocol):
    """Bytes by their sha256."""

    @property
    def folder(self) -> Path | None:
        """Where it lies, when that is a disk of this machine."""

    def put(self, path: Path, sha256: str | None = None) -> str:
        """Takes the bytes of a file; their sha256, which is not looked for when it is given. What is there
        already is not written again; what is written has the hash, or an error is raised."""
        ...

    def has(self, sha256: str) -> bool:
        """Whether the bytes are there."""
        ...

    def size(self, sha256: str) -> int:
        """Their number; `FileNotFoundError` when they are not there."""
        ...

    def open(self, sha256: str, start: int = 0, end: int | None = None) -> BinaryIO:
        """The bytes from `start` to `end` (it may give more after it: read no more than you need);
        `FileNotFoundError` when they are not there."""
        ...

    def fetch(self, sha256: str, to: Path) -> None:
        """A file with these bytes at `to`; `FileNotFoundError` or `DamagedError`. Do not write into it."""
        ...

    def delete(self, sha256: str) -> None:
        """Forgets the bytes."""
        ...

    def walk(self) -> Iterator[Stored]:
        """All that is there."""
        ...

    def sweep_parts(self, older_than_s: float) -> int:
        """Removes what writers that died left behind; how many."""
        ...


class FolderStore:
    """A folder on a disk, or on a network file system with POSIX renames."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._synced: set[str] = set()
        """Folders `ab` whose names this process has synced."""
        try:
            (folder / "sha256").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"MAQUETTE_STORE_URL: {folder} cannot be made: {error.strerror}.") from None

    @property
    def folder(self) -> Path:
        return self._folder

    def path(self, sha256: str) -> Path:
        """The place of a hash."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise FileNotFoundError(sha256)
        return self._folder / "sha256" / sha256[:2] / sha256[2:4] / sha256

    def put(self, path: Path, sha256: str | None = None) -> str:
        with path.open("rb") as source:
            digest = sha256 or hashlib.file_digest(source, "sha256").hexdigest()
            final = self.path(digest)
            if final.is_file() and final.stat().st_size == path.stat().st_size:
                return digest
            final.parent.mkdir(parents=True, exist_ok=True)
            part = final.parent / f".{digest[:16]}-{secrets.token_hex(6)}{PART}"
            try:
                source.seek(0)
                copied = hashlib.sha256()
                with part.open("xb") as target:
                    while chunk := source.read(CHUNK):
                        copied.update(chunk)
                        target.write(chunk)
                    target.flush()
                    os.fsync(target.fileno())
                if copied.hexdigest() != digest:
                    raise DamagedError(f"{path} changed since its hash was taken.")
                part.rename(final)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        self._sync_names(final.parent)
        return digest

    def _sync_names(self, folder: Path) -> None:
        """Makes the names in a folder `ab/cd`, and the folders' own, survive a power cut."""
        _sync(folder)
        _sync(folder.parent)
        if folder.parent.name not in self._synced:
            _sync(self._folder / "sha256")
            _sync(self._folder)
            self._synced.add(folder.parent.name)

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        return self.path(sha256).stat().st_size

    def open(self, sha256: str, start: int = 0, end: int | None = None) -> BinaryIO:
        file = self.path(sha256).open("rb")
        file.seek(start)
        return file

    def fetch(self, sha256: str, to: Path) -> None:
        part = to.with_name(f".{to.name}{PART}")
        part.unlink(missing_ok=True)
        try:
            os.link(self.path(sha256), part)
        except FileNotFoundError:
            raise
        except OSError:  # another file system
            shutil.copyfile(self.path(sha256), part)
        part.replace(to)

    def delete(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    def walk(self) -> Iterator[Stored]:
        for path in (self._folder / "sha256").glob("??/??/*"):
            if path.name.startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                yield Stored(path.name, found.st_size, found.st_mtime)

    def sweep_parts(self, older_than_s: float) -> int:
        removed = 0
        for path in (self._folder / "sha256").glob(f"??/??/.*{PART}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_than_s:
                    path.unlink()
                    removed += 1
        return removed


def store_at(settings: Settings) -> Store:
    """The store that the settings name."""
    if settings.store.startswith("s3://"):
        from worker.object_store import ObjectStore

        return ObjectStore(settings.store, settings.s3_endpoint)
    return FolderStore(Path(settings.store))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
