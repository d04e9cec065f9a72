"""The heart of a running stage: it tells the first progress at once, and does not tire the database later."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from worker import queue
from worker.database import Database
from worker.heart import FIRST_TICK_S, Heart
from worker.queue import Claim
from worker.settings import load_settings


def test_the_first_beats_follow_each_other_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    beats: list[float] = []
    told = threading.Event()

    def renew(*_: Any, progress: float, tell: bool, **__: Any) -> bool:
        if tell:
            told.set()
        return False

    def is_canceled(*_: Any) -> bool:
        beats.append(time.monotonic())
        return False

    monkeypatch.setattr(queue, "renew", renew)
    monkeypatch.setattr(queue, "is_canceled", is_canceled)
    settings = load_settings(data=tmp_path, tick_s=60)
    heart = Heart(cast(Database, None), cast(Claim, None), settings, threading.Event())
    with heart:
        heart.progress(0.1, "loading the model")
        assert told.wait(20)  # by the tick alone it would take a minute
        time.sleep(1.0)
    waits = [after - before for before, after in itertools.pairwise(beats)]
    assert waits
    # The first wait is before the telling beat, so these begin with the third.
    assert all(wait > 0.99 * FIRST_TICK_S * 2**number for number, wait in enumerate(waits, 2))
