"""The queue's guarantees, transaction by transaction."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from render.errors import InputError
from tests.worker.probe import Probe
from worker import overdue, queue
from worker.database import now
from worker.jobs import BusyError, ConflictError, Jobs, Submission
from worker.kinds import Plan
from worker.metrics import count, exposition
from worker.queue import Claim, FileRef, LeaseLostError, MissingBytesError, Outcome, StageResult
from worker.schema import attempt, job, stage, webhook_out
from worker.transitions import UnknownJobError, write_event


def submit(jobs: Jobs, owner: str = "me", priority: int = 0, **params: Any) -> str:
    return jobs.submit(Submission("probe", params, priority=priority), owner=owner).job_id


def claim(jobs: Jobs, name: str = "gpu", worker: str = "w", lease_s: float = 60.0) -> Claim | None:
    return queue.claim(jobs.database, name, worker, 1, lease_s)


def claimed(jobs: Jobs, name: str = "gpu", **given: Any) -> Claim:
    found = claim(jobs, name, **given)
    assert found is not None
    return found


def commit(jobs: Jobs, held: Claim, outcome: Outcome | None = None) -> str | None:
    return queue.commit(jobs.database, held, outcome or Outcome(), lambda sha256: True)


def row_of(jobs: Jobs, job_id: str, seq: int = 0) -> Any:
    with jobs.database.read() as connection:
        return connection.execute(select(stage).where(stage.c.job_id == job_id, stage.c.seq == seq)).one()


def test_stages_come_one_after_the_other_and_the_job_ends(jobs: Jobs):
    job_id = submit(jobs)
    assert jobs.get(job_id).state == "queued"
    assert claim(jobs, "cpu") is None
    first = claimed(jobs)
    assert (first.name, first.epoch, first.attempts) == ("stage0", 1, 1)
    assert jobs.get(job_id).state == "running"
    assert claim(jobs) is None
    assert commit(jobs, first) == "cpu"
    assert commit(jobs, claimed(jobs, "cpu")) == "cpu"
    assert commit(jobs, claimed(jobs, "cpu")) is None
    done = jobs.get(job_id)
    assert (done.state, done.progress, done.stage) == ("succeeded", 1.0, None)
    numbers = [event.seq for event in jobs.events_since(job_id)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert jobs.last_events([job_id]) == {job_id: numbers[-1]}
    assert [event.seq for event in jobs.events_since(job_id, after=3)] == numbers[3:]


def test_a_stale_holder_can_do_nothing(jobs: Jobs):
    submit(jobs)
    stale = claimed(jobs, lease_s=-1.0)
    assert overdue.expire(jobs.database) == 1
    assert overdue.expire(jobs.database) == 0
    with pytest.raises(LeaseLostError):
        commit(jobs, stale)
    make_due(jobs)
    fresh = claimed(jobs, worker="other")
    assert fresh.epoch == stale.epoch + 1
    writes = [
        lambda: commit(jobs, stale),
        lambda: queue.renew(jobs.database, stale, lease_s=60, progress=0.5, message="", tell=True),
        lambda: queue.fail(jobs.database, stale, "bug", "x"),
        lambda: queue.release(jobs.database, stale),
        lambda: queue.canceled(jobs.database, stale),
        lambda: queue.save_checkpoint(jobs.database, stale, FileRef("0" * 64, 1, ""), lambda sha256: True),
        lambda: queue.is_canceled(jobs.database, stale),
    ]
    before = row_of(jobs, stale.job_id)
    events = len(jobs.events_since(stale.job_id))
    for write in writes:
        with pytest.raises(LeaseLostError):
            write()
    assert row_of(jobs, stale.job_id) == before
    assert len(jobs.events_since(stale.job_id)) == events
    assert commit(jobs, fresh) == "cpu"


def make_due(jobs: Jobs) -> None:
    """What is delayed is due now."""
    with jobs.database.write() as connection:
        connection.execute(update(stage).where(stage.c.state == "delayed").values(not_before=now() - 1))
    overdue.ready_delayed(jobs.database)


def test_a_commit_whose_answer_got_lost_may_be_repeated(jobs: Jobs):
    job_id = submit(jobs)
    held = claimed(jobs)
    assert commit(jobs, held) == "cpu"
    events = len(jobs.events_since(job_id))
    assert commit(jobs, held) is None
    assert len(jobs.events_since(job_id)) == events
    with jobs.database.read() as connection:
        done = select(func.count()).select_from(attempt).where(attempt.c.outcome == "done")
        assert connection.execute(done).scalar_one() == 1


def test_a_commit_without_bytes_changes_nothing(jobs: Jobs):
    job_id = submit(jobs)
    held = claimed(jobs)
    outcome = Outcome(files={"a.bin": FileRef("ab" * 32, 3, "x")})
    with pytest.raises(MissingBytesError):
        queue.commit(jobs.database, held, outcome, lambda sha256: False)
    assert row_of(jobs, job_id).state == "running"
    assert jobs.artefacts(job_id) == []
    commit(jobs, held, outcome)
    assert [file.name for file in jobs.artefacts(job_id)] == ["a.bin"]


@pytest.mark.parametrize(
    ("error_class", "tries"),
    [("input", 1), ("gpu_memory", 2), ("bug", 2), ("worker_lost", 3), ("infrastructure", 4)],
)
def test_retries_by_class_then_dead(jobs: Jobs, error_class: Any, tries: int):
    job_id = submit(jobs)
    for number in range(tries):
        make_due(jobs)
        held = claimed(jobs)
        assert held.memory_failures == (number if error_class == "gpu_memory" else 0)
        queue.fail(jobs.database, held, error_class, "why")
    make_due(jobs)
    assert claim(jobs) is None
    found = jobs.get(job_id)
    assert (found.state, found.error_class, found.error) == ("failed", error_class, "why")
    assert [one.outcome for one in jobs.attempts(job_id)] == [error_class] * tries
    assert [one.state for one in found.stages] == ["dead", "canceled", "canceled"]
    assert jobs.retry(job_id)
    assert claimed(jobs).attempts == 1


def test_a_stop_does_not_count(jobs: Jobs):
    job_id = submit(jobs)
    for _ in range(10):
        queue.release(jobs.database, claimed(jobs))
    assert row_of(jobs, job_id).attempts == 0
    assert claimed(jobs).epoch == 11


def test_retry_goes_on_where_it_stopped(jobs: Jobs):
    job_id = submit(jobs)
    commit(jobs, claimed(jobs))
    queue.fail(jobs.database, claimed(jobs, "cpu"), "input", "why")
    assert jobs.retry(job_id)
    assert not jobs.retry(job_id)
    assert [one.state for one in jobs.get(job_id).stages] == ["done", "ready", "blocked"]
    commit(jobs, claimed(jobs, "cpu"))
    commit(jobs, claimed(jobs, "cpu"))
    assert jobs.get(job_id).state == "succeeded"


def test_cancel_in_every_state(jobs: Jobs):
    waiting = submit(jobs)
    assert jobs.request_cancel(waiting) == "canceled"
    assert claim(jobs) is None
    running = submit(jobs)
    held = claimed(jobs)
    assert jobs.request_cancel(running) == "running"
    assert queue.renew(jobs.database, held, lease_s=60, progress=0.5, message="", tell=False)
    queue.canceled(jobs.database, held)
    assert jobs.get(running).state == "canceled"
    finishing = submit(jobs)
    held = claimed(jobs)
    jobs.request_cancel(finishing)
    commit(jobs, held)  # it was done before it heard
    assert jobs.get(finishing).state == "canceled"
    lost = submit(jobs)
    claimed(jobs, lease_s=-1.0)
    jobs.request_cancel(lost)
    overdue.expire(jobs.database)
    assert jobs.get(lost).state == "canceled"
    done = submit(jobs, queues=["gpu"])
    commit(jobs, claimed(jobs))
    assert jobs.request_cancel(done) == "succeeded"
    for job_id in (waiting, running, finishing, lost, done):
        ends = [e for e in jobs.events_since(job_id) if e.type == "job" and e.data["state"] != "queued"]
        ends = [e for e in ends if "cancel_requested" not in e.data]
        assert len(ends) == 1


def test_cancel_races_completion_and_one_wins(jobs: Jobs):
    for _ in range(10):
        job_id = submit(jobs, queues=["gpu"])
        held = claimed(jobs)
        both = threading.Barrier(2)

        def finish(held: Claim = held, both: threading.Barrier = both) -> None:
            both.wait()
            commit(jobs, held)

        other = threading.Thread(target=finish)
        other.start()
        both.wait()
        jobs.request_cancel(job_id)
        other.join()
        assert jobs.get(job_id).state in ("succeeded", "canceled")
        assert not any(one.state == "running" for one in jobs.get(job_id).stages)


def test_a_stage_costs_few_round_trips(jobs: Jobs):
    """Every statement is a round trip to a server; more than these is a slower queue."""
    sent: list[str] = []
    record = lambda c, cursor, statement, *_: sent.append(statement)  # noqa: E731
    event.listen(jobs.database.engine, "before_cursor_execute", record)
    submit(jobs, queues=["gpu", "gpu"])
    sent.clear()
    held = claimed(jobs)
    assert len([one for one in sent if not one.startswith("BEGIN")]) == 4, sent
    sent.clear()
    files = {f"{i}.bin": FileRef(f"{i:064}", 1, "x") for i in range(5)}
    made = StageResult("1" * 64, "stage0", 1.0, 1.0, files)
    assert commit(jobs, held, Outcome(files=files, results=[made])) == "gpu"
    assert len([one for one in sent if not one.startswith("BEGIN")]) == 10, sent
    held = claimed(jobs)
    sent.clear()
    assert commit(jobs, held) is None
    assert len([one for one in sent if not one.startswith("BEGIN")]) == 7, sent


def test_what_a_transaction_counts_and_tells_goes_with_it(jobs: Jobs):
    """Events and counters are written at a transaction's end, and not at all when it is broken off."""
    job_id = submit(jobs)

    def broken_off() -> None:
        with jobs.database.write() as connection:
            write_event(connection, job_id, "job", {})
            count(connection, "jobs", {"kind": "probe"})
            raise LookupError

    with pytest.raises(LookupError):
        broken_off()
    assert [event.seq for event in jobs.events_since(job_id)] == [1]
    assert b'maquette_jobs_total{kind="probe"} 1.0' in exposition(jobs.database)
    with jobs.database.write() as connection:
        assert write_event(connection, job_id, "a", {"n": 1}).events == 2
        assert write_event(connection, job_id, "b", {"n": 2}).events == 3
        count(connection, "jobs", {"kind": "probe"})
        count(connection, "jobs", {"kind": "probe"}, 2.0)
    assert [(e.seq, e.type, e.data) for e in jobs.events_since(job_id, 1)] == [
        (2, "a", {"n": 1}),
        (3, "b", {"n": 2}),
    ]
    assert b'maquette_jobs_total{kind="probe"} 4.0' in exposition(jobs.database)


