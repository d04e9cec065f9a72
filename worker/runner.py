"""Runs one stage: claims it, lets its kind do it, stores what it made, commits it.

Each attempt works in a folder of its own in the scratch folder, so that an attempt that was given up and
wakes again disturbs nobody. What it made goes to the store before the commit names it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pipeline.checkpoints import peak_memory_mb
from pipeline.safety import RefusedError, Verdict
from render.errors import CanceledError, InputError
from render.progress import Progress
from worker import queue, verdicts
from worker.database import Database
from worker.heart import Heart, StoppedError
from worker.identity import worker_name
from worker.kinds import Kind, kind_named
from worker.mime import mime_of
from worker.quality import count_asset
from worker.queue import Claim, FileRef, LeaseLostError, MissingBytesError, Outcome, StageResult
from worker.settings import Settings
from worker.store import DamagedError, Store, store_at
from worker.stored_checkpoints import FileVersion, KnownHashes, StoredCheckpoints, version_of
from worker.tracing import Fact, Span, Tracing, trace_id, tracing_of
from worker.transitions import ErrorClass

if TYPE_CHECKING:
    from PIL import Image

    from worker.warm import Models

log = logging.getLogger(__name__)
T = TypeVar("T")

CHECKPOINT_MIME = "application/x-maquette-checkpoint"
COMMIT_TRIES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Waits between tries to reach a database that does not answer: over a minute in all."""
TURN_S = 60.0
"""A task begins no other stage after so long, so that its message is not held for hours."""

PICTURE_COMPRESSION = 1
"""Of PNGs that are looked at for a minute: a third of the time (172 to 57 ms for `views.png` of a draft), for
files a fourth larger."""


@dataclass
class Work:
    """What a kind is given to run a stage, and takes what it made."""

    claim: Claim
    directory: Path
    """Of this attempt alone, empty at first and gone afterwards."""
    progress: Progress
    """Tells how far the stage is, and raises what tells it to stop. Call it at least twice a second."""
    checkpoints: StoredCheckpoints
    outcome: Outcome
    _runner: Runner
    _database: Database
    _store: Store
    report: Mapping[str, Any] | None = None
    """Of the finished asset, for the metrics."""
    _put: dict[FileVersion, str] = field(default_factory=dict)
    """Hashes of files that are in the store."""

    @property
    def save_every_s(self) -> float:
        """How often the inside of a long stage is worth a `save`."""
        return self._runner.settings.save_every_s

    @property
    def models(self) -> Models:
        """Kept warm between jobs."""
        return self._runner.models

    def input(self, name: str) -> Path:
        """A file that was given with the job."""
        path = self.directory / f"input-{name}"
        if not path.is_file():
            self._store.fetch(self.claim.inputs[name], path)
        return path

    def deliver(self, path: Path, role: str, name: str | None = None) -> None:
        """Makes a file one of the job's (a role of `worker.schema.ROLES`), when the stage is committed."""
        self.outcome.files[name or path.name] = self._stored(path, role)

    def warn(self, message: str) -> None:
        """Something that the user should know; the job goes on."""
        queue.warn(self._database, self.claim, message)

    def note(self, said: Sequence[Verdict]) -> None:
        """What safety policies said of the job, for all who look at it."""
        verdicts.note(self._database, self.claim.job_id, said)

    def saved(self) -> Path | None:
        """What an earlier attempt of this stage saved to go on from."""
        if self.claim.checkpoint_sha is None:
            return None
        path = self.directory / "saved"
        try:
            if not path.is_file():
                self._store.fetch(self.claim.checkpoint_sha, path)
        except (FileNotFoundError, DamagedError):
            return None
        return path

    def save(self, path: Path) -> None:
        """Keeps the state of the stage's inside for another attempt; it replaces what was saved before. When
        the database does not answer that stays: the stage can do without."""
        file = FileRef(self._store.put(path), path.stat().st_size, CHECKPOINT_MIME)
        try:
            queue.save_checkpoint(self._database, self.claim, file, self._store.has)
        except DBAPIError as error:
            log.warning("the database does not answer, nothing is saved: %s", error.orig)

    def keep_results(self) -> None:
        """Stores the pipeline's stages that were made here."""
        for output in self.checkpoints.outputs:
            files = {
                name: self._stored(output / name, "asset", sha256) for name, sha256 in output.hashes.items()
            }
            self.outcome.results.append(
                StageResult(output.key, output.name, output.seconds, output.peak_mb, files)
            )

    def deliver_picture(self, picture: Image.Image, name: str) -> None:
        """The same with a picture of what goes on."""
        path = self.directory / name
        picture.save(path, compress_level=PICTURE_COMPRESSION)
        self.deliver(path, "picture")

    def _stored(self, path: Path, role: str, sha256: str | None = None) -> FileRef:
        version = version_of(path)
        if version not in self._put:  # a file may be delivered, and kept with its stage's result
            self._put[version] = self._store.put(path, sha256)
        return FileRef(self._put[version], path.stat().st_size, mime_of(path.name), role)


