"""Fault 15's receivers of webhooks: they hang, redirect to a private address, are gone, or come back."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from tests.worker.test_fetching import answering, serving
from worker import queue
from worker.jobs import Jobs, Submission
from worker.queue import Outcome
from worker.schema import webhook_out
from worker.webhooks import DELAYS_S, WebhookSender, log_of

pytestmark = pytest.mark.fault


def ended(jobs: Jobs, url: str) -> str:
    """A job whose end is to be told there."""
    submission = Submission("probe", {"queues": ["gpu"]}, callback_url=url)
    job_id = jobs.submit(submission, owner="me").job_id
    held = queue.claim(jobs.database, "gpu", "test", 1, 60)
    assert held is not None
    queue.commit(jobs.database, held, Outcome(), lambda sha256: True)
    return job_id


def sender_of(jobs: Jobs) -> WebhookSender:
    sender = WebhookSender(
        jobs.database, b"secret", lambda job_id: {"id": job_id}, private_hosts=frozenset({"127.0.0.1"})
    )
    sender.policy = replace(sender.policy, timeout_s=0.5)
    return sender


def tried(jobs: Jobs, sender: WebhookSender, job_id: str) -> dict[str, Any]:
    """How the delivery stands after one more try."""
    with jobs.database.write() as connection:
        connection.execute(update(webhook_out).values(next_at=0.0))
    assert sender.deliver_due() == 1
    (row,) = log_of(jobs.database, job_id)
    return row


def test_a_receiver_that_hangs_holds_nobody_up_and_is_tried_again(jobs: Jobs):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, and never answers
        job_id = ended(jobs, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        begun = time.monotonic()
        row = tried(jobs, sender_of(jobs), job_id)
        assert time.monotonic() - begun < 10
    assert (row["state"], row["tries"], row["last_status"]) == ("pending", 1, None)
    assert jobs.get(job_id).state == "succeeded"  # whatever becomes of the message


def test_a_redirect_to_a_private_address_is_not_followed(jobs: Jobs):
    metadata = "Location: http://169.254.169.254/latest/meta-data\r\n"
    with serving(answering(b"", "307 Temporary Redirect", metadata)) as port:
        job_id = ended(jobs, f"http://127.0.0.1:{port}/")
        row = tried(jobs, sender_of(jobs), job_id)
    assert (row["state"], row["last_status"]) == ("pending", 307)
    assert "307" in row["last_error"]


def test_a_receiver_that_is_gone_is_left_alone(jobs: Jobs):
    with serving(answering(b"", "410 Gone")) as port:
        job_id = ended(jobs, f"http://127.0.0.1:{port}/")
        assert tried(jobs, sender_of(jobs), job_id)["state"] == "dead"


def test_tries_end_at_the_cap(jobs: Jobs):
    sender = sender_of(jobs)
    with serving(answering(b"", "500 No"), len(DELAYS_S) + 1) as port:
        job_id = ended(jobs, f"http://127.0.0.1:{port}/")
        states = [tried(jobs, sender, job_id)["state"] for _ in range(len(DELAYS_S) + 1)]
    assert states == ["pending"] * len(DELAYS_S) + ["dead"]
    assert sender.deliver_due() == 0
