"""Finished stages with those of all jobs behind them: what was made before is brought, not made again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from pipeline.checkpoints import SNAPSHOT, Checkpoints, StageOutput, file_sha256, save_record, stage_key
from pipeline.config import Plain
from worker.database import Database
from worker.schema import result_file
from worker.statements import KNOWN_RESULT
from worker.store import DamagedError, Store

if TYPE_CHECKING:
    from recon.keeper import Keeper
    from worker.runner import Work

log = logging.getLogger(__name__)

MAX_KNOWN = 10_000
"""Hashes of files that a process remembers."""
FileVersion = tuple[int, int, int, int]


def version_of(path: Path) -> FileVersion:
    """What is another when a file's bytes are: device, inode, size and time of the last change."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class StageReachedError(Exception):
    """The stage that was asked for is finished: what comes after it is for another task."""


class KnownHashes:
    """Of files that this process has read: those of a job's earlier stages come with each of its stages, as
    links to the same bytes in the store."""

    def __init__(self) -> None:
        self._found: dict[FileVersion, str] = {}

    def sha256(self, path: Path) -> str:
        """A file's hash."""
        version = version_of(path)
        if version not in self._found:
            if len(self._found) >= MAX_KNOWN:
                self._found.clear()
            self._found[version] = file_sha256(path)
        return self._found[version]


class StoredCheckpoints(Checkpoints):
    """A stage whose key has a result in the database is brought from the store instead of being run."""

    def __init__(self, directory: Path, database: Database, store: Store, known: KnownHashes) -> None:
        super().__init__(directory)
        self._known = known
        self._database = database
        self._store = store
        self.outputs: list[StageOutput] = []
        """All that this run made or brought."""
        self.last: str | None = None
        """No stage after this one is run; of `order`."""
        self.order: tuple[str, ...] = ()
        self.work: Work | None = None
        """Of the stage that runs here: where its inside is kept."""

    def sha256(self, path: Path) -> str:
        return self._known.sha256(path)

    def keeper(self, out: Path) -> Keeper:
        if self.work is None:
            return super().keeper(out)
        from pipeline.kept_snapshot import KeptSnapshot

        path, every_s = out.with_suffix(SNAPSHOT), self.work.save_every_s
        return KeptSnapshot(path, out.stem, every_s, fetch=self.work.saved, kept=self.work.save)

    def run(
        self,
        name: str,
        version: int,
        params: Mapping[str, Plain],
        inputs: Sequence[StageOutput],
        function: Callable[[Path], None],
    ) -> StageOutput:
        if self.last is not None and self.order.index(name) > self.order.index(self.last):
            raise StageReachedError
        self._bring(name, stage_key(name, version, dict(params), inputs))
        output = super().run(name, version, params, inputs, function)
        self.outputs.append(output)
        return output

    def _bring(self, name: str, key: str) -> None:
        """Puts a known result in its place, when all of its bytes can be had."""
        with self._database.read() as connection:
            known = connection.execute(KNOWN_RESULT, {"of_key": key}).one_or_none()
            if known is None:
                return
            files = connection.execute(select(result_file).where(result_file.c.key == key)).all()
        part = self.directory / f".{self.folder(name, key).name}.bring"
        part.mkdir(parents=True)
        try:
            for file in files:
                self._store.fetch(file.sha256, part / file.name)
        except (FileNotFoundError, DamagedError) as error:
            log.warning("result %s of stage %s cannot be brought: %r", key[:16], name, error)
            shutil.rmtree(part)
            return
        hashes = {file.name: file.sha256 for file in files}
        save_record(part, name, key, hashes, known.seconds, known.peak_mb)
        part.rename(self.folder(name, key))