class Runner:
    """Of one worker process. Make it after the fork."""

    def __init__(
        self,
        settings: Settings,
        *,
        stopping: threading.Event | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.tracing = tracing or tracing_of(settings, "worker")
        self.database = Database(settings.database)
        self.store = store_at(settings)
        self.stopping = stopping or threading.Event()
        self.name = worker_name()
        self._known = KnownHashes()

    @cached_property
    def models(self) -> Models:
        """Loaded with torch, which jobs of other kinds do without."""
        from worker.warm import Models

        return Models()

    def run_ready(self, queue_name: str, ring: Callable[[str], object]) -> None:
        """Runs stages of a queue until none is ready, or for `TURN_S`. `ring` is called with the queue of a
        stage that is ready now and that this worker does not come for."""
        begun = time.monotonic()
        while True:
            claim, following = self.run_next(queue_name)
            if claim is None:
                return
            again = not self.stopping.is_set() and time.monotonic() - begun < TURN_S
            # One more is ready in this queue, and this worker takes one: no other need be woken.
            if following is not None and not (again and following == queue_name):
                ring(following)
            if not again:
                return

    def run_next(self, queue_name: str) -> tuple[Claim | None, str | None]:
        """Runs the first ready stage of a queue. The claim (None when there was nothing to do), and the queue
        that is to be rung because the next stage is ready."""
        if self.stopping.is_set():
            return None, None
        claim = queue.claim(self.database, queue_name, self.name, os.getpid(), self.settings.lease_s)
        if claim is None:
            return None, None
        facts: dict[str, object] = {"job": claim.job_id, "stage": claim.name, "epoch": claim.epoch}
        if claim.traceparent is not None:
            facts["trace"] = trace_id(claim.traceparent)
        log.info("begins", extra=facts)
        try:
            with self._span(claim) as span:
                following = self._run(claim, span)
        except LeaseLostError:
            log.warning("lost its lease; what it did does not count", extra=facts)
            return claim, None
        except DBAPIError as error:
            # The database cannot be told how it ended. The lease will end by itself.
            log.error("the database does not answer: %s", error.orig, extra=facts)
            return claim, None
        log.info("ends", extra=facts)
        return claim, following

    def _span(self, claim: Claim) -> AbstractContextManager[Span]:
        """The attempt in the trace of its job's request."""
        facts: dict[str, Fact] = {
            "maquette.job": claim.job_id,
            "maquette.kind": claim.kind,
            "maquette.stage": claim.name,
            "maquette.epoch": claim.epoch,
            "maquette.attempt": claim.attempts,
            "maquette.queue": claim.queue,
            "maquette.device": claim.device,
            "maquette.worker": self.name,
        }
        return self.tracing.span(
            f"stage {claim.name}", parent=claim.traceparent, kind="consumer", facts=facts
        )

    def _run(self, claim: Claim, span: Span) -> str | None:
        directory = self.settings.scratch / f"{claim.job_id}.{claim.seq}.{claim.epoch}"
        started = time.perf_counter()
        heart = Heart(self.database, claim, self.settings, self.stopping)
        try:
            with heart:
                try:
                    directory.mkdir(parents=True)
                    work = self._work(claim, directory, heart)
                    with _peak_vram(claim.device) as peak:
                        self._kind(claim.kind).run(claim.name, work)
                    work.keep_results()
                    heart.check()
                    work.outcome.peak_mb = peak_memory_mb()
                    if claim.queue == "gpu":
                        work.outcome.gpu_s = time.perf_counter() - started
                        work.outcome.peak_vram = peak()
                    following = self._persist(
                        lambda: queue.commit(self.database, claim, work.outcome, self.store.has)
                    )
                    span.fact("maquette.outcome", "done")
                    if work.report is not None:
                        self._count_asset(work)
                    return following
                except StoppedError:
                    span.fact("maquette.outcome", "stopped")
                    self._persist(lambda: queue.release(self.database, claim))
                except CanceledError:
                    span.fact("maquette.outcome", "canceled")
                    self._persist(lambda: queue.canceled(self.database, claim))
                except LeaseLostError:
                    raise
                except Exception as error:
                    self._failed(claim, error, span)
            return None
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _kind(self, name: str) -> Kind:
        settings = self.settings
        return kind_named(name, settings.kinds, settings.picture_policy, settings.known_pictures)

    def _work(self, claim: Claim, directory: Path, heart: Heart) -> Work:
        kept = directory / "stages"
        kept.mkdir()
        checkpoints = StoredCheckpoints(kept, self.database, self.store, self._known)
        work = Work(claim, directory, heart.progress, checkpoints, Outcome(), self, self.database, self.store)
        checkpoints.work = work
        return work

    def _count_asset(self, work: Work) -> None:
        """For the metrics; not worth a try again."""
        try:
            count_asset(self.database, work.report or {}, work.outcome.model_revisions)
        except DBAPIError as error:
            log.warning("the database does not answer, an asset is not counted: %s", error.orig)

    def _failed(self, claim: Claim, error: Exception, span: Span) -> None:
        error_class = classify(error)
        facts = {"job": claim.job_id, "stage": claim.name, "epoch": claim.epoch, "class": error_class}
        log.error("fails", extra=facts, exc_info=None if error_class == "input" else error)
        message = message_of(error, error_class)
        span.fact("maquette.outcome", error_class)
        span.failed(message)
        if error_class in ("gpu_memory", "worker_lost"):
            error.__traceback__ = None  # its frames hold the tensors
            if "models" in self.__dict__:
                self.models.clear()
        retry_s = self.settings.retry_s
        if isinstance(error, RefusedError):
            refused = error.verdict
            self._persist(lambda: verdicts.note(self.database, claim.job_id, [refused]))
        self._persist(lambda: queue.fail(self.database, claim, error_class, message, retry_s))

    @staticmethod
    def _persist(write: Callable[[], T]) -> T:
        """Repeats a write until the database has answered; all of `worker.queue` can be repeated."""
        for wait_s in COMMIT_TRIES_S:
            try:
                return write()
            except DBAPIError as error:
                log.warning("the database does not answer, again in %g s: %s", wait_s, error.orig)
                time.sleep(wait_s)
        return write()


def classify(error: BaseException) -> ErrorClass:
    """What kind of failure it is: that decides what follows (`transitions.RETRIES`)."""
    if isinstance(error, InputError):
        return "input"
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if "OutOfMemoryError" in names or "CUDA out of memory" in text:
        return "gpu_memory"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in text:
        return "worker_lost"
    if isinstance(error, OSError | SQLAlchemyError | DamagedError | MissingBytesError | TimeoutError):
        return "infrastructure"
    if "No space left on device" in text or "ClientError" in names or "BotoCoreError" in names:
        return "infrastructure"  # safetensors and boto3 have errors of their own
    return "bug"


def message_of(error: BaseException, error_class: ErrorClass) -> str:
    """What the user is told: one line, no path, no stack."""
    match error_class:
        case "input":
            return " ".join(str(error).split())[:500]
        case "gpu_memory":
            return "The GPU's memory does not suffice."
        case "worker_lost":
            return "The machine's memory does not suffice."
        case _:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return "The disk is full."
            return f"An internal error ({type(error).__name__})."


@contextlib.contextmanager
def _peak_vram(device: str):  # type: ignore[no-untyped-def]
    """The most GPU memory used inside, in bytes, by calling what it gives; None without a GPU."""
    if device != "cuda":
        yield lambda: None
        return
    import torch

    if not torch.cuda.is_available():
        yield lambda: None
        return
    torch.cuda.reset_peak_memory_stats()
    yield lambda: int(torch.cuda.max_memory_allocated())
