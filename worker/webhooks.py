"""Webhooks: a signed POST when a job ends, tried again until it is taken, every try written down.

Signed by the Standard Webhooks scheme (`webhook-id`, `webhook-timestamp`, `webhook-signature`), so that
receivers check it with the library of their language; `webhook-id` stays the same over all tries of one
delivery, so that they can drop what they have. The body is what `GET` answers for the job. Addresses are
checked as `worker.fetching` says, redirects are not followed.

The rows of `webhook_out` are claimed like stages: `next_at` moves into the future before the POST, so that
several processes never deliver one at the same time, and one that dies leaves it to the next.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from standardwebhooks import Webhook

from worker.database import Database, now
from worker.fetching import FetchError, FetchPolicy, Resolver, post, system_resolver
from worker.schema import job, webhook_out

logger = logging.getLogger(__name__)

DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21_600.0)
"""Between tries; one more try than delays: about nine hours in all."""
JITTER = 0.2
"""Of a delay, so that a receiver that comes back is not met by all at once."""
CLAIM_S = 60.0
"""A claimed delivery is free again after so long; more than a POST may take."""
TIMEOUT_S = 15.0
MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Delivery:
    """One claimed row."""

    id: int
    job_id: str
    url: str
    body: dict[str, Any]
    owner: str
    tries: int
    """With this one."""

    @property
    def message_id(self) -> str:
        return f"msg_{self.job_id}_{self.id}"


def signing_secret(owner: str, service_secret: bytes) -> str:
    """The owner's secret for checking signatures, `whsec_...`: derived, so there is nothing to store."""
    key = hmac.new(service_secret, f"webhook\n{owner}".encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(key).decode("ascii")


def signed_headers(message_id: str, body: str, secret: str, at: datetime) -> dict[str, str]:
    """The three headers of the scheme; `at` is in UTC."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at.astimezone(UTC), body),
    }


class WebhookSender:
    """Delivers what is due; `run` in a thread, or `deliver_due` by hand.

    `describe(job_id)` is the body of a job's first try; later tries send the same bytes again.
    """

    def __init__(
        self,
        database: Database,
        service_secret: bytes,
        describe: Callable[[str], dict[str, Any]],
        *,
        private_hosts: frozenset[str] = frozenset(),
        resolve: Resolver = system_resolver,
    ) -> None:
        self.database = database
        self.service_secret = service_secret
        self.describe = describe
        self.policy = FetchPolicy(
            max_bytes=MAX_ANSWER_BYTES, timeout_s=TIMEOUT_S, private_hosts=private_hosts
        )
        self.resolve = resolve

    def run(self, stop: threading.Event, pause_s: float = 1.0) -> None:
        """Until `stop` is set; errors of the database are logged and tried again."""
        while not stop.is_set():
            try:
                sent = self.deliver_due()
            except Exception:
                logger.exception("webhooks: delivering failed")
                sent = 0
            stop.wait(0.0 if sent else pause_s)

    def deliver_due(self, limit: int = 16) -> int:
        """Tries every delivery that is due, `limit` at most; how many were tried."""
        tried = 0
        while tried < limit and (claimed := self._claim()) is not None:
            tried += 1
            self._record(claimed, *self._try(claimed))
        return tried

    def _claim(self) -> Delivery | None:
        with self.database.read() as connection:
            due = connection.execute(
                select(webhook_out.c.id)
                .where(webhook_out.c.state == "pending", webhook_out.c.next_at <= now())
                .order_by(webhook_out.c.next_at)
                .limit(8)
            ).scalars()
            candidates = list(due)
        for row_id in candidates:
            with self.database.write() as connection:
                row = connection.execute(
                    update(webhook_out)
                    .where(
                        webhook_out.c.id == row_id,
                        webhook_out.c.state == "pending",
                        webhook_out.c.next_at <= now(),
                    )
                    .values(next_at=now() + CLAIM_S, tries=webhook_out.c.tries + 1)
                    .returning(
                        webhook_out.c.job_id, webhook_out.c.url, webhook_out.c.body, webhook_out.c.tries
                    )
                ).first()
                if row is None:
                    continue
                owner = connection.execute(select(job.c.owner).where(job.c.id == row.job_id)).scalar_one()
                body = row.body
            if body is None:
                body = self.describe(row.job_id)
                with self.database.write() as connection:
                    connection.execute(
                        update(webhook_out).where(webhook_out.c.id == row_id).values(body=body)
                    )
            return Delivery(row_id, row.job_id, row.url, body, owner, row.tries)
        return None

    def _try(self, delivery: Delivery) -> tuple[int | None, str | None]:
        """Status of the answer and what was wrong with it; both may be None."""
        text = json.dumps(delivery.body, separators=(",", ":"), ensure_ascii=False)
        headers = signed_headers(
            delivery.message_id,
            text,
            signing_secret(delivery.owner, self.service_secret),
            datetime.now(UTC),
        )
        headers["Content-Type"] = "application/json"
        try:
            answer = post(delivery.url, text.encode(), headers, self.policy, resolve=self.resolve)
        except FetchError as error:
            return None, str(error)
        if 200 <= answer.status < 300:
            return answer.status, None
        return answer.status, f"The receiver answered {answer.status}."

    def _record(self, delivery: Delivery, status: int | None, error: str | None) -> None:
        gone = status == 410
        if error is None:
            values: dict[str, Any] = {"state": "delivered"}
        elif gone or delivery.tries > len(DELAYS_S):
            values = {"state": "dead"}
        else:
            delay = DELAYS_S[delivery.tries - 1] * (1.0 + JITTER * random.random())
            values = {"next_at": now() + delay}
        with self.database.write() as connection:
            connection.execute(
                update(webhook_out)
                .where(webhook_out.c.id == delivery.id)
                .values(last_status=status, last_error=error, **values)
            )
        logger.info(
            "webhook of %s, try %d: %s",
            delivery.job_id,
            delivery.tries,
            error or status,
            extra={"job": delivery.job_id},
        )


def log_of(database: Database, job_id: str) -> list[dict[str, Any]]:
    """The deliveries of a job: state, tries, and how the last one went."""
    columns = (
        webhook_out.c.id,
        webhook_out.c.url,
        webhook_out.c.state,
        webhook_out.c.tries,
        webhook_out.c.next_at,
        webhook_out.c.last_status,
        webhook_out.c.last_error,
    )
    with database.read() as connection:
        rows = connection.execute(
            select(*columns).where(webhook_out.c.job_id == job_id).order_by(webhook_out.c.id)
        ).mappings()
        return [dict(row) for row in rows]
