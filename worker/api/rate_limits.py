"""How often a key may ask: moving windows of a minute by the `limits` library.

In memory the counts are this process's own, which is right for one API process; several share them in
Redis by a storage address such as `redis://host`.
"""

from __future__ import annotations

import time
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from worker.api.errors import too_many
from worker.keys import Quota

Kind = Literal["requests", "creates", "anonymous"]


class RateLimits:
    """Counts requests of owners."""

    def __init__(self, storage: str = "memory://") -> None:
        self._limiter = SlidingWindowCounterRateLimiter(storage_from_string(storage))

    def hit(self, kind: Kind, who: str, quota: Quota) -> None:
        """Counts one; `ApiError` 429 with Retry-After when there were too many in the last minute."""
        allowed = {
            "requests": quota.requests_per_minute,
            "creates": quota.creates_per_minute,
            "anonymous": 60,
        }[kind]
        if allowed is None:
            return
        item = RateLimitItemPerMinute(allowed)
        if self._limiter.hit(item, kind, who):
            return
        reset = self._limiter.get_window_stats(item, kind, who).reset_time
        wait = max(1.0, min(60.0, reset - time.time()))
        raise too_many(f"More than {allowed} {_NAMES[kind]} a minute. Try again in {wait:.0f} s.", wait)


_NAMES = {"requests": "requests", "creates": "new tasks", "anonymous": "wrong keys"}