def test_many_claim_at_once_and_each_stage_goes_to_one(jobs: Jobs):
    ids = [submit(jobs, queues=["gpu"], seed=i) for i in range(20)]
    taken: list[str] = []

    def work(number: int) -> None:
        while (held := claim(jobs, worker=f"w{number}")) is not None:
            taken.append(held.job_id)
            commit(jobs, held)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    # SKIP LOCKED may show a moment's empty queue to some; nothing is lost by it.
    work(0)
    assert Counter(taken) == Counter(ids)
    assert all(jobs.get(job_id).state == "succeeded" for job_id in ids)


def test_fifty_identical_requests_make_one_job(jobs: Jobs):
    submission = Submission("probe", {"seed": 7})
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: jobs.submit(submission, owner="me", key="k"), range(50)))
    assert len({answer.job_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert len(jobs.find()) == 1
    with pytest.raises(ConflictError):
        jobs.submit(Submission("probe", {"seed": 8}), owner="me", key="k")
    assert jobs.submit(submission, owner="you", key="k").created


def test_priority_then_owners_in_turn(jobs: Jobs):
    early = [submit(jobs, "greedy", queues=["gpu"], seed=i) for i in range(6)]
    late = [submit(jobs, "late", queues=["gpu"], seed=i) for i in range(2)]
    urgent = submit(jobs, "greedy", priority=5, queues=["gpu"])
    order = []
    while (held := claim(jobs)) is not None:
        order.append(held.job_id)
        commit(jobs, held)
    assert order == [urgent, early[0], late[0], early[1], late[1], *early[2:]]


def test_admission_limits(jobs: Jobs):
    jobs.settings = jobs.settings.model_copy(update={"max_active_per_owner": 2, "max_active_jobs": 3})
    submit(jobs)
    submit(jobs)
    with pytest.raises(BusyError) as error:
        submit(jobs)
    assert error.value.retry_after_s > 0
    submit(jobs, "you")
    with pytest.raises(BusyError):
        submit(jobs, "them")
    jobs.settings = jobs.settings.model_copy(update={"min_free_bytes": 1 << 60})
    with pytest.raises(BusyError, match="disk"):
        submit(jobs)


def test_foreign_and_unknown_jobs_look_the_same(jobs: Jobs):
    job_id = submit(jobs, "me")
    for ask in (jobs.get, jobs.request_cancel, jobs.delete, jobs.events_since, jobs.artefacts, jobs.retry):
        with pytest.raises(UnknownJobError, match="There is no job"):
            ask(job_id, owner="you")
    assert jobs.find(owner="you") == []
    with pytest.raises(UnknownJobError):
        jobs.get("nothing")


def test_bad_requests(jobs: Jobs):
    for submission in (
        Submission("nothing", {}),
        Submission("probe", {"unknown": 1}),
        Submission("probe", {"seed": float("nan")}),
        Submission("probe", {"seed": object()}),
        Submission("probe", {}, priority=1000),
        Submission("probe", {"log": "x" * 300_000}),
        Submission("probe", {}, inputs={"image": "ab" * 32}),
        Submission("probe", {"device": "tpu"}),
    ):
        with pytest.raises(InputError):
            jobs.submit(submission, owner="me")
    assert jobs.find() == []


def test_bells_are_owed_for_what_nobody_came_for(jobs: Jobs):
    submit(jobs)
    assert overdue.to_ring(jobs.database, "gpu", 60.0) == 0  # it was rung when it came
    assert overdue.to_ring(jobs.database, "gpu", -1.0) == 1
    assert overdue.to_ring(jobs.database, "cpu", -1.0) == 0
    queue.release(jobs.database, claimed(jobs))
    assert overdue.is_ready(jobs.database, "gpu", 60.0)  # at once: nobody knows of it
    assert overdue.to_ring(jobs.database, "gpu", 60.0) == 1
    assert overdue.to_ring(jobs.database, "gpu", 60.0) == 0


def test_a_job_that_waits_too_long_expires(jobs: Jobs):
    job_id = jobs.submit(Submission("probe", {}, wait_s=-1.0), owner="me").job_id
    assert overdue.expire_queued(jobs.database) == 1
    assert jobs.get(job_id).state == "expired"
    assert claim(jobs) is None


def test_the_end_of_a_job_asks_for_a_webhook_once(jobs: Jobs):
    submission = Submission("probe", {"queues": ["gpu"]}, callback_url="https://example.org/hook")
    job_id = jobs.submit(submission, owner="me").job_id
    held = claimed(jobs)
    commit(jobs, held)
    commit(jobs, held)
    with jobs.database.read() as connection:
        rows = connection.execute(select(webhook_out)).all()
    assert [(row.job_id, row.state, row.tries) for row in rows] == [(job_id, "pending", 0)]


def test_deleting(jobs: Jobs):
    job_id = submit(jobs)
    held = claimed(jobs)
    assert not jobs.delete(job_id)
    queue.canceled(jobs.database, held)
    assert jobs.delete(job_id)
    with jobs.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(job)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(stage)).scalar_one() == 0


class Reusable(Probe):
    """A probe whose results are the same for the same parameters."""

    name = "reusable"
    revision = "1"

    def plan(self, params: Any, inputs: Any, device: str) -> Plan:
        return replace(super().plan(params, inputs, device), revision=self.revision)


REUSABLE = Reusable()


def test_what_was_made_before_is_the_answer(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.admission.kind_named", lambda *asked: REUSABLE)
    submission = Submission("reusable", {"queues": ["gpu"]}, callback_url="https://example.org")
    first = jobs.submit(submission, owner="me").job_id
    meanwhile = jobs.submit(submission, owner="me").job_id
    assert jobs.get(meanwhile).state == "queued"  # nothing is made yet
    files = {"a.glb": FileRef("ab" * 32, 3, "x"), "b.png": FileRef("cd" * 32, 3, "x", "picture")}
    commit(jobs, claimed(jobs), Outcome(files, model_revisions={"model": "1"}))
    again = jobs.get(jobs.submit(submission, owner="you").job_id)
    assert (again.state, again.progress, again.model_revisions) == ("succeeded", 1.0, {"model": "1"})
    named = [(file.name, file.role, file.sha256) for file in jobs.artefacts(again.id)]
    assert named == [(file.name, file.role, file.sha256) for file in jobs.artefacts(first)]
    assert [event.data["state"] for event in jobs.events_since(again.id)] == ["queued", "succeeded"]
    assert jobs.delete(first)
    assert len(jobs.artefacts(again.id)) == 2
    monkeypatch.setattr(REUSABLE, "revision", "2")
    assert jobs.get(jobs.submit(submission, owner="you").job_id).state == "queued"
