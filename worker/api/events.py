"""Events of jobs to many readers: one look at the database for all of them, then each its own.

A reader says the number of the last event that it has (`Last-Event-ID`), gets what came after it from the
database, and then what happens. A reader that is too slow is let go; it comes back with its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from worker.api.errors import ApiError, too_many
from worker.jobs import Event, Jobs, UnknownJobError
from worker.schema import ACTIVE_JOB_STATES

logger = logging.getLogger(__name__)

FIRST_POLL_S = 0.02
"""After news, or when a reader comes: events of one job follow each other closely or after a long time."""
POLL_S = 0.1
"""The most that it doubles to while nothing happens."""
KEEP_ALIVE_S = 15.0
"""Proxies close what is silent for a minute or so."""
MAX_WAITING = 256
"""Events that a reader may be behind."""
IDS_A_QUERY = 500
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(eq=False)
class _Reader:
    job_id: str
    waiting: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    """None: the job is gone."""
    ready: bool = False
    """It has read the past."""
    handed: int = 0
    """Number of the last event that it read or that waits for it."""
    dropped: bool = False


class EventHub:
    """Belongs to one event loop. `close` ends all streams."""

    def __init__(self, jobs: Jobs, max_readers: int) -> None:
        self.jobs = jobs
        self.max_readers = max_readers
        self._readers: dict[str, set[_Reader]] = {}
        self._come = asyncio.Event()
        """A reader has read the past and waits."""
        self._task: asyncio.Task[None] | None = None
        self._threads = anyio.CapacityLimiter(4)

    async def subscribe(
        self, job_id: str, after: int, owner: str | None
    ) -> AsyncIterator[tuple[Event | None, bool]]:
        """A job's events after number `after`, each with whether it is the last for now.

        None is a moment without events. Ends with the job, or when the reader is too slow. Raises
        `UnknownJobError` before the first.
        """
        if sum(map(len, self._readers.values())) >= self.max_readers:
            raise too_many("Too many event streams are open.", 5.0)
        reader = _Reader(job_id)
        self._readers.setdefault(job_id, set()).add(reader)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            last: Event | None = None
            ended = past_end(await self._in_thread(partial(self.jobs.get, job_id, owner=owner)))
            while True:
                past = await self._in_thread(partial(self.jobs.events_since, job_id, after, owner=owner))
                for number, event in enumerate(past, 1):
                    after, last = event.seq, event
                    yield event, number == len(past)
                if not past:
                    break
            if ended or (last is not None and ends(last)):
                return
            reader.handed, reader.ready = after, True
            self._come.set()
            while not reader.dropped:
                try:
                    found = await asyncio.wait_for(reader.waiting.get(), KEEP_ALIVE_S)
                except TimeoutError:
                    yield None, True
                    continue
                if found is None:
                    return
                yield found, reader.waiting.empty()
                if ends(found):
                    return
        finally:
            self._readers[job_id].discard(reader)
            if not self._readers[job_id]:
                del self._readers[job_id]

    def close(self) -> None:
        for readers in self._readers.values():
            for reader in readers:
                _drop(reader)
        if self._task is not None:
            self._task.cancel()

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        # A limiter of its own: a thousand readers that arrive at once must not take the routes' threads.
        return await anyio.to_thread.run_sync(function, limiter=self._threads)

    async def _poll(self) -> None:
        """Looks for news as long as anybody reads."""
        wait_s = FIRST_POLL_S
        while self._readers:
            news = self._come.is_set()
            self._come.clear()
            try:
                ids = list(self._readers)
                for start in range(0, len(ids), IDS_A_QUERY):
                    news |= await self._look(ids[start : start + IDS_A_QUERY])
            except Exception:
                logger.exception("events: the database cannot be read")
                await asyncio.sleep(1.0)
            wait_s = FIRST_POLL_S if news else min(2 * wait_s, POLL_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._come.wait(), wait_s)

    async def _look(self, ids: list[str]) -> bool:
        """Hands out what is new, and says whether anything was."""
        counts = await self._in_thread(partial(self.jobs.last_events, ids))
        found = False
        for job_id in ids:
            last = counts.get(job_id)
            if last is None:
                for reader in self._waiting(job_id):
                    _hand(reader, None)
                continue
            least = min((reader.handed for reader in self._waiting(job_id)), default=last)
            if last <= least:
                continue
            try:
                news = await self._in_thread(partial(self.jobs.events_since, job_id, least))
            except UnknownJobError:
                continue
            found = True
            for reader in self._waiting(job_id):
                for event in news:
                    if event.seq > reader.handed:
                        _hand(reader, event)
        return found

    def _waiting(self, job_id: str) -> list[_Reader]:
        """Readers of a job that have read the past."""
        return [reader for reader in self._readers.get(job_id, ()) if reader.ready]


def _hand(reader: _Reader, event: Event | None) -> None:
    try:
        reader.waiting.put_nowait(event)
    except asyncio.QueueFull:
        _drop(reader)
    if event is not None:
        reader.handed = event.seq


def _drop(reader: _Reader) -> None:
    reader.dropped = True
    while not reader.waiting.empty():
        reader.waiting.get_nowait()
    reader.waiting.put_nowait(None)


def ends(event: Event) -> bool:
    """Whether it is a job's end."""
    return event.type == "job" and event.data.get("state") not in ACTIVE_JOB_STATES


def past_end(job: Any) -> bool:
    """Whether nothing more will happen."""
    return job.state not in ACTIVE_JOB_STATES


def last_event_id(header: str | None, query: int | None) -> int:
    """The number a reader goes on after: the header of a browser's reconnect, else the query's."""
    if header is None or not header.strip():
        return query or 0
    text = header.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise ApiError(422, f"Last-Event-ID: {text[:20]!r} is no number of an event.")
    return int(text)


def sse(data: Any, *, event: str | None = None, number: int | None = None) -> bytes:
    """One message of `text/event-stream`."""
    lines = [] if number is None else [f"id: {number}"]
    if event is not None:
        lines.append(f"event: {event}")
    lines.append(f"data: {json.dumps(data, separators=(',', ':'), ensure_ascii=False)}")
    return ("\n".join(lines) + "\n\n").encode()
