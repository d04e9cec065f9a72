"""Events to many readers: none is lost or handed twice, whenever a reader comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from worker.api.events import EventHub
from worker.jobs import Event, Jobs

Stream = AsyncIterator[tuple[Event | None, bool]]


@dataclass
class Log:
    """In the place of `Jobs`: events of jobs, and something that happens just after they were read."""

    events: dict[str, list[Event]] = field(default_factory=dict)
    then: Callable[[str], None] = lambda _: None

    def add(self, job_id: str, kind: str = "progress", state: str = "running") -> None:
        kept = self.events.setdefault(job_id, [])
        kept.append(Event(job_id, len(kept) + 1, kind, {"state": state}, 0.0))

    def get(self, job_id: str, **_: Any) -> Any:
        kept = self.events.get(job_id)
        return SimpleNamespace(state=kept[-1].data["state"] if kept else "queued")

    def events_since(self, job_id: str, after: int, **_: Any) -> list[Event]:
        found = self.events.get(job_id, [])[after:]
        self.then(job_id)
        return found

    def last_events(self, ids: Sequence[str]) -> dict[str, int]:
        return {job_id: len(self.events.get(job_id, [])) for job_id in ids}


def hub_of(log: Log) -> EventHub:
    return EventHub(cast(Jobs, log), max_readers=10)


async def numbers(stream: Stream, count: int) -> list[int]:
    found: list[int] = []
    async for event, _ in stream:
        if event is not None:
            found.append(event.seq)
        if len(found) == count:
            break
    return found


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def test_what_happens_between_the_past_and_the_first_look_is_handed():
    log = Log()

    def happens(job_id: str) -> None:
        if job_id == "new" and not log.events.get("new"):
            log.add("new")

    async def test() -> None:
        log.add("old")
        hub = hub_of(log)
        other = hub.subscribe("old", 0, None)
        assert await numbers(other, 1) == [1]
        waits = asyncio.create_task(numbers(other, 1))
        await asyncio.sleep(0.05)  # the hub looks for the first reader now and again
        log.then = happens
        assert await numbers(hub.subscribe("new", 0, None), 1) == [1]
        log.add("old")
        assert await waits == [2]
        hub.close()

    run(test)


def test_readers_that_come_at_different_times_get_the_same_once():
    async def test() -> None:
        log = Log()
        hub = hub_of(log)
        log.add("job", "job", "queued")
        readers = []
        for _ in range(5):
            readers.append(asyncio.create_task(numbers(hub.subscribe("job", 0, None), 100)))
            await asyncio.sleep(0.013)
            log.add("job")
        log.add("job", "job", "succeeded")
        # All end with the job, without being told how many there are.
        assert await asyncio.gather(*readers) == 5 * [list(range(1, 8))]
        assert await numbers(hub.subscribe("job", 5, None), 100) == [6, 7]
        assert await numbers(hub.subscribe("job", 7, None), 100) == []

    run(test)


def test_a_job_that_ends_while_its_past_is_read_ends_the_stream():
    log = Log()
    log.add("job")

    def ends(_: str) -> None:
        if len(log.events["job"]) == 1:
            log.add("job", "job", "failed")

    async def test() -> None:
        log.then = ends
        assert await numbers(hub_of(log).subscribe("job", 0, None), 100) == [1, 2]

    run(test)
